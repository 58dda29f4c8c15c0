"""A whole fleet in one process, on a virtual clock: real devices, the real server, a network whose faults are verbs.

What is real: the agent's updater, slots, files, models, loop and housekeeping; the wire, byte for byte; the server's
ingest, store and release. What is simulated: the network between them, the clock, and power.

    fleet = FleetSimulator(folder, rules, devices=3)
    fleet.publish(2)
    fleet.network.corrupt(0.1)      cut, mend, repeat, reorder, corrupt
    fleet["cam-1"].power_cut()      power_cut, silence, wake, clock_jump
    fleet.run(120)

Every device takes a step a tick; what it says and is told travels between the ticks.
"""

from __future__ import annotations

import random
import threading
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import msgspec
import numpy as np
import quadrants

from edge_agent.account import Account
from edge_agent.choose.selector import Rules, Selector
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
    decode,
    decode_frame,
    encode,
    parse_topic,
    up_topic,
)
from edge_agent.housekeeping import Housekeeping
from edge_agent.loop import Cursor, Identity, Loop
from edge_agent.model import Model
from edge_agent.update.updater import Updater
from server import config
from server.collect.inbound import Message
from server.collect.ingest import Ingest
from server.release import commands
from server.release.fleet import Fleet
from server.release.registry import add_artifact
from server.store import devices, rollouts
from server.store.store import Store

FLEET = "sim"
EPOCH_MS = 1_790_000_000_000
VARIANT = "cpu-fp32"
SAMPLES = 8  # that a device sees in a tick
UPDATE = Update(
    probation_samples=4 * SAMPLES, probation_s=5.0, max_latency_ratio=1000.0
)  # times here are this machine's
STREAM, _ = quadrants.images(64, seed=5)


def check_here(folder: Path) -> None:
    """The golden test, in this process: a child for each of hundreds takes minutes."""
    Model(folder, variant=VARIANT, block=1).check_golden()


class Network:
    """Between the devices and the server: a broker that keeps `desired`, and loses what nobody is there to take."""

    def __init__(self, seed: int) -> None:
        self._rng = random.Random(seed)
        self._up: list[tuple[str, bytes]] = []
        self._down: list[tuple[str, bytes]] = []
        self._retained: dict[str, bytes] = {}
        self._is_cut: set[str] = set()
        self._repeats = self._corrupts = 0.0
        self._reorders = False
        self.tamper: Callable[[str, bytes], bytes] = lambda _topic, payload: payload  # somebody sits in the middle

    # --- faults ---

    def cut(self, *names: str) -> None:
        """Nothing passes; the broker tells of their death."""
        self._is_cut |= set(names)

    def mend(self, *names: str) -> None:
        """All is as before; the devices connect again."""
        self._is_cut -= set(names)

    def repeat(self, share: float) -> None:
        """So many of the messages come twice."""
        self._repeats = share

    def reorder(self) -> None:
        """What travels in one tick arrives in any order."""
        self._reorders = True

    def corrupt(self, share: float) -> None:
        """So many of the blocks have a byte changed: what carries the rest checks its bytes itself."""
        self._corrupts = share

    # --- traffic ---

    def reaches(self, name: str) -> bool:
        return name not in self._is_cut

    def say(self, name: str, kind: str, payload: bytes) -> None:
        if self.reaches(name) or kind == "death":
            self._up.append((up_topic(FLEET, name, kind), payload))

    def publish(self, topic: str, payload: bytes, *, qos: int, retain: bool) -> None:
        """As the server's broker client."""
        if retain:
            self._retained[topic] = payload
        self._down.append((topic, payload))

    def retained(self, name: str) -> bytes | None:
        return self._retained.get(f"winnow/1/{FLEET}/{name}/down/desired")

    def going_up(self) -> list[tuple[str, bytes]]:
        going, self._up = self._up, []
        return list(self._spoilt(going))

    def going_down(self) -> list[tuple[str, bytes]]:
        going, self._down = self._down, []
        return list(self._spoilt((topic, self.tamper(topic, payload)) for topic, payload in going))

    def _spoilt(self, messages: Iterable[tuple[str, bytes]]) -> Iterator[tuple[str, bytes]]:
        found = []
        for topic, payload in messages:
            if topic.endswith("/block") and self._rng.random() < self._corrupts:
                place = self._rng.randrange(len(payload))
                payload = payload[:place] + bytes([payload[place] ^ 0x55]) + payload[place + 1 :]
            found += [(topic, payload)] * (1 + (self._rng.random() < self._repeats))
        if self._reorders:
            self._rng.shuffle(found)
        yield from found


