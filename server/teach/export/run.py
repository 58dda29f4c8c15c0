"""How does a snapshot leave the store?

As a folder that other programs read: Parquet, images, COCO, or a table. Only what its data rule, as it is now, lets be
exported, or shared, whatever was allowed when it was frozen. A chunk of members at a time, so that memory is bounded
and an export that was cut off goes on (journal.py). The audit trail says who exported what, and why.
"""

from __future__ import annotations

import hashlib
import shutil
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple, Protocol, get_args

import msgspec

from server.errors import StoreError
from server.store import rules, snapshots, trail
from server.store.rules import Rule, Use, rule_of
from server.store.snapshots import Snapshot
from server.store.store import Store
from server.store.wording import in_words, named
from server.teach.export.coco import Coco
from server.teach.export.images import PARTS, Images
from server.teach.export.journal import Chunk, File, Header, Journal
from server.teach.export.parquet import Parquet
from server.teach.export.record import Record
from server.teach.export.sheet import Sheet

Format = Literal["parquet", "images", "coco", "csv"]
FORMATS: tuple[Format, ...] = get_args(Format)
CHUNK_ROWS = 1000  # fewer are many files, more is lost to a kill


class Writer(Protocol):
    """The seam of a format."""

    def chunk(self, name: str, records: Iterable[Record]) -> tuple[int, list[File], int]:
        """Write a chunk: how many records, the files, and how many were damaged and left out."""
        ...

    def finish(self, chunks: Iterable[Chunk]) -> list[File]:
        """All chunks are there: write what joins them."""
        ...


_WRITERS: dict[Format, Callable[[Store, Journal, Snapshot], Writer]] = {
    "parquet": Parquet,
    "images": Images,
    "coco": Coco,
    "csv": Sheet,
}
_PICTURES: tuple[Format, ...] = ("images", "coco")


class Exported(NamedTuple):
    """What an export holds."""

    snapshot: str
    records: dict[str, int]  # split -> members
    left_out: dict[str, int]  # why -> members
    went_on: int  # chunks that were there already


def export(
    store: Store,
    snapshot_id: str,
    folder: Path,
    *,
    form: Format,
    share: bool = False,
    who: str = "",
    why: str = "no reason given",
    now_ms: int,
    chunk_rows: int = CHUNK_ROWS,
) -> Exported:
    """Write a snapshot, whose id begins so, to a folder; the same call again goes on.

    StoreError: nothing of it may be exported, or is of that form; the folder holds something else; the disk is full.
    """
    use: Use = "share" if share else "export"
    with store.database.read() as connection:
        snapshot = snapshots.find(connection, snapshot_id)
        now = rules.in_force(connection)
    digest = hashlib.sha256(msgspec.json.encode(now)).hexdigest()
    header = Header(snapshot=snapshot.id, format=form, use=use, rules_sha256=digest, chunk_rows=chunk_rows)
    journal = Journal(folder, header)
    went_on = len(journal.chunks)
    writer = _WRITERS[form](store, journal, snapshot)
    said = any(chunk.records for chunk in journal.chunks.values())
    try:
        for name, split, page in _chunks(store, snapshot, chunk_rows):
            if name in journal.chunks:
                continue
            allowed = _allowed(snapshot, page, now, use, form)
            if allowed.records and not said:  # before the first file: what a kill leaves of it is carried away, too
                _record(store, snapshot.id, use, {"format": form, "to": str(folder)}, who=who, why=why, now_ms=now_ms)
                said = True
            journal.add(_write(writer, name, split, allowed))
        found = _summed(snapshot, journal, went_on)
        if not sum(found.records.values()):
            raise StoreError(_nothing(found, use, form))
        if not journal.finished:
            joined = writer.finish(journal.chunks.values())
            detail = {"format": form, "records": found.records, "left_out": found.left_out}
            _record(store, snapshot.id, f"{use} whole", detail, who=who, why=why, now_ms=now_ms)
            journal.finish(joined, at_ms=now_ms)
        shutil.rmtree(folder / PARTS, ignore_errors=True)
    except OSError as error:
        raise StoreError(f"{folder}: {error.strerror}: mend it, and the same command goes on") from error
    return found


def _chunks(store: Store, snapshot: Snapshot, rows: int) -> Iterator[tuple[str, str, Sequence[Any]]]:
    """(name, split, members) in an order that never changes; the catalogue is not held meanwhile."""
    for split in ("train", "holdout"):
        after, number = "", 0
        while True:
            with store.database.read() as connection:
                page = snapshots.page(connection, snapshot.id, after=after, split=split, limit=rows)
            if not page:
                break
            yield f"{split}-{number:05d}", split, page
            after, number = str(page[-1].id), number + 1


class _Allowed(NamedTuple):
    records: list[Record]
    left_out: dict[str, int]


def _allowed(snapshot: Snapshot, page: Sequence[Any], now: Sequence[Rule], use: Use, form: Format) -> _Allowed:
    records, left_out = [], Counter[str]()
    for row in page:
        current = rule_of(now, row.device, row.stream)
        rule = snapshot.rules[row.rule] if row.rule is not None else current
        said = in_words(row.class_index, row.truth, snapshot.classes)
        record = Record(row, said, named(row.truth, snapshot.classes), rule)
        if not current.allows(use):
            left_out["not_allowed"] += 1
        elif form in _PICTURES and not record.is_picture:
            left_out["no_picture"] += 1
        elif row.truth is not None and (form == "images" or (form == "coco" and "boxes" not in row.truth)):
            left_out["more_than_a_class" if form == "images" else "no_boxes"] += 1
        else:
            records.append(record)
    return _Allowed(records, dict(left_out))


def _write(writer: Writer, name: str, split: str, allowed: _Allowed) -> Chunk:
    if not allowed.records:
        return Chunk(name=name, split=split, records=0, files=(), left_out=allowed.left_out)
    records, files, damaged = writer.chunk(name, allowed.records)
    left_out = allowed.left_out | ({"damaged": damaged} if damaged else {})
    return Chunk(name=name, split=split, records=records, files=tuple(files), left_out=left_out)


def _summed(snapshot: Snapshot, journal: Journal, went_on: int) -> Exported:
    records, left_out = Counter[str](), Counter[str]()
    for chunk in journal.chunks.values():
        records[chunk.split] += chunk.records
        left_out.update(chunk.left_out)
    return Exported(snapshot.id, dict(records), dict(left_out), went_on)


def _nothing(found: Exported, use: Use, form: Format) -> str:
    left = ", ".join(f"{number} {why.replace('_', ' ')}" for why, number in found.left_out.items()) or "it is empty"
    help_ = {
        "not_allowed": f"`winnow-server data rule SCOPE --uses ...,{use}`",
        "no_picture": "--format parquet",
        "more_than_a_class": "a folder is of one class: --format coco for boxes, else parquet",
        "no_boxes": "--format parquet",
    }
    todo = "; ".join(text for why, text in help_.items() if why in found.left_out)
    return f"snapshot {found.snapshot[:12]}: nothing to {use} as {form}: {left}{': see ' + todo if todo else ''}"


def _record(
    store: Store, snapshot_id: str, what: str, detail: dict[str, Any], *, who: str, why: str, now_ms: int
) -> None:
    with store.database.write() as connection:
        trail.record(
            connection,
            what,
            f"snapshot {snapshot_id}",
            why=why,
            who=who or trail.person(),
            detail=detail,
            now_ms=now_ms,
        )
