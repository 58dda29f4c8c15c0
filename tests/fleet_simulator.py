"""A whole fleet in one process, on a virtual clock: real devices, the real server, a network whose faults are verbs.

What is real: the agent's updater, slots, files, models, loop and housekeeping; the wire, byte for byte; the server's
ingest, store and release. What is simulated: the network between them, the clock, and power.

    fleet = FleetSimulator(folder, rules, devices=3)
    fleet.publish(2)
    fleet.network.corrupt(0.1)      cut, mend, repeat, reorder, corrupt
    fleet["cam-1"].power_cut()      power_cut, power_cut_when, silence, wake, clock_jump
    fleet.run(120)

Every device takes a step a tick; what it says and is told travels between the ticks.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

import quadrants
from simulated_device import EPOCH_MS, UPDATE, Device, check_here
from simulated_network import FLEET, Network

from edge_agent.config import Update
from edge_agent.contract.trust import BUNDLE, encode_bundle
from edge_agent.contract.wire import parse_topic
from server import config
from server.collect.inbound import Message
from server.collect.ingest import Ingest
from server.release import commands
from server.release.blocks import Blocks
from server.release.downloads import IDLE_S, Downloads
from server.release.fleet import Fleet
from server.release.registry import add_artifact
from server.release.signing import ROOT, Policy, Signing
from server.store import arrivals, devices, rollouts, versions
from server.store.store import Store


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
        update: Update = UPDATE,
        signed: bool = False,
        seed: int = 0,
    ) -> None:
        """`signed`: the server has keys, and the devices trust its root; else versions are unsigned."""
        self._folder, self._rules, self._tick_s = folder, rules, tick_s
        self.now_s = 0.0
        self.network = Network(seed)
        self.store = Store.open(folder / "server")
        self.signing = Signing(folder / "server")
        root = self.signing.folder / ROOT if signed else None
        if signed:
            self.signing.init(Policy(), now_ms=self.now_ms)
        self.start_server()
        quadrants.artifact(folder / "v1", version=1, name="first")
        self._add(folder / "v1")
        if signed:
            self._sign()
            (folder / "v1" / BUNDLE).write_bytes(encode_bundle(self.signing.bundle()))
        names = [f"cam-{i}" for i in range(1, devices + 1)]
        self.devices = {
            name: Device(
                folder / name,
                self.network,
                first=folder / "v1",
                check=check,
                heartbeat_s=heartbeat_s,
                update=update,
                root=root,
            )
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
        publish, blocks = self.network.publish, Blocks(self.store, self.signing)
        self._fleet = Fleet(self.store, fleet=FLEET, rules=self._rules, publish=publish, signing=self.signing)
        self._downloads = Downloads(blocks, fleet=FLEET, bytes_per_s=0.0, publish=publish)

    def _sign(self) -> None:
        with self.store.database.read() as connection:
            every = versions.every(connection)
        self.signing.tick(every, now_ms=self.now_ms)

    def publish(self, version: int, *, broken: bool = False) -> None:
        """A good version, or one that passes its golden test and says nothing finite of live samples."""
        folder = self._folder / f"v{version}"
        quadrants.overflowing(folder, version=version) if broken else quadrants.another(
            folder, version=version, noise=0.1
        )
        self._add(folder)

    def _add(self, folder: Path) -> None:
        add_artifact(self.store, folder, weights=None, now_ms=self.now_ms)

    def again(self) -> None:
        """Begin the newest rollout's version anew, by hand."""
        rules, last = self._rules, self.rollout()
        commands.start(
            self.store, last.version, channel=last.channel, rings=(), rules=(), default=rules, now_ms=self.now_ms
        )

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
        with self.store.database.write() as connection:
            born = arrivals.waiting(connection)
            arrivals.answered(connection, born)
        for one in born:
            self._fleet.on_birth(one.device)
        for name, fetch in taken.fetches:
            self._downloads.ask(name, fetch)
        while self._downloads.step(self.now_s) < IDLE_S:
            continue
        self._sign()
        self._fleet.tick(self.now_ms)
        inbox: dict[str, list[tuple[str, bytes]]] = defaultdict(list)
        for topic, payload in self.network.going_down():
            address = parse_topic(topic)
            inbox[address.device].append((address.kind, payload))
        for name, received in inbox.items():
            for kind, payload in received:
                self.devices[name].takes(kind, payload)
