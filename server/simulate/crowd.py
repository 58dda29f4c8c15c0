"""How does one process play thousands of devices?

One thread, one selector for all sockets, one heap of what is due. It is told what to do through a pipe (verbs.py), and
answers `Look` with its tally. When whoever told it is gone, so is it.
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
from multiprocessing.connection import Connection

import numpy as np

from server.errors import ServerError
from server.simulate.member import Member
from server.simulate.shelf import Shelf
from server.simulate.tally import Tally
from server.simulate.verbs import Connect, Give, Leave, Look, Spec, Verb

TEND_S = 10.0  # between looks at each connection's keep-alive
TICK_S = 0.25
OPEN_FILES_BESIDE = 100


class Crowd:
    """The devices of a process."""

    def __init__(self, spec: Spec, pipe: Connection) -> None:
        self.spec, self._pipe = spec, pipe
        self.rng = np.random.default_rng([spec.seed, spec.first])
        self.selector = selectors.DefaultSelector()
        self.selector.register(pipe, selectors.EVENT_READ, lambda _mask: self._obey())
        self.tally = Tally(devices=spec.devices)
        self.shelf = Shelf()
        self._due: list[tuple[float, int]] = []  # (when, whose); entries that no longer hold do no harm
        self._to_connect: deque[Member] = deque()
        self._under_way: set[Member] = set()
        self._allowed, self._per_s, self._earned_s = 0.0, math.inf, 0.0
        self._gifts: list[tuple[float, int]] = []  # (when, to whom), one sample each; sorted, the next last
        self._stopping = False
        self.members = [Member(self, number) for number in range(spec.devices)]
        self._tended, self._tended_s = 0, 0.0

    def run(self) -> None:
        """Until told to end, or until nobody is left to tell."""
        _open_files(self.spec.devices)
        while not self._stopping:
            now_s = time.monotonic()
            for key, mask in self.selector.select(self._wait_s(now_s)):
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
        busy = bool(self._to_connect) and len(self._under_way) < self.spec.under_way
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
        while self._to_connect and len(self._under_way) < self.spec.under_way:
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

    def connect_later(self, member: Member) -> None:
        """It stands in line for a connection."""
        self._to_connect.append(member)

    def answered(self, member: Member) -> None:
        """Its connection was made, or could not be."""
        self._under_way.discard(member)

    def waits_for(self, member: Member) -> bool:
        """Whether the broker's answer to it is still to come."""
        return member in self._under_way

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

    def _some(self, share: float) -> list[Member]:
        return self.members[: math.ceil(share * len(self.members))]

    def _give(self, verb: Give) -> None:
        here = [number for number, member in enumerate(self.members) if member.wanted]
        times = time.monotonic() + verb.over_s * self.rng.random(verb.samples * len(here))
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
