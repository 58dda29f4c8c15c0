"""How does a light device come to its broker, and what if that goes?

A device of a crowd with its connection: it connects when it is its turn, again and again with the agent's own waits,
and carries what it hears to the device and what that says to the wire.
"""

from __future__ import annotations

import math
import selectors
import time
from collections.abc import Callable
from typing import Protocol

import numpy as np

from edge_agent.contract.wire import Death, Up, down_topic, encode, server_state_topic, up_topic
from edge_agent.send.window import retry_wait_s
from server.simulate.device import Device
from server.simulate.session import Session, Wire
from server.simulate.shelf import Shelf
from server.simulate.tally import Tally
from server.simulate.verbs import Spec
from server.simulate.words import Self

PER_SOURCE = 20_000  # connections from one address of ours: a system has some 28,000 ports to give
ANSWER_S = 30.0  # longest wait for the broker's answer to CONNECT


class Among(Protocol):
    """The crowd that a member is of: what they share, and who has them do what is due."""

    spec: Spec
    tally: Tally
    shelf: Shelf
    rng: np.random.Generator
    selector: selectors.DefaultSelector

    def wake(self, number: int, at_s: float) -> None:
        """That one has something to do then."""

    def connect_later(self, member: Member) -> None:
        """It stands in line for a connection."""

    def answered(self, member: Member) -> None:
        """Its connection was made, or could not be."""

    def waits_for(self, member: Member) -> bool:
        """Whether the broker's answer to it is still to come."""


class Member:
    """A device with its connection."""

    def __init__(self, crowd: Among, number: int) -> None:
        spec = crowd.spec
        self._crowd, self._number = crowd, number
        self.name = name_of(spec.first + number)
        self.wanted = False  # it should be connected
        self.due_s = math.inf
        self._failures, self._opened_s = 0, 0.0
        session = f"{spec.boot:x}-{spec.seed:x}-{spec.first + number:x}"
        of = Self(self.name, session, spec.boot, spec.habits.heartbeat_s)
        self.device = Device(
            of,
            spec.habits,
            version=spec.version,
            sha256=spec.sha256,
            shelf=crowd.shelf,
            tally=crowd.tally,
            rng=crowd.rng,
            publish=self._publish,
        )
        fleet = spec.habits.fleet
        self.session = Session(
            spec.wire._replace(source=source_of(spec.wire, spec.first + number)),
            name=self.name,
            will=(up_topic(fleet, self.name, "death"), encode(Death(session=of.session))),
            topics=[
                *(down_topic(fleet, self.name, kind) for kind in ("desired", "receipt", "block")),
                server_state_topic(fleet),
            ],
            listener=self,
            selector=crowd.selector,
        )

    def open(self, now_s: float) -> None:
        """Connect, if it still should."""
        self._opened_s = now_s
        if not self.wanted or self.session.alive:
            self._crowd.answered(self)
            return
        try:
            self.session.open()
        except OSError:
            self._crowd.tally.failures += 1
            self._again_later()

    def leave(self, *, politely: bool) -> None:
        """Go, and stay away."""
        if self.wanted:
            self.wanted = False
            self.session.close() if politely else self.session.cut()
            self._crowd.answered(self)
            self.device.lost()

    def tend(self, now_s: float) -> None:
        """See to the keep-alive, and to an answer that does not come."""
        self.session.tend()
        if self._crowd.waits_for(self) and now_s - self._opened_s > ANSWER_S:
            self.session.cut()
            self._crowd.tally.failures += 1
            self._again_later()

    def step(self, now_s: float) -> None:
        """Do what is due: stand in line for a connection, or what the device does."""
        if self.wanted and not self.session.alive:
            if now_s >= self.due_s:
                self.due_s = math.inf
                self._crowd.connect_later(self)
            return
        self.due_s = self.device.step(now_s, _now_ms())
        self._crowd.wake(self._number, self.due_s)

    # --- told by the session ---

    def opened(self) -> None:
        """The broker has let it in."""
        now_s = time.monotonic()
        self._failures = 0
        self._crowd.answered(self)
        self._crowd.tally.connects += 1
        self._crowd.tally.connect_s.append(now_s - self._opened_s)
        self.device.connected(now_s, _now_ms())
        self.step(now_s)

    def closed(self) -> None:
        """The connection is gone."""
        self._crowd.tally.drops += 1
        self.device.lost()
        if self.wanted:
            self._again_later()

    def heard(self, topic: str, payload: bytes, retained: bool) -> None:
        """Something was said to it."""
        now_s = time.monotonic()
        self.device.heard(topic.rpartition("/")[2], payload, retained, now_s, _now_ms())
        self.step(now_s)

    def _again_later(self) -> None:
        habits, crowd = self._crowd.spec.habits, self._crowd
        crowd.answered(self)
        wait_s = retry_wait_s(
            self._failures, first_s=habits.retry_first_s, max_s=habits.retry_max_s, uniform=crowd.rng.random
        )
        self._failures += 1
        self.due_s = time.monotonic() + wait_s
        crowd.wake(self._number, self.due_s)

    def _publish(self, kind: Up, payload: bytes, qos: int) -> Callable[[], bool]:
        return self.session.publish(up_topic(self._crowd.spec.habits.fleet, self.name, kind), payload, qos=qos)


def name_of(number: int) -> str:
    """Of the device with that number.

    >>> name_of(7)
    'sim-00007'
    """
    return f"sim-{number:05d}"


def source_of(wire: Wire, number: int) -> str:
    """The address that a device speaks from: on this machine there are as many as one likes.

    >>> source_of(Wire("127.0.0.1", 1883), 20_000), source_of(Wire("broker.lan", 1883), 20_000)
    ('127.0.0.3', '')
    """
    return f"127.0.0.{2 + number // PER_SOURCE}" if wire.host == "127.0.0.1" else ""


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
