"""Are samples that somebody wants more of found, each scene once, whatever the blocks and the restarts?"""

from __future__ import annotations

from collections.abc import Callable

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_agent.choose.acquisition import Scored
from edge_agent.choose.novelty import SKETCH, Projection
from edge_agent.choose.selector import Chosen
from edge_agent.choose.wanted import NEAR, REMEMBERED, Running, Sketcher, Wanted, pick
from edge_agent.contract.errors import ConfigError
from edge_agent.contract.types import Selection
from edge_agent.contract.wire import JSON_MAX_BYTES, REQUEST_MAX_SAMPLES, REQUESTS_MAX, Desired, Request, encode

BLOCK = 32
NOW_MS = 1000
RUNNING = Running(1, True, NOW_MS)
PAID: Callable[[], bool] = lambda: True  # noqa: E731
SELECTION = Selection(
    reason="informative", probability=0.5, utility=0.5, novelty=1.0, threshold=0.4, tokens=3.0, strategy="s"
)


def unit(rows: np.ndarray) -> np.ndarray:
    return (rows / np.linalg.norm(rows, axis=-1, keepdims=True)).astype(np.float32)


def target() -> np.ndarray:
    return unit(np.random.default_rng(7).normal(size=SKETCH))


def stream(count: int, *, seed: int) -> np.ndarray:
    """Sketches, every third near to the target: of distinct scenes, each seen several times in a row."""
    rng = np.random.default_rng(seed)
    sketches = rng.normal(size=(count, SKETCH))
    scenes = target() + 0.06 * rng.normal(size=(count // 6 + 1, SKETCH))
    near = np.arange(count) % 3 == 0
    sketches[near] = scenes[np.arange(count)[near] // 6] + 0.001 * rng.normal(size=(near.sum(), SKETCH))
    return unit(sketches)


def request(**changes: object) -> Request:
    known = {"id": 3, "version": 1, "sketch": tuple(target().tolist()), "similar": 0.9, "count": 20, "until_ms": 2000}
    return Request(**(known | changes))  # type: ignore[arg-type]


def wanted(*requests: Request, saved: bytes = b"") -> Wanted:
    made = Wanted(saved=saved)
    made.change(requests or (request(),), RUNNING)
    return made


def play(
    wanted: Wanted,
    sketches: np.ndarray,
    sizes: list[int],
    *,
    begin: int = 0,
    version: int = 1,
    now_ms: int = NOW_MS,
    pay: Callable[[], bool] = PAID,
    taken: frozenset[int] = frozenset(),
) -> list[Chosen]:
    """Look at a stream in blocks of the given sizes, each in a ring of BLOCK rows; `taken`: rows chosen anyway."""
    found, at, turn = [], begin, 0
    ring = np.zeros((BLOCK, SKETCH), np.float32)
    while at < len(sketches):
        count = min(sizes[turn % len(sizes)], len(sketches) - at)
        ring[:count] = sketches[at : at + count]
        scored = Scored(np.full(BLOCK, 0.25, np.float32), np.zeros(BLOCK, np.intp), np.ones(BLOCK, np.float32))
        chosen = [Chosen(row - at, SELECTION) for row in sorted(taken) if at <= row < at + count]
        more = wanted.look(scored, ring, chosen=chosen, count=count, running=Running(version, True, now_ms), pay=pay)
        found += [Chosen(at + row, selection) for row, selection in more]
        at, turn = at + count, turn + 1
    return found


def test_neighbours_are_found_each_scene_once() -> None:
    sketches = stream(300, seed=1)
    found = play(wanted(request(count=1000)), sketches, [BLOCK])
    cosine = sketches @ target()
    rows = [row for row, _ in found]
    assert len(rows) > 20
    assert (cosine[rows] >= 0.9).all()
    among = sketches[rows[:REMEMBERED]] @ sketches[rows[:REMEMBERED]].T
    assert among[~np.eye(len(among), dtype=bool)].max() <= 1.0 - NEAR + 1e-6
    missed = [row for row in np.flatnonzero(cosine >= 0.9) if row not in rows]
    nearest = np.maximum(sketches[missed] @ sketches[rows].T, cosine[missed, None]).max(axis=1)
    assert (nearest > 1.0 - NEAR - 1e-6).all()  # left out because something like it was sent


def test_what_was_asked_for_is_here_already() -> None:
    same = np.tile(target(), (40, 1))
    assert play(wanted(), same, [BLOCK]) == []


def test_a_match_is_certain_and_says_whose_it_is() -> None:
    (_, first), (_, second), *_ = play(wanted(), stream(100, seed=2), [BLOCK])
    assert (first.reason, first.probability, first.floor, first.threshold) == ("requested", 1.0, 0.0, 0.9)
    assert (first.strategy, first.tokens, first.utility) == ("request-3", 20.0, 0.25)
    assert second.tokens == 19.0


def test_no_more_than_were_asked_for() -> None:
    one = wanted(request(count=5))
    assert len(play(one, stream(500, seed=3), [BLOCK])) == 5
    (state,) = one.states(Running(1, True, NOW_MS))
    assert (state.found, state.looking, state.why) == (5, False, "all found")


def test_the_limits_of_a_day_are_kept() -> None:
    one, purse = wanted(), iter([True, True, True])
    assert len(play(one, stream(500, seed=3), [BLOCK], pay=lambda: next(purse, False))) == 3
    assert len(play(one, stream(500, seed=3), [BLOCK])) == 17  # what could not be paid was not counted


def test_what_the_selector_takes_is_its_own_and_is_not_sent_again() -> None:
    sketches = stream(100, seed=4)
    alone = [row for row, _ in play(wanted(), sketches, [BLOCK])]
    one = wanted()
    found = [row for row, _ in play(one, sketches, [BLOCK], taken=frozenset(alone[:2]))]
    assert not set(alone[:2]) & set(found)
    (state,) = one.states(Running(1, True, NOW_MS))
    assert (state.taken, state.found) == (2, len(found))
    assert found == alone[2:]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"version": 2}, "its sketch is of version 2, version 1 runs"),
        ({"until_ms": NOW_MS - 1}, "time is over"),
        ({"sketch": (1.0, 0.0)}, "expected 24 numbers"),
        ({"similar": 1.5}, "0 < similar < 1"),
        ({"count": 0}, "all found"),
    ],
)
def test_what_cannot_be_looked_out_for_is_said(changes: dict, said: str) -> None:
    one = wanted(request(**changes))
    assert play(one, stream(100, seed=1), [BLOCK]) == []
    (state,) = one.states(Running(1, True, NOW_MS))
    assert not state.looking
    assert said in state.why


