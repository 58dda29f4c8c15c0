"""Which rollout holds in each channel, and how does it go on?

A device belongs to one channel, and a channel has one rollout under way at most: so a device never has two assignments
at once. The newest rollout of a channel, ended or not, says what each of its devices should run.

The effects around `rollout` (pure): what waits is started, what operators said is obeyed, reports are read, and the
state is kept with the orders that follow from it, in one transaction: a server killed in between does it again.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence

import msgspec
import sqlalchemy as sa

from edge_agent.contract.artifact import decode_manifest
from edge_agent.contract.errors import ArtifactError
from edge_agent.contract.types import is_name
from edge_agent.contract.wire import Assignment, Desired, Parcel
from server import config
from server.errors import RolloutError, StoreError
from server.release import registry, rollout
from server.release.figures import Compared
from server.release.member import Report
from server.release.requests import executing_state
from server.release.rings import Ring, parse
from server.release.signing import Signing
from server.store import devices, parcels, rollouts, trail, versions
from server.store.store import Store
from server.store.versions import Version

log = logging.getLogger(__name__)

BREAK_MS = 120_000  # between two looks: whoever did not listen for so long cannot call a device silent
STATUS = {rollout.Running: "running", rollout.Done: "done", rollout.Halted: "halted"}


class Channels:
    """Carries the rollouts on."""

    def __init__(
        self,
        store: Store,
        rules: config.Rollout,
        *,
        autonomy: config.Autonomy = config.Autonomy(),  # noqa: B008 - frozen
        signing: Signing | None = None,
        files_url: str = "",
    ) -> None:
        """All as `Fleet`. ServerConfigError when the rings of `rules` make no sense, or the channels of `autonomy`."""
        self._store = store
        self._signing, self._files_url = signing, files_url
        self._known_parcels: dict[int, tuple[Parcel, ...]] = {}  # by version: what is published never changes
        self._rules = rules
        self._dials = {channel: dial for channel, dial in autonomy.dials().items() if dial != "propose"}
        self._rings = parse(rules.rings, rules.rules, rules)
        self._looked_ms: int | None = None
        self._listening_ms = 0  # since when looks follow each other
        self._current: Mapping[str, rollouts.Rollout] = {}  # at the last look

    def look(self, now_ms: int) -> tuple[Sequence[rollouts.Rollout], bool]:
        """The rollout of each channel, when what waited is started and what was said is obeyed; and whether any was."""
        if self._looked_ms is None or not 0 <= now_ms - self._looked_ms <= BREAK_MS:  # a clock may jump, too
            self._listening_ms = now_ms
        self._looked_ms = now_ms
        news = self._obey(now_ms)
        with self._store.database.read() as connection:
            current = self._current = rollouts.newest(connection, known=self._current)
            awaited = self._awaited(connection)
        for channel, number in awaited.items():
            if _may_begin(current.get(channel)):
                rings = self._rings if self._dials[channel] == "auto" else _with_approval(self._rings)
                begin(
                    self._store,
                    number,
                    rings,
                    channel=channel,
                    now_ms=now_ms,
                    signing=self._signing,
                    why=f"published, and the dial of channel {channel} is {self._dials[channel]}",
                )
                news = True
        if news:
            with self._store.database.read() as connection:
                current = self._current = rollouts.newest(connection, known=current)
        return list(current.values()), news

    def advance(
        self, current: rollouts.Rollout, fleet: Mapping[str, devices.Device], now_ms: int
    ) -> dict[str, Desired]:
        """Take a rollout on; returns the orders as they are to be published, of the devices whose order changes."""
        mine = {name: device for name, device in fleet.items() if device.channel == current.channel}
        look = rollout.Look(
            reports={name: report for name, device in mine.items() if (report := report_of(device)) is not None},
            now_s=now_ms / 1000,
            listening_s=self._listening_ms / 1000,
            pinned={name: device.ring for name, device in mine.items() if device.ring},
            figures=Compared(self._store, current.version, current.previous, now_ms=now_ms),
        )
        with self._store.database.read() as connection:
            version = versions.get(connection, current.version)
        if version is None or may_go_out(version, self._signing):
            state, orders, steps = rollout.advance(plan_of(current), state_of(current), look)
        else:  # a rollback's, made when it was asked for: until it is signed, orders are as after a halt
            good = version.parent
            orders = {name: max(good, report.version) for name, report in look.reports.items()}
            state, steps = state_of(current), ()
        new = self._new(orders, mine)
        if not new and msgspec.to_builtins(state) == current.state:
            return {}
        with self._store.database.write() as connection:
            if not _keep(connection, current, state, steps, now_ms):
                return {}
            return {name: devices.set_desired(connection, name, desired) for name, desired in new.items()}

    def _awaited(self, connection: sa.Connection) -> dict[str, int]:
        """The version that each channel is to get by itself. One that is not signed waits; `signing` says so."""
        found = {channel: rollouts.awaited(connection, channel) for channel in self._dials}
        return {
            channel: number
            for channel, number in found.items()
            if number is not None and may_go_out(versions.get(connection, number), self._signing)
        }

    def _new(self, orders: Mapping[str, int], fleet: Mapping[str, devices.Device]) -> dict[str, Desired]:
        """The orders that differ from what was last published. None for what devices would refuse as unsigned."""
        with self._store.database.read() as connection:
            known_versions = {number: versions.get(connection, number) for number in set(orders.values())}
        signed = {number: one for number, one in known_versions.items() if may_go_out(one, self._signing)}
        wanted = {number: self._assignment(version) for number, version in signed.items()}
        new = {}
        for name, device in fleet.items():
            known = device.desired or Desired(revision=0)
            number = orders.get(name)
            if number is not None and number in wanted and not _stands(device, known.model, wanted[number]):
                new[name] = msgspec.structs.replace(known, model=wanted[number])
        return new

    def _assignment(self, version: Version | None) -> Assignment | None:
        """The order to run a version, with the signatures of now. None for the device's own, unknown here."""
        if version is None:
            return None
        made = Assignment(
            version=version.number,
            manifest_sha256=version.manifest_sha256,
            manifest_bytes=version.manifest_bytes,
            parcels=self._parcels(version),
            url=self._files_url,
        )
        if self._signing is None or not (self._signing.ready and self._signing.covers(version)):
            return made
        stamp = self._signing.stamp()
        return msgspec.structs.replace(made, trust_sha256=stamp.sha256, trust_bytes=stamp.bytes)

    def _parcels(self, version: Version) -> tuple[Parcel, ...]:
        if version.number in self._known_parcels:
            return self._known_parcels[version.number]
        try:
            data = self._store.blobs.get(version.manifest_sha256)
            files = decode_manifest(data, where=f"version {version.number}").files
        except (StoreError, ArtifactError) as error:  # who has the version already needs no bytes
            log.error("version %d is ordered without parcels: %s", version.number, error)
            return ()
        with self._store.database.read() as connection:
            found = parcels.of(connection, [file.sha256 for file in files.values()])
        self._known_parcels[version.number] = found
        return found

    def _obey(self, now_ms: int) -> bool:
        """Do what operators said since the last look, each in a transaction with its answer."""
        with self._store.database.read() as connection:
            commands = rollouts.unanswered(connection)
        for command in commands:
            with self._store.database.write() as connection:
                try:
                    answer = _do(connection, self._store, command, self._rules, self._signing, now_ms)
                except RolloutError as error:
                    answer = f"refused: {error}"
                rollouts.answer(connection, command.id, answer, now_ms=now_ms)
            log.info("rollout %d: %s: %s", command.rollout_id, command.word, answer)
        return bool(commands)


