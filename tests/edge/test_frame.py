"""Does a picture come to the model's input as the geometry says?"""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_agent.contract.errors import ConfigError
from edge_agent.source import Fit
from edge_agent.source.frame import Frames, place
from edge_agent.source.options import Frame

lengths = st.integers(1, 3000)


def nearest(picture: np.ndarray, width: int, height: int) -> np.ndarray:
    rows = np.arange(height) * picture.shape[0] // height
    columns = np.arange(width) * picture.shape[1] // width
    return picture[rows][:, columns]


def picture(height: int = 20, width: int = 40) -> np.ndarray:
    """Left half red, right half blue."""
    made = np.zeros((height, width, 3), np.uint8)
    made[:, : width // 2, 0] = made[:, width // 2 :, 2] = 200
    return made


@settings(deadline=None)  # a loaded machine is no mistake
@given(lengths, lengths, lengths, lengths, st.sampled_from(["stretch", "crop", "letterbox"]))
def test_parts_and_places_lie_inside_and_are_in_the_middle(w: int, h: int, tw: int, th: int, how) -> None:
    part, to = place((w, h), (tw, th), how)
    for box, width, height in ((part, w, h), (to, tw, th)):
        assert 1 <= box.width <= width
        assert 1 <= box.height <= height
        assert abs(2 * box.left + box.width - width) <= 1
        assert abs(2 * box.top + box.height - height) <= 1
    assert (how == "letterbox") or (to.width, to.height) == (tw, th)
    assert (how == "crop") or (part.width, part.height) == (w, h)
    if how != "stretch" and min(part + to, key=lambda n: n or 10**9) > 50:
        assert part.width / part.height == pytest.approx(to.width / to.height, rel=0.05)


def test_stretch_takes_all_of_it() -> None:
    made = Frames(Fit((4, 4, 3), "uint8"), Frame()).of(picture(), nearest)
    assert made[:, :2, 0].tolist() == [[200, 200]] * 4
    assert made[:, 2:, 2].tolist() == [[200, 200]] * 4


def test_crop_takes_the_middle_in_its_proportions() -> None:
    wide = picture()
    wide[:, :10] = wide[:, 30:] = 255
    made = Frames(Fit((4, 4, 3), "uint8"), Frame(how="crop")).of(wide, nearest)
    assert not (made == 255).any()


def test_letterbox_fills_around_it() -> None:
    made = Frames(Fit((4, 4, 3), "float32"), Frame(how="letterbox", fill=7)).of(picture(), nearest)
    assert made.dtype == np.float32
    assert made[0].tolist() == made[3].tolist() == [[7.0] * 3] * 4
    assert made[1, 0].tolist() == [200, 0, 0]


@pytest.mark.parametrize("shape", [(4, 4), (4, 4, 1), (1, 4, 4)])
def test_grey_is_as_bright_as_it_looks(shape: tuple[int, ...]) -> None:
    made = Frames(Fit(shape, "uint8"), Frame()).of(picture(), nearest)
    assert made.shape == shape
    assert sorted(set(made.ravel().tolist())) == [round(200 * 0.114), round(200 * 0.299)]


def test_channels_come_in_the_models_order() -> None:
    rgb = Frames(Fit((3, 4, 4), "uint8"), Frame()).of(picture(), nearest)
    bgr = Frames(Fit((3, 4, 4), "uint8"), Frame(colour="bgr")).of(picture(), nearest)
    assert rgb[0, 0, 0] == bgr[2, 0, 0] == 200
    grey = Frames(Fit((3, 4, 4), "uint8"), Frame()).of(picture()[:, :, 0], nearest)
    assert (grey[0] == grey[2]).all()
    assert rgb.flags.c_contiguous


@pytest.mark.parametrize("shape", [(9,), (4, 4, 2), (1, 4, 4, 3)])
def test_an_input_that_is_no_picture_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ConfigError, match="cannot be brought to the model's input"):
        Frames(Fit(shape, "uint8"), Frame())