def test_a_model_without_an_embedding_is_said() -> None:
    (state,) = wanted().states(Running(1, False, NOW_MS))
    assert state.why == "version 1 has no embedding"


def test_rows_that_cannot_be_used_are_no_matches() -> None:
    sketches = stream(BLOCK, seed=1)
    utility = np.full(BLOCK, np.nan, np.float32)
    scored = Scored(utility, np.zeros(BLOCK, np.intp), np.ones(BLOCK, np.float32))
    assert not wanted().look(scored, sketches, chosen=(), count=BLOCK, running=RUNNING, pay=PAID)
    sound = scored._replace(utility=np.zeros(BLOCK, np.float32))
    broken = np.full_like(sketches, np.nan)
    assert not wanted().look(sound, broken, chosen=(), count=BLOCK, running=RUNNING, pay=PAID)
    assert not wanted().look(sound, None, chosen=(), count=BLOCK, running=RUNNING, pay=PAID)


@settings(deadline=None, max_examples=30)
@given(st.lists(st.integers(1, BLOCK), min_size=1, max_size=8), st.integers(0, 1000))
def test_the_same_decisions_for_any_chunking(sizes: list[int], seed: int) -> None:
    sketches = stream(300, seed=seed)
    two = (request(count=30), request(id=4, similar=0.8, count=30))
    assert play(wanted(*two), sketches, sizes) == play(wanted(*two), sketches, [BLOCK])


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 9), st.integers(0, 1000))
def test_the_same_decisions_after_a_restart(blocks: int, seed: int) -> None:
    sketches, cut = stream(300, seed=seed), blocks * BLOCK
    whole = play(wanted(), sketches, [BLOCK])
    first = wanted()
    before = play(first, sketches[:cut], [BLOCK])
    second = Wanted(saved=first.save())
    assert before + play(second, sketches, [BLOCK], begin=cut) == whole
    again = wanted(saved=first.save())  # told the same once more
    assert before + play(again, sketches, [BLOCK], begin=cut) == whole


