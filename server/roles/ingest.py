"""What is a process that only takes in?

    address     of the broker, as a client of its own name
    division    of the messages among several such processes
    collector   broker -> store -> receipts, the same as in a server that does everything

It answers nobody but with receipts: births wait in the store, and fetches are heard by whoever has the models.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

from edge_agent.contract.broker import parse_broker
from server.collect.division import GROUP, WHOLE, Division, Shared, Slice
from server.collect.gateway import BrokerAddress
from server.collect.probe import shares
from server.config import ServerConfig
from server.errors import ServerConfigError, ServerError
from server.identity import service as identities
from server.identity.authority import Authority
from server.identity.credentials import worker_context
from server.roles.collecting import TAKEN, collector_of
from server.roles.devices import BROKER_URL, check_authority, client_of, external
from server.roles.health import Health, told
from server.store.lock import taking_in
from server.store.store import Store

log = logging.getLogger(__name__)

READY_S = 10.0


class Place(NamedTuple):
    """Which one of how many. With a `group`: one of as many as there happen to be."""

    number: int = 1
    of: int = 1
    group: str = ""

    def __str__(self) -> str:
        return f"group {self.group!r}" if self.group else f"{self.number} of {self.of}"

    @classmethod
    def parse(cls, text: str) -> Place:
        """Of `K/N`; ServerConfigError when it is not that.

        >>> Place.parse("2/3")
        Place(number=2, of=3, group='')
        """
        number, _, count = text.partition("/")
        if number.isdecimal() and count.isdecimal() and 1 <= int(number) <= int(count):
            return cls(int(number), int(count))
        raise ServerConfigError(f"--worker: got {text!r}, expected K/N, as 2/3: the second of three")


class Addresses(NamedTuple):
    """Of the broker, as two clients that may be connected at once."""

    own: BrokerAddress
    probe: BrokerAddress


class Intake:
    """One of the processes that take in."""

    def __init__(self, config: ServerConfig, place: Place, *, now_ms: Callable[[], int], health: str = "") -> None:
        """Nothing happens yet. `health`: host:port at which the process says how it is; empty: nowhere."""
        self._config, self._place, self._now_ms, self._health_at = config, place, now_ms, health
        self._stopping = threading.Event()

    def stop(self) -> None:
        """Ask `run` to end; from any thread, not from a signal handler (it may hold the lock of the event)."""
        self._stopping.set()

    def run(self) -> None:
        """Run until `stop`."""
        config, place = self._config, self._place
        with ExitStack() as stack:
            stack.enter_context(taking_in(Path(config.server.data_dir)))
            store = Store.open(Path(config.server.data_dir), config.store)
            stack.callback(store.close)
            stack.enter_context(told(Health("ingest"), self._health_at))
            addresses = addresses_of(config, place, now_ms=self._now_ms())
            division = divide(config, place, addresses)
            collector = collector_of(
                config,
                store,
                addresses.own,
                now_ms=self._now_ms,
                division=division,
                among=place.of if isinstance(division, Shared) else 1,
                kinds=TAKEN,
                voice="worker",
                sweeps=False,
            )
            collector.start()
            stack.callback(collector.stop)
            collector.wait_ready(READY_S)  # it says itself what is wrong, and goes on trying
            log.info("worker %s: %s", place, _words(division))
            self._stopping.wait()
            log.info("worker %s: stopping", place)


def divide(config: ServerConfig, place: Place, addresses: Addresses) -> Division:
    """What is this one's; ServerConfigError for a group at a broker that does not prove to share."""
    if place.of == 1 and not place.group:
        return WHOLE
    shared = config.collect.divide == "auto" and shares(*addresses, fleet=config.server.fleet)
    if shared:
        return Shared(place.group or GROUP)
    if place.group:
        raise ServerConfigError(
            f"--group: {addresses.own.url} does not prove that it shares a subscription, or [collect] divide says not "
            "to: give each its number, --worker K/N"
        )
    return Slice(place.number, place.of)


def addresses_of(config: ServerConfig, place: Place, *, now_ms: int) -> Addresses:
    """Where the broker is, as whom this one comes in there; ServerError when nobody can say.

    At a broker that knows its clients by certificates of the fleet's CA each has a name of its own: there a client's
    id is its name, and of two with one name each would end the other's connection. Elsewhere ids are drawn.
    """
    broker = config.broker
    if broker.url and not _as_the_server(config):
        address = external(broker)
        return Addresses(address, address)
    host, port, tls = parse_broker(broker.url or _said_by_the_server(config))
    if not tls:
        return Addresses(BrokerAddress(host, port), BrokerAddress(host, port))
    if place.group:
        raise ServerConfigError("--group: the broker knows each by a certificate: give each its number, --worker K/N")
    check_authority(config)
    folder = identities.folder_of(config)
    authority = Authority.load(folder)
    own, probe = (
        BrokerAddress(host, port, tls=worker_context(authority, folder, name, now_ms=now_ms))
        for name in client_of(place.number)
    )
    return Addresses(own, probe)


def _as_the_server(config: ServerConfig) -> bool:
    """Whether the server comes in there by its own certificate of the fleet's CA, which is here."""
    own = identities.folder_of(config) / "server.pem"
    return identities.exists(config) and Path(config.broker.cert_file).absolute() == own.absolute()


def _said_by_the_server(config: ServerConfig) -> str:
    file = Path(config.server.data_dir) / BROKER_URL
    try:
        return file.read_text().strip()
    except OSError as error:  # nothing to mend where both are started at once: whoever starts this one tries again
        raise ServerError(
            f"{file}: {error.strerror}: [broker] url is empty, so the broker is the child of `winnow-server run` or "
            "`schedule` on this machine, which has not run here: start it, or name a broker"
        ) from error


def _words(division: Division) -> str:
    if isinstance(division, Shared):
        return f"takes what the broker gives it: subscription shared as {division.group!r}"
    if isinstance(division, Slice):
        return "takes the devices that are its own by a hash of their names"
    return "takes all"
