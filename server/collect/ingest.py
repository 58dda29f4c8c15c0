"""Which messages are taken in?

`take` is given a group of messages and returns when they are on disk; the receipts that it returns may be sent then,
and not before. Every step can be repeated, so a group whose commit failed is simply taken again. `check` is the part of
it that needs no store, for whoever has a group at hand while another is written.

Several processes may take messages of one device at once, the parts of one sample among them. A transaction begins by
reserving its devices, and reads what is known of them after that: it is what others have committed, and nobody changes
it meanwhile. In a file one at a time writes anyway; in PostgreSQL one at a time of each device.

Samples that came as images are handed back, to be proven (prover.py); what that found is taken with a later group.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TypeVar

import sqlalchemy as sa

from edge_agent.contract.errors import MessageError
from edge_agent.contract.types import SampleId
from edge_agent.contract.wire import Birth, Death, Fetch, Heartbeat, Receipt, SampleHeader
from server.collect.inbound import Bad, Heard, Message, Picture, Piece, Said, Upload, check_body, hear
from server.collect.receipts import Answers
from server.collect.recording import record
from server.collect.row import row_of
from server.store import beats, erasures, heard, identities, parts, removed, room, samples, silence
from server.store.store import Store

Item = Message | Heard
"""As it came, or checked already."""
Whole = Upload | Picture
_Item = TypeVar("_Item", Upload, Picture, Piece)
Proven = Upload | Bad
"""What became of a picture."""

PARTS_EXPIRE_MS = 3_600_000
"""Shorter, and a slow link never completes a large sample; longer, and what devices gave up stays on the disk."""


@dataclass(frozen=True)
class Taken:
    """What became of a group of messages, all of it on disk."""

    receipts: list[tuple[str, Receipt]]  # (device, what to tell it)
    samples_new: int
    fetches: list[tuple[str, Fetch]]
    pictures: list[Picture]  # nobody knows yet whether they are images


@dataclass
class _Group:
    """Messages on their way into the store."""

    uploads: list[Upload] = field(default_factory=list)
    pictures: list[Picture] = field(default_factory=list)
    pieces: list[Piece] = field(default_factory=list)
    said: list[Said] = field(default_factory=list)
    bad: list[Bad] = field(default_factory=list)
    revoked: frozenset[str] = frozenset()
    answers: Answers = field(default_factory=Answers)

    def add(self, item: Heard) -> None:
        """Sort it in."""
        if isinstance(item, Upload):
            self.uploads.append(item)
        elif isinstance(item, Picture):
            self.pictures.append(item)
        elif isinstance(item, Piece):
            self.pieces.append(item)
        elif isinstance(item, Said):
            self.said.append(item)
        else:
            self.refuse(item)

    def refuse(self, bad: Bad) -> None:
        """Set a message aside, and tell its device when it names a sample."""
        self.bad.append(bad)
        if bad.sample_id:
            self.answers.refuse(bad.device, bad.sample_id, bad.reason)

    def is_new(self, item: Whole | Piece, known: dict[str, str]) -> bool:
        """Whether there is no sample of that id among the known (id -> sha256 of the body); answers it when there is.

        The same id with other bytes comes from a device that was wiped and counts its boots anew. To call that a
        duplicate would make it delete what we do not have.
        """
        sample_id = item.header.id
        if sample_id not in known:
            return True
        if known[sample_id] == item.header.body_sha256:
            self.answers.repeat(item.device, sample_id)
        else:
            self.refuse(
                Bad(item.message, item.device, f"sample {sample_id}: its id is taken by other bytes", sample_id)
            )
        return False

    def devices(self) -> set[str]:
        """Of whom any of it is."""
        return {item.device for item in self._every()}

    def _every(self) -> Iterable[Heard]:
        return (*self.uploads, *self.pictures, *self.pieces, *self.said, *self.bad)

    def answered_in_parts(self) -> set[str]:
        """Ids of samples that came in parts and have their answer, so that the parts may go."""
        proven = {upload.header.id for upload in self.uploads if upload.header.parts > 1}
        refused = {bad.sample_id for bad in self.bad if _is_of(bad.device, bad.sample_id)}  # nobody else's
        return proven | refused | {p.header.id for p in self.pieces if self.answers.answered(p.device, p.header.id)}

    def seen_ms(self) -> dict[str, int]:
        """Device -> when it was last heard: not who is revoked, nor by a death, which is the broker's word."""
        seen: dict[str, int] = {}
        for item in self._every():
            if item.device in self.revoked:
                continue
            if item.device and not (isinstance(item, Said) and isinstance(item.word, Death)):
                seen[item.device] = max(item.message.received_ms, seen.get(item.device, 0))
        return seen


