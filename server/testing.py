"""Does a labeler of one's own keep the contract of its seam?

For the tests of those who write one (docs/labelling.md): the check returns when it holds, and raises AssertionError
that says what was expected and what it did.

    from server.testing import check_labeler, question
    def test_mine(): check_labeler(Mine, [question("cam-1.main.1.1", array), ...])
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from server.errors import LabelError
from server.label.labeler import LATER, Answer, Given, Labeler, Question, Standing, ask


def question(
    sample_id: str, array: NDArray[Any], *, ref: str = "", guess: str = "", confidence: float = 0.0
) -> Question:
    """One question about an array, as the server would put it."""
    return Question(id=sample_id, ref=ref, guess=guess, confidence=confidence, load=lambda: array.copy())


def check_labeler(make: Callable[[], Labeler], questions: Sequence[Question]) -> None:
    """Check a labeler: one answer each, whatever the batch, and nothing lost when it is made anew.

    Args:
        make: makes the labeler, as the server does.
        questions: what it is asked, two or more, each with an id of its own. Whoever answers LATER, and has `answered`,
            is asked for his answers as well: they must be of these questions.
    """
    _expect(len(questions) >= 2, f"{len(questions)} questions, expected 2 or more")
    _expect(len({one.id for one in questions}) == len(questions), "questions with one id")
    labeler = make()
    _expect(_asked(labeler, []) == [], "it answers nobody's question")
    whole = _asked(labeler, questions)
    half = len(questions) // 2
    parts = _asked(labeler, questions[:half]) + _asked(labeler, questions[half:])
    _expect(parts == whole, f"asked in two batches it answers {parts}, in one {whole}")
    again = _asked(make(), list(reversed(questions)))[::-1]
    _expect(again == whole, f"made anew, and asked in another order, it answers {again}, before {whole}")
    if LATER in whole:
        _check_later(labeler, {one.id for one in questions})


def _check_later(labeler: Labeler, ids: set[str]) -> None:
    answered = getattr(labeler, "answered", None)
    if answered is None:
        return  # people answer, out of the queue
    said = list(answered())
    given = [one for one in said if not isinstance(one, Standing)]
    for one in given:
        _expect(isinstance(one, Given), f"answered() gave {one!r}, expected server.label.labeler.Given")
    for one in said:
        _expect(one.id in ids, f"answered() tells of {one.id}, which nobody asked")
    for one in given:
        _expect(
            bool(one.said and one.labeler and one.kind and one.key), f"{one}: said, labeler, kind and key are needed"
        )
        _expect(
            np.isfinite(one.seconds) and one.seconds >= 0.0, f"{one}: seconds are {one.seconds}, expected 0 or more"
        )
    twice = [key for key, number in Counter(one.key for one in given).items() if number > 1]
    _expect(not twice, f"answers with one key, of which one is lost: {twice}")


def _asked(labeler: Labeler, questions: Sequence[Question]) -> list[Answer]:
    try:
        return ask(labeler, list(questions))
    except LabelError as error:
        raise AssertionError(str(error)) from error


def _expect(holds: bool, otherwise: str) -> None:
    if not holds:
        raise AssertionError(otherwise)
