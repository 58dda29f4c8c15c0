"""How does labelled data get into the store without a device?

An .npz (`x`, `y` and `names`; or with boxes, several classes or numbers), a COCO document or a table beside a folder of
pictures becomes samples of origin "import", with labels by labeler "import". Ids are made of the file's name and the
row, so that the same file again adds nothing; another file of the same name is refused.
"""

from __future__ import annotations

import logging
import re
import zlib
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import sqlalchemy as sa
from numpy.typing import NDArray

from edge_agent.contract.artifact import sha256_hex
from edge_agent.contract.errors import MessageError
from edge_agent.contract.images import Kind
from edge_agent.contract.task import Task, plain, truth_of
from server.errors import StoreError
from server.store import erasures, labels, samples, trail, truth_arrays
from server.store import fingerprints as stored
from server.store.fingerprints import Fingerprint
from server.store.schema import sample
from server.store.store import Store
from server.store.truth_arrays import kinds_in
from server.store.wording import numbered
from server.teach import pictures
from server.teach.fingerprint import fingerprints

log = logging.getLogger(__name__)

Split = Literal["train", "holdout"]
LABELER = "import"
_ROWS_AT_ONCE = 500  # to one commit: fewer cost an fsync each, more hold up ingest


class Imported(NamedTuple):
    """What became of a file's rows."""

    new: int
    known: int  # here already
    not_finite: int  # NaN or infinity: left out


class Item(NamedTuple):
    """One sample of a file."""

    number: int
    array: NDArray[Any]
    body: bytes
    encoding: str
    class_index: int
    truth: dict[str, Any] | None = None


def import_file(
    store: Store,
    file: Path,
    *,
    split: Split,
    now_ms: int,
    images: Path | None = None,
    task: Task = "classification",
    who: str = trail.SERVER,
    why: str = "",
) -> Imported:
    """Take in labelled samples; `who` and `why` go into the audit trail.

    Args:
        store: where to.
        file: an .npz with x, y, names; or with truths (store/truth_arrays.py); or, with `images`, a COCO document or a
            table (pictures.py).
        split: what the samples serve.
        now_ms: the time.
        images: folder of the pictures that `file` names.
        task: of the server: what the file tells has to be of it.
        who: says so.
        why: he does.

    Raises:
        DataError: it is none; the message says what was expected.
        StoreError: another file of that name is here, or this one in the other split; it is of another task, or wrong.
    """
    source = Source(re.sub(r"[^A-Za-z0-9_-]", "-", file.stem).lstrip("-_")[:63] or "file", split, now_ms, who, why)
    if images is not None:
        return _pictures(store, source, file, images, task)
    if kinds_in(file):
        return _truths(store, source, file, task)
    from models.data import finite_rows, load_npz

    _check_task("classification", task, file)
    data = load_npz(file)
    rows = np.flatnonzero(finite_rows(data.x))  # only names that occur: a class without samples teaches nothing
    index = _begin(store, source, [data.names[k] for k in np.unique(data.y[rows])], len(rows))
    items = (_packed(int(row), data.x[row], index[data.names[data.y[row]]]) for row in rows)
    new = _take_all(store, source, items)
    return Imported(new=new, known=len(rows) - new, not_finite=len(data.x) - len(rows))


class Source(NamedTuple):
    """A file, and what it is taken in for."""

    stem: str
    split: Split
    now_ms: int
    who: str
    why: str


def _truths(store: Store, source: Source, file: Path, task: Task) -> Imported:
    from models.data import finite_rows

    found = truth_arrays.read(file)
    _check_task(found.task, task, file)
    finite = finite_rows(found.x)
    told = [(row, said) for row, said in enumerate(found.said) if finite[row]]
    index = _begin(store, source, found.names, len(told))
    items = (_packed(row, found.x[row], labels.VALUED, _plain(said, index)) for row, said in told)
    new = _take_all(store, source, items)
    return Imported(new, len(told) - new, len(finite) - len(told))


def _pictures(store: Store, source: Source, file: Path, folder: Path, task: Task) -> Imported:
    found = pictures.read(file, folder)
    _check_task(found.task, task, file)
    looked = [pictures.look(one, file) for one in found.pictures]  # all are there, before any is taken in
    index = _begin(store, source, found.names, len(found.pictures))

    def item(one: pictures.Picture, as_seen: tuple[Kind, tuple[int, ...]]) -> Item:
        kind, shape = as_seen
        body = pictures.body_of(one, file)
        array = _decoded(store, one, kind, shape, body, file)
        return Item(one.number, array, body, kind, labels.VALUED, _plain(one.said, index))

    if found.crowds:
        log.warning("%s: %d annotations are of crowds, which are no single box: they are left out", file, found.crowds)
    new = _take_all(store, source, map(item, found.pictures, looked))
    return Imported(new, len(found.pictures) - new, 0)


