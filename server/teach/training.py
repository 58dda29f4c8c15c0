"""How does a snapshot become a candidate, and is it good enough?

    snapshot + champion's weights -> fit -> package (int8) -> both models, as shipped, on what is held out -> verdict

Runs in a process of its own (run.py). All that it leaves is in the store: the candidate's bytes among the blobs,
figures and verdict in the run's report, and the run's state `passed` or `rejected`. Publishing is not its business.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from edge_agent.contract.artifact import Manifest, encode_manifest
from edge_agent.contract.errors import WinnowError
from edge_agent.contract.wire import Parcel
from server import config
from server.audit import bias
from server.errors import TrainingError
from server.store import parcels, runs, snapshots, versions
from server.store.snapshots import Snapshot
from server.store.store import Store
from server.teach import champions, dataset, judging, lesson, reference
from server.teach.champions import Champion
from server.teach.dataset import Dataset, Part
from server.teach.gates.held import Held
from server.teach.lesson import Gain
from server.teach.listing import bias_of
from server.teach.snapshot import check

if TYPE_CHECKING:
    from models.package import Packaged
    from models.train import Net

Say = Callable[[str], None]

CALIBRATION_SAMPLES = 512  # ranges settle with a few hundred; more only take time


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """What a run is told, kept in its report."""

    teach: config.Teach
    gates: config.Gates
    snapshot: config.Snapshot = config.Snapshot()


def run_round(store: Store, run_id: int, *, say: Say, now_ms: Callable[[], int]) -> None:
    """Train, package and judge; the outcome is in the store. TrainingError when it cannot be done."""
    with store.database.read() as connection:
        run = runs.get(connection, run_id)
        snapshot = snapshots.get(connection, run.snapshot_id) if run else None
    if run is None or snapshot is None:
        raise TrainingError(f"run {run_id}: is not in the store")
    settings = msgspec.convert(run.report, type=_Report).settings
    champion = champions.load(store, run.champion)

    def begin_judging() -> None:
        with store.database.write() as connection:
            runs.mark(connection, run_id, state="judging")

    try:
        report = _round(store, settings, snapshot, champion, say, begin_judging, now_ms)
    except WinnowError as error:
        raise TrainingError(f"run {run_id}: {error}") from error
    state = "passed" if report["verdict"]["passed"] else "rejected"
    with store.database.write() as connection:
        runs.finish(connection, run_id, state=state, report=report, now_ms=now_ms())


class _Report(msgspec.Struct):
    settings: Settings


def _round(
    store: Store,
    settings: Settings,
    snapshot: Snapshot,
    champion: Champion | None,
    say: Say,
    begin_judging: Callable[[], None],
    now_ms: Callable[[], int],
) -> dict[str, Any]:
    started_s = time.monotonic()
    check(store, snapshot, settings.snapshot)
    data = dataset.load(
        store,
        snapshot,
        takes=champion.manifest.input if champion else None,
        max_damaged_share=settings.snapshot.max_damaged_share,
    )
    if data.left_out:
        say(f"{data.left_out} samples left out: not of the shape that the model takes")
    if data.damaged:
        say(f"{len(data.damaged)} samples left out: their bytes are damaged: {', '.join(data.damaged[:3])}")
    net = _fit(data.train, snapshot.classes, settings.teach, champion, say)
    say("exporting and quantising")
    packaged = _package(net, data, snapshot, settings, champion)
    begin_judging()
    say("judging")
    known = champions.known(store, snapshot.id, champion)
    held, figures, verdict = judging.judge_candidate(
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
        "train": len(data.train.y),
        "holdout": len(data.holdout.y),
        "left_out": data.left_out,
        "damaged": list(data.damaged),
        "bias": bias.shortened(bias_of(store, snapshot.id, now_ms=now_ms())),
        "seconds": round(time.monotonic() - started_s, 1),
        "figures": figures,
        "verdict": msgspec.to_builtins(verdict),
        "gains": msgspec.to_builtins(gains),
        "candidate": {
            "manifest_sha256": store.blobs.put(encode_manifest(manifest)),
            "weights_sha256": store.blobs.put(net.weights()),
        },
    }


def _parcels(made: Sequence[Parcel], whole_bytes: int) -> str:
    said = [f"{p.bytes} by {p.packing}" for p in made]
    return ", ".join([f"the model is {whole_bytes} bytes", *said])


def _learn(store: Store, manifest: Manifest, onnx: bytes, say: Say, *, now_ms: int) -> None:
    """Keep what drift is held against; a model without it is as good, only drift cannot be told apart."""
    try:
        reference.learn(store, manifest, onnx, now_ms=now_ms)
    except WinnowError as error:
        say(f"no reference for drift: {error}")


def _fit(part: Part, classes: Sequence[str], teach: config.Teach, champion: Champion | None, say: Say) -> Net:
    from models import train

    wanted = ("recipe", "epochs", "batch_size", "learning_rate", "threads", "seed", "part")
    settings = train.Settings(**{key: getattr(teach, key) for key in wanted})
    # The rows of the head are the parent's classes: they must be the first of ours, in the same order.
    grows = champion is not None and champion.manifest.classes == tuple(classes[: len(champion.manifest.classes)])
    parent = champion.weights if champion and grows else b""
    say(f"{'going on from version ' + str(champion.number) if champion and parent else 'from scratch'}")
    return train.fit(
        part.x,
        part.y,
        classes=len(classes),
        settings=settings,
        parent=parent or None,
        progress=lambda _share, text: say(text),
    )


def _package(net: Net, data: Dataset, snapshot: Snapshot, settings: Settings, champion: Champion | None) -> Packaged:
    from models.package import ParentFile, package

    teach = settings.teach
    rng = np.random.default_rng(teach.seed)
    some = rng.permutation(len(data.train.x))[:CALIBRATION_SAMPLES]
    return package(
        net,
        name=champion.manifest.name if champion else "model",
        names=snapshot.classes,
        version=champion.number + 1 if champion else 1,  # of the draft; the registry gives the real one
        calibration=data.train.x[some],
        holdout=(data.holdout.x, data.holdout.y),
        parent=champion.number if champion else 0,
        snapshot=snapshot.id,
        int8=teach.int8,
        unit=champion.manifest.input.unit if champion else "",
        created_at=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        parent_file=ParentFile(champion.onnx, settings.gates.min_int8_agreement)
        if champion and "cpu-int8" in champion.manifest.files
        else None,
    )


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
    change = held.candidate[held.stream].astype(np.float64) - held.champion[held.stream]
    seen = lesson.Audit(change, 1.0 / held.probability[held.stream], _embedding(packaged, data.holdout.x[held.stream]))
    return lesson.gains(seen, data.train.arm[new], _embedding(packaged, data.train.x[new]))


def _embedding(packaged: Packaged, x: NDArray[Any]) -> NDArray[np.float32]:
    from models.evaluate import run_onnx

    manifest = packaged.manifest
    return run_onnx(packaged.onnx, x, logits=manifest.logits, embedding=manifest.embedding)[1]
