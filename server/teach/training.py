"""How does a snapshot become a candidate, and is it good enough?

    snapshot + champion's weights -> fit -> package (int8) -> both models, as shipped, on what is held out -> verdict

Runs in a process of its own (run.py). All that it leaves is in the store: the candidate's bytes among the blobs,
figures and verdict in the run's report, and the run's state `passed` or `rejected`. Publishing is not its business.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from edge_agent.contract.artifact import Manifest, decode_manifest, encode_manifest
from edge_agent.contract.errors import WinnowError
from edge_agent.contract.wire import Parcel
from server import config
from server.audit import bias
from server.errors import TrainingError
from server.store import parcels, runs, snapshots, versions
from server.store.snapshots import Snapshot
from server.store.store import Store
from server.teach import dataset, gates, lesson, reference
from server.teach.dataset import Dataset, Part
from server.teach.lesson import Gain
from server.teach.listing import bias_of
from server.teach.snapshot import check

if TYPE_CHECKING:
    from models.package import Packaged
    from models.train import Net

Say = Callable[[str], None]

CALIBRATION_SAMPLES = 512  # ranges settle with a few hundred; more only take time
LATENCY_SAMPLES = 200


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """What a run is told, kept in its report."""

    teach: config.Teach
    gates: config.Gates
    snapshot: config.Snapshot = config.Snapshot()


@dataclass(frozen=True)
class Champion:
    """The model to beat, and to go on from."""

    number: int
    manifest: Manifest
    onnx: bytes
    weights: bytes  # empty: none to go on from


def run_round(store: Store, run_id: int, *, say: Say, now_ms: Callable[[], int]) -> None:
    """Train, package and judge; the outcome is in the store. TrainingError when it cannot be done."""
    with store.database.read() as connection:
        run = runs.get(connection, run_id)
        snapshot = snapshots.get(connection, run.snapshot_id) if run else None
    if run is None or snapshot is None:
        raise TrainingError(f"run {run_id}: is not in the store")
    settings = msgspec.convert(run.report, type=_Report).settings
    champion = _champion(store, run.champion)

    def judging() -> None:
        with store.database.write() as connection:
            runs.mark(connection, run_id, state="judging")

    try:
        report = _round(store, settings, snapshot, champion, say, judging, now_ms)
    except WinnowError as error:
        raise TrainingError(f"run {run_id}: {error}") from error
    state = "passed" if report["verdict"]["passed"] else "rejected"
    with store.database.write() as connection:
        runs.finish(connection, run_id, state=state, report=report, now_ms=now_ms())


class _Report(msgspec.Struct):
    settings: Settings


def _champion(store: Store, number: int) -> Champion | None:
    with store.database.read() as connection:
        version = versions.get(connection, number)
    if version is None:
        return None
    manifest = decode_manifest(store.blobs.get(version.manifest_sha256), where=f"version {number}")
    onnx = store.blobs.get(manifest.variant("cpu-int8").sha256)
    weights = store.blobs.get(version.weights_sha256) if version.weights_sha256 else b""
    return Champion(number, manifest, onnx, weights)


def _round(
    store: Store,
    settings: Settings,
    snapshot: Snapshot,
    champion: Champion | None,
    say: Say,
    judging: Callable[[], None],
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
    judging()
    say("judging")
    agreement = packaged.int8_agreement if settings.teach.int8 else None
    held, figures = _compare(data.holdout, snapshot.classes, packaged, champion)
    gains = _gains(store, data, held, packaged, champion)
    verdict = gates.judge(held, int8_agreement=agreement, rules=settings.gates)
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


def _compare(
    part: Part, classes: Sequence[str], packaged: Packaged, champion: Champion | None
) -> tuple[gates.Held, dict[str, float]]:
    """Who was right on what is held out, and what that comes to."""
    label = np.array(classes, dtype=np.str_)[part.y]
    candidate = _right(packaged.manifest, packaged.onnx, part.x, label)
    before = _right(champion.manifest, champion.onnx, part.x, label) if champion else np.zeros_like(candidate)
    figures = {
        "onnx_bytes": float(len(packaged.onnx)),
        "latency_ms": _latency_ms(packaged.onnx, part.x),
        "fp32_accuracy": packaged.fp32_accuracy,
        **_accuracies("candidate", candidate, part),
    }
    if champion:
        figures |= {
            "champion_latency_ms": _latency_ms(champion.onnx, part.x),
            **_accuracies("champion", before, part),
        }
    held = gates.Held(candidate, before, part.stream, part.probability, part.device, label)
    return held, {key: value for key, value in figures.items() if value is not None}


def _gains(
    store: Store, data: Dataset, held: gates.Held, packaged: Packaged, champion: Champion | None
) -> dict[str, Gain]:
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


def _accuracies(who: str, right: NDArray[np.bool_], part: Part) -> dict[str, float | None]:
    weight = 1.0 / part.probability
    return {
        f"{who}_{origin}_accuracy": gates.accuracy(right[rows], weight[rows])
        for origin, rows in (("stream", part.stream), ("import", ~part.stream))
    }


def _right(manifest: Manifest, onnx: bytes, x: NDArray[Any], label: NDArray[np.str_]) -> NDArray[np.bool_]:
    """(N,) whether the model's top class, by name, is the label."""
    from models.evaluate import run_onnx

    embedding = manifest.embedding or manifest.logits  # one output is enough here
    logits, _ = run_onnx(onnx, x, logits=manifest.logits, embedding=embedding)
    named = np.array(manifest.classes, dtype=np.str_)[np.argmax(logits, axis=1)]
    right: NDArray[np.bool_] = named == label
    return right


def _latency_ms(onnx: bytes, x: NDArray[Any]) -> float:
    """Median milliseconds of one sample on this machine, one thread: to compare two models, not to promise."""
    from models.evaluate import open_session

    session = open_session(onnx)
    entry = session.get_inputs()[0].name
    times = []
    for i in range(min(LATENCY_SAMPLES, len(x))):
        started_s = time.perf_counter()
        session.run(None, {entry: x[i : i + 1]})
        times.append(time.perf_counter() - started_s)
    return float(np.median(times)) * 1000
