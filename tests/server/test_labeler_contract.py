"""Do the examples of docs/labelling.md run, and does the contract test find what breaks the contract?"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from server.label.labeler import LATER, Given, People
from server.testing import check_labeler, question

PAGE = Path(__file__).parents[2] / "docs" / "labelling.md"
QUESTIONS = [question(f"cam-1.main.1.{i}", np.full((4, 4), i, np.uint8)) for i in range(4)]


def test_the_examples_run_and_keep_their_contracts():
    names: dict[str, Any] = {}
    for block in re.findall(r"^```python\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE):
        exec(block, names)
    names["test_brightness"]()
    logits = names["Large"]()(np.array([[[0]], [[255]]], np.uint8))
    assert logits.argmax(axis=1).tolist() == [0, 1]


class Labels:
    """What a labeler may do wrong, by name."""

    def __init__(self, what: str) -> None:
        self.what = what
        self.calls = 0

    def label(self, batch):
        self.calls += 1
        if self.what == "short":
            return ["cat"] * max(len(batch) - 1, 0)
        if self.what == "order":
            return [("cat", "dog")[i % 2] for i in range(len(batch))]
        if self.what == "mood":
            return [("cat", "dog")[self.calls % 2]] * len(batch)
        if self.what == "bytes":
            return [b"cat"] * len(batch)
        return [LATER] * len(batch)

    def answered(self):
        good = Given("cam-1.main.1.1", "cat", "x:ann", "x", 1.0, "x:1")
        return {
            "stranger": [good._replace(id="cam-2.main.1.1")],
            "keyless": [good._replace(key="")],
            "twice": [good, good._replace(id="cam-1.main.1.2")],
            "endless": [good._replace(seconds=float("inf"))],
        }.get(self.what, [good])


@pytest.mark.parametrize(
    ("what", "said"),
    [
        ("short", "answers to"),
        ("order", "another order"),
        ("mood", "asked in two batches|another order"),
        ("bytes", "expected a name, an index or None"),
        ("stranger", "which nobody asked"),
        ("keyless", "key are needed"),
        ("twice", "answers with one key"),
        ("endless", "seconds are inf"),
    ],
)
def test_what_breaks_the_contract_is_found(what, said):
    with pytest.raises(AssertionError, match=said):
        check_labeler(lambda: Labels(what), QUESTIONS)


def test_what_keeps_it_passes():
    check_labeler(lambda: Labels("later"), QUESTIONS)
    check_labeler(People, QUESTIONS)
