"""Is the fleet as accurate as it is said to be? A planted fleet, through the real ingest, store and command line."""

from __future__ import annotations

import json
import time

import msgspec
import numpy as np
import pytest
import quadrants
from device_words import FLEET, MODEL, OUTBOX, message

from edge_agent.choose.acquisition import Scored
from edge_agent.choose.selector import Chosen
from edge_agent.choose.tally import Tally
from edge_agent.contract.types import Prediction, Sample, SampleId, Selection
from edge_agent.contract.wire import Heartbeat, encode, encode_sample, sample_frames
from server.__main__ import main
from server.audit import accuracy
from server.audit.evidence import gather
from server.collect.ingest import Ingest
from server.release.figures import Compared
from server.release.gate import Figures
from server.release.registry import add_artifact
from server.store import labels
from server.store.samples import AUDIT_REASONS
from server.store.store import Store

DAY_MS = 86_400_000
NOW_MS = time.time_ns() // 1_000_000
BLOCK = 100
NAMES = ("cup", "pen", "key")
FLOOR = 0.02


class Planted:
    """A device whose model is sure of what it gets right, more or less; and who knows the truth."""

    def __init__(self, name: str, *, skill: float, seed: int, boot: int = 1, session: str = "a") -> None:
        self.name, self.boot, self.session, self.skill = name, boot, session, skill
        self.tally = Tally(stream="main", version=1, classes=len(NAMES))
        self.version, self.seq = 1, -1
        self.truth: dict[str, int] = {}
        self.right: list[bool] = []
        self.called: list[int] = []
        self.is_: list[int] = []
        self.sent: list[Sample] = []
        self._rng = np.random.default_rng(seed)

    def see(self, count: int) -> None:
        for _ in range(count // BLOCK):
            self._block()

    def _block(self) -> None:
        rng = self._rng
        sure = rng.beta(self.skill, 1.0, BLOCK)
        label = rng.choice(len(NAMES), BLOCK, p=(0.6, 0.3, 0.1))
        right = rng.random(BLOCK) < sure
        truth = np.where(right, label, (label + 1) % len(NAMES))
        utility = (1.0 - sure).astype(np.float32)
        p = np.clip(FLOOR + 0.9 * utility**2, 0.0, 1.0)
        draw = rng.random(BLOCK)
        chosen = []
        for row in np.flatnonzero(draw < p):
            self.sent.append(self._sample(int(row), utility, label, sure, p, draw))
            chosen.append(Chosen(int(row), self.sent[-1].selection))
            self.truth[str(self.sent[-1].id)] = int(truth[row])
        self.seq += BLOCK
        self.right += right.tolist()
        self.called += label.tolist()
        self.is_ += truth.tolist()
        scored = Scored(utility, label, sure.astype(np.float32))
        self.tally.count(scored, chosen, count=BLOCK, through_seq=self.seq)

    def _sample(self, row: int, utility, label, sure, p, draw) -> Sample:
        reason = "random" if draw[row] < FLOOR / 3 else "explore" if draw[row] < FLOOR else "informative"
        selection = Selection(
            reason=reason, probability=float(p[row]), floor=FLOOR, utility=float(utility[row]), novelty=1.0,
            threshold=0.0, tokens=1.0, strategy="planted",
        )  # fmt: skip
        id_ = SampleId(self.name, "main", self.boot, self.seq + 1 + row)
        data = np.frombuffer(f"{id_!s:>40}".encode(), np.uint8)
        prediction = Prediction(int(label[row]), float(np.float32(sure[row])))
        return Sample(id_, "", NOW_MS, data, prediction, selection, self.version)

    def swap(self, skill: float) -> None:
        self.version, self.skill = self.version + 1, skill
        self.tally.model_changed(version=self.version, classes=len(NAMES))

    def send(self, store: Store, *, at_ms: int = NOW_MS, beat: bool = True) -> None:
        ingest = Ingest(store, fleet=FLEET, offline_after_s=90.0)
        frames = [frame for sample in self.sent for frame in sample_frames(*encode_sample(sample))]
        ingest.take([message(self.name, "sample", frame, at_ms=at_ms) for frame in frames])
        self.sent.clear()
        if beat:
            said = Heartbeat(
                session=self.session, boot=self.boot, at_ms=at_ms, uptime_s=1.0, model=MODEL, outbox=OUTBOX,
                counts=self.tally.counts(), cuts=self.tally.cuts(), samples_per_s=1.0,
            )  # fmt: skip
            ingest.take([message(self.name, "heartbeat", encode(said), at_ms=at_ms)])


def answer(store: Store, truth: dict[str, int], *, asked: dict[str, float | None] | None = None) -> None:
    """The truth of all, or of those asked about by chance."""
    asked = dict.fromkeys(truth) if asked is None else asked
    with store.database.write() as connection:
        labels.ensure_names(connection, NAMES)
        labels.add(connection, [labels.Label(id_, truth[id_], "t", NOW_MS, 0.0, p) for id_, p in asked.items()])


def evidence(store: Store):
    with store.database.read() as connection:
        return gather(connection)


def holds(found: dict, truth: float, name: str = "accuracy", prefix: str = "") -> bool:
    """Within twice the interval: no accident of a seed."""
    half = (found[f"{prefix}high"] - found[f"{prefix}low"]) / 2
    return abs(found[name] - truth) < 2 * half < 0.3


@pytest.fixture
def store(tmp_path):
    store = Store.open(tmp_path / "data")
    yield store
    store.close()


@pytest.fixture(scope="module")
def planted(tmp_path_factory):
    """Two devices, two days, a better model from the second day on; everything labelled."""
    folder = tmp_path_factory.mktemp("planted")
    store = Store.open(folder / "data")
    fleet = [Planted("good", skill=8.0, seed=1), Planted("poor", skill=1.5, seed=2)]
    days: list[list[bool]] = []
    for day in range(2):
        begun = [len(device.right) for device in fleet]
        for device in fleet:
            device.see(3000)
            device.send(store, at_ms=NOW_MS - (1 - day) * DAY_MS)
            if not day:
                device.swap(device.skill * 2)
        days.append([right for device, at in zip(fleet, begun, strict=True) for right in device.right[at:]])
        for device in fleet:
            answer(store, device.truth)
    store.close()
    toml = folder / "server.toml"
    toml.write_text(f'[server]\nfleet = "{FLEET}"\ndata_dir = "{folder / "data"}"\n')
    return folder, toml, fleet, days


def told(capsys, *arguments: str) -> str:
    assert main(list(arguments)) == 0
    return capsys.readouterr().out


def test_the_fleet_is_as_accurate_as_it_is_said_to_be(planted, capsys):
    _, toml, fleet, _ = planted
    view = json.loads(told(capsys, "accuracy", "--json", str(toml)))["fleet"]
    right = [r for device in fleet for r in device.right]
    assert view["samples"] == len(right)
    assert holds(view, np.mean(right))
    plain = 1 - json.loads(told(capsys, "status", "--json", str(toml)))["yield"]["chosen"]["mistakes"] / view["labels"]
    assert plain < np.mean(right) - 0.1  # what is said without weights


@pytest.mark.parametrize("by", ["device", "day", "version", "class"])
def test_so_is_each_part_of_it(planted, capsys, by):
    _, toml, fleet, days = planted
    view = json.loads(told(capsys, "accuracy", "--by", by, "--json", str(toml)))
    rows = {row[by]: row for row in view["rows"]}
    if by == "device":
        truth = {device.name: np.mean(device.right) for device in fleet}
    elif by == "day":
        truth = dict(zip(sorted(rows), map(np.mean, days), strict=True))
    elif by == "version":
        truth = {1: np.mean(days[0]), 2: np.mean(days[1])}
    else:
        right, called, is_ = (
            np.array([x for d in fleet for x in getattr(d, key)]) for key in ("right", "called", "is_")
        )
        truth = {name: right[is_ == index].mean() for index, name in enumerate(NAMES)}
        for index, name in enumerate(NAMES):
            assert holds(rows[name], right[called == index].mean(), "precision", "precision_")
        assert all(holds(rows[name], truth[name], "recall") for name in NAMES)
        return
    assert rows.keys() == truth.keys()
    for key, row in rows.items():
        assert holds(row, truth[key]), (key, row, truth[key])
    assert sum(row["samples"] for row in rows.values()) == view["fleet"]["samples"]


def test_it_is_said_in_words(planted, capsys):
    _, toml, _, _ = planted
    text = told(capsys, "status", str(toml))
    assert "accuracy  0." in text
    assert " in the last 7 days; " in text
    line = next(line for line in text.splitlines() if line.startswith("mistakes"))
    assert "a label found one: chosen " in line
    assert " x (" in line
    table = told(capsys, "accuracy", "--by", "class", "--days", "1", str(toml))
    assert all(word in table for word in ("recall", "precision", *NAMES))
    assert "left out" not in table


def test_too_little_to_say_says_how_much_would_do(store, tmp_path, capsys):
    device = Planted("new", skill=8.0, seed=3)
    device.see(300)
    device.send(store)
    answer(store, device.truth)
    found = accuracy.fleet(evidence(store))
    assert (found["accuracy"], found["low"]) == (None, None)
    assert 0 < found["missing"] < 200
    store.close()
    toml = tmp_path / "server.toml"
    toml.write_text(f'[server]\nfleet = "{FLEET}"\ndata_dir = "{tmp_path / "data"}"\n')
    assert f"too little to say: about {found['missing']} more labels" in told(capsys, "accuracy", str(toml))
    assert "too little to say" in told(capsys, "accuracy", "--by", "device", str(toml))


def test_an_empty_fleet_has_no_accuracy(store, tmp_path, capsys):
    store.close()
    toml = tmp_path / "server.toml"
    toml.write_text(f'[server]\nfleet = "{FLEET}"\ndata_dir = "{tmp_path / "data"}"\n')
    assert "too little to say: about 15 more labels" in told(capsys, "accuracy", "--by", "class", str(toml))
    assert "chosen no label, random no label" in told(capsys, "status", str(toml))


def test_labels_that_are_still_missing_do_not_bend_it(store):
    """First the audit is labelled, as the server does, then ever more of the rest."""
    device = Planted("cam", skill=2.0, seed=4)
    device.see(12_000)
    sent = list(device.sent)
    device.send(store)
    truth = np.mean(device.right)
    audit = {str(s.id) for s in sent if s.selection.reason in AUDIT_REASONS}
    rest = sorted(device.truth.keys() - audit)
    assert accuracy.fleet(evidence(store))["samples"] == 0  # nothing can be said of the day yet
    widths = []
    for part in (audit, rest[: len(rest) // 3], rest[len(rest) // 3 :]):
        answer(store, {id_: device.truth[id_] for id_ in part})
        found = accuracy.fleet(evidence(store))
        assert holds(found, truth), found
        widths.append(found["high"] - found["low"])
    assert widths[2] < widths[0]


def test_what_cannot_be_weighed_is_left_out_and_said(store):
    whole, killed = Planted("whole", skill=3.0, seed=5), Planted("killed", skill=3.0, seed=6)
    for device in (whole, killed):
        device.see(3000)
        device.send(store)
    counted = len(killed.truth)
    killed.see(2000)
    killed.send(store, beat=False)  # the samples came, the heartbeat after them never did
    late = len(killed.truth) - counted
    for device in (whole, killed):
        answer(store, device.truth)
    assert evidence(store).left_out == {"on_top": 0, "not_counted": late, "wiped": 0, "waiting": 0}
    assert accuracy.fleet(evidence(store))["samples"] == 6000

    again = Planted("killed", skill=3.0, seed=7, session="b")  # its folder was lost: boot 1 once more
    again.seq = 100_000
    again.see(500)
    again.send(store)
    answer(store, again.truth)
    found = evidence(store)
    assert found.left_out["wiped"] == counted + len(again.truth) + late
    assert {one.device for one in found.stretches} == {"whole"}


def test_samples_on_top_of_the_design_weigh_nothing(store):
    device = Planted("cam", skill=3.0, seed=8)
    device.see(3000)
    asked = device.sent[0]._replace(
        id=SampleId("cam", "main", 1, 5),
        selection=msgspec.structs.replace(device.sent[0].selection, reason="requested", floor=0.0, probability=1.0),
    )
    device.sent = [s for s in device.sent if s.id.seq != 5] + [asked]
    device.truth["cam.main.1.5"] = 0
    device.send(store)
    answer(store, device.truth)
    assert evidence(store).left_out["on_top"] == 1


def test_a_label_drawn_by_chance_counts_by_its_probability(store):
    device = Planted("cam", skill=2.0, seed=9)
    device.see(12_000)
    sent = list(device.sent)
    device.send(store)
    rng = np.random.default_rng(0)
    drawn = {}
    for sample in sent:
        audit = sample.selection.reason in AUDIT_REASONS
        q = 1.0 if audit else 0.1 + 0.9 * sample.selection.utility**2
        if rng.random() < q:
            drawn[str(sample.id)] = q
    answer(store, device.truth, asked=drawn)
    found = evidence(store)
    assert holds(accuracy.fleet(found), np.mean(device.right))
    assert 1 / found.probability.min() < 1 / FLOOR * 1.5
    assert np.isclose((1 / found.probability).sum(), 12_000, rtol=0.15)


def test_a_rollout_compares_a_version_with_the_one_before_on_the_devices_that_run_it(planted):
    folder, _, fleet, _ = planted
    store = Store.open(folder / "data")
    for number in (1, 2):
        quadrants.artifact(folder / str(number), version=number)
        add_artifact(store, folder / str(number), weights=None, now_ms=NOW_MS)
    try:
        for device in fleet:
            before, after = np.mean(device.right[:3000]), np.mean(device.right[3000:])
            figures = Compared(store, 2, 1, now_ms=NOW_MS)([device.name])
            for change in (figures.accuracy, figures.confidence):  # it is sure of what it gets right
                assert change.low < after - before < change.high
                assert change.high - change.low < 0.25
        nobody = Compared(store, 2, 1, now_ms=NOW_MS)(["another"])
        assert (nobody.accuracy, nobody.confidence) == (None, None)
        assert Compared(store, 1, 0, now_ms=NOW_MS)(["good"]) == Figures()  # the first has nothing to be held against
    finally:
        store.close()
