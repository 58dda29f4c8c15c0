"""What is played, and when is each part of it over?

births    all connect, as fast as the broker lets them; over when the server has heard each
steady    heartbeats, and nothing else, for some time
burst     every device selects some samples in a few seconds; over when the last has its receipt
rollout   a new version to all, its blocks paced; over when the server calls it done
restart   the broker is killed while samples are on their way; over when all are back and every outbox is empty
day       a day's coming, going and selecting, hour by hour, each a 24th of the time given

Pages are asked for in the others too, but where the server's time for births, heartbeats and samples is measured.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable

import numpy as np

from server.simulate.fleet import Fleet, Seen
from server.simulate.host import Host
from server.simulate.meter import Cost
from server.simulate.options import Options, Step
from server.simulate.report import Pages, Phase, line, quantile_ms
from server.simulate.tally import Tally
from server.simulate.verbs import Connect, Give, Leave
from server.simulate.visits import Visits

LOOK_S = 0.25
WAIT_S = 120.0  # for what should come about, and so much more for every
WAIT_DEVICES = 50.0  # devices a second longer
MEASURED = ("births", "steady", "burst")  # without the pages, which cost the server as well
HOURS = 24
AWAKE = (0.7, 0.7, 0.7, 0.7, 0.7, 0.75, 0.8, 0.9, *(1.0,) * 12, 0.95, 0.9, 0.8, 0.7)  # part that is on, hour by hour
BUSY = (0, 0, 0, 0, 0, 1, 1, 2, 2, 2, 1, 1, 2, 1, 1, 2, 2, 2, 2, 1, 1, 0, 0, 0)  # how samples spread over the hours

Say = Callable[[str], None]


class Phases:
    """Plays them, one after the other."""

    def __init__(
        self, fleet: Fleet, host: Host, visits: Visits | None, options: Options, *, devices: int, say: Say
    ) -> None:
        self._fleet, self._host, self._visits = fleet, host, visits
        self._options, self._devices, self._say = options, devices, say
        self._seen = fleet.look()
        self._waits_s: list[float] = []
        self._connect_s: list[float] = []
        self._late_s = 0.0

    @property
    def tally(self) -> Tally:
        """What devices have done so far."""
        return self._seen.tally

    def play(self, step: Step) -> Phase:
        """One of them."""
        acts = {
            "births": self._births, "steady": self._steady, "pages": self._steady, "burst": self._burst,
            "rollout": self._rollout, "restart": self._restart, "day": self._day,
        }  # fmt: skip
        self._look()
        self._waits_s, self._connect_s, self._late_s = [], [], 0.0
        if self._visits is not None and step.name not in MEASURED:
            self._visits.resume()
        before, costs, begun = self.tally, self._host.cost(), time.monotonic()
        phase = Phase(name=step.name)
        phase.done = acts[step.name](step.amount, phase)
        phase.wall_s = round(time.monotonic() - begun, 3)
        self._look()
        self._fill(phase, before, costs)
        self._say(line(phase))
        return phase

    # --- the phases; each returns whether what it waited for came about ---

    def _births(self, within_s: float, phase: Phase) -> bool:
        begun = time.monotonic()
        self._fleet.tell(Connect(per_s=self._devices / within_s / self._options.processes if within_s else math.inf))
        came = self._until(lambda seen: seen.tally.connected == self._devices)
        phase.connects_per_s = round(self._devices / (time.monotonic() - begun), 1)
        self._fleet.tell(Connect())  # whoever comes back later is held up by nobody
        if not self._host.ours:
            return came
        heard = self._until(lambda _: self._host.heard() >= self._devices)
        phase.note = f"births heard {self._host.heard():,}"
        return came and heard

    def _steady(self, seconds: float, _phase: Phase) -> bool:
        self._rest(seconds)
        return True

    def _burst(self, samples: float, _phase: Phase) -> bool:
        self._fleet.tell(Give(int(samples), self._options.burst_s))
        return self._until(_all_receipted)

    def _rollout(self, _amount: float, phase: Phase) -> bool:
        if not self._host.ours:
            phase.note = "not asked of a server that is not ours"
            return False
        version = self._host.roll_out()
        begun = time.monotonic()
        ran = self._until(lambda seen: seen.tally.running.get(version, 0) == self._devices)
        ran_s = time.monotonic() - begun
        done = self._until(lambda _: self._host.rollout_state() not in ("", "running"))
        state = self._host.rollout_state()
        phase.note = f"version {version} on {self.tally.running.get(version, 0):,} after {ran_s:.1f} s: {state}"
        return ran and done and state == "done"

    def _restart(self, samples: float, phase: Phase) -> bool:
        if not self._host.ours:
            phase.note = "not asked of a broker that is not ours"
            return False
        self._fleet.tell(Give(int(samples), 2.0))
        self._rest(1.0)
        before = self.tally
        self._host.kill_broker()
        begun = time.monotonic()
        lost = self._until(lambda seen: seen.tally.drops > before.drops)
        back = self._until(lambda seen: seen.tally.connected == self._devices)
        phase.connects_per_s = round(self._devices / (time.monotonic() - begun), 1)
        phase.note = f"all back after {time.monotonic() - begun:.1f} s"
        return lost and back and self._until(_all_receipted) and self._until(lambda _: self._all_online())

    def _day(self, seconds: float, phase: Phase) -> bool:
        for hour in range(HOURS):
            self._fleet.tell(Leave(AWAKE[hour], politely=hour % 2 == 0))
            self._fleet.tell(Connect(AWAKE[hour]))
            self._fleet.tell(Give(samples_of(hour, self._options.samples_per_day), seconds / HOURS))
            self._rest(seconds / HOURS)
        self._fleet.tell(Connect())
        phase.note = f"{self._options.samples_per_day} samples of each device that is on"
        return self._until(lambda seen: seen.tally.connected == self._devices and _all_receipted(seen))

    # --- looking ---

    def _all_online(self) -> bool:
        return self._host.online() >= self._devices

    def _until(self, true: Callable[[Seen], bool]) -> bool:
        deadline_s = time.monotonic() + WAIT_S + self._devices / WAIT_DEVICES
        while not true(self._look()):
            if time.monotonic() > deadline_s:
                return False
            self._host.check()
            time.sleep(LOOK_S)
        return True

    def _rest(self, seconds: float) -> None:
        until_s = time.monotonic() + seconds
        while (left_s := until_s - time.monotonic()) > 0:
            time.sleep(min(1.0, left_s))
            self._look()

    def _look(self) -> Seen:
        self._seen = seen = self._fleet.look()
        self._waits_s += seen.tally.waits_s
        self._connect_s += seen.tally.connect_s
        self._late_s = max(self._late_s, seen.tally.late_s)
        return seen

    def _fill(self, phase: Phase, before: Tally, costs: tuple[Cost, Cost]) -> None:
        now, (server, broker) = self.tally, self._host.cost()
        phase.connects = now.connects - before.connects
        phase.connect_p50_ms, phase.connect_p99_ms = (quantile_ms(self._connect_s, q) for q in (0.5, 0.99))
        phase.receipt_p50_ms, phase.receipt_p99_ms = (quantile_ms(self._waits_s, q) for q in (0.5, 0.99))
        phase.drops, phase.again = now.drops - before.drops, now.again - before.again
        phase.samples = now.answered - before.answered
        phase.messages, phase.message_bytes = _more(before.messages, now.messages), _more(before.bytes, now.bytes)
        phase.players_cpu_s = round(now.cpu_s - before.cpu_s, 3)
        phase.late_ms = round(1000 * self._late_s, 1)
        if self._host.ours:
            phase.server_cpu_s, phase.broker_cpu_s = round(server.since(costs[0]), 2), round(broker.since(costs[1]), 2)
            phase.server_rss_bytes, phase.broker_rss_bytes = server.rss_bytes, broker.rss_bytes
        if self._visits is not None:
            took, phase.pages_failed = self._visits.pause()
            phase.pages = {path: _pages(ms) for path, ms in took.items()}


def samples_of(hour: int, per_day: int) -> int:
    """How many of a day's samples a device selects in an hour.

    >>> [samples_of(hour, 6) for hour in range(24)]
    [0, 0, 0, 0, 0, 0, 0, 1, 0, 1, 0, 0, 1, 0, 0, 1, 0, 1, 0, 0, 1, 0, 0, 0]
    """
    return sum(BUSY[: hour + 1]) * per_day // sum(BUSY) - sum(BUSY[:hour]) * per_day // sum(BUSY)


def _all_receipted(seen: Seen) -> bool:
    return seen.to_give == 0 and seen.tally.waiting == 0


def _more(before: dict[str, int], now: dict[str, int]) -> dict[str, int]:
    return {kind: n - before.get(kind, 0) for kind, n in now.items() if n > before.get(kind, 0)}


def _pages(took_ms: list[float]) -> Pages:
    p50, p95 = np.quantile(took_ms, [0.5, 0.95], method="higher")
    return Pages(len(took_ms), round(float(p50), 1), round(float(p95), 1))
