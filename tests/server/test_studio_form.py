"""Are answers in Label Studio's formats what they are here, both ways? As version 1.23 writes them."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_agent.contract.task import Task
from server.label.labeler import CANNOT_TELL, Question
from server.label.studio_form import Interface, Said, answer, interface_of, prediction

IMAGE = [{"type": "Image", "valueType": None, "value": "image"}]
CONFIG: dict[str, Any] = {
    "cls": {"type": "Choices", "to_name": ["img"], "inputs": IMAGE, "labels": ["cat", "dog", "Cannot tell"]},
    "box": {"type": "RectangleLabels", "to_name": ["img"], "inputs": IMAGE, "labels": ["cat", "dog"]},
    "speed": {"type": "Number", "to_name": ["img"], "inputs": IMAGE, "labels": []},
    "angle": {"type": "Number", "to_name": ["img"], "inputs": IMAGE, "labels": []},
}
SHAPE = (480, 640, 3)
SIZE = {"original_width": 640, "original_height": 480, "image_rotation": 0}


def interface(task: Task) -> Interface:
    found = interface_of(CONFIG, task)
    assert found is not None
    return found


def asked(said: dict[str, Any]) -> Question:
    return Question("cam-1.main.1.0", "", "", 0.4, lambda: pytest.fail("read from the store once more"), said)


def test_the_control_of_the_task_is_found() -> None:
    assert interface("detection") == ("box", "img", "image", ("cat", "dog"), "detection")
    assert interface("regression") == ("speed", "img", "image", ("speed", "angle"), "regression")
    assert interface_of({"cls": CONFIG["cls"]}, "detection") is None


def test_boxes_are_written_in_percent() -> None:
    said = {"boxes": [["cat", 0.1, 0.2, 0.4, 0.45, 0.4], ["horse", 0.0, 0.0, 1.0, 1.0, 0.9]]}
    value = {"x": 10.0, "y": 20.0, "width": 30.0, "height": 25.0, "rotation": 0, "rectanglelabels": ["cat"]}
    named = {"id": "b0", "from_name": "box", "to_name": "img", "type": "rectanglelabels"}
    assert prediction(asked(said), interface("detection"), SHAPE) == [{**named, **SIZE, "score": 0.4, "value": value}]


def box(**value: Any) -> dict[str, Any]:
    named = {"id": "b1", "from_name": "box", "to_name": "img", "type": "rectanglelabels", "origin": "manual"}
    return {**named, **SIZE, "value": {"rotation": 0, "rectanglelabels": ["dog"], **value}}


@pytest.mark.parametrize(
    ("results", "expected"),
    [
        ([box(x=10.0, y=20.0, width=30.0, height=25.0)], [["dog", 0.1, 0.2, 0.4, 0.45]]),
        ([box(x=-1.0, y=90.0, width=30.0, height=25.0)], [["dog", 0.0, 0.9, 0.29, 1.0]]),  # drawn over the edge
        ([box(x=50.0, y=50.0, width=10.0, height=20.0, rotation=90)], [["dog", 0.35, 0.5, 0.5, 0.633333]]),
        ([box(x=50.0, y=50.0, width=0.0, height=20.0)], []),
        (
            [box(x=50.0, y=50.0, width=0.005, height=20.0), box(x=0, y=0, width=1, height=1)],
            [["dog", 0, 0, 0.01, 0.01]],
        ),
        ([], []),
    ],
)
def test_boxes_are_read_from_percent(results: Any, expected: Any) -> None:
    assert answer(results, interface("detection")) == Said("", {"boxes": expected})


shares = st.tuples(st.integers(0, 1000), st.integers(0, 1000)).filter(lambda two: two[0] < two[1])


@given(shares, shares)
def test_a_box_comes_back_as_it_went(across: tuple[int, int], down: tuple[int, int]) -> None:
    drawn = [across[0] / 1000, down[0] / 1000, across[1] / 1000, down[1] / 1000]
    results = prediction(asked({"boxes": [["cat", *drawn, 1.0]]}), interface("detection"), SHAPE)
    assert answer(results, interface("detection")) == Said("", {"boxes": [["cat", *map(pytest.approx, drawn)]]})


def choices(*names: str) -> list[dict[str, Any]]:
    return [{"id": "c", "from_name": "cls", "to_name": "img", "type": "choices", "value": {"choices": list(names)}}]


def test_several_choices() -> None:
    form = interface("multilabel")
    assert answer(choices("dog", "cat"), form) == Said("", {"applies": ["dog", "cat"]})
    assert answer([], form) == Said("", {"applies": []})
    assert answer(choices("Cannot tell"), form) == Said(CANNOT_TELL)
    said = {"applies": [["cat", 0.9], ["dog", 0.2], ["horse", 0.8]]}
    assert prediction(asked(said), form, SHAPE)[0]["value"] == {"choices": ["cat"]}
    assert prediction(asked({"applies": []}), form, SHAPE) == []


def test_numbers_are_named_after_their_target() -> None:
    form = interface("regression")
    results = [
        {"id": "n", "from_name": "speed", "to_name": "img", "type": "number", "value": {"number": 3.2}},
        {"id": "m", "from_name": "angle", "to_name": "img", "type": "number", "value": {"number": -1}},
    ]
    assert answer(results, form) == Said("", {"values": [["speed", 3.2], ["angle", -1.0]]})
    assert answer([], form) == Said(CANNOT_TELL)
    found = prediction(asked({"values": [["speed", 3.2, 0.5]]}), form, SHAPE)
    assert found == [{"id": "v0", "from_name": "speed", "to_name": "img", "type": "number", "value": {"number": 3.2}}]


def test_boxes_beside_cannot_tell() -> None:
    results = [box(x=10.0, y=20.0, width=30.0, height=25.0), *choices("Cannot tell")]
    assert answer(results, interface("detection")) == Said(CANNOT_TELL)
