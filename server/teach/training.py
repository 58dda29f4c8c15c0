"""How does a snapshot become a candidate, and is it good enough?

    labels -> snapshot (snapshot.py), and the run
    snapshot + champion -> candidate (candidate.py) -> both models, as shipped, on what is held out -> verdict

Runs in a process of its own (run.py). All that it leaves is in the store: the candidate's bytes among the blobs,
figures and verdict in the run's report, and the run's state `passed` or `rejected`. Publishing is not its business.
"""

from __future__ import annotations

import dataclasses
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from edge_agent.contract.artifact import Manifest, encode_manifest
from edge_agent.contract.errors import WinnowError
from edge_agent.contract.wire import Parcel
from server import config
from server.audit import bias
from server.errors import TrainingError
from server.store import curves, erasures, events, parcels, runs, snapshots, trail, training_orders, versions
from server.store.curves import CurvePoint
from server.store.snapshots import Snapshot
from server.store.store import Store
from server.teach import candidate, champions, dataset, judging, lesson, reference
from server.teach.answering import outputs
from server.teach.candidate import Candidate
from server.teach.champions import Champion
from server.teach.dataset import Dataset
from server.teach.environment import environment
from server.teach.gates.held import Held
from server.teach.lesson import Gain
from server.teach.listing import bias_of
from server.teach.progress import Progress, Say
from server.teach.snapshot import check, freeze

if TYPE_CHECKING:
    from models.package import Packaged


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """What a run is told, kept in its report."""

    teach: config.Teach
    gates: config.Gates
    snapshot: config.Snapshot = config.Snapshot()


def begin(store: Store, settings: Settings, *, why: str, say: Say, now_ms: Callable[[], int]) -> int:
    """Freeze what is labelled, and enter a run on it; returns its id. `why` goes into the audit trail."""
    with store.database.read() as connection:
        order = training_orders.last_id(connection)
    unlabelled = bool(settings.teach.pseudo_labels)
    snapshot = freeze(store, now_ms=now_ms(), settings=settings.snapshot, unlabelled=unlabelled)
    with store.database.write() as connection:
        champion = versions.champion(connection)
        run_id = runs.insert(
            connection,
            snapshot_id=snapshot.id,
            champion=champion.number if champion else 0,
            recipe=settings.teach.recipe,
            report={"settings": msgspec.to_builtins(settings)},
            now_ms=now_ms(),
        )
        training_orders.begun(connection, run_id, until=order)
        trail.record(connection, "train", f"run {run_id}", why=why, now_ms=now_ms())
    total = snapshot.train_count + snapshot.holdout_count
    of = f"snapshot {snapshot.id[:12]} of {total} labels, {snapshot.device_label_count} from devices"
    say(f"run {run_id} begins, {why}: {of}")
    return run_id


def run_round(store: Store, run_id: int, *, folder: Path, say: Say, now_ms: Callable[[], int]) -> None:
    """Train, package and judge; the outcome is in the store. TrainingError when it cannot be done.

    `folder`: for checkpoints, which are gone when there is an outcome.
    """
    with store.database.read() as connection:
        run = runs.get(connection, run_id)
        snapshot = snapshots.get(connection, run.snapshot_id) if run else None
    if run is None or snapshot is None:
        raise TrainingError(f"run {run_id}: is not in the store")
    settings = settings_of(run)
    champion = unlearned(store, champions.load(store, run.champion))

    def begin_judging() -> None:
        with store.database.write() as connection:
            runs.mark(connection, run_id, state="judging")

    make = partial(
        candidate.make,
        store,
        snapshot,
        champion=champion,
        teach=settings.teach,
        min_int8_agreement=settings.gates.min_int8_agreement,
        folder=folder,
        say=say,
        progress=Progress(say, event=partial(_event, store, run, now_ms), keep=partial(_keep, store, run)),
    )
    try:
        report = _round(store, settings, snapshot, champion, make, say, begin_judging, now_ms)
    except (WinnowError, OSError) as error:
        raise TrainingError(f"run {run_id}: {error}") from error
    state = "passed" if report["verdict"]["passed"] else "rejected"
    with store.database.write() as connection:
        kept = runs.finish(connection, run_id, state=state, report=report, now_ms=now_ms())
    if not kept:  # it was ended meanwhile: what it learned from may be erased, and its golden inputs with it
        store.blobs.erase([report["candidate"]["manifest_sha256"]])
        store.blobs.scrub()
    shutil.rmtree(folder, ignore_errors=True)


def _event(store: Store, run: runs.Run, now_ms: Callable[[], int], text: str, detail: Mapping[str, Any]) -> None:
    """How far a training is, for whoever looks at the fleet's events."""
    with store.database.write() as connection:
        told, said = f"run {run.id}: {text}", {"run": run.id, **detail}
        events.say(connection, "training", told, version=run.champion, detail=said, now_ms=now_ms())


