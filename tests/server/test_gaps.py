"""Does the server see that samples are missing, and only then?"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa
from device_words import FLEET, birth, heartbeat, message, uploads

from edge_agent.contract.wire import OutboxState, encode
from server.collect.ingest import Ingest
from server.inventory import fleet
from server.store.gaps import GAPS_MAX
from server.store.schema import gap, quarantine
from server.store.store import Store


class Server:
    """What takes in, and what it shows of the one device."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.ingest = Ingest(store, fleet=FLEET, offline_after_s=90.0)

    def hears(self, boot: int, outbox: OutboxState, *, by: str = "heartbeat") -> None:
        word = {"heartbeat": heartbeat, "birth": birth}[by](f"s{boot}", boot=boot, outbox=outbox)
        self.ingest.take([message("cam-1", by, encode(word))])

    def gets(self, boot: int, *numbers: int) -> None:
        self.ingest.take([part for seq in numbers for part in uploads("cam-1", seq, boot=boot)])

    def shows(self, *columns: str) -> tuple[object, ...]:
        (row,) = fleet(self.store)
        return tuple(row[column] for column in columns)

    def rows(self, table: sa.Table) -> int:
        with self.store.database.read() as connection:
            return len(connection.execute(sa.select(table)).all())


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    store = Store.open(tmp_path)
    yield Server(store)
    store.close()


def an_outbox(put: int, acked: int, *, rows: int = 0, since: int = 1, **evicted: int) -> OutboxState:
    return OutboxState(rows=rows, bytes=0, put_total=put, acked_total=acked, evicted=evicted, since_boot=since)


def test_what_waits_or_was_evicted_is_not_missing(server: Server) -> None:
    server.hears(1, an_outbox(6, 0, rows=6))
    server.gets(1, 0, 1, 2, 3)  # their receipts are on their way
    assert server.shows("stored", "pending", "missing") == (4, 6, 0)
    server.hears(1, an_outbox(7, 4, rows=2, full_rows=1))
    assert server.shows("pending", "evicted", "missing") == (2, {"full_rows": 1}, 0)
    server.hears(2, an_outbox(8, 4, rows=3, full_rows=1), by="birth")
    assert server.shows("missing") == (0,)


@pytest.mark.parametrize("by", ["heartbeat", "birth"])
def test_an_outbox_that_began_anew_leaves_a_gap_where_the_old_one_was_not_empty(server: Server, by: str) -> None:
    server.hears(1, an_outbox(10, 4, rows=5, full_rows=1))
    server.gets(1, 0, 1, 2, 3)
    for _ in range(2):
        server.hears(3, an_outbox(2, 0, rows=2, since=3), by=by)
    assert server.shows("missing", "evicted", "pending") == (5, {}, 2)
    server.gets(2, 7)  # was on its way when the outbox was lost
    server.gets(3, 0, 1)
    server.hears(3, an_outbox(2, 2, since=3))
    assert server.shows("missing", "stored") == (4, 7)
    server.hears(5, an_outbox(0, 0, since=5))  # the next one was empty
    assert server.shows("missing") == (4,)
    assert server.rows(gap) == 2


def test_what_a_damaged_file_had_is_missing_where_the_device_could_read_its_counts(server: Server) -> None:
    server.gets(1, 0, 1, 2)
    server.hears(2, an_outbox(10, 2, rows=1, full_rows=1, damaged=6))
    assert server.shows("missing", "evicted") == (5, {"full_rows": 1})  # one of the six had come, its receipt had not
    assert server.rows(gap) == 0


def test_receipts_for_more_than_is_stored_show_that_the_server_lost_some(server: Server) -> None:
    server.gets(1, 0, 1, 2)
    server.hears(1, an_outbox(10, 8, rows=2))
    assert server.shows("missing") == (5,)


def test_an_agent_that_does_not_say_since_when_it_counts_has_no_gaps(server: Server) -> None:
    server.hears(1, an_outbox(10, 0, rows=10, since=0))
    server.hears(2, an_outbox(3, 0, rows=3, since=0))
    assert (server.shows("missing"), server.rows(gap)) == ((0,), 0)


def test_a_device_may_have_begun_to_count_in_any_boot(server: Server) -> None:
    server.hears(2**40, an_outbox(10, 0, since=2**40))
    server.hears(2**62, an_outbox(0, 0, since=2**62))
    assert (server.shows("missing"), server.rows(gap)) == ((10,), 1)


def test_gaps_of_one_device_are_bounded(server: Server) -> None:
    for boot in range(1, GAPS_MAX + 10):
        server.hears(boot, an_outbox(10, 0, rows=10, since=boot))
    assert server.rows(gap) == GAPS_MAX


def test_counts_that_no_outbox_has_are_set_aside(server: Server) -> None:
    for outbox in (an_outbox(-1, 0), an_outbox(2**63, 0), an_outbox(0, 0, since=2**63), an_outbox(0, 0, x=-1)):
        server.hears(1, outbox)
        server.hears(1, outbox, by="birth")
    assert (server.rows(quarantine), server.shows("missing")) == (8, (0,))


def test_an_outbox_that_was_lost_is_counted_once_though_the_next_was_lost_before_its_first_heartbeat(
    server: Server,
) -> None:
    server.hears(1, an_outbox(10, 0, rows=10))
    server.hears(2, an_outbox(0, 0, since=2), by="birth")
    server.hears(3, an_outbox(0, 0, since=3), by="birth")
    server.hears(3, an_outbox(0, 0, since=3))
    assert (server.shows("missing"), server.rows(gap)) == ((10,), 1)
    server.hears(3, an_outbox(4, 0, rows=4, since=3), by="birth")
    server.hears(4, an_outbox(0, 0, since=4), by="birth")
    assert (server.shows("missing"), server.rows(gap)) == ((14,), 2)
