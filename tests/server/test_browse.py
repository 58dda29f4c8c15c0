"""Does looking through samples find what is wanted, all of it, once, whatever the order of the pages?"""

from __future__ import annotations

import msgspec
import pytest
from device_words import FLEET, NOW_MS, SELECTION, frames, message
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from plans import is_sorted, plans, scanned

from server.collect.ingest import Ingest
from server.store import browse, labels
from server.store.browse import Wanted
from server.store.labels import Label
from server.store.schema import device
from server.store.store import Store
from server.teach.snapshot import freeze

pytestmark = pytest.mark.catalogues

NAMES = ("coat", "boot", "bag")
REASONS = ("informative", "random", "drift")
COUNT = 60


def told(n: int) -> tuple[str, int, int | None]:
    """(device, class predicted, class in force or None) of the n-th."""
    if n % 12 == 5:
        return f"cam-{n % 4}", n % 3, labels.VALUED
    return f"cam-{n % 4}", n % 3, None if n % 2 else (n % 3 if n % 10 else labels.CANNOT_TELL if n % 20 else 2)


def answer(n: int, class_index: int) -> Label:
    """Of the n-th; what is more than a class names two of the classes, or none."""
    label = Label(f"{told(n)[0]}.main.1.{n}", class_index, ("ann", "bob")[n % 4 // 2], n)
    boxes = [[k, 0.1, 0.1, 0.5, 0.5, 1.0] for k in (0, n % 3)] if n % 24 == 5 else []
    return label._replace(truth={"boxes": boxes}) if class_index == labels.VALUED else label


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """Sixty samples of four devices at two sites, every second labelled, some against the model."""
    store = Store.open(tmp_path_factory.mktemp("store"))
    ingest = Ingest(store, fleet=FLEET, offline_after_s=90.0)
    for n in range(COUNT):
        name, predicted, _ = told(n)
        selection = msgspec.structs.replace(SELECTION, reason=REASONS[n % 3], utility=n / COUNT)
        how = {"selection": selection, "label": predicted, "model_version": 1 + n % 2}
        for frame in frames(name, n, **how):
            ingest.take([message(name, "sample", frame, at_ms=NOW_MS + n // 7)])  # several in one millisecond
    with store.database.write() as connection:
        labels.ensure_names(connection, NAMES)
        labels.add(connection, [answer(n, k) for n in range(COUNT) if (k := told(n)[2]) is not None])
        for name in ("cam-0", "cam-1"):
            connection.execute(device.update().where(device.c.name == name).values(site="barn"))
    freeze(store, now_ms=NOW_MS)
    yield store
    store.close()


def walked(store, wanted: Wanted, limit: int) -> list[str]:
    found, after = [], None
    with store.database.read() as connection:
        for _ in range(200):
            page = browse.page(connection, wanted, after=after, limit=limit)
            assert len(page.rows) <= limit
            found += [row.id for row in page.rows]
            if (after := page.after) is None:
                return found
    raise AssertionError("it never ends")


def everything(store):
    with store.database.read() as connection:
        return browse.page(connection, Wanted(), limit=COUNT).rows


def fits(row, wanted: Wanted) -> bool:
    """As a person would say it."""
    known = row.class_index is not None
    agrees = row.class_index == row.predicted if known and row.class_index >= 0 else None
    checks = (
        row.id.startswith(wanted.search),
        wanted.device in ("", row.device),
        wanted.site == "" or row.device in ("cam-0", "cam-1"),
        wanted.stream in ("", row.stream),
        wanted.reason in ("", row.reason),
        wanted.predicted in (None, row.predicted),
        wanted.version in (None, row.model_version),
        wanted.labelled in (None, known),
        wanted.class_index in (None, row.class_index),
        wanted.names is None or wanted.names in [box[0] for box in (row.truth or {"boxes": []})["boxes"]],
        wanted.labeler in ("", row.labeler or ""),
        wanted.agrees in (None, agrees),
        wanted.utility_min is None or row.utility >= wanted.utility_min,
        wanted.utility_max is None or row.utility <= wanted.utility_max,
        wanted.since_ms is None or row.received_at_ms >= wanted.since_ms,
        wanted.until_ms is None or row.received_at_ms < wanted.until_ms,
    )
    return all(checks)


def some(*values: object, default: object = None) -> st.SearchStrategy:
    return st.sampled_from([default, default, default, *values])


WANTED = st.builds(
    Wanted,
    search=some("cam-1", "cam-2.main.1.1", default=""),
    device=some("cam-1", "cam-3", default=""),
    site=some("barn", default=""),
    reason=some(*REASONS, default=""),
    predicted=some(0, 2),
    version=some(1, 2),
    labelled=some(True, False),
    class_index=some(0, 2, labels.CANNOT_TELL),
    names=some(0, 2),
    labeler=some("ann", "bob", default=""),
    agrees=some(True, False),
    utility_min=some(0.25),
    utility_max=some(0.75),
    since_ms=some(NOW_MS + 2),
    until_ms=some(NOW_MS + 6),
    stream=st.just(""),
    used=st.just(""),
    ids=st.just(()),
)


@given(wanted=WANTED, limit=st.integers(1, 40), look=st.sampled_from([3, 10, 20_000]))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=80)
def test_all_that_fits_is_found_once_however_it_is_paged(store, wanted, limit, look):
    before, browse.LOOK = browse.LOOK, look
    try:
        found = walked(store, wanted, limit)
    finally:
        browse.LOOK = before
    assert sorted(found) == sorted(row.id for row in everything(store) if fits(row, wanted))


def test_the_newest_come_first_and_with_labels_the_last_labelled(store):
    rows = everything(store)
    keys = [(row.received_at_ms, row.id) for row in rows]
    assert keys == sorted(keys, reverse=True)
    labelled = walked(store, Wanted(labelled=True), 7)
    assert labelled[0] == f"cam-{(COUNT - 2) % 4}.main.1.{COUNT - 2}"


def test_every_order_is_read_from_its_index(store):
    """None is sorted, and nothing read whole: a page of a million costs what one of sixty does."""
    searches = (
        Wanted(), Wanted(device="cam-1"), Wanted(version=1), Wanted(predicted=1), Wanted(reason="drift"),
        Wanted(reason="import"), Wanted(search="cam-1"), Wanted(labelled=True), Wanted(class_index=1),
        Wanted(labeler="ann"), Wanted(site="barn", agrees=False), Wanted(used="train", utility_min=0.5),
    )  # fmt: skip

    def ask():
        with store.database.read() as connection:
            for wanted in searches:
                browse.page(connection, wanted)

    found = plans(store, ask, of="SELECT sample.id,")
    assert len(found) == len(searches)
    for plan in found:
        assert not is_sorted(plan), plan
        assert "sample" not in scanned(plan), plan


def test_used_goes_by_the_newest_snapshot(store):
    train, held, neither = (set(walked(store, Wanted(used=used), 9)) for used in ("train", "holdout", "neither"))
    assert train
    assert held
    assert not (train & held | train & neither | held & neither)
    assert len(train | held | neither) == COUNT
    assert {row.reason for row in everything(store) if row.id in held} == {"random"}


def test_a_key_of_another_order_is_refused(store):
    with store.database.read() as connection, pytest.raises(ValueError, match="got 1 values, expected 2"):
        browse.page(connection, Wanted(), after=(3,))
