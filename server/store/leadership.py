"""Who alone may act?

    free -> held, term n -> renewed, term n -> ... -> given back, or run out -> held by another, term n + 1

A seat is a lease with a number. Who holds it renews it long before it runs out; who does not know whether he still
holds it has stopped by then. That is by clocks, and clocks are not to be trusted with what counts: every write of a
holder names its term in its own transaction, and one of an older term is refused (a fencing token: Kleppmann, "How to
do distributed locking", 2016; leases: Gray and Cheriton, SOSP 1989). A seat changes hands in a write of its own, and
writes follow one another (database.py). It is renewed beside them, by its row alone, which whoever claims it waits for.

The clock is the catalogue's: of the PostgreSQL server, and of the one machine that SQLite is on. If it is set forward,
a seat may change hands early; if it is set back, whoever stands waits as long as a lease by his own clock, sees that
nothing was renewed, and takes it (`stale`). Those of the other machines are never compared.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Literal, NamedTuple, get_args

import sqlalchemy as sa

from server.config import POSTGRESQL
from server.errors import DeposedError
from server.store.insert import insert
from server.store.schema import leadership

Name = Literal["schedule", "train"]
SEATS: tuple[Name, ...] = get_args(Name)
FROZEN = "30s"  # after which PostgreSQL ends the write of a holder that asks for nothing more
_NOW_MS = {
    "sqlite": sa.text("SELECT CAST((julianday('now') - 2440587.5) * 86400000 AS INTEGER)"),
    "postgresql": sa.text("SELECT CAST(extract(epoch FROM clock_timestamp()) * 1000 AS BIGINT)"),
}


class Seat(NamedTuple):
    """What one process may do at a time, and who does."""

    name: str
    holder: str  # empty: nobody
    term: int
    since_ms: int
    until_ms: int


def asked(seat: Seat, holder: str, *, lease_ms: int, now_ms: int, stale: Collection[Seat] = ()) -> Seat | None:
    """What becomes of a seat for which `holder` asks; None: it is another's.

    Its holder gets more time under the same term, late or not, as long as nobody came between. `stale`: as the asker
    has seen them, unchanged for as long as a lease.

    >>> free = Seat("train", "", 0, 0, 0)
    >>> first = asked(free, "a", lease_ms=10, now_ms=100)
    >>> first
    Seat(name='train', holder='a', term=1, since_ms=100, until_ms=110)
    >>> asked(first, "b", lease_ms=10, now_ms=109) is None, asked(first, "b", lease_ms=10, now_ms=110).term
    (True, 2)
    """
    until_ms = now_ms + lease_ms
    if seat.holder == holder:
        return seat._replace(until_ms=until_ms)
    if now_ms < seat.until_ms and seat not in stale:
        return None
    return Seat(seat.name, holder, seat.term + 1, now_ms, until_ms)


def clock_ms(connection: sa.Connection) -> int:
    """The catalogue's own, ms since 1970."""
    return int(connection.execute(_NOW_MS[connection.dialect.name]).scalar_one())


def seats(connection: sa.Connection, names: Collection[str], *, locked: bool = False) -> Sequence[Seat]:
    """As they are, in the order of the names; one that nobody ever held is free. locked: none is renewed meanwhile."""
    query = sa.select(leadership).where(leadership.c.name.in_(list(names))).order_by(leadership.c.name)
    found = {row.name: Seat(*row) for row in connection.execute(query.with_for_update() if locked else query)}
    return [found.get(name, Seat(name, "", 0, 0, 0)) for name in names]


def claim(
    connection: sa.Connection,
    names: Collection[str],
    holder: str,
    *,
    lease_ms: int,
    now_ms: int,
    stale: Collection[Seat] = (),
) -> Sequence[Seat]:
    """Take all of these seats, or none; returns them as they are then."""
    held = seats(connection, names, locked=True)
    become = [asked(seat, holder, lease_ms=lease_ms, now_ms=now_ms, stale=stale) for seat in held]
    taken = [seat for seat in become if seat is not None]
    if len(taken) < len(held):
        return held
    for seat in taken:
        new = insert(connection, leadership).values(seat._asdict())
        connection.execute(new.on_conflict_do_update(index_elements=["name"], set_=seat._asdict()))
    return taken


def renew(connection: sa.Connection, terms: Mapping[str, int], holder: str, *, until_ms: int) -> None:
    """Hold seats for longer. DeposedError when one is not held under its term any more: none is renewed."""
    for name, term in sorted(terms.items()):  # whoever claims several locks them in this order too
        mine = (leadership.c.name == name, leadership.c.term == term, leadership.c.holder == holder)
        if not connection.execute(sa.update(leadership).where(*mine).values(until_ms=until_ms)).rowcount:
            raise DeposedError(f"{name}: another leads by now")


def give_back(connection: sa.Connection, terms: Mapping[str, int]) -> None:
    """Whoever stands may have them at once; those that went to others are left alone."""
    for name, term in terms.items():
        mine = (leadership.c.name == name, leadership.c.term == term)
        connection.execute(sa.update(leadership).where(*mine).values(holder="", until_ms=0))


def check(connection: sa.Connection, terms: Mapping[str, int]) -> None:
    """DeposedError when another holds one of these seats since; until this transaction ends, nobody else will."""
    if connection.dialect.name == POSTGRESQL:  # one that is frozen in mid-write would hold up all, until it is thawed
        connection.execute(sa.select(sa.func.set_config("idle_in_transaction_session_timeout", FROZEN, True)))
    now = {seat.name: seat.term for seat in seats(connection, terms.keys())}
    for name, term in terms.items():
        if now.get(name) != term:
            raise DeposedError(f"{name}: term {term} is over, {now.get(name)} has begun: nothing was written")


def led(connection: sa.Connection, name: Name) -> Seat | None:
    """Who holds a seat now; None: nobody, or nobody who was heard of in time."""
    (seat,) = seats(connection, [name])
    return seat if seat.holder and clock_ms(connection) < seat.until_ms else None
