"""What is sent beside the selector's choice, by a loop with real models?"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import numpy as np
import pytest
from quadrants import ARTIFACT, another, artifact, images

from edge_agent.choose.disagreement import Share
from edge_agent.choose.quantile import NoveltyQuantile
from edge_agent.choose.rules import Rules
from edge_agent.choose.splitmix import SplitMix64
from edge_agent.choose.wanted import Sketcher, pick
from edge_agent.contract.errors import IncompatibleError
from edge_agent.contract.types import Reading, Sample
from edge_agent.contract.wire import Request
from edge_agent.extras import SHADOW, WANTED, Extras
from edge_agent.intake import Intake
from edge_agent.loop import CURSOR, SELECTOR, Cursor, Loop
from edge_agent.model import Model
from edge_agent.outgoing import Identity
from edge_agent.send.recent import Recent
from edge_agent.send.writer import Handover

COUNT = 3000
RARE = 3  # the class that somebody asks for


def scenes() -> tuple[np.ndarray, np.ndarray]:
    """A stream in which one class is rare."""
    x, y = images(3 * COUNT, seed=8)
    rare = np.flatnonzero(y == RARE)[: COUNT // 50]
    keep = np.concatenate([np.flatnonzero(y != RARE)[: COUNT - len(rare)], rare])
    order = np.random.default_rng(1).permutation(keep)
    return x[order], y[order]


X, Y = scenes()


def embedding_of(model: Model, image: np.ndarray) -> np.ndarray:
    model.run(0, image)
    assert model.embedding is not None
    return model.embedding[:1].copy()


def request(model: Model, **changes: object) -> Request:
    """For more of the rare class: as the server would make it, of a sample that it has."""
    x, y = images(200, seed=99)
    clear = x[y == RARE][x[y == RARE].mean(axis=(1, 2)) > 20][0]
    sketch = Sketcher(model.manifest.reference.embedding_mean.array())(embedding_of(model, clear))[0]
    known = {
        "id": 5, "version": model.version, "sketch": tuple(sketch.tolist()), "similar": 0.8, "count": 20,
        "until_ms": 10**13,
    }  # fmt: skip
    return Request(**(known | changes))  # type: ignore[arg-type]


class Run:
    """A loop, and what it handed over."""

    def __init__(
        self,
        *,
        state: dict[str, bytes] | None = None,
        model: Model | None = None,
        recent: Recent | None = None,
        rules: Rules | None = None,
    ) -> None:
        state = state or {}
        self.items: list[Handover] = []
        saved = state.get(CURSOR)
        self.loop = Loop(
            model or Model(ARTIFACT),
            NoveltyQuantile(rules or Rules(label_share=0.02), SplitMix64(1), saved=state.get(SELECTOR, b"")),
            identity=Identity("cam-1", "main", 1),
            acquisition="margin",
            cursor=msgspec.json.decode(saved, type=Cursor) if saved else Cursor(),
            flush_s=10.0,
            hand_over=self.items.append,
            extras=Extras(wanted=state.get(WANTED, b""), shadow=state.get(SHADOW, b""), recent=recent),
            wall_ms=lambda: 1_000_000,
        )

    def play(self, *, start: int = 0, end: int = COUNT) -> Run:
        Intake(self.loop).run((Reading(X[seq], seq, f"row {seq}") for seq in range(start, end)), threading.Event())
        return self

    def asked(self, *requests: Request) -> Run:
        """Told before the stream begins."""
        self.loop.extras.want(requests)
        Intake(self.loop).run(iter(()), threading.Event())
        return self

    @property
    def samples(self) -> list[Sample]:
        return [sample for item in self.items for sample in item.samples]

    def of(self, reason: str) -> list[Sample]:
        return [sample for sample in self.samples if sample.selection.reason == reason]

    def state(self) -> dict[str, bytes]:
        return {key: value for item in self.items for key, value in item.state.items()}


# --- requested ---


def test_neighbours_in_the_stream_are_sent_beside_what_the_selector_takes() -> None:
    model = Model(ARTIFACT)
    plain, run = Run().play(), Run(model=model).asked(request(model)).play()
    found = run.of("requested")
    assert 5 < len(found) <= 20
    assert np.mean(Y[[sample.id.seq for sample in found]] == RARE) > 0.9  # of the stream 2 %
    assert all(sample.selection.probability == 1.0 for sample in found)
    own = [(s.id, s.selection) for s in run.samples if s.selection.reason != "requested"]
    assert own == [(s.id, s.selection) for s in plain.samples]  # the selector does not notice
    (state,) = run.loop.requests()
    assert (state.id, state.found, state.recalled) == (5, len(found), 0)
    counts = run.loop.record.counts()
    assert counts.selected["requested"] == len(found)
    assert counts.scored == sum(counts.selected.values()) + sum(counts.unsent_classes)


def test_a_loop_that_was_killed_goes_on_looking_as_if_nothing_had_happened() -> None:
    asked = request(Model(ARTIFACT))
    whole, first = Run().asked(asked).play(), Run().asked(asked).play(end=1500)
    second = Run(state=first.state())
    assert 1000 < second.loop.cursor.seq <= 1500
    second.play(start=second.loop.cursor.seq)
    assert [(s.id, s.selection) for s in first.samples + second.samples] == [(s.id, s.selection) for s in whole.samples]
    assert second.loop.requests() == whole.loop.requests()


def test_the_limits_of_a_day_hold_for_requests_too() -> None:
    model = Model(ARTIFACT)
    run = Run(model=model, rules=Rules(label_share=0.0, labels_per_day=30.0)).asked(request(model)).play()
    assert len(run.samples) == 3  # a tenth of the day's may go at once


def test_another_version_makes_it_wait_for_a_sketch_of_its_own(tmp_path: Path) -> None:
    artifact(tmp_path, version=2)
    newer = Model(tmp_path)
    run = Run().asked(request(Model(ARTIFACT)))
    run.loop.swap(newer)
    run.asked(request(Model(ARTIFACT)))
    run.play(end=1000)
    assert run.of("requested") == []
    (state,) = run.loop.requests()
    assert (state.looking, state.why) == (False, "its sketch is of version 1, version 2 runs")
    run.asked(request(newer)).play(start=1000)
    assert run.of("requested")


@pytest.fixture
def recent(tmp_path: Path) -> Iterator[Recent]:
    made = Recent(tmp_path / "recent", max_bytes=4_000_000, bytes_per_day=1e15, min_free_disk_bytes=0, pick=pick)
    made.start()
    yield made
    made.stop()


def test_recent_samples_are_found_sent_once_and_counted_apart(recent: Recent) -> None:
    model = Model(ARTIFACT)
    run = Run(model=model, recent=recent)
    for start in range(0, COUNT, 100):  # slowly enough for the ring to see most of it
        run.play(start=start, end=start + 100)
        time.sleep(0.002)
    before = {str(sample.id) for sample in run.samples}
    run.asked(request(model))
    deadline = time.monotonic() + 20
    while run.loop.requests()[0].searched is None and time.monotonic() < deadline:
        Intake(run.loop).run(iter([None]), threading.Event())
        time.sleep(0.01)
    (state,) = run.loop.requests()
    assert state.searched is not None
    found = run.of("requested")
    assert 0 < len(found) == state.found == state.recalled == run.loop.record.counts().recalled
    assert "requested" not in run.loop.record.counts().selected
    assert not before & {str(sample.id) for sample in found}
    assert np.mean(Y[[sample.id.seq for sample in found]] == RARE) > 0.9
    for sample in found:
        assert (sample.data == X[sample.id.seq]).all()
        assert sample.ref == f"row {sample.id.seq}"
    assert Run(state=run.state()).loop.requests() == (state,)  # not searched for again after a restart


def test_a_recent_sample_is_sent_once_though_two_requests_look_for_it(recent: Recent) -> None:
    model = Model(ARTIFACT)
    run = Run(model=model, recent=recent)
    for start in range(0, COUNT, 100):
        run.play(start=start, end=start + 100)
        time.sleep(0.002)
    run.asked(request(model), request(model, id=6))
    deadline = time.monotonic() + 20
    while any(one.searched is None for one in run.loop.requests()) and time.monotonic() < deadline:
        Intake(run.loop).run(iter([None]), threading.Event())
        time.sleep(0.01)
    found = [str(sample.id) for sample in run.of("requested")]
    assert len(found) == len(set(found)) > 0


# --- disagreement ---


def test_a_shadow_model_gets_labels_where_it_disagrees(tmp_path: Path) -> None:
    another(tmp_path, version=2, noise=1.5)
    champion, candidate = Model(ARTIFACT), Model(tmp_path)
    differ = champion.predict(X).argmax(axis=1) != candidate.predict(X).argmax(axis=1)
    assert 0.02 < differ.mean() < 0.5
    plain, run = Run().play(), Run(model=champion)
    run.loop.shadow(candidate, Share(seen=0.5, labels=0.02), SplitMix64(3))
    Intake(run.loop).run(iter(()), threading.Event())
    run.play()
    found = run.of("disagreement")
    assert 20 < len(found) <= 0.02 * COUNT + 20
    assert differ[[sample.id.seq for sample in found]].mean() > 0.8
    assert all(s.selection.probability == s.selection.shadow_probability <= 0.5 for s in found)
    shadowed = run.loop.extras.shadowed()
    assert shadowed is not None
    assert (shadowed.version, shadowed.invalid) == (2, 0)
    assert 0.45 * COUNT < shadowed.samples < 0.55 * COUNT
    assert shadowed.samples - shadowed.agreed == pytest.approx(0.5 * differ.sum(), rel=0.2)
    own = [s for s in run.samples if s.selection.reason != "disagreement"]
    without = [msgspec.structs.replace(s.selection, shadow_probability=None) for s in own]
    assert [s.id for s in own] == [s.id for s in plain.samples]
    assert without == [s.selection for s in plain.samples]
    both = [s for s in own if s.selection.shadow_probability is not None]
    assert all(s.model_version == 1 for s in both + found)  # what the running model said


def test_a_shadow_trial_goes_on_after_a_restart(tmp_path: Path) -> None:
    another(tmp_path, version=2, noise=1.5)
    share = Share(seen=0.5, labels=0.02)

    def begin(run: Run, seed: int) -> Run:
        run.loop.shadow(Model(tmp_path), share, SplitMix64(seed))
        Intake(run.loop).run(iter(()), threading.Event())
        return run

    whole, first = begin(Run(), 3).play(), begin(Run(), 3).play(end=1500)
    second = begin(Run(state=first.state()), 99)
    second.play(start=second.loop.cursor.seq)
    assert [(s.id, s.selection) for s in first.samples + second.samples] == [(s.id, s.selection) for s in whole.samples]
    second.loop.extras.end_shadow()
    Intake(second.loop).run(iter(()), threading.Event())
    assert second.loop.extras.shadowed() is None


def test_a_shadow_model_of_other_inputs_is_refused(tmp_path: Path) -> None:
    run, other = Run(), Model(ARTIFACT)
    other.shape = (9, 9)
    with pytest.raises(IncompatibleError, match=r"shadow model version 1 takes \(9, 9\) uint8"):
        run.loop.shadow(other, Share(seen=0.1, labels=0.01), SplitMix64(0))


def test_a_shadow_model_decides_the_same_whatever_blocks_and_company(tmp_path: Path) -> None:
    another(tmp_path, version=2, noise=1.5)

    def play(**options: int) -> Run:
        run = Run(model=Model(ARTIFACT, **options))
        run.loop.shadow(Model(tmp_path), Share(seen=0.5, labels=0.02), SplitMix64(3))
        Intake(run.loop).run(iter(()), threading.Event())
        return run.play(end=1000)

    whole = play()
    assert whole.of("disagreement")
    for options in ({"block": 7}, {"block": 16, "together": 1}, {"block": 1}):
        other = play(**options)
        assert [(s.id, s.selection) for s in other.samples] == [(s.id, s.selection) for s in whole.samples]
        assert other.loop.extras.shadowed()[:4] == whole.loop.extras.shadowed()[:4]


def test_a_shadow_that_takes_over_is_none_any_more(tmp_path: Path) -> None:
    """Its runs would write into the memory that it answers from."""
    another(tmp_path, version=2, noise=1.5)
    run, candidate = Run(), Model(tmp_path)
    run.loop.shadow(candidate, Share(seen=1.0, labels=0.0), SplitMix64(3))
    run.play(end=500)
    run.loop.swap(candidate)
    run.play(start=500, end=1500)
    assert run.loop.extras.shadowed() is None
    taken = [sample for sample in run.samples if sample.model_version == 2]
    said = candidate.predict(X[[sample.id.seq for sample in taken]]).argmax(axis=1)
    assert [sample.prediction.label for sample in taken] == said.tolist() != []