def _is_of(device: str, sample_id: str) -> bool:
    try:
        return SampleId.parse(sample_id).device == device
    except MessageError:
        return False


class Ingest:
    """Takes messages into the store."""

    def __init__(
        self,
        store: Store,
        *,
        fleet: str,
        offline_after_s: float,
        min_free_bytes: int = 0,
        kept_ms: Sequence[int] = beats.KEPT_MS,
    ) -> None:
        """Take from the devices of `fleet`; one silent for `offline_after_s` counts as offline.

        With less than `min_free_bytes` free on the disk no sample is taken, nor what comes in one group with it.
        kept_ms: as in beats.add.
        """
        self._kept_ms = kept_ms
        self._store = store
        self._min_free_bytes = min_free_bytes
        self._fleet = fleet
        self._offline_after_ms = int(offline_after_s * 1000)
        self._swept_ms, self._quiet_ms = 0, -math.inf  # of the last sweep, and until when another would find nothing
        self._flusher = ThreadPoolExecutor(1, thread_name_prefix="flush")  # bodies, while the rows are written

    def check(self, batch: Sequence[Item]) -> list[Heard]:
        """What the messages of a group say."""
        return [hear(one, fleet=self._fleet) if isinstance(one, Message) else one for one in batch]

    def take(self, batch: Sequence[Item]) -> Taken:
        """Check and store a group; StoreError when that cannot be, and then the same group may be taken again."""
        items = self.check(batch)
        with self._store.database.write(together=True) as connection:  # from here on nothing is erased, no blob deleted
            group = _group(items, revoked=identities.revoked(connection))  # and nobody is revoked
            heard.reserve(connection, group.devices())
            heard.record_seen(connection, group.seen_ms())
            new, pictures, kept = self._sort(connection, group)
            bodies = {upload.header.body_sha256: upload.body for upload in new}
            flushed = self._flusher.submit(self._store.blobs.put_named, bodies)
            samples.add_samples(connection, [row_of(upload) for upload in new])
            for upload in new:
                group.answers.accept(upload.device, upload.header.id)
            for piece in kept:
                parts.put_part(connection, piece.header, piece.data, now_ms=piece.message.received_ms)
            parts.delete_parts(connection, group.answered_in_parts())
            record(connection, group.said, group.bad, kept_ms=self._kept_ms)
            flushed.result()  # bodies are on the disk before the rows that name them
        return _taken(group, len(new), pictures)

    def sweep(self, now_ms: int) -> list[str]:
        """Count silent devices as offline and forget parts that never became whole; returns who fell silent."""
        if self._swept_ms <= now_ms <= self._quiet_ms:
            return []
        with self._store.database.write() as connection:
            oldest_ms = parts.expire_parts(connection, before_ms=now_ms - PARTS_EXPIRE_MS)
            fallen = silence.mark_offline(connection, now_ms=now_ms, after_ms=self._offline_after_ms)
        self._swept_ms = now_ms
        # A device that nobody knows yet may come online at any time, and be silent so long afterwards.
        known_ms = min(fallen.next_ms or math.inf, math.inf if oldest_ms is None else oldest_ms + PARTS_EXPIRE_MS)
        self._quiet_ms = min(known_ms, now_ms + self._offline_after_ms)
        return fallen.names

    def count_throttled(self, counts: Mapping[str, int]) -> None:
        """Add messages that were left for want of room to what is known of their devices."""
        if counts:
            with self._store.database.write() as connection:
                heard.record_throttled(connection, counts)

    def _sort(self, connection: sa.Connection, group: _Group) -> tuple[list[Upload], list[Picture], list[Piece]]:
        """What is to be stored, to be proven, and to be kept until the rest comes; all else has its answer."""
        items: list[Whole | Piece] = [*group.uploads, *group.pictures, *group.pieces]
        said = {item.header.id: item.header.body_sha256 for item in items}
        known = samples.body_names(connection, said)
        known |= removed.known(connection, {id_: sha256 for id_, sha256 in said.items() if id_ not in known})
        whole, kept = _join(connection, [piece for piece in group.pieces if group.is_new(piece, known)])
        for item in whole:
            group.add(item)
        new: list[Upload] = []
        for upload in group.uploads:
            if group.is_new(upload, known):
                known[upload.header.id] = upload.header.body_sha256
                new.append(upload)
        pictures = [picture for picture in group.pictures if group.is_new(picture, known)]
        if new or kept or pictures:
            room.check(self._store.folders, self._min_free_bytes)
        gone = _erased(connection, group, [*new, *pictures, *kept])
        return _without(gone, new), _without(gone, pictures), _without(gone, kept)


