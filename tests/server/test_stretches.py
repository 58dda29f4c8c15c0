"""Are the stretches what the devices counted, whatever becomes of heartbeats on the way?"""

from __future__ import annotations

import msgspec
import numpy as np
import pytest
from device_words import FLEET, MODEL, NOW_MS, OUTBOX, message
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_agent.choose.acquisition import Scored
from edge_agent.choose.selector import Chosen
from edge_agent.choose.tally import Tally
from edge_agent.contract.types import Selection
from edge_agent.contract.wire import Heartbeat, encode
from server.collect.ingest import Ingest
from server.store import stretches
from server.store.store import Store
from server.store.stretches import Stretch

DAY_MS = 86_400_000
SELECTION = Selection(
    reason="informative", probability=0.5, utility=0.5, novelty=1.0, threshold=0.4, tokens=3.0, strategy="test"
)


@pytest.fixture(scope="module")
def lasting(tmp_path_factory):
    store = Store.open(tmp_path_factory.mktemp("store"))
    yield store
    store.close()


class Device:
    """Counts as an agent does, and says so when asked."""

    def __init__(self, name: str, *, boot: int = 1, session: str = "s1", seed: int = 0) -> None:
        self.name, self.boot, self.session = name, boot, session
        self.tally = Tally(stream="main", version=1, classes=3)
        self.seq = -1
        self.version = 1
        self._rng = np.random.default_rng(seed)

    def see(self, count: int) -> None:
        self.seq += count
        utility = self._rng.random(count, np.float32)
        utility[self._rng.random(count) < 0.1] = np.nan
        scored = Scored(utility, self._rng.integers(0, 3, count), self._rng.random(count, np.float32))
        chosen = [Chosen(row, SELECTION) for row in np.flatnonzero(utility > 0.8)]
        self.tally.count(scored, chosen, count=count, through_seq=self.seq)

    def swap(self) -> None:
        self.version += 1
        self.tally.model_changed(version=self.version, classes=2 + self.version)

    def beat(self) -> bytes:
        return encode(
            Heartbeat(
                session=self.session,
                boot=self.boot,
                at_ms=NOW_MS,
                uptime_s=1.0,
                model=MODEL,
                counts=self.tally.counts(),
                outbox=OUTBOX,
                samples_per_s=1.0,
                cuts=self.tally.cuts(),
            )
        )


def take(store: Store, device: Device, *beats: bytes, at_ms: int = NOW_MS) -> None:
    """Through an ingest of its own each time: a server that was restarted in between."""
    ingest = Ingest(store, fleet=FLEET, offline_after_s=90.0)
    ingest.take([message(device.name, "heartbeat", beat, at_ms=at_ms) for beat in beats])


def found(store: Store, name: str) -> list[Stretch]:
    with store.database.read() as connection:
        return [one for one in stretches.stretches(connection) if one.device == name]


def total(rows: list[Stretch]) -> tuple[int, int, int, dict[str, int], dict[str, list[float]]]:
    sums: dict[str, list[float]] = {}
    selected: dict[str, int] = {}
    for row in rows:
        sums = stretches.added(sums, row.sums)
        for why, n in row.selected.items():
            selected[why] = selected.get(why, 0) + n
    return sum(r.read for r in rows), sum(r.scored for r in rows), sum(r.invalid for r in rows), selected, sums


def said(device: Device) -> tuple[int, int, int, dict[str, int], dict[str, list[float]]]:
    counts = device.tally.counts()
    sums = {name: list(getattr(counts, name)) for name in stretches.VECTORS}
    return counts.read, counts.scored, counts.invalid, counts.selected, sums


numbers = iter(range(10_000))


@given(
    st.lists(st.tuples(st.sampled_from(["see", "see", "swap"]), st.booleans()), min_size=1, max_size=14), st.randoms()
)
@settings(max_examples=40, deadline=None)
def test_lost_repeated_and_late_heartbeats_change_nothing(lasting, steps, random):
    device = Device(f"cam-{next(numbers)}", seed=random.randrange(1000))
    beats = []
    for what, heard in steps:
        device.see(random.randint(1, 40)) if what == "see" else device.swap()
        if heard:
            beats += [device.beat()] * random.randint(1, 2)
    for i in range(len(beats) - 1):
        if random.random() < 0.3:
            beats[i], beats[i + 1] = beats[i + 1], beats[i]
    for beat in (*beats, device.beat(), *beats):
        take(lasting, device, beat)
    rows = found(lasting, device.name)
    assert sum(row.read for row in rows) == device.seq + 1
    got, expected = total(rows), said(device)
    assert got[:4] == expected[:4]
    for name in stretches.VECTORS:
        grown = len(expected[4][name])
        np.testing.assert_allclose((got[4].get(name, []) + [0] * grown)[:grown], expected[4][name], atol=1e-9)
    at = 0
    for row in rows:
        assert row.first_seq == at
        at = row.last_seq + 1
    assert at == device.seq + 1


