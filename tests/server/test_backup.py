"""Is a copy that is made while the server works worth something, as docs/operations.md has it made?"""

from __future__ import annotations

import contextlib
import sqlite3
from pathlib import Path

import pytest
import sqlalchemy as sa
from device_words import FLEET, heartbeat, message, uploads

from edge_agent.contract.wire import OutboxState, encode
from server.collect.ingest import Ingest
from server.inventory import fleet
from server.store import samples
from server.store.schema import sample
from server.store.store import Store

pytestmark = pytest.mark.of_a_file


def backup(source: Path, target: Path) -> None:
    """What `.backup` of the command sqlite3 does."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with contextlib.closing(sqlite3.connect(source)) as of, contextlib.closing(sqlite3.connect(target)) as to:
        of.backup(to)


def test_every_row_finds_its_bytes_and_what_came_later_is_missing(tmp_path: Path) -> None:
    store = Store.open(tmp_path / "data")
    ingest = Ingest(store, fleet=FLEET, offline_after_s=90.0)
    ingest.take([said for seq in range(3) for said in uploads("cam-1", seq)])
    backup(tmp_path / "data" / "catalogue.db", tmp_path / "copy" / "catalogue.db")
    ingest.take([said for seq in range(3, 5) for said in uploads("cam-1", seq)])
    for shard in (tmp_path / "data" / "blobs").glob("*.db"):
        backup(shard, tmp_path / "copy" / "blobs" / shard.name)
    store.close()

    restored = Store.open(tmp_path / "copy")
    with restored.database.read() as connection:
        rows = connection.execute(sa.select(sample).order_by(sample.c.seq)).all()
    assert [row.seq for row in rows] == [0, 1, 2]
    for row in rows:
        assert samples.sample_array(restored, row).shape == tuple(row.shape)
    outbox = OutboxState(rows=0, bytes=0, put_total=5, acked_total=5, since_boot=1)
    Ingest(restored, fleet=FLEET, offline_after_s=90.0).take(
        [message("cam-1", "heartbeat", encode(heartbeat("s", outbox=outbox)))]
    )
    (shown,) = fleet(restored)
    assert (shown["stored"], shown["missing"]) == (3, 2)
    restored.close()
