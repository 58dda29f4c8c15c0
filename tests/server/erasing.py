"""A store of which something is to be forgotten, and where to look for it."""

from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np
import sqlalchemy as sa
from device_words import FLEET, NOW_MS, SELECTION, answers, heartbeat, message, uploads
from quadrants import artifact

from edge_agent.contract.artifact import Golden, Tensor
from edge_agent.contract.wire import encode
from server.collect.ingest import Ingest
from server.govern.erase import erase
from server.govern.subject import Subject
from server.release.registry import add_artifact
from server.store import embeddings, erasures, labels, versions
from server.store.embeddings import Embedding
from server.store.labels import Label
from server.store.schema import sample
from server.store.store import Store
from server.teach.snapshot import freeze

RANDOM = msgspec.structs.replace(SELECTION, reason="random")
SHAPE = (40, 40)  # of noise: as it is in the blobs, since nothing makes it smaller
WHY = "its owner asked"


def planted(seq: int) -> np.ndarray:
    return np.random.default_rng(1000 + seq).integers(0, 256, SHAPE, np.uint8)


def files_with(folder: Path, what: bytes) -> list[str]:
    return [str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file() and what in path.read_bytes()]


def marks(seq: int) -> list[bytes]:
    """Pieces of a sample: nobody else's bytes are like these."""
    raw = planted(seq).tobytes()
    return [raw[:24], raw[800:824], raw[-24:]]


class World:
    """A store with two devices, what they sent labelled and frozen, and a version that learned from it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "data"
        self.store = Store.open(self.folder)
        self.ingest = Ingest(self.store, fleet=FLEET, offline_after_s=90.0)
        for name, first in (("cam-1", 0), ("cam-2", 50)):
            self.send(name, *range(first, first + 8))
            self.hears(name, encode(heartbeat("s")))
        with self.store.database.write() as connection:
            labels.ensure_names(connection, ["cat", "dog"])
            rows = connection.execute(sa.select(sample.c.id, sample.c.seq).order_by(sample.c.id)).all()
            labels.add(connection, [Label(row.id, row.seq % 2, "ann" if row.seq < 50 else "bob", 1) for row in rows])
            vectors = [Embedding(row.id, 1, np.full(64, row.seq, np.float16), np.zeros(2, np.float16)) for row in rows]
            embeddings.put(connection, vectors)
        self.snapshot = freeze(self.store, now_ms=NOW_MS)

    def send(self, name: str, *numbers: int, **how: object) -> dict[str, str]:
        sent = [
            m
            for seq in numbers
            for m in uploads(name, seq, data=planted(seq), selection=RANDOM if seq % 4 == 3 else SELECTION, **how)
        ]
        return answers(self.ingest.take(sent).receipts)

    def hears(self, name: str, payload: bytes, kind: str = "heartbeat") -> None:
        self.ingest.take([message(name, kind, payload)])

    def erase(self, kind: str, *names: str):
        return erase(self.store, Subject(kind, names), who="ada", why=WHY, now_ms=NOW_MS + 1)

    def count(self, table: sa.Table, where: sa.ColumnElement[bool] | None = None) -> int:
        with self.store.database.read() as connection:
            query = sa.select(sa.func.count()).select_from(table)
            return connection.scalar(query if where is None else query.where(where))

    def verified(self) -> erasures.Known:
        with self.store.database.read() as connection:
            return erasures.verify(connection, self.snapshot.id)

    def publish(self, *golden: int, folder: str = "model", snapshot: str | None = None) -> versions.Version:
        """A version of the snapshot, whose golden inputs are these samples."""
        changes: dict[str, object] = {"snapshot": self.snapshot.id if snapshot is None else snapshot}
        if golden:
            inputs = np.stack([np.zeros(SHAPE, np.uint8), *(planted(seq) for seq in golden)])
            logits = np.zeros((len(inputs), 4), np.float32)
            changes["golden"] = Golden(inputs=Tensor.of(inputs), logits=Tensor.of(logits), tolerance=1.0)
        manifest = artifact(self.folder.parent / folder, **changes)
        if golden:
            spec = msgspec.structs.replace(manifest.input, shape=SHAPE)
            artifact(self.folder.parent / folder, **changes, input=spec)
        return add_artifact(self.store, self.folder.parent / folder, weights=None, now_ms=NOW_MS)
