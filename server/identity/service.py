"""What of identity is at work in a running server?

    authority     issues
    credentials   the server's own certificate and the list of revoked ones, as files
    web           where devices enrol and renew
    revocation    looks for who is to be shut out

Whoever adds or revokes does so in the store, from another process; this one looks there once a second.
"""

from __future__ import annotations

import ipaddress
import logging
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from edge_agent.contract.broker import bracketed, broker_url
from server.config import ServerConfig
from server.errors import IdentityError, ServerConfigError
from server.identity.authority import CA_CERT, Authority
from server.identity.credentials import Credentials
from server.identity.enrolment import Enrolment
from server.identity.revocation import Revocation, cut
from server.store.store import Store

if TYPE_CHECKING:
    from server.identity.handout import Files, Turn
    from server.identity.web import Web

_log = logging.getLogger(__name__)


def folder_of(config: ServerConfig) -> Path:
    """Where the authority and the server's own certificate are."""
    return Path(config.server.data_dir) / "identity"


def exists(config: ServerConfig) -> bool:
    """Whether the fleet has an authority."""
    return (folder_of(config) / CA_CERT).exists()


def server_name(config: ServerConfig) -> str:
    """How devices call the server; ServerConfigError when that is not said and cannot be known."""
    if config.server.names:
        return config.server.names[0]
    listen = ipaddress.ip_address(config.server.listen)
    if listen.is_unspecified:
        raise ServerConfigError(
            f"[server] listen = {config.server.listen!r}: say in [server] names by which names or addresses devices "
            'call this machine: names = ["winnow.lan"]'
        )
    return config.server.listen


def web_url(config: ServerConfig) -> str:
    """Where devices enrol."""
    return f"https://{bracketed(server_name(config))}:{config.identity.port}"


def credentials_of(config: ServerConfig, authority: Authority) -> Credentials:
    """The server's own, for all names by which it is called."""
    hosts = [*config.server.names, *([] if _is_any(config.server.listen) else [config.server.listen])]
    return Credentials(authority, folder_of(config), hosts=hosts)


class Service:
    """All of it."""

    def __init__(self, config: ServerConfig, store: Store, *, now_ms: Callable[[], int]) -> None:
        """Of the fleet whose authority is in the data folder; IdentityError when there is none."""
        self._config = config
        self._store = store
        self._now_ms = now_ms
        self._folder = folder_of(config)
        self._authority = Authority.load(self._folder)
        self.credentials = credentials_of(config, self._authority)
        self.credentials.refresh(now_ms())
        self._revocation = Revocation(store, self.credentials, reload=self._reload_broker, cut=self._cut)
        self._revocation.write(now_ms())
        self.tls: ssl.SSLContext = self.credentials.context()
        """To connect to a broker of this fleet, as the server."""
        self._cuts, self._host, self._port = False, "", 0
        self._reload: Callable[[], None] = lambda: None
        self._web: Web | None = None

    def start(
        self,
        *,
        host: str,
        port: int,
        tls: bool,
        reload: Callable[[], None],
        root: Callable[[], str] = lambda: "",
        files: Files | None = None,
        turn: Turn | None = None,
    ) -> None:
        """The broker is at `host:port`, and `reload` has it read its files again: let devices enrol.

        Without `tls` it cannot tell who is who, and nobody is cut off. `root`: what devices are to trust of models;
        `files`: what they may fetch at `files_url`; `turn`: at whose pace.
        """
        from server.identity.handout import Handout, at_once
        from server.identity.web import Web, make_app  # here: FastAPI takes a while, and only this needs it

        self._cuts, self._host, self._port, self._reload = tls, host, port, reload
        config = self._config
        broker = config.broker.url or broker_url(server_name(config), port, tls=True)
        days = config.identity.certificate_days
        fleet = config.server.fleet
        enrolment = Enrolment(self._store, self._authority, fleet=fleet, broker=broker, days=days, root=root)
        handout = Handout(files, turn=turn or at_once) if files else None
        app = make_app(enrolment, self._authority, now_ms=self._now_ms, handout=handout)
        listen, cert_file = config.server.listen, str(self.credentials.cert_file)
        self._web = Web(app, listen=listen, port=config.identity.port, cert_file=cert_file)
        self._web.start()
        _log.info("devices enrol and renew at %s", web_url(config))

    @property
    def files_url(self) -> str:
        """Where devices may fetch files."""
        from server.identity.web import FILES

        return web_url(self._config) + FILES

    def stop(self) -> None:
        """Let nobody enrol any more."""
        if self._web is not None:
            self._web.stop()

    def tick(self, now_ms: int) -> None:
        """One look: who is to be shut out, is the server's own certificate due?"""
        self._revocation.tick(now_ms)
        if self.credentials.refresh(now_ms):
            _log.info("the server's certificate was issued anew")
            self.tls.load_cert_chain(self.credentials.cert_file)
            if self._web is not None:
                self._web.reload()
            self._reload()

    def _reload_broker(self) -> None:
        self._reload()

    def _cut(self, device: str, now_ms: int) -> bool:
        if not self._cuts:
            return True  # as far as it can be done
        ca_file = self.credentials.ca_file
        try:
            return cut(self._authority, device, host=self._host, port=self._port, ca_file=ca_file, now_ms=now_ms)
        except (IdentityError, OSError) as error:
            _log.warning("device %s could not be cut off: %s", device, error)
            return False


def _is_any(address: str) -> bool:
    return ipaddress.ip_address(address).is_unspecified
