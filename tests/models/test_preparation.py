"""Is what is put in front of a net what the same words mean in numpy, and are words that do not fit refused?"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper

from models.errors import DataError
from models.evaluate import open_session, run_session
from models.preparation import PRESETS, Plan, Preparation, plan, put_in_front, read

numbers = st.floats(0.1, 200.0)


def through(shape: list[Any], *, kind: int = TensorProto.FLOAT) -> onnx.ModelProto:
    """A net that says what it is given."""
    graph = helper.make_graph(
        [helper.make_node("Identity", ["x"], ["y"])],
        "g",
        [helper.make_tensor_value_info("x", kind, shape)],
        [helper.make_tensor_value_info("y", kind, shape)],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


@settings(max_examples=40, deadline=None)
@given(
    layout=st.sampled_from(["NCHW", "NHWC", "NCT", "NTC", ""]),
    channels=st.sampled_from([1, 3]),
    colour=st.sampled_from(["RGB", "BGR"]),
    scale=numbers,
    mean=st.lists(numbers, min_size=3, max_size=3),
    sd=st.lists(numbers, min_size=3, max_size=3),
    each=st.booleans(),
)
def test_graph_and_numpy_agree(
    layout: Any, channels: int, colour: Any, scale: float, mean: list[float], sd: list[float], each: bool
) -> None:
    sizes = {"NCHW": [channels, 5, 4], "NHWC": [5, 4, channels], "NCT": [channels, 7], "NTC": [7, channels]}
    if channels == 1 or layout in ("NCT", "NTC", ""):
        colour = "RGB"
    shape = sizes.get(layout, [channels])
    many = channels if each else 1
    said = Preparation(layout=layout, colour=colour, scale=scale, mean=tuple(mean[:many]), sd=tuple(sd[:many]))
    model = through(["n", *shape])
    made = plan(model, said)
    put_in_front(model, made)
    x = samples(made)
    expected = made.apply(x)
    assert expected.shape == (6, *shape)
    got, _ = run_session(open_session(model.SerializeToString()), x, logits="y", embedding="y")
    assert np.allclose(got, expected, rtol=1e-5, atol=1e-4 * max(1.0, np.abs(expected).max()))
    by_hand = (x.astype(np.float64).reshape(-1) / scale - mean[0]) / sd[0]
    if many == 1:
        assert np.allclose(np.sort(got.reshape(-1)), np.sort(by_hand), rtol=1e-3, atol=1e-2)


def samples(made: Plan) -> np.ndarray:
    rng = np.random.default_rng(0)
    x = rng.integers(0, 256, (6, *made.shape))
    return x.astype(np.uint8) if made.dtype == "uint8" else x.astype(np.float32)


def test_images_are_bytes_with_channels_last_and_grey_ones_have_none() -> None:
    assert plan(through(["n", 3, 8, 6]), PRESETS["imagenet"])[2:4] == ((8, 6, 3), "uint8")
    assert plan(through(["n", 1, 8, 6]), PRESETS["unit"])[2:4] == ((8, 6), "uint8")
    assert plan(through(["n", 8, 6, 3]), PRESETS["signed"])[2:4] == ((8, 6, 3), "uint8")
    assert plan(through(["n", 7, 6]), Preparation(layout="NCT"))[2:4] == ((6, 7), "float32")
    assert plan(through(["n", 3, "h", "w"]), Preparation(size=(32, 24)))[2] == (32, 24, 3)
    assert plan(through(["n", 3, 8, 6]), PRESETS["unit"]).gain.shape == ()  # one number stays one


@pytest.mark.parametrize(
    ("shape", "said", "message"),
    [
        ([1, 3, 8, 3], Preparation(), "say layout = NCHW or NHWC"),
        ([1, 3, "h", 8], Preparation(), r"open: say size = \[height, width\]"),
        ([1, 3, 8, 8], Preparation(size=(9, 8)), r"size \(9, 8\), but the net takes \(3, 8, 8\)"),
        ([1, 3, 8, 8], Preparation(mean=(1.0, 2.0)), "2 numbers for 3 channels"),
        ([1, 3, 8, 8], Preparation(mean=(1.0, 2.0), sd=(1.0, 2.0, 3.0)), "mean has 2 numbers, sd 3"),
        ([1, 3, 8, 8], Preparation(layout="NCT"), "layout NCT has 3 axes, the net's input has 4"),
        ([1, 1, 8, 8], Preparation(colour="BGR"), "BGR needs images of three channels"),
    ],
)
def test_words_that_do_not_fit_the_net_are_refused(shape: list[Any], said: Preparation, message: str) -> None:
    with pytest.raises(DataError, match=message):
        plan(through(shape), said)


def test_a_net_that_takes_bytes_needs_no_preparation() -> None:
    with pytest.raises(DataError, match="takes whole numbers as they are"):
        plan(through([1, 8, 8, 3], kind=TensorProto.UINT8), PRESETS["unit"])


def test_it_is_read_from_a_file_or_a_name(tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text('scale = 255.0\nmean = [0.5]\nsd = [0.25]\ncolour = "BGR"\n')
    assert read(str(file)) == Preparation(scale=255.0, mean=(0.5,), sd=(0.25,), colour="BGR")
    assert read("unit") == Preparation(scale=255.0)
    file.write_text("std = [0.25]\n")
    with pytest.raises(DataError, match="unknown field `std`"):
        read(str(file))
    with pytest.raises(DataError, match=r"no such file \(did you mean 'imagenet'\?\)"):
        read("imagnet")
