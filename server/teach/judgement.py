"""What did the gates say of a run, and how is that overruled?

A run that was rejected passes all the same when a person says so, with a name and a reason. Its verdict stays as it is:
the override stands beside it in the run's report, which the version points to, and in the audit trail. Publishing is
then as for any run that passed.
"""

from __future__ import annotations

import re
from contextlib import suppress
from typing import Any

import msgspec
import sqlalchemy as sa

from edge_agent.contract.artifact import decode_manifest
from edge_agent.contract.errors import WinnowError
from server.errors import TrainingError
from server.store import parcels, runs, trail, versions
from server.store.runs import Run
from server.store.store import Store
from server.teach import reference
from server.teach.gates.verdict import Gate, Verdict

View = dict[str, Any]
ORDER = ("failed", "too_little_evidence", "passed")


class Override(msgspec.Struct, frozen=True, kw_only=True):
    """Who let a rejected candidate pass."""

    by: str
    why: str
    at_ms: int
    gates: tuple[str, ...]  # that had failed


def override(store: Store, run_id: int, *, by: str, why: str, now_ms: int) -> Override:
    """Let a rejected run pass. TrainingError when it was not rejected, is out of date, or lacks a name or a reason."""
    if not by.strip() or not why.strip():
        raise TrainingError(f"run {run_id}: an override needs a name and a reason: --by NAME --why REASON")
    with store.database.read() as connection:
        run = _found(connection, str(run_id))
        _check(connection, run)
    _make_ready(store, run, now_ms)
    said = Override(by=by.strip(), why=why.strip(), at_ms=now_ms, gates=tuple(g.name for g in _verdict(run).failed()))
    with store.database.write() as connection:
        _check(connection, run)  # a version may have been published meanwhile
        if not runs.override(connection, run_id, report=run.report | {"override": msgspec.to_builtins(said)}):
            raise TrainingError(
                f"run {run_id}: somebody else was quicker: look with `winnow-server gates show {run_id}`"
            )
        detail = {"gates": list(said.gates), "champion": run.champion}
        trail.record(connection, "override", f"run {run_id}", who=said.by, why=said.why, detail=detail, now_ms=now_ms)
    return said


def _check(connection: sa.Connection, run: Run) -> None:
    if run.state != "rejected" or "candidate" not in run.report:
        raise TrainingError(f"run {run.id} is {run.state}: only a rejected one can be overridden")
    champion = versions.champion(connection)
    now = champion.number if champion else 0
    if now != run.champion:
        raise TrainingError(
            f"run {run.id} was held against version {run.champion}, and the fleet has version {now} by now: train again"
        )


def _make_ready(store: Store, run: Run, now_ms: int) -> None:
    """What a run that passed has made for its candidate, and one that was rejected has not."""
    sha256 = run.report["candidate"]["manifest_sha256"]
    manifest = decode_manifest(store.blobs.get(sha256), where=f"candidate of run {run.id}")
    parcels.make(store, manifest)
    with suppress(WinnowError):  # a version without it is as good; `winnow-server drift` says that it has none
        reference.learn(store, manifest, store.blobs.get(manifest.variant("cpu-int8").sha256), now_ms=now_ms)


# --- for people -------------------------------------------------------------------------------------------------------


def shown(store: Store, which: str) -> View:
    """The verdict on a run ("3") or on the run that made a version ("v7"). TrainingError when there is none."""
    with store.database.read() as connection:
        run = _found(connection, which)
    if "verdict" not in run.report:
        raise TrainingError(f"run {run.id} is {run.state}, and was not judged{': ' + run.error if run.error else ''}")
    verdict = _verdict(run)
    return {
        "run": run.id,
        "state": run.state,
        "champion": run.champion,
        "passed": verdict.passed,
        "override": run.report.get("override"),
        "gates": msgspec.to_builtins(sorted(verdict.gates, key=lambda gate: ORDER.index(gate.state))),
        "figures": run.report.get("figures", {}),
    }


def words(view: View, *, every: bool) -> list[str]:
    """As lines; slices that passed only with `every`."""
    gates = [msgspec.convert(gate, type=Gate) for gate in view["gates"]]
    count = {state: sum(gate.state == state for gate in gates) for state in ORDER}
    said = ", ".join(f"{number} {state.replace('_', ' ')}" for state, number in count.items() if number)
    lines = [f"run {view['run']} {view['state']}, against version {view['champion'] or 'none'}: {said}"]
    if override := view["override"]:
        lines.append(f"overridden by {override['by']}: {override['why']} (failed: {', '.join(override['gates'])})")
    quiet = [gate for gate in gates if not every and "/" in gate.name and gate.state != "failed"]
    lines += [_line(gate) for gate in gates if gate not in quiet]
    return [*lines, f"and {len(quiet)} slices, none surely worse: --all shows them"] if quiet else lines


def _line(gate: Gate) -> str:
    sign = "+" if gate.interval else ""
    interval = f" ({gate.interval[0]:+.3f} to {gate.interval[1]:+.3f})" if gate.interval else ""
    missing = f", about {gate.missing} more labels would settle it" if gate.missing else ""
    why = f"; {gate.why}" if gate.why else ""
    state = gate.state.replace("_", " ")
    return f"{gate.name}: {state}: {gate.figure:{sign}.3f}{interval}, limit {gate.limit:g}, n={gate.n}{missing}{why}"


def _found(connection: sa.Connection, which: str) -> Run:
    match = re.fullmatch(r"(v?)(\d{1,9})", which)
    if match is None:
        raise TrainingError(f"{which!r}: expected a run, as 3, or a version, as v7")
    kind, number = match[1], int(match[2])
    run_id: int | None = number
    if kind:
        version = versions.get(connection, number)
        if version is None:
            raise TrainingError(f"there is no version {number}: `winnow-server models` lists them")
        run_id = version.run_id
        if run_id is None:
            raise TrainingError(f"version {number} was not made by a run: nobody judged it")
    run = runs.get(connection, run_id or 0)
    if run is None:
        raise TrainingError(f"there is no run {run_id}; the newest is {runs.last_id(connection) or 'none'}")
    return run


def _verdict(run: Run) -> Verdict:
    return msgspec.convert(run.report["verdict"], type=Verdict)