class Device:
    """One agent, on disk and in memory; what is in memory is gone after a power cut."""

    def __init__(
        self, folder: Path, network: Network, *, first: Path, check: Callable[[Path], None], heartbeat_s: float
    ) -> None:
        self.name, self._folder, self._network, self._first, self._check = folder.name, folder, network, first, check
        self.boot = self._seq = 0
        self.clock_error_s = 0.0
        self.heartbeat_s = heartbeat_s
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
            tell=self._tell,
        )
        self.updater = Updater(
            self._folder / "models",
            variant=VARIANT,
            check=self._check,
            needs=None,
            max_starts=UPDATE.max_starts,
            keep_versions=UPDATE.keep_versions,
            request=self._request,
            report=self._account.report,
        )
        self.updater.install_first(self._first)
        self._loop: Loop | None = None

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
            Selector(Rules(label_share=0.01), np.random.default_rng(0)),
            identity=Identity(self.name, "main", self.boot),
            acquisition="margin",
            cursor=Cursor(),
            flush_s=10.0,
            hand_over=lambda _: None,
        )
        self.updater.executing(model.version)
        self._house = Housekeeping(
            loop, self.updater, update=UPDATE, load=self._load, write_status=lambda _: None, status_s=30.0
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
        if self._silent:
            return
        if self._loop is None:
            self._loop = self._begin()
        parts = (
            lambda: self._keep_in_touch(now_s),
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

    def _stream(self, loop: Loop) -> None:
        loop.run(self._readings(), threading.Event())
        if not self.executed or self.executed[-1] != loop.vitals().version:
            self.executed.append(loop.vitals().version)

    def _readings(self) -> Iterator[Reading | None]:
        for _ in range(SAMPLES):
            yield Reading(self.stream[self._seq % len(self.stream)], self._seq)
            self._seq += 1

    def _keep_in_touch(self, now_s: float) -> None:
        at_ms = EPOCH_MS + int((now_s + self.clock_error_s) * 1000)
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
        elif now_s - self._told_s >= self.heartbeat_s:
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


class FleetSimulator:
    """The server with its devices. `run` lets time pass."""

    def __init__(
        self,
        folder: Path,
        rules: config.Rollout,
        *,
        devices: int,
        tick_s: float = 1.0,
        heartbeat_s: float = 10.0,
        check: Callable[[Path], None] = check_here,
        seed: int = 0,
    ) -> None:
        self._folder, self._rules, self._tick_s = folder, rules, tick_s
        self.now_s = 0.0
        self.network = Network(seed)
        self.store = Store.open(folder / "server")
        self.start_server()
        quadrants.artifact(folder / "v1", version=1, name="first")
        self._add(folder / "v1")
        names = [f"cam-{i}" for i in range(1, devices + 1)]
        self.devices = {
            name: Device(folder / name, self.network, first=folder / "v1", check=check, heartbeat_s=heartbeat_s)
            for name in names
        }

    def __getitem__(self, name: str) -> Device:
        return self.devices[name]

    def close(self) -> None:
        self.store.close()

    # --- the server ---

    @property
    def now_ms(self) -> int:
        return EPOCH_MS + int(self.now_s * 1000)

    def start_server(self) -> None:
        """Also after a kill: what is not in the store is gone."""
        self._ingest = Ingest(self.store, fleet=FLEET, offline_after_s=90.0)
        self._fleet = Fleet(self.store, fleet=FLEET, rules=self._rules, publish=self.network.publish)

    def publish(self, version: int, *, broken: bool = False) -> None:
        """A good version, or one that passes its golden test and says nothing finite of live samples."""
        folder = self._folder / f"v{version}"
        quadrants.overflowing(folder, version=version) if broken else quadrants.another(
            folder, version=version, noise=0.1
        )
        self._add(folder)

    def _add(self, folder: Path) -> None:
        add_artifact(self.store, folder, weights=None, now_ms=self.now_ms)

    def say(self, word: str, *, reason: str = "a scenario") -> None:
        """As an operator."""
        commands.say(self.store, self.rollout().id, word, reason=reason, now_ms=self.now_ms)

    def rollout(self) -> rollouts.Rollout:
        with self.store.database.read() as connection:
            found = rollouts.current(connection)
        assert found is not None
        return found

    def steps(self) -> list[str]:
        with self.store.database.read() as connection:
            return [step.text for step in rollouts.steps(connection, self.rollout().id)]

    def desired(self) -> dict[str, int]:
        """What each device is told to run."""
        with self.store.database.read() as connection:
            known = devices.devices(connection)
        return {one.name: one.desired.model.version for one in known if one.desired and one.desired.model}

    def executing(self) -> dict[str, int]:
        """What each device runs, by its own word."""
        return {name: device.state().version for name, device in self.devices.items()}

    # --- time ---

    def skip(self, seconds: float) -> None:
        """Much time passes in which nobody does anything."""
        self.now_s += seconds

    def run(self, seconds: float, *, until: Callable[[], object] = lambda: False) -> bool:
        """Let time pass; whether `until` came true."""
        end_s = self.now_s + seconds
        while self.now_s < end_s:
            self.now_s += self._tick_s
            self._tick()
            if until():
                return True
        return False

    def ended(self) -> bool:
        return self.rollout().status != "running"

    def _tick(self) -> None:
        for device in self.devices.values():
            device.step(self.now_s)
        messages = [Message(topic, payload, self.now_ms) for topic, payload in self.network.going_up()]
        taken = self._ingest.take(messages)
        for name in taken.births:
            self._fleet.on_birth(name)
        for name, fetch in taken.fetches:
            self._fleet.on_fetch(name, fetch)
        self._fleet.tick(self.now_ms)
        inbox: dict[str, list[tuple[str, bytes]]] = defaultdict(list)
        for topic, payload in self.network.going_down():
            address = parse_topic(topic)
            inbox[address.device].append((address.kind, payload))
        for name, received in inbox.items():
            for kind, payload in received:
                self.devices[name].takes(kind, payload)
