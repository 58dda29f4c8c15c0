"""How do devices show up in Home Assistant?

By its MQTT discovery (home-assistant.io/integrations/mqtt, "device discovery", since 2024.11): one retained message to
a device says which of the figures in its heartbeats are sensors. Home Assistant then listens to the heartbeats itself,
which are JSON. What was announced is withdrawn, by an empty message, when the device is revoked or erased, and when
discovery is switched off.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Mapping
from typing import Any, Protocol

import msgspec

from edge_agent.contract.wire import up_topic
from server import config
from server.store import announcements, identities
from server.store.announcements import WITHDRAWN, Heard
from server.store.silence import HEARTBEATS_MISSED
from server.store.store import Store

REST_MS = 30_000  # between looks: reading 10,000 devices costs a good part of a second
USUAL_S = 30.0  # between heartbeats of a device whose birth passed unheard
LATE_S = 5.0  # that a heartbeat may take, beside its interval


class Publish(Protocol):
    """Hands a message to the broker."""

    def __call__(self, topic: str, payload: bytes, /, *, qos: int, retain: bool) -> None:
        """At once, or when it is there again."""


class HomeAssistant:
    """Announces devices, and withdraws them."""

    def __init__(self, store: Store, rules: config.HomeAssistant, *, fleet: str, publish: Publish) -> None:
        """Nothing is told before the first `tick`; with discovery off, what was told is withdrawn then."""
        self._store, self._rules, self._fleet, self._publish = store, rules, fleet, publish
        self._lock = threading.Lock()
        self._born: set[str] = set()
        self._looked_ms: int | None = None

    def on_birth(self, device: str) -> None:
        """A device has connected: the broker may have begun anew, and have forgotten."""
        with self._lock:
            self._born.add(device)

    def tick(self, now_ms: int) -> None:
        """Tell what has changed; all of it at the first look, which a kill may have kept from the broker."""
        first = self._looked_ms is None
        if not first and not self._rules.discovery:
            return
        with self._lock:
            due = first or bool(self._born) or now_ms - (self._looked_ms or 0) >= REST_MS
            born, self._born = (self._born, set()) if due else (set(), self._born)
        if due:
            self._look(born, first=first)
            self._looked_ms = now_ms

    def _look(self, born: set[str], *, first: bool) -> None:
        with self._store.database.read() as connection:
            known = announcements.known(connection)
            wanted = self._wanted(connection) if self._rules.discovery else {}
        again = {self._topic(name) for name in born}
        told: dict[str, str] = {}
        for topic in known.keys() - wanted.keys():
            if first or known[topic] != WITHDRAWN:
                self._publish(topic, b"", qos=1, retain=True)
                told[topic] = WITHDRAWN
        for topic, payload in wanted.items():
            sha256 = hashlib.sha256(payload).hexdigest()
            if first or topic in again or known.get(topic) != sha256:
                self._publish(topic, payload, qos=1, retain=True)
                told[topic] = sha256
        news = {topic: sha256 for topic, sha256 in told.items() if known.get(topic) != sha256}
        if news:
            with self._store.database.write() as connection:
                announcements.note(connection, news)

    def _wanted(self, connection: Any) -> Mapping[str, bytes]:
        gone = identities.revoked(connection)
        return {
            self._topic(one.name): msgspec.json.encode(announcement(one, fleet=self._fleet))
            for one in announcements.heard(connection)
            if one.name not in gone
        }

    def _topic(self, device: str) -> str:
        return f"{self._rules.prefix}/device/winnow-{self._fleet}-{device}/config"


def announcement(device: Heard, *, fleet: str) -> dict[str, Any]:
    """What Home Assistant is told of a device. It is online as long as heartbeats come when they should."""
    late_s = round(HEARTBEATS_MISSED * max(device.interval_s or USUAL_S, device.longest_s or 0.0) + LATE_S)
    me = f"winnow_{fleet}_{device.name}"
    about: dict[str, Any] = {"identifiers": [me], "name": device.name, "manufacturer": "Winnow"}
    about |= {"model": device.machine, "sw_version": device.agent} if device.agent else {}
    about |= {"suggested_area": device.site} if device.site else {}
    return {
        "device": about,
        "origin": {"name": "Winnow"},
        "state_topic": up_topic(fleet, device.name, "heartbeat"),
        "components": {
            "online": {
                "platform": "binary_sensor",
                "unique_id": f"{me}_online",
                "name": "Online",
                "device_class": "connectivity",
                "value_template": "ON",
                "off_delay": late_s,
            },
            "samples_per_s": _sensor(me, "samples_per_s", "Samples per second", "samples_per_s | round(1)", late_s),
            "waiting": _sensor(me, "waiting", "Samples waiting", "outbox.rows", late_s),
            "version": _sensor(me, "version", "Model version", "model.version", late_s, state_class=None),
        },
    }


def _sensor(
    me: str, key: str, name: str, figure: str, late_s: int, *, state_class: str | None = "measurement"
) -> dict[str, Any]:
    made = {
        "platform": "sensor",
        "unique_id": f"{me}_{key}",
        "name": name,
        "value_template": f"{{{{ value_json.{figure} }}}}",
        "expire_after": late_s,
    }
    return made | ({"state_class": state_class} if state_class else {})
