"""Does whoever waits for each sample wait for the model alone, and is what is selected the same?"""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import pytest
from quadrants import ARTIFACT, artifact
from test_loop import Outcome, X, make, readings

from edge_agent.answers import Answers
from edge_agent.contract.errors import EdgeError
from edge_agent.intake import Intake
from edge_agent.model import Model

WAIT_S = 10.0
BLOCK = 8


def ask(answers: Answers, start: int, end: int) -> list[int]:
    return [answers.of(X[seq], seq, f"file:{seq}").label for seq in range(start, end)]


def test_the_same_decisions_as_of_a_stream() -> None:
    alone, asked = Outcome(), Outcome()
    Intake(make(alone)).run(readings(X), threading.Event())
    answers = Answers(make(asked, model=Model(ARTIFACT, block=BLOCK)))
    labels = ask(answers, 0, len(X))
    answers.close()
    assert labels == Model(ARTIFACT).predict(X).argmax(axis=1).tolist()
    assert asked.predictions().tolist() == alone.predictions().tolist()
    assert [sample.selection for sample in asked.samples] == [sample.selection for sample in alone.samples]
    assert all((sample.data == X[sample.id.seq]).all() for sample in asked.samples), (
        "its place in the ring is used again"
    )
    assert {name: asked.last_state()[name] for name in ("cursor", "selector")} == {
        name: alone.last_state()[name] for name in ("cursor", "selector")
    }


def test_a_caller_waits_only_when_both_rings_are_full_and_loses_nothing() -> None:
    outcome, go_on = Outcome(), threading.Event()

    def slow(item: object) -> None:
        assert go_on.wait(WAIT_S)
        outcome.items.append(item)

    answers = Answers(make(outcome, model=Model(ARTIFACT, block=BLOCK), hand_over=slow))
    ask(answers, 0, 2 * BLOCK - 1)  # the thread behind has the first block and stands still
    rest = threading.Thread(target=ask, args=(answers, 2 * BLOCK - 1, 5 * BLOCK))
    rest.start()
    rest.join(0.1)
    assert rest.is_alive()
    go_on.set()
    rest.join(WAIT_S)
    answers.close()
    assert outcome.predictions()["seq"].tolist() == list(range(5 * BLOCK))


def test_a_caller_and_the_clock_that_want_a_block_at_once_do_not_wait_for_each_other() -> None:
    """The clock's time comes in the middle of a call, which then needs both blocks."""
    answers = Answers(make(Outcome(), model=Model(ARTIFACT, block=BLOCK), flush_s=0.01))

    def hurry() -> None:
        with answers._turn:
            threading.Event().wait(0.05)
            for _ in range(3):
                answers._turn_over()

    hurrying = threading.Thread(target=hurry, daemon=True)
    hurrying.start()
    hurrying.join(WAIT_S)
    assert not hurrying.is_alive()
    assert ask(answers, 0, 1) == Model(ARTIFACT).predict(X[:1]).argmax(axis=1).tolist()
    answers.close()


def test_what_fails_behind_is_raised_to_the_caller_once() -> None:
    def broken(_: object) -> None:
        raise OSError("no more of it")

    answers = Answers(make(Outcome(), model=Model(ARTIFACT, block=BLOCK), hand_over=broken))
    with pytest.raises(OSError, match="no more of it"):
        ask(answers, 0, 4 * BLOCK)
    with pytest.raises(EdgeError, match="open it again"):
        ask(answers, 0, 1)
    answers.close()


def test_what_fails_behind_is_raised_at_the_end_where_nobody_asks_any_more() -> None:
    def broken(_: object) -> None:
        raise OSError("no more of it")

    answers = Answers(make(Outcome(), model=Model(ARTIFACT, block=BLOCK), hand_over=broken))
    ask(answers, 0, BLOCK - 1)
    with pytest.raises(OSError, match="no more of it"):
        answers.close()


def test_a_swap_misses_no_sample_whether_somebody_asks_or_not(tmp_path: Path) -> None:
    artifact(tmp_path, version=2)
    outcome = Outcome()
    loop = make(outcome, model=Model(ARTIFACT, block=BLOCK), flush_s=0.01)
    answers = Answers(loop)
    ask(answers, 0, 3 * BLOCK + 3)
    loop.swap(Model(tmp_path, block=BLOCK))
    ask(answers, 3 * BLOCK + 3, 6 * BLOCK)
    for version in (3, 4):
        artifact(tmp_path / str(version), version=version)
        loop.swap(Model(tmp_path / str(version), block=BLOCK))
        for _ in range(int(WAIT_S / 0.005)):
            if loop.model.version == version:
                break
            threading.Event().wait(0.005)
    ask(answers, 6 * BLOCK, 6 * BLOCK + 2)
    answers.close()
    predictions = outcome.predictions()
    assert predictions["seq"].tolist() == list(range(6 * BLOCK + 2))
    assert (np.diff(predictions["version"].astype(int)) >= 0).all()
    assert set(predictions["version"]) == {1, 2, 4}
    assert loop.record.counts().read == 6 * BLOCK + 2