def test_what_was_sent_for_another_request_is_not_the_selectors() -> None:
    one = wanted(request(id=1), request(id=2))
    found = play(one, stream(120, seed=1), [BLOCK])
    first, second = one.states(RUNNING)
    assert first.found == len(found) > 0
    assert (second.found, second.taken) == (0, 0)


def test_a_request_that_is_not_understood_is_neither_searched_nor_recalled() -> None:
    odd = request(sketch=())
    one = Wanted()
    assert one.change([odd, request(id=8, version=2), request(id=9)], RUNNING) == [request(id=9)]
    assert one.recall(odd, target(), RUNNING, utility=0.5, pay=PAID) is None


def test_a_request_that_was_changed_meanwhile_is_found_by_what_it_looks_for() -> None:
    one = wanted(request())
    one.change([request(count=5, until_ms=3000)], RUNNING)
    one.searched(request(), searched=7, unsearchable=0)
    assert one.states(RUNNING)[0].searched == 7


def test_a_new_sketch_goes_on_counting_and_one_that_is_closed_is_forgotten() -> None:
    one = wanted(request(count=30))
    play(one, stream(60, seed=1), [BLOCK])
    (before,) = one.states(Running(1, True, NOW_MS))
    other = unit(np.random.default_rng(8).normal(size=SKETCH))
    again = request(count=30, version=2, sketch=tuple(other.tolist()))
    assert one.change([again], Running(2, True, NOW_MS)) == [again]  # to be searched under the new one
    (after,) = one.states(Running(2, True, NOW_MS))
    assert 0 < before.found == after.found
    assert after.looking
    assert one.change([], RUNNING) == []
    assert one.states(Running(2, True, NOW_MS)) == ()


def test_recent_samples_count_and_are_not_searched_for_twice() -> None:
    one, sketches = wanted(request(count=4)), stream(60, seed=1)
    best = pick(sketches, request(count=4))
    assert len(best) == 4
    assert (np.diff((sketches @ target())[best]) <= 0).all()
    sent = [one.recall(request(count=4), sketches[row], RUNNING, utility=0.5, pay=PAID) for row in best[:3]]
    assert [selection.reason for selection in sent if selection] == ["requested"] * 3
    assert one.recall(request(count=4), sketches[best[0]], RUNNING, utility=0.5, pay=PAID) is None
    assert one.recall(request(id=9), sketches[best[3]], RUNNING, utility=0.5, pay=PAID) is None
    one.searched(request(count=4), searched=60, unsearchable=5)
    (state,) = one.states(Running(1, True, NOW_MS))
    assert (state.found, state.recalled, state.searched, state.unsearchable) == (3, 3, 60, 5)
    assert one.change([request(count=4)], RUNNING) == []
    assert len(play(one, sketches, [BLOCK])) == 1


def test_saved_requests_that_cannot_be_read_are_a_mistake_to_mend() -> None:
    with pytest.raises(ConfigError, match="saved requests"):
        Wanted(saved=b"\xc1")


def test_sketches_are_centred_and_the_same_for_ever() -> None:
    rng = np.random.default_rng(1)
    embedding, mean = rng.normal(5, 1, (4, 8)).astype(np.float32), np.full(8, 5.0, np.float32)
    made = Sketcher(mean)(embedding)
    np.testing.assert_allclose(np.linalg.norm(made, axis=1), 1.0, rtol=1e-5)
    np.testing.assert_allclose(made, Projection()(embedding - mean), atol=1e-6)
    assert Sketcher(np.zeros(3, np.float32))(embedding).shape == (4, SKETCH)  # a mean of another length is none
    # Server and device must make the same projection, whatever is installed there.
    first = Projection()(np.arange(1, 9, dtype=np.float32)[None])[0, :4]
    np.testing.assert_allclose(first, PROJECTED, atol=1e-6)


PROJECTED = (-0.22154, 0.110769, 0.166155, 0.276924)


def test_the_most_requests_fit_a_message() -> None:
    full = request(sketch=(-0.123456,) * SKETCH, id=10**9, count=REQUEST_MAX_SAMPLES, until_ms=10**13)
    assert len(encode(Desired(revision=1, requests=(full,) * REQUESTS_MAX))) < JSON_MAX_BYTES
    assert msgspec.json.decode(encode(Desired(revision=1, requests=(full,))), type=Desired).requests == (full,)