def test_each_model_has_its_own_stretch_though_the_heartbeat_at_the_swap_was_lost(lasting):
    device = Device("swapped")
    device.see(100)
    take(lasting, device, device.beat())
    device.see(11)
    device.swap()
    device.see(30)
    device.swap()
    device.see(5)
    take(lasting, device, device.beat())
    device.see(5)
    take(lasting, device, device.beat())
    assert [(r.model_version, r.first_seq, r.last_seq) for r in found(lasting, "swapped")] == [
        (1, 0, 110),
        (2, 111, 140),
        (3, 141, 150),
    ]


def test_a_border_that_is_lost_is_not_made_up(lasting):
    device = Device("silent")
    for _ in range(5):
        device.see(10)
        device.swap()
    device.see(10)
    take(lasting, device, device.beat())
    rows = [(r.model_version, r.first_seq, r.last_seq) for r in found(lasting, "silent")]
    assert rows == [(0, 0, 39), (5, 40, 49), (6, 50, 59)]


def test_a_model_that_came_before_the_first_sample_is_no_border(lasting):
    device = Device("early")
    device.swap()
    device.see(10)
    take(lasting, device, device.beat())
    assert [(r.model_version, r.first_seq, r.last_seq) for r in found(lasting, "early")] == [(2, 0, 9)]


def test_a_new_day_and_a_new_boot_begin_new_stretches(lasting):
    first, second = Device("daily"), Device("daily", boot=2, session="s2", seed=1)
    for day in range(2):
        for _ in range(3):
            first.see(10)
            take(lasting, first, first.beat(), at_ms=NOW_MS + day * DAY_MS)
    second.seq = 59
    second.see(10)
    take(lasting, second, second.beat(), first.beat(), at_ms=NOW_MS + DAY_MS)
    rows = [(r.boot, r.day, r.first_seq, r.last_seq, r.read) for r in found(lasting, "daily")]
    assert rows == [
        (1, "2026-09-21", 0, 29, 30),
        (1, "2026-09-22", 30, 59, 30),
        (2, "2026-09-22", 0, 69, 10),
    ]
    with lasting.database.read() as connection:
        since = stretches.stretches(connection, since_day="2026-09-22")
    assert {row.day for row in since} == {"2026-09-22"}


def test_what_cannot_be_is_not_added(lasting):
    device = Device("odd")
    device.see(50)
    take(lasting, device, device.beat())
    before = found(lasting, "odd")
    good = msgspec.json.decode(device.beat(), type=Heartbeat)
    for changes in (
        {"read": 60, "scored": 0},
        {"read": 60, "selected": {}},
        {"read": 60, "through_seq": 3},
        {"read": -5},
        {"read": 2**63},
        {"read": 60, "model_version": 2**40},
        {"read": 60, "stream": "a/b"},
        {"read": 60, "stream": ""},
    ):
        counts = msgspec.structs.replace(good.counts, **changes)
        take(lasting, device, encode(msgspec.structs.replace(good, counts=counts)))
        assert found(lasting, "odd") == before, changes


def test_sums_of_claims_that_do_not_fit_64_bits_are_kept(lasting):
    device = Device("liar")
    for version, claimed in ((1, 2**63 - 1), (2, 1 - 2**63)):
        device.see(100)
        said = msgspec.json.decode(device.beat(), type=Heartbeat)
        counts = msgspec.structs.replace(said.counts, epoch=version - 1, model_version=version, signals=(100, claimed))
        take(lasting, device, encode(msgspec.structs.replace(said, counts=counts, cuts=())))
    assert [one.sums["signals"][1] for one in found(lasting, "liar")] == [2**63 - 1, 2 - 2**64]