def _keep(store: Store, run: runs.Run, points: Sequence[CurvePoint]) -> None:
    with store.database.write() as connection:
        curves.add(connection, run.id, points)


class _Report(msgspec.Struct):
    settings: Settings


def settings_of(run: runs.Run) -> Settings:
    """What a run was told."""
    return msgspec.convert(run.report, type=_Report).settings


def unlearned(store: Store, champion: Champion | None) -> Champion | None:
    """Without its weights, if these learned from what was erased since: nothing goes on from them."""
    with store.database.read() as connection:
        if champion is None or champion.number not in erasures.learned(connection):
            return champion
    return dataclasses.replace(champion, weights=b"")


def _round(
    store: Store,
    settings: Settings,
    snapshot: Snapshot,
    champion: Champion | None,
    make: Callable[[Dataset], Candidate],
    say: Say,
    begin_judging: Callable[[], None],
    now_ms: Callable[[], int],
) -> dict[str, Any]:
    started_s = time.monotonic()
    check(store, snapshot, settings.snapshot)
    data = read(store, settings, snapshot, champion, say)
    packaged, weights, went_on_from = make(data)
    begin_judging()
    say("judging")
    known = champions.known(store, snapshot.id, champion)
    held, figures, verdict, answers = judging.judge_candidate(
        data,
        snapshot.classes,
        packaged,
        champion,
        int8=settings.teach.int8,
        rules=settings.gates,
        known=known,
    )
    gains = _gains(store, data, held, packaged, champion)
    manifest = msgspec.structs.replace(packaged.manifest, metrics=packaged.manifest.metrics | figures)
    store.blobs.put(packaged.onnx)
    if verdict.passed:  # nobody runs the others
        _learn(store, manifest, packaged.onnx, say, now_ms=now_ms())
        say(_parcels(parcels.make(store, manifest), len(packaged.onnx)))
    return {
        "settings": msgspec.to_builtins(settings),
        "environment": environment(),
        "went_on_from": went_on_from,
        "train": len(data.train.y),
        "holdout": len(data.holdout.y),
        "left_out": data.left_out,
        "damaged": list(data.damaged),
        "bias": bias.shortened(bias_of(store, snapshot.id, now_ms=now_ms())),
        "seconds": round(time.monotonic() - started_s, 1),
        "figures": figures,
        "verdict": msgspec.to_builtins(verdict),
        "answers": msgspec.to_builtins(answers),
        "gains": msgspec.to_builtins(gains),
        "candidate": {
            "manifest_sha256": store.blobs.put(encode_manifest(manifest)),
            "weights_sha256": store.blobs.put(weights),
        },
    }


def read(store: Store, settings: Settings, snapshot: Snapshot, champion: Champion | None, say: Say) -> Dataset:
    """The snapshot's arrays; says what is left out."""
    data = dataset.load(
        store,
        snapshot,
        takes=champion.manifest.input if champion else None,
        task=champion.manifest.task if champion else None,
        max_damaged_share=settings.snapshot.max_damaged_share,
    )
    if data.left_out:
        say(f"{data.left_out} samples left out: not of the shape that the model takes, or not of its task")
    if data.damaged:
        say(f"{len(data.damaged)} samples left out: their bytes are damaged: {', '.join(data.damaged[:3])}")
    return data


def _parcels(made: Sequence[Parcel], whole_bytes: int) -> str:
    said = [f"{p.bytes} by {p.packing}" for p in made]
    return ", ".join([f"the model is {whole_bytes} bytes", *said])


def _learn(store: Store, manifest: Manifest, onnx: bytes, say: Say, *, now_ms: int) -> None:
    """Keep what drift is held against; a model without it is as good, only drift cannot be told apart."""
    try:
        reference.learn(store, manifest, onnx, now_ms=now_ms)
    except WinnowError as error:
        say(f"no reference for drift: {error}")


def _gains(store: Store, data: Dataset, held: Held, packaged: Packaged, champion: Champion | None) -> dict[str, Gain]:
    """What the labels that the champion did not know have taught, by who asked for them."""
    if champion is None or not packaged.manifest.embedding:
        return {}
    with store.database.read() as connection:
        version = versions.get(connection, champion.number)
        known = snapshots.sample_ids(connection, version.snapshot_id) if version else set()
    new = data.train.stream & ~np.isin(data.train.sample, sorted(known))
    if not (new.any() and held.stream.any()):
        return {}
    change = held.change[held.stream]
    (held_out,), (taught,) = (
        outputs(packaged, x, [packaged.manifest.embedding]) for x in (data.holdout.x[held.stream], data.train.x[new])
    )
    seen = lesson.Audit(change, 1.0 / held.probability[held.stream], held_out)
    return lesson.gains(seen, data.train.arm[new], taught)
