"""What is a model to learn from?

`freeze` takes every labelled sample as it is at one moment, with the data rules that are in force. Splits were decided
when the samples arrived and are never changed, so what is held out now was held out of every training before; who takes
no part is decided anew each time (splits.py). Uploads that wait for a label are frozen with them where a training is to
learn from these, too: under the same rules, so that nothing held out is learned by a way round, and what a version
learned from is written down.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from itertools import groupby
from typing import Any, NamedTuple

import numpy as np

from server.audit.evidence import asked_about
from server.config import Snapshot as Settings
from server.errors import StoreError, TrainingError
from server.store import embeddings, erasures, fingerprints, labels, samples, snapshots, versions
from server.store.rules import Rule, in_force, rule_of
from server.store.samples import sample_arrays
from server.store.snapshots import NO_CLASS, UNLABELLED, LeftOut, Member, Snapshot
from server.store.store import Store
from server.teach import contamination
from server.teach.contamination import NONE, Look
from server.teach.fingerprint import fingerprints as made_of
from server.teach.splits import WHY, into_split, sort_out

log = logging.getLogger(__name__)

DEFAULT = Settings()
TRIES = 3
_ROWS_AT_ONCE = 256  # to one commit
UNLABELLED_MOST = 4096  # that wait for a label and are learned from: more only take memory
BATCH_BYTES = 4_000_000  # of raw samples in memory at once; they take some ten times as much for a moment


class _Found(NamedTuple):
    """The store, at one moment."""

    rows: Sequence[Any]  # labelled
    waiting: Sequence[Any]  # for a label, to be learned from all the same
    held: Sequence[Any]  # held out, labelled or not
    rules: list[Rule]
    classes: tuple[str, ...]
    plans: list[int]
    champion: int  # version, 0: none
    erasure: int  # the last


def freeze(store: Store, *, now_ms: int, settings: Settings = DEFAULT, unlabelled: bool = False) -> Snapshot:
    """Freeze the labelled samples, and what waits if wanted; the same labels give the same snapshot.

    What is erased or removed while it is made is not in it. StoreError: that goes faster than it can be made.
    """
    for _ in range(TRIES):
        found = _look(store, unlabelled)
        left_out = sort_out([*found.rows, *found.waiting], found.held, found.rules, settings)
        if settings.near_duplicates != "keep":
            left_out += _duplicates(store, found, {one.sample_id for one in left_out}, settings)
        if (made := _keep(store, found, left_out, now_ms)) is not None:
            return made
    raise StoreError(
        f"snapshot: something was erased or removed each of {TRIES} times while it was made: try again later"
    )


def _look(store: Store, unlabelled: bool) -> _Found:
    with store.database.read() as connection:  # not while we hold the right to write: ingest needs it
        champion = versions.champion(connection)
        most = UNLABELLED_MOST if unlabelled else 0
        return _Found(
            rows=snapshots.labelled(connection),
            waiting=labels.waiting(connection, limit=most, newest=True, split="train") if most else (),
            held=snapshots.held_out(connection),
            rules=in_force(connection),
            classes=labels.names(connection),
            plans=labels.plans(connection),
            champion=champion.number if champion else 0,
            erasure=erasures.last_id(connection),
        )


def _keep(store: Store, found: _Found, left_out: list[LeftOut], now_ms: int) -> Snapshot | None:
    """None: something was erased since that may be in it, or one of its samples was removed."""
    gone = {one.sample_id for one in left_out}
    asked = asked_about(found.rows, found.plans)
    used, rules = _used(found)
    members = [
        Member(
            row.id,
            row.class_index,
            row.split,
            into_split(row, chance),
            row.labeler,
            used[row.device, row.stream],
            row.truth,
        )
        for row, chance in zip(found.rows, asked.tolist(), strict=True)
        if row.id not in gone
    ]
    train = sum(member.split == "train" for member in members)
    holdout = len(members) - train
    members += [
        Member(row.id, NO_CLASS, UNLABELLED, None, rule=used[row.device, row.stream])
        for row in found.waiting
        if row.id not in gone
    ]
    waiting = {row.id for row in found.waiting}
    left_out = [one for one in left_out if one.sample_id not in waiting]  # they were nowhere to be left out of
    made = Snapshot(
        id=snapshots.identify(members, found.classes, rules=rules, left_out=left_out),
        created_at_ms=now_ms,
        classes=found.classes,
        train_count=train,
        holdout_count=holdout,
        device_label_count=sum(row.origin == "device" and row.id not in gone for row in found.rows),
        rules=tuple(rules),
    )
    with store.database.write() as connection:
        if erasures.last_id(connection) != found.erasure:
            return None
        ids = {*(one.sample_id for one in members), *(one.sample_id for one in left_out)}
        if len(samples.body_names(connection, ids)) < len(ids):
            return None
        snapshots.insert(connection, made, members, left_out)
        kept = snapshots.get(connection, made.id) or made
    if left_out:
        log.info("snapshot %s: left out %s", made.id[:12], left_out_line(Counter(one.why for one in left_out)))
    return kept


def check(store: Store, snapshot: Snapshot, settings: Settings = DEFAULT) -> None:
    """Whether a snapshot may be trained on.

    Raises:
        TrainingError: samples that teach show what held-out ones show, and `[snapshot] near_duplicates` is "refuse", or
            they are more than `max_duplicate_share` of all. Without them, as the snapshot is, too little would be left.
    """
    with store.database.read() as connection:
        left_out = snapshots.left_out(connection, snapshot.id)
    same = [one for one in left_out if one.why == "near_duplicate"]
    if not same:
        return
    train = snapshot.train_count + len(same)
    pair = f"{same[0].sample_id} {same[0].beside}"
    what = f"{len(same)} of {train} samples to train on show what held-out ones show, as {pair}"
    if settings.near_duplicates == "refuse":
        raise TrainingError(f'{what}: [snapshot] near_duplicates = "refuse"; "leave_out" goes on without them')
    if len(same) > settings.max_duplicate_share * train:
        raise TrainingError(
            f"{what}: more than [snapshot] max_duplicate_share = {settings.max_duplicate_share:g}: where a scene "
            'stands still for good that is no leak, and near_duplicates = "keep" is right; else raise the share'
        )


def left_out_line(counts: Counter[str]) -> str:
    """How many labelled samples are no members, and why.

    >>> left_out_line(Counter(near_duplicate=3))
    '3 that show what a held-out sample shows'
    """
    words = {"near_duplicate": "that " + WHY["near_duplicate"]}
    return ", ".join(f"{counts[why]} {words.get(why, said)}" for why, said in WHY.items() if counts[why])


def _used(found: _Found) -> tuple[dict[tuple[str, str], int], list[Rule]]:
    """The rule of every stream as an index into those that matter here."""
    streams = sorted({(row.device, row.stream) for row in (*found.rows, *found.waiting)})
    of = {stream: rule_of(found.rules, *stream) for stream in streams}
    rules = sorted(dict.fromkeys(of.values(), 0), key=lambda rule: (rule.device, rule.stream))
    return {stream: rules.index(rule) for stream, rule in of.items()}, rules


# --- what shows the same ----------------------------------------------------------------------------------------------


def _duplicates(store: Store, found: _Found, gone: Collection[str], settings: Settings) -> list[LeftOut]:
    train = [row for row in (*found.rows, *found.waiting) if row.split == "train" and row.id not in gone]
    if not (train and found.held):
        return []
    class_of = {row.id: row.class_index for row in found.rows}
    ids = [[row.id for row in part] for part in (train, found.held)]
    train_looks, held_looks = _looks(store, ids, class_of, found.champion)
    twin = contamination.twins(train_looks, held_looks, cosine=settings.duplicate_cosine)
    return [LeftOut(train[i].id, "near_duplicate", ids[1][twin[i]]) for i in np.flatnonzero(twin != NONE)]


def _looks(
    store: Store, ids: Sequence[Sequence[str]], class_of: dict[str, int], champion: int
) -> tuple[list[Look], ...]:
    every = [name for some in ids for name in some]
    prints = _fingerprints(store, every)
    with store.database.read() as connection:
        seen = embeddings.of(connection, version=champion, ids=every) if champion else {}
    return tuple(
        [Look(prints.get(name), seen[name].vector if name in seen else None, class_of.get(name, NONE)) for name in some]
        for some in ids
    )


def _fingerprints(store: Store, ids: Sequence[str]) -> dict[str, fingerprints.Fingerprint]:
    """Of all whose bodies can be read; those that are not in the store yet are made."""
    with store.database.read() as connection:
        known = fingerprints.of(connection, ids)
    missing = [name for name in ids if name not in known]
    for start in range(0, len(missing), _ROWS_AT_ONCE):
        with store.database.read() as connection:
            rows = samples.rows(connection, missing[start : start + _ROWS_AT_ONCE])
        made = _made(store, rows)
        with store.database.write() as connection:
            fingerprints.put(connection, made)
        known |= dict(made)
    return known


def _made(store: Store, rows: Sequence[Any]) -> list[tuple[str, fingerprints.Fingerprint]]:
    """Of samples of a kind together, as many as memory allows."""
    made: list[tuple[str, fingerprints.Fingerprint]] = []
    for (shape, dtype), group in groupby(sorted(rows, key=_kind), key=_kind):
        every = list(group)
        at_once = max(1, BATCH_BYTES // (int(np.prod(shape)) * np.dtype(dtype).itemsize))
        for start in range(0, len(every), at_once):
            some = every[start : start + at_once]
            read = list(_read(store, some))
            if read:
                names, arrays = zip(*read, strict=True)
                made += zip(names, made_of(np.stack(arrays)), strict=True)
    return made


def _kind(row: Any) -> tuple[tuple[int, ...], str]:
    return tuple(row.shape), row.dtype


def _read(store: Store, rows: Sequence[Any]) -> Iterator[tuple[str, Any]]:
    """Ids and arrays, of those that can be read."""
    for row, array in sample_arrays(store, rows):
        if isinstance(array, StoreError):
            log.warning("%s: nobody can say what it shows: %s", row.id, array)
        else:
            yield row.id, array
