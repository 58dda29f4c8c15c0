"""What thousands of rows to a statement leave in the catalogue, and how the driver takes what is bound."""

import pytest
import sqlalchemy as sa

from server.store.insert import insert
from server.store.many import SIZES, Many, of_several
from server.store.sqlite import bind_as_it_is, sqlite3

TABLE = sa.Table(
    "kept",
    sa.MetaData(),
    sa.Column("id", sa.String, primary_key=True),
    sa.Column("n", sa.Integer),
    sa.Column("b", sa.LargeBinary),
)


@pytest.fixture
def connection():
    engine = sa.create_engine("sqlite://", module=sqlite3)
    with engine.connect() as connection:
        TABLE.create(connection)
        yield connection
    engine.dispose()


@pytest.mark.parametrize("count", [0, 1, 3, SIZES[-1], SIZES[0] - 1, SIZES[0], 3 * SIZES[0] + 87])
def test_every_row_is_there_however_many_there_are(connection, count):
    added = Many(lambda _: sa.insert(TABLE), "id", "n", "b")
    rows = [{"id": f"{n:05}", "n": n if n % 3 else None, "b": bytes([n % 256]), "beside": n} for n in range(count)]
    added.run(connection, rows)
    found = connection.execute(sa.select(TABLE).order_by(TABLE.c.id)).all()
    assert [tuple(row) for row in found] == [(row["id"], row["n"], row["b"]) for row in rows]


def test_what_is_done_about_a_row_that_is_there_is_done_for_each_of_several(connection):
    def grown(connection):
        made = insert(connection, TABLE)
        return made.on_conflict_do_update(index_elements=[TABLE.c.id], set_={"n": TABLE.c.n + made.excluded.n})

    grow = Many(grown, "id", "n")
    for _ in range(2):
        grow.run(connection, [{"id": str(n), "n": n} for n in range(SIZES[0] + 2)])
    found = connection.execute(sa.select(TABLE.c.id, TABLE.c.n)).all()
    assert dict(map(tuple, found)) == {str(n): 2 * n for n in range(SIZES[0] + 2)}


def test_what_is_no_insert_of_one_row_is_left_as_it_is():
    assert of_several("UPDATE kept SET n = ? WHERE id = ?") == {}
    assert of_several("INSERT INTO kept (id) VALUES (?) ON CONFLICT (id) DO UPDATE SET n = ?") == {}


def test_what_is_bound_comes_back_as_it_was():
    bind_as_it_is()
    connection = sqlite3.connect(":memory:")
    given = (None, b"", b"bytes", memoryview(b"a view")[2:], bytearray(b"array"), 1, 0.5, "text")
    assert connection.execute("SELECT ?, ?, ?, ?, ?, ?, ?, ?", given).fetchone() == (
        None, b"", b"bytes", b"view", b"array", 1, 0.5, "text",
    )  # fmt: skip
    connection.close()
