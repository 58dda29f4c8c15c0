"""What answers devices?

broker      a mosquitto as a child, where none is configured
identity    the fleet's CA: who may enrol, who is shut out; over HTTPS, as are files
downloads   models, block by block or piece by piece, at the fleet's pace
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from edge_agent.contract.artifact import write_durably
from edge_agent.contract.broker import TlsFiles
from edge_agent.contract.settings import read_secret
from server.collect.access import Audience, Client
from server.collect.broker import BrokerChild, Entry
from server.collect.gateway import BrokerAddress
from server.config import Broker, ServerConfig
from server.errors import ServerConfigError
from server.identity import service as identities
from server.identity.authority import SERVER, WORKER
from server.identity.credentials import Credentials
from server.identity.service import Service
from server.release.blocks import Blocks
from server.release.downloads import Downloads, Publish
from server.release.files import Part, part
from server.release.signing import Signing
from server.store.store import Store

log = logging.getLogger(__name__)

BROKER_URL = "broker.url"
"""File in the data folder with the broker's address, for whoever starts agents on the same machine."""
_NO_CA = (
    "there is no fleet CA: make one with `winnow-server init`, name a broker of yours in [broker] url, "
    "or set [broker] plain = true, which lets in whoever is on this machine"
)


class Devices:
    """All of it."""

    def __init__(
        self,
        config: ServerConfig,
        store: Store,
        signing: Signing,
        *,
        publish: Publish,
        now_ms: Callable[[], int],
    ) -> None:
        """Nothing listens yet. ServerConfigError when nobody could say who devices are."""
        self._config, self._signing = config, signing
        self._identity = _identity(config, store, now_ms)
        self._blocks = Blocks(store, signing)  # one, whichever way they go: it keeps files in memory
        rate, fleet = config.rollout.bytes_per_s, config.server.fleet
        self.downloads = Downloads(self._blocks, fleet=fleet, bytes_per_s=rate, publish=publish)
        self.files_url = self._identity.files_url if self._identity else ""
        """Where devices may fetch by HTTPS as well; empty: nowhere."""

    def start(self, stack: ExitStack) -> BrokerAddress:
        """Let devices in, until the stack ends; returns where the broker is."""
        address, reload = self._broker(stack)
        folder = Path(self._config.server.data_dir)
        write_durably(folder / BROKER_URL, address.url.encode())
        log.info("fleet %r, broker %s, data in %s", self._config.server.fleet, address.url, folder)
        if self._identity is not None:
            self._identity.start(
                host=address.host,
                port=address.port,
                tls=address.tls is not None,
                reload=reload,
                root=lambda: bytes(self._signing.bundle().roots[-1]).decode() if self._signing.on else "",
                files=files_of(self._blocks),
                turn=self.downloads.turn,
            )
            stack.callback(self._identity.stop)
        self.downloads.start()
        stack.callback(self.downloads.stop)
        return address

    def tick(self, now_ms: int) -> None:
        """One look: who is to be shut out, is a certificate due?"""
        if self._identity is not None:
            self._identity.tick(now_ms)

    def _broker(self, stack: ExitStack) -> tuple[BrokerAddress, Callable[[], None]]:
        config, service = self._config.broker, self._identity
        if config.url:
            return external(config), lambda: None
        child = BrokerChild(
            Path(self._config.server.data_dir) / "broker",
            port=config.port,
            binary=config.binary,
            entry=_entry(self._config, service.credentials) if service else None,
        )
        child.start()
        stack.callback(child.stop)
        return BrokerAddress(child.host, child.port, tls=service.tls if service else None), child.reload


def check_authority(config: ServerConfig) -> None:
    """ServerConfigError when the broker is to be a child that knows devices by a CA which is not there."""
    if not config.broker.url and not config.broker.plain and not identities.exists(config):
        raise ServerConfigError(f"{identities.folder_of(config)}: {_NO_CA}")


def external(config: Broker) -> BrokerAddress:
    """A broker that runs already; ServerConfigError when what is said of it cannot be used."""
    return BrokerAddress.parse(
        config.url,
        username=config.username,
        password=read_secret(config.password_file),
        files=TlsFiles(config.ca_file, config.cert_file, config.key_file),
    )


def files_of(blocks: Blocks) -> Callable[[str, str | None], Part | None]:
    """What HTTPS hands out: a file by its hash, or a range of it."""

    def answer(sha256: str, asked: str | None) -> Part | None:
        data = blocks.file(sha256)
        return None if data is None else part(data, asked)

    return answer


def _identity(config: ServerConfig, store: Store, now_ms: Callable[[], int]) -> Service | None:
    """None where the fleet has no authority, or the broker is one that knows nobody."""
    if config.broker.plain or (config.broker.url and not identities.exists(config)):
        return None
    check_authority(config)
    return Service(config, store, now_ms=now_ms)


def _entry(config: ServerConfig, credentials: Credentials) -> Entry:
    server, told = config.server, config.home_assistant
    return Entry(
        listen=server.listen,
        ca_file=credentials.ca_file,
        cert_file=credentials.cert_file,
        crl_file=credentials.crl_file,
        fleet=server.fleet,
        server=SERVER,
        audience=Audience(told.client, told.prefix) if told.discovery else None,
        workers=[client_of(number + 1) for number in range(config.collect.workers)],
    )


def client_of(number: int) -> Client:
    """How a process that only takes in is called by the broker.

    >>> client_of(2)
    Client(name='winnow.worker.2', probe='winnow.worker.2.probe')
    """
    return Client(f"{WORKER}{number}", f"{WORKER}{number}.probe")
