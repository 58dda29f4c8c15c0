"""How does labelled data get into the store without a device?

An .npz with `x`, `y` and `names` becomes samples of origin "import", with labels by labeler "import". Ids are made of
the file's name and the row, so that the same file again adds nothing; another file of the same name is refused.
"""

from __future__ import annotations

import re
import zlib
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import sqlalchemy as sa
from numpy.typing import NDArray

from edge_agent.contract.artifact import sha256_hex
from server.errors import StoreError
from server.store import erasures, labels, samples, trail
from server.store import fingerprints as stored
from server.store.schema import sample
from server.store.store import Store
from server.teach.fingerprint import fingerprints

LABELER = "import"
_ROWS_AT_ONCE = 500  # to one commit: fewer cost an fsync each, more hold up ingest


class Imported(NamedTuple):
    """What became of a file's rows."""

    new: int
    known: int  # here already
    not_finite: int  # NaN or infinity: left out


def import_file(
    store: Store,
    file: Path,
    *,
    split: Literal["train", "holdout"],
    now_ms: int,
    who: str = trail.SERVER,
    why: str = "",
) -> Imported:
    """Take in a labelled .npz; `who` and `why` go into the audit trail.

    Raises:
        DataError: it is none; the message says what was expected.
        StoreError: another file of that name is here, or this one in the other split.
    """
    from models.data import finite_rows, load_npz

    data = load_npz(file)
    stem = re.sub(r"[^A-Za-z0-9_-]", "-", file.stem).lstrip("-_")[:63] or "file"
    rows = np.flatnonzero(finite_rows(data.x))
    with store.database.write() as connection:  # only names that occur: a class without samples teaches nothing
        index = labels.ensure_names(connection, [data.names[k] for k in np.unique(data.y[rows])])
        detail = {"split": split, "rows": len(rows)}
        trail.record(connection, "import", f"import {stem}", why=why, who=who, detail=detail, now_ms=now_ms)
    new = 0
    for start in range(0, len(rows), _ROWS_AT_ONCE):
        batch = rows[start : start + _ROWS_AT_ONCE]
        classes = [index[data.names[data.y[row]]] for row in batch]
        new += _take(store, stem, split, batch, data.x[batch], classes, now_ms)
    return Imported(new=new, known=len(rows) - new, not_finite=len(data.x) - len(rows))


def _take(
    store: Store,
    stem: str,
    split: str,
    numbers: NDArray[np.intp],
    x: NDArray[Any],
    classes: list[int],
    now_ms: int,
) -> int:
    bodies = [zlib.compress(np.ascontiguousarray(array).tobytes(), 6) for array in x]
    rows = [_row(stem, split, int(n), array, body, now_ms) for n, array, body in zip(numbers, x, bodies, strict=True)]
    with store.database.write() as connection:  # the bytes as well: nothing is erased meanwhile
        names = [row["id"] for row in rows]
        gone = erasures.refused(connection, names)
        kept = [one for one in zip(rows, bodies, classes, strict=True) if one[0]["id"] not in gone]
        rows, classes = [row for row, _, _ in kept], [index for _, _, index in kept]
        store.blobs.put_many([body for _, body, _ in kept])
        new = samples.insert_samples(connection, rows)
        _check_known(connection, [row for row in rows if row["id"] not in new])
        labels.add(
            connection,
            [
                labels.Label(row["id"], class_index, LABELER, now_ms, kind=LABELER)
                for row, class_index in zip(rows, classes, strict=True)
                if row["id"] in new
            ],
        )
        prints = zip(names, fingerprints(x), strict=True)  # now, that a round need not wait
        stored.put(connection, [(name, one) for name, one in prints if name in new])
    return len(new)


def _row(stem: str, split: str, number: int, array: NDArray[Any], body: bytes, now_ms: int) -> dict[str, Any]:
    return {
        "id": f"import.{stem}.0.{number}",
        "device": "import",
        "stream": stem,
        "boot": 0,
        "seq": number,
        "ref": f"{stem}:{number}",
        "origin": "import",
        "split": split,
        "captured_at_ms": now_ms,
        "received_at_ms": now_ms,
        "dtype": str(array.dtype),
        "shape": list(array.shape),
        "encoding": "zlib",
        "body_sha256": sha256_hex(body),
        "body_bytes": len(body),
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