def _do(
    connection: sa.Connection,
    store: Store,
    command: rollouts.Command,
    rules: config.RingRules,
    signing: Signing | None,
    now_ms: int,
) -> str:
    current = rollouts.get(connection, command.rollout_id)
    if current is None:
        raise RolloutError(f"there is no rollout {command.rollout_id}")
    check_command(connection, current, command.word)
    state, step = rollout.obey(state_of(current), msgspec.convert(command.word, rollout.Word), command.reason)
    _keep(connection, current, state, (step,), now_ms)
    if command.word != "rollback":
        return step.text
    again = registry.publish_again(connection, store, current.previous, now_ms=now_ms)
    # Nobody is spared and nothing halts it: whoever holds the bad version is to be rid of it.
    everybody = Ring(name="all", rules=_unjudged(rules))
    number = _insert(connection, store, again.number, (everybody,), current.channel, now_ms)
    when = "" if may_go_out(again, signing) else ", once that is signed"
    return f"{step.text}; version {current.previous} goes out again as version {again.number}, rollout {number}{when}"


def _unjudged(rules: config.RingRules) -> config.RingRules:
    return config.RingRules(
        timeout_s=rules.timeout_s,
        soak_s=0.0,
        min_reported=0,
        max_failed_share=1.0,
        max_latency_ratio=0.0,
        max_confidence_drop=1.0,
        max_accuracy_drop=1.0,
    )


