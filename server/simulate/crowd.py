"""How does one process play thousands of devices?

One thread, one selector for all sockets, one heap of what is due. It is told what to do through a pipe, in words of
this module, and answers `Look` with its tally. When whoever told it is gone, so is it.
"""

from __future__ import annotations

import contextlib
import heapq
import math
import os
import resource
import selectors
import time
from collections import deque
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import NamedTuple

import numpy as np

from edge_agent.contract.wire import Death, Up, down_topic, encode, server_state_topic, up_topic
from edge_agent.send.window import retry_wait_s
from server.errors import ServerError
from server.simulate.device import Device, Habits
from server.simulate.session import Session, Wire
from server.simulate.shelf import Shelf
from server.simulate.tally import Tally
from server.simulate.words import Self

PER_SOURCE = 20_000  # connections from one address of ours: a system has some 28,000 ports to give
TEND_S = 10.0  # between looks at each connection's keep-alive
TICK_S = 0.25
OPEN_FILES_BESIDE = 100
ANSWER_S = 30.0  # longest wait for the broker's answer to CONNECT


class Spec(NamedTuple):
    """What a process plays: devices `first` to `first + devices`."""

    wire: Wire
    habits: Habits
    first: int
    devices: int
    version: int
    sha256: str
    under_way: int  # connections that may be waiting for the broker's answer
    seed: int


class Connect(NamedTuple):
    """A share of the devices (0..1, the first ones) connects, so many a second; infinity: as fast as it goes."""

    share: float = 1.0
    per_s: float = math.inf


class Leave(NamedTuple):
    """All but a share of the devices go."""

    share: float
    politely: bool = True


class Give(NamedTuple):
    """Samples for each device, spread evenly over some time."""

    samples: int
    over_s: float


class Look(NamedTuple):
    """Answer with the tally; its waits begin anew."""


class End(NamedTuple):
    """Go, all of you."""


Verb = Connect | Leave | Give | Look | End


class Crowd:
    """The devices of a process."""

    def __init__(self, spec: Spec, pipe: Connection) -> None:
        self._spec, self._pipe = spec, pipe
        self._rng = np.random.default_rng([spec.seed, spec.first])
        self._selector = selectors.DefaultSelector()
        self._selector.register(pipe, selectors.EVENT_READ, lambda _mask: self._obey())
        self.tally = Tally(devices=spec.devices)
        self._shelf = Shelf()
        self._due: list[tuple[float, int]] = []  # (when, whose); entries that no longer hold do no harm
        self._to_connect: deque[_Member] = deque()
        self._under_way: set[_Member] = set()
        self._allowed, self._per_s, self._earned_s = 0.0, math.inf, 0.0
        self._gifts: list[tuple[float, int]] = []  # (when, to whom), one sample each; sorted, the next last
        self._stopping = False
        self.members = [_Member(self, number) for number in range(spec.devices)]
        self._tended, self._tended_s = 0, 0.0

    def run(self) -> None:
        """Until told to end, or until nobody is left to tell."""
        _open_files(self._spec.devices)
        while not self._stopping:
            now_s = time.monotonic()
            for key, mask in self._selector.select(self._wait_s(now_s)):
                key.data(mask)
            now_s = time.monotonic()
            self._hand_out(now_s)
            self._step(now_s)
            self._open(now_s)
            self._tend(now_s)
        for member in self.members:
            member.session.close()

    # --- what is due ---

    def wake(self, number: int, at_s: float) -> None:
        """A device has something to do then."""
        if at_s < math.inf:
            heapq.heappush(self._due, (at_s, number))

    def _wait_s(self, now_s: float) -> float:
        next_s = min(self._due[0][0] if self._due else math.inf, self._gifts[-1][0] if self._gifts else math.inf)
        busy = bool(self._to_connect) and len(self._under_way) < self._spec.under_way
        return max(0.0, min(TICK_S, next_s - now_s, 0.005 if busy else TICK_S))

    def _step(self, now_s: float) -> None:
        while self._due and self._due[0][0] <= now_s:
            at_s, number = heapq.heappop(self._due)
            if at_s == self.members[number].due_s:
                self.tally.late_s = max(self.tally.late_s, now_s - at_s)
                self.members[number].step(now_s)

    def _hand_out(self, now_s: float) -> None:
        while self._gifts and self._gifts[-1][0] <= now_s:
            member = self.members[self._gifts.pop()[1]]
            member.device.select(1)
            member.step(now_s)

    def _open(self, now_s: float) -> None:
        if self._per_s < math.inf:
            self._allowed = min(self._allowed + (now_s - self._earned_s) * self._per_s, 1.0 + self._per_s * TICK_S)
        self._earned_s = now_s
        while self._to_connect and len(self._under_way) < self._spec.under_way:
            if self._per_s < math.inf and self._allowed < 1.0:
                return
            self._allowed -= 1.0
            self._under_way.add(self._to_connect[0])
            self._to_connect.popleft().open(now_s)

    def _tend(self, now_s: float) -> None:
        """All connections in TEND_S, some of them each time."""
        some = min(len(self.members), math.ceil(len(self.members) * (now_s - self._tended_s) / TEND_S))
        for _ in range(some):
            self.members[self._tended].tend(now_s)
            self._tended = (self._tended + 1) % len(self.members)
        self._tended_s = now_s

    def connect_later(self, member: _Member) -> None:
        """It stands in line for a connection."""
        self._to_connect.append(member)

    def answered(self, member: _Member) -> None:
        """Its connection was made, or could not be."""
        self._under_way.discard(member)

    # --- what it is told ---

    def _obey(self) -> None:
        try:
            verb: Verb = self._pipe.recv()
        except (EOFError, OSError):
            self._stopping = True
            return
        if isinstance(verb, Connect):
            self._per_s, self._allowed, self._earned_s = verb.per_s, 1.0, time.monotonic()
            for member in self._some(verb.share):
                if not member.wanted:
                    member.wanted = True
                    self.connect_later(member)
        elif isinstance(verb, Leave):
            for member in self.members[len(self._some(verb.share)) :]:
                member.leave(politely=verb.politely)
        elif isinstance(verb, Give):
            self._give(verb)
        elif isinstance(verb, Look):
            self._answer()
        else:
            self._stopping = True

    def _some(self, share: float) -> list[_Member]:
        return self.members[: math.ceil(share * len(self.members))]

    def _give(self, verb: Give) -> None:
        here = [number for number, member in enumerate(self.members) if member.wanted]
        times = time.monotonic() + verb.over_s * self._rng.random(verb.samples * len(here))
        self._gifts += zip(times.tolist(), here * verb.samples, strict=True)
        self._gifts.sort(reverse=True)

    def _answer(self) -> None:
        self.tally.connected = sum(member.session.alive for member in self.members)
        self.tally.running = {}
        for member in self.members:
            version = member.device.version
            self.tally.running[version] = self.tally.running.get(version, 0) + 1
        self.tally.cpu_s = time.process_time()
        self._pipe.send((self.tally, len(self._gifts)))
        self.tally.forget_waits()