_Cut = tuple[str, str, int]
"""A body as it is cut: sample id, sha256, number of parts. Parts of different cuts never mix."""


def _cut(piece: Piece) -> _Cut:
    return piece.header.id, piece.header.body_sha256, piece.header.parts


def _join(connection: sa.Connection, pieces: Sequence[Piece]) -> tuple[list[Whole | Bad], list[Piece]]:
    """What is whole now, or turned out to be no sample; and the parts of others, to be kept."""
    here: dict[_Cut, dict[int, Piece]] = defaultdict(dict)
    for piece in pieces:
        here[_cut(piece)][piece.header.part] = piece
    whole: list[Whole | Bad] = []
    kept: list[Piece] = []
    for found in here.values():
        last = next(reversed(found.values()))
        body = _body(connection, last.header, {number: piece.data for number, piece in found.items()})
        if body is None:
            kept += found.values()
        else:
            whole.append(check_body(last.message, last.device, last.id, last.header, body))
    return whole, kept


def _body(connection: sa.Connection, header: SampleHeader, here: dict[int, bytes]) -> bytes | None:
    """Of the parts at hand, and those that came before; None while some are missing."""
    if len(here) == header.parts:
        return b"".join(here[number] for number in range(header.parts))
    return parts.join_parts(connection, header, here)


def _erased(connection: sa.Connection, group: _Group, items: Sequence[Whole | Piece]) -> set[str]:
    """Ids that are not to come back; their devices are told to forget them too. What these say of it is heard first."""
    for said in group.said:
        if isinstance(said.word, Birth | Heartbeat) and said.word.outbox.purged is not None:
            erasures.heard(connection, said.device, said.word.outbox.purged)
    by = {item.header.id: item.device for item in items}
    gone = erasures.refused(connection, by)
    for sample_id, why in gone.items():
        group.answers.erase(by[sample_id], sample_id, why)
    return set(gone)


def _without(ids: set[str], items: list[_Item]) -> list[_Item]:
    return [item for item in items if item.header.id not in ids]


def _group(items: Iterable[Heard], *, revoked: frozenset[str]) -> _Group:
    group = _Group(revoked=revoked)
    for item in items:
        group.add(_shut_out(item) if item.device in revoked else item)
    return group


def _shut_out(item: Heard) -> Bad:
    """What a revoked device said: a broker may let it in although we do not."""
    sample_id = item.header.id if isinstance(item, (Upload, Picture, Piece)) else getattr(item, "sample_id", "")
    return Bad(item.message, item.device, f"device {item.device!r} is revoked", sample_id)


def _taken(group: _Group, samples_new: int, pictures: list[Picture]) -> Taken:
    words = [(item.device, item.word) for item in group.said]
    return Taken(
        receipts=group.answers.receipts(),
        samples_new=samples_new,
        fetches=[(device, word) for device, word in words if isinstance(word, Fetch)],
        pictures=pictures,
    )