def check_command(connection: sa.Connection, current: rollouts.Rollout, word: str) -> None:
    """RolloutError when this cannot be done to a rollout as it stands."""
    if rollouts.newest(connection)[current.channel].id != current.id:
        raise RolloutError(f"{word}: rollout {current.id} is not the newest of channel {current.channel!r}")
    rollout.obey(state_of(current), msgspec.convert(word, rollout.Word), "")
    if word == "rollback" and not current.previous:
        raise RolloutError(f"rollback: version {current.version} is the first, there is none to go back to")


def begin(
    store: Store,
    number: int,
    rings: Sequence[Ring],
    *,
    channel: str,
    now_ms: int,
    signing: Signing | None = None,
    who: str = trail.SERVER,
    why: str = "",
) -> int:
    """Start to roll a version out to a channel; returns the rollout's id. RolloutError when that cannot be.

    `signing`: who vouches for versions; one that a fleet with keys has not signed is not rolled out. None: nobody.
    `who` and `why` go into the audit trail.

    One that runs and that no device has joined yet makes way.
    """
    if not is_name(channel):
        raise RolloutError(f"channel {channel!r}: expected letters, digits, - and _")
    with store.database.write() as connection:
        if not may_go_out(versions.get(connection, number), signing):
            raise RolloutError(
                f"version {number} is not signed, and devices refuse it: a running server that has the targets keys "
                f"signs it within seconds; else winnow-server model sign {number} --key FILE server.toml"
            )
        current = rollouts.current(connection, channel)
        if current is not None and not _may_begin(current):
            raise RolloutError(
                f"channel {channel!r} has rollout {current.id} of version {current.version} under way: see it through, "
                f"or winnow-server rollout halt {current.id}"
            )
        if current is not None and current.status == "running":
            steps = [rollout.Step("halted", f"given up for version {number}: no device had it yet")]
            rollouts.add_steps(connection, current.id, [step._asdict() for step in steps], now_ms=now_ms)
            rollouts.save(connection, current, state=current.state, status="superseded", now_ms=now_ms)
        rollout_id = _insert(connection, store, number, rings, channel, now_ms)
        detail = {"version": number, "channel": channel, "rings": [ring.name for ring in rings]}
        trail.record(connection, "roll out", f"rollout {rollout_id}", why=why, who=who, detail=detail, now_ms=now_ms)
        return rollout_id