def _decoded(
    store: Store, one: pictures.Picture, kind: Kind, shape: tuple[int, ...], body: bytes, file: Path
) -> NDArray[Any]:
    """In the sandbox. StoreError when it is no picture, or of another shape."""
    try:
        return store.images.decode(body, kind, shape)
    except MessageError as error:
        raise StoreError(f"{file}: image {one.number}: {one.path}: {error}") from error


def _plain(said: dict[str, Any], index: Mapping[str, int]) -> dict[str, Any]:
    return plain(truth_of(numbered(said, index)))


def _check_task(found: Task, task: Task, file: Path) -> None:
    if found != task:
        raise StoreError(
            f"{file}: is labelled for {found}, and this server is for {task}: set [server] task = {found!r} in "
            "server.toml, with a data_dir of its own"
        )


def _begin(store: Store, source: Source, names: Iterable[str], rows: int) -> dict[str, int]:
    """The index of each name; the import is in the audit trail."""
    with store.database.write() as connection:
        index = labels.ensure_names(connection, names)
        detail = {"split": source.split, "rows": rows}
        subject = f"import {source.stem}"
        trail.record(connection, "import", subject, why=source.why, who=source.who, detail=detail, now_ms=source.now_ms)
    return index


def _packed(number: int, array: NDArray[Any], class_index: int, truth: dict[str, Any] | None = None) -> Item:
    return Item(number, array, zlib.compress(np.ascontiguousarray(array).tobytes(), 6), "zlib", class_index, truth)


def _take_all(store: Store, source: Source, items: Iterable[Item]) -> int:
    """A bounded number to a commit; returns how many were new."""
    new, each = 0, iter(items)
    while batch := list(islice(each, _ROWS_AT_ONCE)):
        new += _take(store, source, batch)
    return new


def _take(store: Store, source: Source, items: Sequence[Item]) -> int:
    with store.database.write() as connection:  # the bytes as well: nothing is erased meanwhile
        every = [(one, _row(source, one)) for one in items]
        gone = erasures.refused(connection, [row["id"] for _, row in every])
        kept = [(one, row) for one, row in every if row["id"] not in gone]
        store.blobs.put_many([one.body for one, _ in kept])
        new = samples.insert_samples(connection, [row for _, row in kept])
        _check_known(connection, [row for _, row in kept if row["id"] not in new])
        told = [(one, row["id"]) for one, row in kept if row["id"] in new]
        labels.add(connection, [_label(source, one, name) for one, name in told])
        stored.put(connection, _prints(told))  # now, that a round need not wait
    return len(new)


def _label(source: Source, one: Item, name: str) -> labels.Label:
    return labels.Label(name, one.class_index, LABELER, source.now_ms, kind=LABELER, truth=one.truth)


def _prints(told: Sequence[tuple[Item, str]]) -> list[tuple[str, Fingerprint]]:
    """What samples look like, those of one shape together."""
    by_shape: dict[tuple[int, ...], list[tuple[Item, str]]] = defaultdict(list)
    for one, name in told:
        by_shape[one.array.shape].append((one, name))
    found: list[tuple[str, Fingerprint]] = []
    for some in by_shape.values():
        found += zip([name for _, name in some], fingerprints(np.stack([one.array for one, _ in some])), strict=True)
    return found


def _row(source: Source, one: Item) -> dict[str, Any]:
    return {
        "id": f"import.{source.stem}.0.{one.number}",
        "device": "import",
        "stream": source.stem,
        "boot": 0,
        "seq": one.number,
        "ref": f"{source.stem}:{one.number}",
        "origin": "import",
        "split": source.split,
        "captured_at_ms": source.now_ms,
        "received_at_ms": source.now_ms,
        "dtype": str(one.array.dtype),
        "shape": list(one.array.shape),
        "encoding": one.encoding,
        "body_sha256": sha256_hex(one.body),
        "body_bytes": len(one.body),
    }


def _check_known(connection: sa.Connection, rows: list[dict[str, Any]]) -> None:
    query = sa.select(sample.c.id, sample.c.body_sha256, sample.c.split)
    found = {row.id: row for row in connection.execute(query.where(sample.c.id.in_([row["id"] for row in rows])))}
    for row in rows:
        there = found[row["id"]]
        if there.body_sha256 != row["body_sha256"]:
            raise StoreError(f"{row['id']}: another file named {row['stream']!r} was imported before: rename this one")
        if there.split != row["split"]:
            raise StoreError(f"{row['id']}: is here for {there.split!r}, and what is held out must never be trained on")
