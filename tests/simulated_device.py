"""What is a device of a simulated fleet? The agent's own parts on a folder of its own, without their threads.

The updater, slots, files, model, loop and housekeeping are the agent's; the clock and the power are simulated.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import quadrants
from simulated_network import Network

from edge_agent.account import Account
from edge_agent.choose.quantile import NoveltyQuantile
from edge_agent.choose.rules import Rules
from edge_agent.choose.splitmix import SplitMix64
from edge_agent.config import Update
from edge_agent.contract.errors import ArtifactError, MessageError
from edge_agent.contract.types import Reading
from edge_agent.contract.wire import (
    BlockHeader,
    Death,
    Desired,
    Event,
    Fetch,
    ModelState,
    OutboxState,
    PaceState,
    decode,
    decode_frame,
    encode,
)
from edge_agent.housekeeping import Housekeeping
from edge_agent.intake import Intake
from edge_agent.loop import Cursor, Loop
from edge_agent.model import Model
from edge_agent.outgoing import Identity
from edge_agent.update.trial import run_check
from edge_agent.update.trust import BUILT_MS, Trust
from edge_agent.update.updater import Updater

EPOCH_MS = BUILT_MS + 30 * 86_400_000
VARIANT = "cpu-fp32"
SAMPLES = 8  # that a device sees in a tick
UPDATE = Update(
    shadow_share=1.0,
    shadow_samples=2 * SAMPLES,
    shadow_s=5.0,
    probation_samples=4 * SAMPLES,
    probation_s=5.0,
    max_latency_ratio=1000.0,  # times are this machine's, and so is memory
    max_memory_ratio=0.0,
)
STREAM, _ = quadrants.images(64, seed=5)


def check_here(folder: Path) -> None:
    """The golden test, in this process: a child for each of hundreds takes minutes."""
    Model(folder, variant=VARIANT, block=1).check_golden()


class Device:
    """One agent, on disk and in memory; what is in memory is gone after a power cut."""

    def __init__(
        self,
        folder: Path,
        network: Network,
        *,
        first: Path,
        check: Callable[[Path], None],
        heartbeat_s: float,
        update: Update = UPDATE,
        root: Path | None = None,
    ) -> None:
        """`root`: whose signatures it trusts; None: it takes unsigned versions."""
        self.name, self._folder, self._network, self._first, self._check = folder.name, folder, network, first, check
        self.boot = self._seq = 0
        self.clock_error_s = 0.0
        self.heartbeat_s = heartbeat_s
        self._update, self._root = update, root
        self._now_s = 0.0
        self.executed: list[int] = []  # versions, in the order in which they ran
        self.events: list[Event] = []
        self._silent = self._connected = False
        self._cut_when: Callable[[Device], bool] = lambda _: False
        self.stream = STREAM
        folder.mkdir(parents=True, exist_ok=True)
        self._boot()

    # --- faults ---

    def power_cut(self) -> None:
        """What is on disk is all that is left; it starts again."""
        if self._connected:
            self._network.say(self.name, "death", encode(Death(session=self._account.session)))
        self._boot()

    def power_cut_when(self, condition: Callable[[Device], bool]) -> None:
        """As soon as it comes true, between any two parts of a tick."""
        self._cut_when = condition

    def silence(self) -> None:
        """It is switched off, or somebody took it away."""
        self._silent = True
        self.power_cut()

    def wake(self) -> None:
        """It is back."""
        self._silent = False

    def clock_jump(self, seconds: float) -> None:
        """Its wall clock is wrong from now on."""
        self.clock_error_s += seconds

    # --- life ---

    def _boot(self) -> None:
        self.boot += 1
        self._connected, self._told_s, self._revision = False, 0.0, 0
        self._account = Account(
            self._folder,
            boot=self.boot,
            stream="main",
            heartbeat_s=self.heartbeat_s,
            model=lambda: self.updater.state(),
            outbox=lambda: OutboxState(rows=0, bytes=0),
            messages_bad=lambda: 0,
            link=lambda: None,
            budgets=lambda: None,
            source=lambda: None,
            pace=PaceState,
            tell=self._tell,
        )
        self.updater = Updater(
            self._folder / "models",
            variant=VARIANT,
            check=self._check,
            needs=None,
            max_starts=self._update.max_starts,
            keep_versions=self._update.keep_versions,
            request=self._request,
            report=self._account.report,
            trust=self._trust(),
        )
        self.updater.install_first(self._first)
        self._loop: Loop | None = None

    def _trust(self) -> Trust | None:
        if self._root is None:
            return None
        ask = functools.partial(run_check, timeout_s=60.0, memory_bytes=0)
        return Trust(self._folder / "trust", anchor=self._root, ask=ask, clock_ms=self._clock_ms)

    def _clock_ms(self) -> int:
        return EPOCH_MS + int((self._now_s + self.clock_error_s) * 1000)

    def _tell(self, event: Event) -> None:
        self.events.append(event)
        self._network.say(self.name, "event", encode(event))

    def _request(self, fetch: Fetch) -> bool:
        if self._connected:
            self._network.say(self.name, "fetch", encode(fetch))
        return self._connected

    def _begin(self) -> Loop:
        """As the agent does at its start."""
        model = None
        while model is None:
            folder = self.updater.running_folder() or self.updater.take()
            assert folder is not None
            model = self._load(folder)
        self.updater.needs = model.manifest.input
        loop = self._account.loop = Loop(
            model,
            NoveltyQuantile(Rules(label_share=0.01), SplitMix64(0)),
            identity=Identity(self.name, "main", self.boot),
            acquisition="margin",
            cursor=Cursor(),
            flush_s=10.0,
            hand_over=lambda _: None,
        )
        self.updater.executing(model.version)
        self._house = Housekeeping(
            loop,
            self.updater,
            update=self._update,
            load=self._load,
            write_status=lambda _: None,
            status_s=30.0,
            rng=SplitMix64(0),
        )
        return loop

    def _load(self, folder: Path) -> Model | None:
        try:
            return Model(folder, variant=VARIANT, block=SAMPLES, together=1)
        except ArtifactError as error:
            self.updater.failed(int(folder.name), str(error))
            return None

    def step(self, now_s: float) -> None:
        """One tick of everything that the agent's threads do."""
        self._now_s = now_s
        if self._silent:
            return
        parts = (
            lambda: self._keep_in_touch(now_s),  # which the agent does before its model is loaded
            self._start,
            lambda: self.updater.step(now_s),
            lambda: self._stream(self._loop),
            lambda: self._house.tend_model(now_s),
        )
        for part in parts:
            part()
            if self._cut_when(self):
                self._cut_when = lambda _: False
                self.power_cut()
                return

    def _start(self) -> None:
        if self._loop is None:
            self._loop = self._begin()

    def _stream(self, loop: Loop) -> None:
        Intake(loop).run(self._readings(), threading.Event())
        if not self.executed or self.executed[-1] != loop.record.vitals().version:
            self.executed.append(loop.record.vitals().version)

    def _readings(self) -> Iterator[Reading | None]:
        for _ in range(SAMPLES):
            yield Reading(self.stream[self._seq % len(self.stream)], self._seq)
            self._seq += 1

    def _keep_in_touch(self, now_s: float) -> None:
        at_ms = self._clock_ms()
        if not self._network.reaches(self.name):
            if self._connected:
                self._network.say(self.name, "death", encode(Death(session=self._account.session)))
            self._connected = False
        elif not self._connected:
            self._connected = True
            said = msgspec.structs.replace(self._account.birth(), at_ms=at_ms, interval_s=self.heartbeat_s)
            self._network.say(self.name, "birth", encode(said))
            if (kept := self._network.retained(self.name)) is not None:
                self.takes("desired", kept)
            self._beat(now_s, at_ms)
        elif now_s - self._told_s >= self.heartbeat_s:
            self._beat(now_s, at_ms)

    def _beat(self, now_s: float, at_ms: int) -> None:
        self._told_s = now_s
        said = msgspec.structs.replace(self._account.heartbeat(), at_ms=at_ms)
        self._network.say(self.name, "heartbeat", encode(said))

    def takes(self, kind: str, payload: bytes) -> None:
        """A message from the server; what is not of the wire format is set aside, as the uplink does."""
        if self._silent or not self._connected:
            return
        try:
            if kind == "desired":
                desired = decode(Desired, payload)
                if desired.revision >= self._revision:
                    self._revision = desired.revision
                    self.updater.on_desired(desired)
            elif kind == "block":
                self.updater.on_block(*decode_frame(BlockHeader, payload))
        except MessageError:
            return

    def state(self) -> ModelState:
        return self.updater.state()
