"""How is an answer written in Label Studio?

    classification  <Choices>, one of them              {"choices": ["cat"]}
    multilabel      <Choices choice="multiple">         the same with several; none of them: nothing applies
    detection       <RectangleLabels>                   {"x": .., "y": .., "width": .., "height": .., "rotation": 0,
                                                        "rectanglelabels": ["cat"]}: percent of the image, and degrees
    regression      a <Number> named after each target  {"number": 3.2}

over an <Image>. Where boxes or numbers are asked for, a <Choices> beside them may have "cannot tell". Formats are those
of Label Studio 1.23. Pure.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from edge_agent.contract.task import Task
from server.label.labeler import CANNOT_TELL, NONE_OF_THESE, Question
from server.label.truth import EDGE_MIN
from server.store.truths import LIKELY

_CONTROL: dict[Task, str] = {
    "classification": "Choices",
    "multilabel": "Choices",
    "detection": "RectangleLabels",
    "regression": "Number",
}
Result = dict[str, Any]


class Interface(NamedTuple):
    """What the project's labelling interface calls its parts."""

    from_name: str  # of the control; of numbers, the first
    to_name: str  # of the <Image>
    key: str  # in a task's data, of the picture
    choices: tuple[str, ...]  # classes that it knows; of numbers, their names
    task: Task = "classification"


class Said(NamedTuple):
    """What somebody answered: a class, or what is none; or a truth that is more, by names."""

    said: str
    truth: dict[str, Any] | None = None


def interface_of(config: Mapping[str, Any], task: Task) -> Interface | None:
    """Out of a project's `parsed_label_config`; None: it has not what the task needs."""
    found = []
    for name, control in config.items():
        images = [one for one in control.get("inputs", ()) if one.get("type") == "Image"]
        if control.get("type") == _CONTROL[task] and images:
            found.append((name, control["to_name"][0], images[0].get("value", "image").lstrip("$"), control))
    if not found:
        return None
    name, to_name, key, control = found[0]
    choices = [one[0] for one in found] if task == "regression" else control.get("labels", ())
    return Interface(name, to_name, key, tuple(choices), task)


def expected(task: Task) -> str:
    """What a project's interface has to have."""
    return f"a <{_CONTROL[task]}> over an <Image>"


def prediction(question: Question, interface: Interface, shape: Sequence[int]) -> list[Result]:
    """The model's answer to a question, as results; [] where it has none that the interface knows.

    shape: of the sample (H, W, ...), which is not read for this.
    """
    named = {"from_name": interface.from_name, "to_name": interface.to_name}
    said, known = question.said or {}, set(interface.choices)
    if interface.task == "classification":
        value = {"choices": [question.guess]}
        return [{"id": "guess", **named, "type": "choices", "value": value}] if question.guess in known else []
    if interface.task == "multilabel":
        names = [name for name, sure in said.get("applies") or () if sure >= LIKELY and name in known]
        return [{"id": "guess", **named, "type": "choices", "value": {"choices": names}}] if names else []
    if interface.task == "regression":
        rows = [row for row in said.get("values") or () if row[0] in known]
        return [
            {"id": f"v{place}", **named, "from_name": name, "type": "number", "value": {"number": value}}
            for place, (name, value, *_) in enumerate(rows)
        ]
    height, width = shape[:2]
    size = {"original_width": width, "original_height": height, "image_rotation": 0}
    return [
        {"id": f"b{place}", **named, "type": "rectanglelabels", **size, "score": box[5], "value": _percent(box)}
        for place, box in enumerate(said.get("boxes") or ())
        if box[0] in known
    ]


def answer(results: Sequence[Mapping[str, Any]], interface: Interface) -> Said:
    """What the results of an annotation say."""
    chosen = [name for one in results for name in one.get("value", {}).get("choices", ())]
    words = [name.lower() for name in chosen]
    if CANNOT_TELL in words:
        return Said(CANNOT_TELL)
    if interface.task == "classification":
        if not chosen:
            return Said(CANNOT_TELL)
        return Said(NONE_OF_THESE if words[0] == NONE_OF_THESE else chosen[0])
    if interface.task == "multilabel":
        return Said("", {"applies": [name for name in dict.fromkeys(chosen) if name.lower() != NONE_OF_THESE]})
    if interface.task == "regression":
        numbers = {one["from_name"]: one["value"]["number"] for one in results if one.get("type") == "number"}
        values = [[name, float(number)] for name, number in numbers.items() if number is not None]
        return Said("", {"values": values}) if values else Said(CANNOT_TELL)
    drawn = [_box(one) for one in results if one.get("type") == "rectanglelabels"]
    return Said("", {"boxes": [box for box in drawn if box is not None]})


def _percent(box: Sequence[Any]) -> dict[str, Any]:
    name, left, top, right, bottom = box[:5]
    place = {"x": 100 * left, "y": 100 * top, "width": 100 * (right - left), "height": 100 * (bottom - top)}
    return {key: round(value, 4) for key, value in place.items()} | {"rotation": 0, "rectanglelabels": [name]}


def _box(result: Mapping[str, Any]) -> list[Any] | None:
    """By shares of the image, cut at its edges: of one that was turned, the upright box around it; None: a slip."""
    value = result["value"]
    width, height = float(result.get("original_width", 100)), float(result.get("original_height", 100))
    x, y = value["x"] * width / 100.0, value["y"] * height / 100.0
    across, down = value["width"] * width / 100.0, value["height"] * height / 100.0
    turn = math.radians(value.get("rotation", 0))  # clockwise about its upper left corner
    cos, sin = math.cos(turn), math.sin(turn)
    spots = [(x + a * cos - b * sin, y + a * sin + b * cos) for a in (0.0, across) for b in (0.0, down)]
    left, right = (_share(edge(spot[0] for spot in spots), width) for edge in (min, max))
    top, bottom = (_share(edge(spot[1] for spot in spots), height) for edge in (min, max))
    names = value.get("rectanglelabels") or [""]
    return [names[0], left, top, right, bottom] if min(right - left, bottom - top) >= EDGE_MIN else None


def _share(pixels: float, of: float) -> float:
    return min(max(round(pixels / of, 6), 0.0), 1.0)