class _Member:
    """A device with its connection."""

    def __init__(self, crowd: Crowd, number: int) -> None:
        spec = crowd._spec
        self._crowd, self._number = crowd, number
        self.name = name_of(spec.first + number)
        self.wanted = False  # it should be connected
        self.due_s = math.inf
        self._failures, self._opened_s = 0, 0.0
        of = Self(self.name, f"{spec.seed:x}-{spec.first + number:x}", 1, spec.habits.heartbeat_s)
        self.device = Device(
            of,
            spec.habits,
            version=spec.version,
            sha256=spec.sha256,
            shelf=crowd._shelf,
            tally=crowd.tally,
            rng=crowd._rng,
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
            selector=crowd._selector,
        )

    def open(self, now_s: float) -> None:
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
        if self.wanted:
            self.wanted = False
            self.session.close() if politely else self.session.cut()
            self._crowd.answered(self)
            self.device.lost()

    def tend(self, now_s: float) -> None:
        self.session.tend()
        if self in self._crowd._under_way and now_s - self._opened_s > ANSWER_S:
            self.session.cut()
            self._crowd.tally.failures += 1
            self._again_later()

    def step(self, now_s: float) -> None:
        if self.wanted and not self.session.alive:
            if now_s >= self.due_s:
                self.due_s = math.inf
                self._crowd.connect_later(self)
            return
        self.due_s = self.device.step(now_s, _now_ms())
        self._crowd.wake(self._number, self.due_s)

    # --- told by the session ---

    def opened(self) -> None:
        now_s = time.monotonic()
        self._failures = 0
        self._crowd.answered(self)
        self._crowd.tally.connects += 1
        self._crowd.tally.connect_s.append(now_s - self._opened_s)
        self.device.connected(now_s, _now_ms())
        self.step(now_s)

    def closed(self) -> None:
        self._crowd.tally.drops += 1
        self.device.lost()
        if self.wanted:
            self._again_later()

    def heard(self, topic: str, payload: bytes, retained: bool) -> None:
        now_s = time.monotonic()
        self.device.heard(topic.rpartition("/")[2], payload, retained, now_s, _now_ms())
        self.step(now_s)

    def _again_later(self) -> None:
        habits, crowd = self._crowd._spec.habits, self._crowd
        crowd.answered(self)
        wait_s = retry_wait_s(self._failures, first_s=habits.retry_first_s, max_s=habits.retry_max_s, rng=crowd._rng)
        self._failures += 1
        self.due_s = time.monotonic() + wait_s
        crowd.wake(self._number, self.due_s)

    def _publish(self, kind: Up, payload: bytes, qos: int) -> Callable[[], bool]:
        return self.session.publish(up_topic(self._crowd._spec.habits.fleet, self.name, kind), payload, qos=qos)


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


def play(spec: Spec, pipe: Connection) -> None:
    """The whole of such a process."""
    with contextlib.suppress(KeyboardInterrupt):
        Crowd(spec, pipe).run()
    os._exit(0)  # nothing of it is worth tidying up


def _open_files(sockets: int) -> None:
    need, (soft, hard) = sockets + OPEN_FILES_BESIDE, resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < need:
        if hard != resource.RLIM_INFINITY and hard < need:
            raise ServerError(f"{sockets} connections need {need} open files, and {hard} may be: ulimit -Hn")
        resource.setrlimit(resource.RLIMIT_NOFILE, (need, hard))


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
