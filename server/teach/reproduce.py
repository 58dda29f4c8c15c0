"""Can a version be made again from what is recorded of it?

From its snapshot, settings, seed and the weights that it went on from; nothing new is frozen and nothing is kept. On
the machine and with the libraries it was made by, the weights and the model file are to be the same bits. Elsewhere
another order of additions is in the weights, and the figures are to be the same within TOLERANCE.
"""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from edge_agent.contract.artifact import decode_manifest, sha256_hex
from server.errors import TrainingError
from server.store import erasures, runs, snapshots, versions
from server.store.runs import Run
from server.store.snapshots import Snapshot
from server.store.store import Store
from server.store.versions import Version
from server.teach import candidate, champions, judging
from server.teach.candidate import Candidate
from server.teach.environment import differences, environment
from server.teach.progress import Progress, Say
from server.teach.training import read, settings_of

TOLERANCE = 0.01  # of a share: what other kernels change; more would hide another model, less fails on other processors
TIMED = "latency"  # in the name of a figure that is another each time


class Figure(NamedTuple):
    """Of a version, and of what was made again."""

    name: str
    was: float
    now: float


class Reproduced(NamedTuple):
    """How near it came."""

    version: int
    weights_same: bool  # bit by bit
    model_same: bool  # the file that ships, bit by bit
    figures: tuple[Figure, ...]
    differs: tuple[str, ...]  # of code, libraries and machine

    @property
    def same(self) -> bool:
        """Whether it is the same model: the same file, or the same figures within TOLERANCE."""
        return self.model_same or all(abs(one.was - one.now) <= TOLERANCE for one in self.figures)


def reproduce(store: Store, number: int, *, say: Say) -> Reproduced:
    """Make version `number` again and compare. TrainingError when what it was made of is not here any more."""
    version, run, snapshot = _record(store, number)
    made, figures = _make(store, run, snapshot, say)
    manifest = decode_manifest(store.blobs.get(version.manifest_sha256), where=f"version {number}")
    return Reproduced(
        version=number,
        weights_same=sha256_hex(made.weights) == version.weights_sha256,
        model_same=sha256_hex(made.packaged.onnx) in {file.sha256 for file in manifest.files.values()},
        figures=tuple(_figures(run.report.get("figures", {}), figures)),
        differs=tuple(differences(run.report.get("environment", {}), environment())),
    )


def _make(store: Store, run: Run, snapshot: Snapshot, say: Say) -> tuple[Candidate, dict[str, float]]:
    """A candidate as that run made it, and how it does on what is held out."""
    settings, champion = settings_of(run), champions.load(store, run.champion)
    if champion is not None and run.report.get("went_on_from", champion.number) == 0:
        champion = dataclasses.replace(champion, weights=b"")
    data = read(store, settings, snapshot, champion, say)
    with tempfile.TemporaryDirectory() as folder:
        made = candidate.make(
            store,
            snapshot,
            data,
            champion,
            teach=settings.teach,
            min_int8_agreement=settings.gates.min_int8_agreement,
            folder=Path(folder),
            say=say,
            progress=Progress(say),
        )
    judged = judging.judge_candidate(
        data,
        snapshot.classes,
        made.packaged,
        champion,
        int8=settings.teach.int8,
        rules=settings.gates,
        known=champions.known(store, snapshot.id, champion),
    )
    return made, judged.figures


def _record(store: Store, number: int) -> tuple[Version, Run, Snapshot]:
    with store.database.read() as connection:
        version = versions.get(connection, number)
        if version is None:
            raise TrainingError(f"version {number} is not in the registry: winnow-server models lists them")
        run = runs.get(connection, version.run_id) if version.run_id is not None else None
        snapshot = snapshots.get(connection, version.snapshot_id)
        if run is None or snapshot is None:
            raise TrainingError(f"version {number} was not trained here, but given by hand, or is an earlier one again")
        known = erasures.verify(connection, snapshot.id)
    if known.erased:
        raise TrainingError(
            f"version {number}: {known.erased} of its samples were erased since: it cannot be made again, and is to be "
            "replaced by one that never saw them"
        )
    if not known.whole:
        raise TrainingError(f"version {number}: its snapshot {snapshot.id[:12]} is not what its id says")
    return version, run, snapshot


def _figures(was: Mapping[str, Any], now: Mapping[str, float]) -> list[Figure]:
    names = [name for name in was if name in now and TIMED not in name and isinstance(was[name], (int, float))]
    return [Figure(name, float(was[name]), float(now[name])) for name in names]


def lines(done: Reproduced) -> list[str]:
    """For people."""
    found = [f"{one.name}: was {one.was:.6g}, is {one.now:.6g}" for one in done.figures]
    found += [f"not as it was: {line}" for line in done.differs]
    bits = {True: "the same bits", False: "other bits"}
    found.append(f"weights: {bits[done.weights_same]}; model file: {bits[done.model_same]}")
    verdict = "was made again" if done.same else "WAS NOT MADE AGAIN"
    return [*found, f"version {done.version} {verdict} (figures within {TOLERANCE:g} where bits differ)"]
