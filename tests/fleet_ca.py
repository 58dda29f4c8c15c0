"""A fleet with a CA of its own, and a real broker that lets in only its members."""

from __future__ import annotations

import ssl
import time
from collections.abc import Sequence
from pathlib import Path

import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion

from edge_agent.contract.broker import TlsFiles
from edge_agent.contract.keys import new_key, private_pem
from server.collect.access import Client as Names
from server.collect.broker import BrokerChild, Entry
from server.collect.gateway import BrokerAddress
from server.identity.authority import SERVER, Authority, Certificate
from server.identity.credentials import Credentials

FLEET = "farm"
DAYS = 90.0


def now_ms() -> int:
    return time.time_ns() // 1_000_000


class FleetCA:
    """`identify` makes the files of a member; `revoke` lists certificates, for a broker that reads the list again."""

    def __init__(self, folder: Path, *, fleet: str = FLEET) -> None:
        self.folder = folder
        self.fleet = fleet
        self.authority = Authority.create(folder / "identity", fleet=fleet, now_ms=now_ms())
        self.credentials = Credentials(self.authority, folder / "identity", hosts=[])
        self.credentials.refresh(now_ms())
        self.credentials.revoke([], now_ms=now_ms())
        self._revoked: list[str] = []

    @property
    def ca_file(self) -> Path:
        return self.credentials.ca_file

    @property
    def entry(self) -> Entry:
        own = self.credentials
        return Entry("127.0.0.1", own.ca_file, own.cert_file, own.crl_file, self.fleet, SERVER)

    def identify(self, name: str, *, at_ms: int | None = None, days: float = DAYS) -> TlsFiles:
        """Key and certificate of a device, issued at `at_ms` (now)."""
        return self.identify_as(name, at_ms=at_ms, days=days)[0]

    def identify_as(self, name: str, *, at_ms: int | None = None, days: float = DAYS) -> tuple[TlsFiles, Certificate]:
        key = new_key()
        issued_ms = now_ms() if at_ms is None else at_ms
        made = self.authority.issue_device(name, key.public_key(), now_ms=issued_ms, days=days)
        file = self.folder / f"{name}-{made.serial[:8]}.pem"
        file.write_bytes(private_pem(key) + made.pem)
        return TlsFiles(str(self.ca_file), str(file), ""), made

    @property
    def server_files(self) -> TlsFiles:
        return TlsFiles(str(self.ca_file), str(self.credentials.cert_file), "")

    def revoke(self, *serials: str) -> None:
        self._revoked += serials
        self.credentials.revoke(self._revoked, now_ms=now_ms())


class SecureBroker(BrokerChild):
    """The server's own child, with TLS and rules; `ca` makes members."""

    def __init__(self, folder: Path, *, workers: Sequence[Names] = ()) -> None:
        self.ca = FleetCA(folder)
        super().__init__(folder / "broker", entry=self.ca.entry._replace(workers=workers))

    def server_address(self) -> BrokerAddress:
        """For a Gateway or a Collector."""
        return BrokerAddress(self.host, self.port, tls=self.ca.credentials.context())


class Client:
    """A client of a broker that notes all that happens to it; whoever it says it is, its certificate says more."""

    def __init__(self, broker: BrokerChild, files: TlsFiles, *, client_id: str = "", will: str = "") -> None:
        self.messages: list[tuple[str, bytes, bool]] = []  # topic, payload, retained
        self.connected = False
        self.ended = False
        self.granted: dict[int, list[str]] = {}
        context = ssl.create_default_context(cafile=files.ca_file)
        if files.cert_file:
            context.load_cert_chain(files.cert_file, files.key_file or None)
        self.mqtt = mqtt.Client(CallbackAPIVersion.VERSION2, client_id, reconnect_on_failure=False)
        self.mqtt.tls_set_context(context)
        if will:
            self.mqtt.will_set(will, b"will", qos=1)
        self.mqtt.on_connect = self._on_connect
        self.mqtt.on_disconnect = self._on_disconnect
        self.mqtt.on_message = lambda _c, _d, said: self.messages.append((said.topic, said.payload, said.retain))
        self.mqtt.on_subscribe = lambda _c, _d, mid, codes, _p: self.granted.__setitem__(mid, [str(c) for c in codes])
        try:
            self.mqtt.connect(broker.host, broker.port, keepalive=10)
        except OSError:
            self.ended = True
            return
        self.mqtt.loop_start()
        until(lambda: self.connected or self.ended)

    @property
    def in_(self) -> bool:
        """Whether it was let in, and still is."""
        return self.connected and not self.ended

    def publish(self, topic: str, payload: bytes = b"x", *, retain: bool = False) -> None:
        """Returns when the broker has answered: a PUBACK says nothing about whether it was allowed."""
        self.mqtt.publish(topic, payload, qos=1, retain=retain).wait_for_publish(5.0)

    def subscribe(self, topic: str) -> None:
        """Returns when the broker has answered, with all that it had retained delivered before what comes later."""
        _, mid = self.mqtt.subscribe(topic, 1)
        until(lambda: mid in self.granted or self.ended)

    def close(self) -> None:
        self.mqtt.disconnect()
        self.mqtt.loop_stop()

    def _on_connect(self, _client, _data, _flags, reason, _properties) -> None:
        self.connected = not reason.is_failure
        self.ended = self.ended or reason.is_failure

    def _on_disconnect(self, *_args) -> None:
        self.ended = True


def until(true, within_s: float = 20.0) -> None:
    deadline = time.monotonic() + within_s
    while not true():
        assert time.monotonic() < deadline, "did not come about"
        time.sleep(0.01)
