"""How does the fleet come to run what the rollout says, and to look out for what people ask for?

The effects around `rollout` and `requests`: reports are read from the store, orders are published as retained `desired`
messages, the state is kept with them. An order is published when it differs from the one in the store, and again when
its device connects and when the server starts (the broker, or a kill after the commit, may have lost it).
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Collection, Sequence
from typing import Any

import msgspec
import sqlalchemy as sa

from edge_agent.contract.artifact import decode_manifest
from edge_agent.contract.errors import ArtifactError
from edge_agent.contract.wire import Assignment, Desired, Parcel, down_topic, encode
from server import config
from server.errors import RolloutError, StoreError
from server.release import rollout
from server.release.downloads import Publish
from server.release.requests import Sketches, executing_state, wanted_of
from server.store import devices, identities, parcels, portfolios, requests, rollouts, versions
from server.store.store import Store

log = logging.getLogger(__name__)

REST_MS = 30_000  # between looks when nothing is rolled out: reading 10,000 devices costs a good part of a second
_STATUS = {rollout.Running: "running", rollout.Done: "done", rollout.Halted: "halted"}


class Fleet:
    """Carries the newest rollout on, and passes requests on."""

    def __init__(self, store: Store, *, fleet: str, rules: config.Rollout, publish: Publish) -> None:
        self._store = store
        self._fleet = fleet
        self._rules = rules
        self._publish = publish
        self._parcels: dict[int, tuple[Parcel, ...]] = {}  # by version
        self._sketches = Sketches(store)
        self._asked: Sequence[requests.Request] = ()  # what was open at the last look
        self._arms_ms = 0  # when arms were told that were passed on
        self._lock = threading.Lock()
        self._born: set[str] = set()
        self._looked_ms: int | None = None

    def on_birth(self, device: str) -> None:
        """A device has connected; its order follows with the next `tick`."""
        with self._lock:
            self._born.add(device)

    def tick(self, now_ms: int) -> None:
        """One look at the fleet: start what waits, advance what runs, publish what changed. StoreError: try again."""
        with self._lock:
            born, self._born = self._born, set()
        try:
            self._look(born, now_ms)
        except BaseException:
            with self._lock:
                self._born |= born
            raise

    def _look(self, born: set[str], now_ms: int) -> None:
        current = self._current(now_ms)
        with self._store.database.read() as connection:
            asked = requests.open_ones(connection, now_ms=now_ms)
            kept = portfolios.get(connection)
        arms_ms = kept.at_ms if kept else 0
        news = list(asked) != list(self._asked) or arms_ms != self._arms_ms
        if not (born or news or self._due(current, asked, now_ms)):
            return
        with self._store.database.read() as connection:
            gone = identities.revoked(connection)
            fleet = {device.name: device for device in devices.devices(connection) if device.name not in gone}
        again = set(fleet) if self._looked_ms is None else born & fleet.keys()
        changed = self._advance(current, fleet, gone, now_ms) if current is not None else {}
        changed |= self._pass_on(asked, fleet, changed)
        for name in changed.keys() | again:
            desired = changed.get(name) or fleet[name].desired
            if desired is not None:
                self._publish(down_topic(self._fleet, name, "desired"), encode(desired), qos=1, retain=True)
        self._asked, self._arms_ms, self._looked_ms = asked, arms_ms, now_ms

    def _due(self, current: rollouts.Rollout | None, asked: Sequence[requests.Request], now_ms: int) -> bool:
        # An ended rollout still owes its version to whoever comes late, and a birth may have passed unheard; a device
        # that runs another version by now is owed another sketch.
        if current is None and not asked:
            return self._looked_ms is None
        running = current is not None and current.status == "running"
        return running or self._looked_ms is None or now_ms - self._looked_ms >= REST_MS

    def _advance(
        self, current: rollouts.Rollout, fleet: dict[str, devices.Device], gone: Collection[str], now_ms: int
    ) -> dict[str, Desired]:
        reports = {name: report for name, device in fleet.items() if (report := _report(device)) is not None}
        state, orders, steps = rollout.advance(
            _plan(current), rollout.without(_state(current), gone), reports, now_ms / 1000
        )
        return self._keep(current, state, steps, self._new(orders, fleet), now_ms)

    def _pass_on(
        self, asked: Sequence[requests.Request], fleet: dict[str, devices.Device], changed: dict[str, Desired]
    ) -> dict[str, Desired]:
        """Keep the requests and the arm that each device is to be told; returns the orders that differ."""
        self._sketches.keep(request.sample_id for request in asked)
        new: dict[str, Desired] = {}
        for name, device in fleet.items():
            known = changed.get(name) or device.desired or Desired(revision=0)
            wanted = _with_arm(known, device.arm)
            wanted = msgspec.structs.replace(wanted, requests=wanted_of(device, asked, self._sketches))
            if wanted != known:
                new[name] = wanted
        if not new:
            return {}
        with self._store.database.write() as connection:
            return {name: devices.set_desired(connection, name, desired) for name, desired in new.items()}

    def _new(self, orders: dict[str, int], fleet: dict[str, devices.Device]) -> dict[str, Desired]:
        """The orders that differ from what was last published."""
        with self._store.database.read() as connection:
            wanted = {number: self._assignment(connection, number) for number in set(orders.values())}
        new = {}
        for name, device in fleet.items():
            known = device.desired or Desired(revision=0)
            if name in orders and not _is_same(known.model, wanted[orders[name]]):
                new[name] = msgspec.structs.replace(known, model=wanted[orders[name]])
        return new

    def _assignment(self, connection: sa.Connection, number: int) -> Assignment | None:
        version = versions.get(connection, number)
        if version is None:  # the device's own, that we know nothing of
            return None
        return Assignment(
            version=number,
            manifest_sha256=version.manifest_sha256,
            manifest_bytes=version.manifest_bytes,
            parcels=self._parcels_of(version, connection),
        )

    def _parcels_of(self, version: versions.Version, connection: sa.Connection) -> tuple[Parcel, ...]:
        """Looked up once: they were made before it was published, and are never added to."""
        if version.number not in self._parcels:
            try:
                data = self._store.blobs.get(version.manifest_sha256)
                files = decode_manifest(data, where=f"version {version.number}").files
            except (StoreError, ArtifactError) as error:  # who has the version already needs no bytes
                log.error("version %d is ordered without parcels: %s", version.number, error)
                files = {}
            self._parcels[version.number] = parcels.of(connection, [file.sha256 for file in files.values()])
        return self._parcels[version.number]

    def _keep(
        self,
        current: rollouts.Rollout,
        state: rollout.State,
        steps: tuple[str, ...],
        new: dict[str, Desired],
        now_ms: int,
    ) -> dict[str, Desired]:
        """Keep the state and the orders together; returns the orders as they are to be published."""
        kept = msgspec.to_builtins(state)
        if not new and kept == current.state:
            return {}
        status = _STATUS[type(state)]
        with self._store.database.write() as connection:
            changed = {name: devices.set_desired(connection, name, desired) for name, desired in new.items()}
            rollouts.save(connection, current.id, state=kept, status=status, steps=steps, now_ms=now_ms)
        for text in (*steps, *([status] if status != current.status else [])):
            log.info("rollout of version %d: %s", current.version, text)
        return changed

    def _current(self, now_ms: int) -> rollouts.Rollout | None:
        """The rollout to carry on: a new one when a version waits and the last one ended, or nobody has tried that."""
        with self._store.database.read() as connection:
            current = rollouts.current(connection)
            waiting = rollouts.awaited(connection)
        if waiting is None or (current and current.status == "running" and current.state.get("members")):
            return current
        with self._store.database.write() as connection:
            if current and current.status == "running":
                steps = [f"given up for version {waiting}: no device had it yet"]
                rollouts.save(
                    connection, current.id, state=current.state, status="superseded", steps=steps, now_ms=now_ms
                )
            self._start(connection, waiting, now_ms)
            return rollouts.current(connection)

    def _start(self, connection: sa.Connection, number: int, now_ms: int) -> None:
        version = versions.get(connection, number)
        previous = versions.rolled_out(connection)
        if version is None:
            raise RolloutError(f"version {number} is not in the registry")
        manifest = decode_manifest(self._store.blobs.get(version.manifest_sha256), where=f"version {number}")
        plan = rollout.Plan(
            version=number,
            previous=previous.number if previous else 0,
            files=tuple(sorted(file.sha256 for file in manifest.files.values())),
            **_ring_rules(self._rules),
        )
        rollouts.insert(
            connection,
            number=number,
            previous=plan.previous,
            plan=msgspec.to_builtins(plan),
            state=msgspec.to_builtins(rollout.start()),
            now_ms=now_ms,
        )
        log.info("rollout of version %d begins; the fleet runs %s", number, plan.previous or "none of ours")


def _ring_rules(rules: config.Rollout) -> dict[str, Any]:
    return {key: value for key, value in msgspec.structs.asdict(rules).items() if key != "bytes_per_s"}


def _plan(current: rollouts.Rollout) -> rollout.Plan:
    return msgspec.convert(current.plan, type=rollout.Plan)


def _state(current: rollouts.Rollout) -> rollout.State:
    state: rollout.State = msgspec.convert(current.state, type=rollout.State)
    return state


def _is_same(known: Assignment | None, wanted: Assignment | None) -> bool:
    return known is wanted if known is None else known.is_for_same(wanted)


def _with_arm(desired: Desired, arm: str | None) -> Desired:
    """An order with the arm that a portfolio gave; one that it takes back leaves the device's own in force."""
    if arm is None and desired.strategy is None:  # what else may be told of acquisition is not the portfolio's
        return desired
    strategy, _, acquisition = (arm or "").partition("/")
    return msgspec.structs.replace(desired, strategy=strategy or None, acquisition=acquisition or None)


def _report(device: devices.Device) -> rollout.Report | None:
    model = executing_state(device)
    if model is None:
        return None
    return rollout.Report(
        seen_s=device.last_seen_ms / 1000,
        version=model.version,
        sha256=model.sha256,
        slot=model.slot,
        fetching=model.fetching,
        fetched_share=model.fetched_share,
        refused=model.refused,
    )
