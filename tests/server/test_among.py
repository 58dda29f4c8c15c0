"""What is asked of many values at once finds what each of them would, in both engines."""

import pytest
import sqlalchemy as sa
from hypothesis import given, settings
from hypothesis import strategies as st

from server.store.among import Lookup, Question, among, listed, looked_up
from server.store.schema import event
from server.store.store import Store

pytestmark = pytest.mark.catalogues

KIND = "a '%s' of 5 %"
NAMES = st.text(st.characters(exclude_characters="\0", exclude_categories=("Cs",)), max_size=10)
SAID = st.sets(st.tuples(NAMES, st.integers(0, 2**63 - 1), st.integers(0, 2)), max_size=20)


def _of_names(connection):
    query = sa.select(event.c.device, event.c.boot, sa.cast(event.c.detail, sa.Text))
    return looked_up(connection, query.where(event.c.n == sa.bindparam("n"), event.c.kind == KIND), event.c.device)


def _of_pairs(connection):
    pairs = listed(connection, [event.c.device, event.c.boot])
    mine = (column == other for column, other in zip((event.c.device, event.c.boot), pairs.columns, strict=True))
    return sa.select(event.c.device, event.c.boot, event.c.n).select_from(Lookup(pairs.rows, event, sa.and_(*mine)))


OF_NAMES, OF_PAIRS = Question(_of_names), Question(_of_pairs)
ALL = Question(lambda _: sa.select(event.c.device))


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    made = Store.open(tmp_path_factory.mktemp("among"))
    yield made
    made.close()


@settings(max_examples=25, deadline=None)
@given(SAID, SAID)
def test_all_and_nothing_else_is_found(store, said, beside):
    same = {"at_ms": 0, "received_at_ms": 0, "kind": KIND, "text": "", "detail": {"a": [1]}}
    with store.database.write() as connection:
        connection.execute(sa.delete(event))
        rows = [same | {"device": name, "boot": boot, "n": n} for name, boot, n in said]
        if rows:
            connection.execute(sa.insert(event), rows)
        asked = [*{name for name, _, _ in said | beside if len(name) % 2}]
        named = OF_NAMES.ask(connection, asked, n=1)
        heard = connection.scalars(sa.select(event.c.device).where(among(connection, event.c.device, asked))).all()
        pairs = {(name, boot) for name, boot, _ in beside} | {(name, boot) for name, boot, n in said if n}
        paired = OF_PAIRS.ask_of(connection, [*pairs]) if pairs else []
        everybody = ALL.ask(connection)
    assert sorted((name, boot) for name, boot, _ in named) == sorted(
        (a, b) for a, b, n in said if a in asked and n == 1
    )
    assert sorted(heard) == sorted(name for name, _, _ in said if name in asked)
    assert {detail.replace(" ", "") for _, _, detail in named} <= {'{"a":[1]}'}
    assert sorted(map(tuple, paired)) == sorted(one for one in said if one[:2] in pairs)
    assert len(everybody) == len(said)
