"""Is text read as what it holds, and refused with its reason when it holds something else?"""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_agent.source.numbers import Numbers
from edge_agent.source.options import Lines


def read(text: str, *, channels: int = 3, dtype: str = "float32", **told: object) -> list:
    return Numbers(Lines(**told), channels=channels, dtype=dtype).steps(text).tolist()


@pytest.mark.parametrize(
    "text", ["1,2.5,-3", " 1 ; 2.5 ; -3 ", "1\t2.5\t-3\r", "1e0 2.5 -3", "1,2.5,-3,", "[1, 2.5, -3]", "[[1, 2.5, -3]]"]
)
def test_a_line_is_a_step(text: str) -> None:
    assert read(text) == [[1.0, 2.5, -3.0]]


def test_a_list_of_lists_is_several_steps_and_a_list_of_one_channel_too() -> None:
    assert read("[[1,2,3],[4,5,6]]") == [[1, 2, 3], [4, 5, 6]]
    assert read("[1,2,3]", channels=1) == [[1], [2], [3]]
    assert read("7", channels=1) == [[7]]


def test_what_to_take_is_named() -> None:
    imu = '{"t": 5, "imu": {"x": 1, "y": 2}, "z": 3}'
    assert read(imu, fields=("imu.x", "imu.y", "z")) == [[1, 2, 3]]
    assert read('{"x": [1, 2], "y": [3, 4]}', channels=2, fields=("y", "x")) == [[3, 1], [4, 2]]
    assert read("9,1,2,3", columns=(3, 1, 2)) == [[3, 1, 2]]
    assert read("[[9,1,2,3]]", columns=(3, 1, 2)) == [[3, 1, 2]]


def test_the_first_line_may_name_the_columns() -> None:
    numbers = Numbers(Lines(fields=("y", "x")), channels=2, dtype="float32")
    assert numbers.steps("t,x,y").shape == (0, 2)
    assert numbers.steps("0,1,2").tolist() == [[2, 1]]
    with pytest.raises(ValueError, match="not numbers"):
        numbers.steps("t,x,y")
    with pytest.raises(ValueError, match="no y among the names t, x"):
        Numbers(Lines(fields=("y", "x")), channels=2, dtype="float32").steps("t,x")


def test_blank_lines_hold_nothing_and_nan_is_a_number() -> None:
    assert read("  \r\n") == []
    assert np.isnan(read("nan,1,2")[0][0])
    assert np.isnan(read("[null,1,2]")[0][0])


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("1,2", "expected 3 to a step"),
        ("[1,2]", "expected 3 to a step"),
        ("[[[1,2,3]]]", "expected 3 to a step"),
        ('{"x": 1}', "an object with x: name what to take"),
        ("{}", "name what to take"),
        ("[1,2", "truncated"),
        ('["a", "b", "c"]', "could not convert"),
        ("[[1,2,3],[1]]", "inhomogeneous"),
    ],
)
def test_a_line_that_holds_something_else_is_refused(text: str, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        read(text)


def test_a_field_that_is_missing_is_named() -> None:
    with pytest.raises(ValueError, match="no field imu.z, only imu"):
        read('{"imu": {"x": 1}}', channels=2, fields=("imu.x", "imu.z"))


@pytest.mark.parametrize("value", ["300", "-1", "1.5", "nan"])
def test_what_the_models_whole_numbers_cannot_hold_is_refused(value: str) -> None:
    with pytest.raises(ValueError, match="whole numbers from 0 to 255"):
        read(value, channels=1, dtype="uint8")
    assert read("255", channels=1, dtype="uint8") == [[255]]


@settings(deadline=None)  # a loaded machine is no mistake
@given(st.text(max_size=80))
def test_any_text_is_steps_or_a_value_error(text: str) -> None:
    try:
        found = Numbers(Lines(), channels=2, dtype="float32").steps(text)
    except ValueError:
        return
    assert found.shape == (len(found), 2)


@settings(deadline=None)  # a loaded machine is no mistake
@given(st.lists(st.lists(st.floats(allow_nan=False, width=32), min_size=3, max_size=3), min_size=1, max_size=5))
def test_json_comes_back_as_it_was_written(rows: list[list[float]]) -> None:
    if np.isfinite(rows).all():
        assert read(json.dumps(rows)) == rows
    assert [read(",".join(map(repr, row)))[0] for row in rows] == rows
