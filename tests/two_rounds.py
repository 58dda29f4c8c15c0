"""Two rounds over a world with an oracle: labels, a snapshot, training, gates, a version."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
from device_words import FLEET, NOW_MS, SELECTION, frames, message
from task_worlds import World

from models.kinds.kind import kind_of, run
from server import config
from server.collect.ingest import Ingest
from server.release.registry import publish_passed
from server.store import labels, runs, snapshots
from server.store.labels import VALUED, Label
from server.store.store import Store
from server.teach import champions, dataset
from server.teach.champions import Champion
from server.teach.run import CHECKPOINTS
from server.teach.training import Settings, begin, run_round

SERVER = "server"  # the folder of its data
FIRST, ALL = 0.3, 0.8  # of the samples: what the champion knows, and what is labelled; the rest nobody saw


def label(store: Store, what: World, start: int, stop: int) -> None:
    """Samples of two devices, every third for the audit, answered by an oracle."""
    ingest = Ingest(store, fleet=FLEET, offline_after_s=90.0)
    names, sent = [f"cam-{1 + seq % 2}" for seq in range(start, stop)], []
    for name, seq in zip(names, range(start, stop), strict=True):
        selection = msgspec.structs.replace(SELECTION, reason="informative" if seq % 3 else "random")
        sent += [message(name, "sample", frame) for frame in frames(name, seq, data=what.x[seq], selection=selection)]
    ingest.take(sent)
    with store.database.write() as connection:
        labels.ensure_names(connection, what.names)
        rows = zip(names, range(start, stop), strict=True)
        labels.add(connection, [_answer(f"{n}.main.1.{seq}", what.truths[seq]) for n, seq in rows])


def _answer(sample: str, truth: dict[str, Any] | int) -> Label:
    if isinstance(truth, int):
        return Label(sample, truth, "oracle", NOW_MS)
    return Label(sample, VALUED, "oracle", NOW_MS, truth=truth)


def teach(store: Store, what: World, folder: Path, **told: object) -> runs.Run:
    settings = Settings(teach=config.Teach(**(what.told | told)), gates=config.Gates())  # type: ignore[arg-type]
    number = begin(store, settings, why="a test", say=lambda _: None, now_ms=lambda: NOW_MS)
    run_round(store, number, folder=folder / CHECKPOINTS, say=lambda _: None, now_ms=lambda: NOW_MS)
    with store.database.read() as connection:
        found = runs.get(connection, number)
    assert found is not None
    return found


def passed(done: runs.Run) -> runs.Run:
    assert done.state == "passed", [gate for gate in done.report["verdict"]["gates"] if gate["state"] == "failed"]
    return done


def published(store: Store, number: int) -> Champion:
    made = publish_passed(store, now_ms=NOW_MS)
    assert [one.number for one in made] == [number]
    found = champions.load(store, number)
    assert found is not None
    return found


def mean_score(model: Champion, what: World, rows: slice) -> float:
    kind = kind_of(model.manifest.task, model.manifest.classes, model.manifest.answer)
    return float(kind.score(run(model.onnx, model.manifest, what.x[rows]), what.y[rows]).mean())


@dataclass(frozen=True)
class Taught:
    """Two rounds: of the first labels, and of all."""

    folder: Path
    store: Store
    what: World
    before: Champion
    after: Champion
    report: dict[str, Any]  # of the second
    data: dataset.Dataset  # of the second's snapshot
    fresh: slice  # samples that neither saw


@contextmanager
def two_rounds(what: World, folder: Path, *, champion_epochs: int) -> Iterator[Taught]:
    """From no model to a second version, by what the server does."""
    with closing(Store.open(folder / SERVER)) as store:
        label(store, what, 0, _first(what))
        passed(teach(store, what, folder, epochs=champion_epochs))
        yield _second(store, what, folder, published(store, 1))


@contextmanager
def after_one(what: World, folder: Path) -> Iterator[Taught]:
    """The second version, of a server that was given the first."""
    with closing(Store.open(folder / SERVER)) as store:
        label(store, what, 0, _first(what))
        before = champions.load(store, 1)
        assert before is not None
        yield _second(store, what, folder, before)


def _first(what: World) -> int:
    return round(FIRST * len(what.x))


def _second(store: Store, what: World, folder: Path, before: Champion) -> Taught:
    """The rest is labelled, and taught."""
    last = round(ALL * len(what.x))
    label(store, what, _first(what), last)
    done = passed(teach(store, what, folder))
    after = published(store, 2)
    with store.database.read() as connection:
        frozen = snapshots.get(connection, done.snapshot_id)
    assert frozen is not None
    data = dataset.load(store, frozen, takes=after.manifest.input)
    return Taught(folder, store, what, before, after, done.report, data, slice(last, None))