def _insert(
    connection: sa.Connection, store: Store, number: int, rings: Sequence[Ring], channel: str, now_ms: int
) -> int:
    version = versions.get(connection, number)
    if version is None:
        known = ", ".join(str(one.number) for one in versions.every(connection)) or "none"
        raise RolloutError(f"version {number} is not in the registry; there are: {known}")
    before = versions.rolled_out(connection, channel) or versions.rolled_out(connection)
    previous = before.number if before else 0
    if number <= previous:
        raise RolloutError(
            f"version {number}: channel {channel!r} runs {previous}, and devices refuse what is not newer: "
            "winnow-server rollout rollback brings old weights back under a new number"
        )
    manifest = decode_manifest(store.blobs.get(version.manifest_sha256), where=f"version {number}")
    files = tuple(sorted(file.sha256 for file in manifest.files.values()))
    plan = rollout.Plan(version=number, previous=previous, files=files, rings=tuple(rings))
    text = f"version {number} to channel {channel}, which runs {previous or 'none of ours'}"
    rollout_id = rollouts.insert(
        connection,
        number=number,
        previous=previous,
        plan=msgspec.to_builtins(plan),
        state=msgspec.to_builtins(rollout.start(plan)),
        now_ms=now_ms,
        channel=channel,
    )
    step = rollout.Step("began", text)
    rollouts.add_steps(connection, rollout_id, [step._asdict()], now_ms=now_ms)
    log.info("rollout of version %d: %s", number, text)
    return rollout_id


def _with_approval(rings: Sequence[Ring]) -> tuple[Ring, ...]:
    """The same, but the first begins when somebody says so."""
    rules = msgspec.structs.replace(rings[0].rules, needs_approval=True)
    return (msgspec.structs.replace(rings[0], rules=rules), *rings[1:])


def may_go_out(version: Version | None, signing: Signing | None) -> bool:
    """Whether a version is signed, or nobody signs; what is not in the registry is complained of elsewhere."""
    return version is None or signing is None or not signing.on or (signing.ready and signing.covers(version))


def _may_begin(current: rollouts.Rollout | None) -> bool:
    return current is None or current.status != "running" or not current.state.get("members")


def _keep(
    connection: sa.Connection,
    current: rollouts.Rollout,
    state: rollout.State,
    steps: Sequence[rollout.Step],
    now_ms: int,
) -> bool:
    """Keep a state and what led to it; False when the rollout was ended from elsewhere since it was read."""
    status = STATUS[type(state)]
    if not rollouts.save(connection, current, state=msgspec.to_builtins(state), status=status, now_ms=now_ms):
        return False
    ends = status == "done" != current.status
    steps = [*steps, rollout.Step("done", f"version {current.version} is rolled out")] if ends else steps
    rollouts.add_steps(connection, current.id, [step._asdict() for step in steps], now_ms=now_ms)
    if status != current.status:
        why = steps[-1].text if steps else ""
        detail = {"version": current.version, "channel": current.channel}
        trail.record(connection, status, f"rollout {current.id}", why=why, detail=detail, now_ms=now_ms)
    for step in steps:
        log.info("rollout of version %d: %s", current.version, step.text)
    return True


def plan_of(current: rollouts.Rollout) -> rollout.Plan:
    """The plan as it was stored."""
    return msgspec.convert(current.plan, type=rollout.Plan)


def state_of(current: rollouts.Rollout) -> rollout.State:
    """The state as it was stored."""
    state: rollout.State = msgspec.convert(current.state, type=rollout.State)
    return state


def _stands(device: devices.Device, known: Assignment | None, wanted: Assignment | None) -> bool:
    """Whether a device needs no new word: signatures renewed every day are of no use to one that runs the version."""
    if known is None or wanted is None:
        return known is wanted
    if not known.is_for_same(wanted):
        return False
    model = executing_state(device)
    runs = model is not None and model.version == wanted.version and model.slot == "steady"
    return runs or (known.trust_sha256, known.url) == (wanted.trust_sha256, wanted.url)


def report_of(device: devices.Device) -> Report | None:
    """What a device said of itself in its present session; None before it did."""
    model, beat = executing_state(device), device.heartbeat
    if model is None:
        return None
    timed = beat is not None and beat.session == device.session
    return Report(
        seen_s=device.said_ms / 1000,
        version=model.version,
        sha256=model.sha256,
        slot=model.slot,
        fetching=model.fetching,
        fetched_share=model.fetched_share,
        trying=model.trying,
        tried_share=model.tried_share,
        refused=model.refused,
        latency_p95_ms=beat.latency_p95_ms if beat is not None and timed else 0.0,
    )
