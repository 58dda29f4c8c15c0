"""Does a folder of pictures, or of files, become the data that it holds?"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from models.corruption import CORRUPTIONS
from models.errors import DataError
from models.folder import load, look


def picture(path: Path, value: int, *, size: tuple[int, int] = (12, 10), mode: str = "L") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size, value if mode == "L" else (value, 0, 255 - value)).save(path)


def test_a_folder_of_each_class_gives_its_names_and_pixels(tmp_path: Path) -> None:
    for index in range(3):
        picture(tmp_path / "cat" / f"{index}.png", index)
        picture(tmp_path / "dog" / "more" / f"{index}.PNG", 100 + index)
    (tmp_path / "notes").mkdir()
    data, notes = load(tmp_path)
    assert data.names == ("cat", "dog")
    assert data.y.tolist() == [0, 0, 0, 1, 1, 1]
    assert data.x.shape == (6, 10, 12)
    assert data.x[:, 0, 0].tolist() == [0, 1, 2, 100, 101, 102]
    assert notes == ("Images became 12 x 10 pixels, grey.",)


def test_sizes_that_differ_become_squares_and_one_colour_makes_all_colour(tmp_path: Path) -> None:
    picture(tmp_path / "cat" / "a.png", 9)
    picture(tmp_path / "dog" / "b.png", 9, size=(40, 30), mode="RGB")
    assert load(tmp_path).data.x.shape == (2, 64, 64, 3)
    assert load(tmp_path, side=16).data.x.shape == (2, 16, 16, 3)


def test_a_file_that_is_no_image_is_left_out_and_named(tmp_path: Path) -> None:
    for index in range(20):
        picture(tmp_path / ("cat" if index % 2 else "dog") / f"{index}.png", index)
    whole = (tmp_path / "cat" / "1.png").read_bytes()
    (tmp_path / "cat" / "1.png").write_bytes(whole[: len(whole) // 2])
    data, notes = load(tmp_path)
    assert len(data.y) == 19
    assert notes[1] == "1 files could not be read as images and were left out: cat/1.png."
    for index in (3, 5):
        (tmp_path / "cat" / f"{index}.png").write_bytes(b"nothing")
    with pytest.raises(DataError, match="3 of 20 files are no images"):
        load(tmp_path)


def test_files_of_arrays_are_joined_each_a_device(tmp_path: Path) -> None:
    for name, count in (("cam-1", 4), ("cam-2", 3)):
        np.savez(tmp_path / f"{name}.npz", x=np.zeros((count, 2), np.float32), y=np.arange(count) % 2)
    data, _ = load(tmp_path)
    assert data.x.shape == (7, 2)
    assert data.device is not None
    assert data.device.tolist() == ["cam-1"] * 4 + ["cam-2"] * 3


@pytest.mark.parametrize(
    ("other", "said"),
    [
        ({"x": np.zeros((3, 5), np.float32)}, "expected the same in all"),
        ({"t": np.arange(3)}, "has an array t"),
        ({"names": np.array(["p", "q", "r"])}, "names"),
        ({"y": np.array([0.5, 1, 2])}, "y is float64"),
    ],
)
def test_files_that_do_not_fit_each_other_are_refused(tmp_path: Path, other: dict[str, np.ndarray], said: str) -> None:
    sound = {"x": np.zeros((3, 2), np.float32), "y": np.arange(3) % 2, "names": np.array(["a", "b"])}
    np.savez(tmp_path / "a.npz", **sound)
    np.savez(tmp_path / "b.npz", **{**sound, **other})
    with pytest.raises(DataError, match=said):
        load(tmp_path)


def test_a_folder_of_neither_kind_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no images and no .npz; expected a folder of each class"):
        load(tmp_path)
    picture(tmp_path / "cat" / "a.png", 9)
    with pytest.raises(DataError, match="images of 1 class"):
        load(tmp_path)
    np.savez(tmp_path / "a.npz", x=np.zeros((3, 2), np.float32), y=np.arange(3) % 2)
    with pytest.raises(DataError, match="not both"):
        load(tmp_path)


@pytest.mark.parametrize("name", sorted(CORRUPTIONS))
@pytest.mark.parametrize("shape", [(5, 8, 8), (5, 8, 6), (5, 8, 8, 3)])
def test_a_corruption_keeps_shape_and_type_and_shows(name: str, shape: tuple[int, ...]) -> None:
    x = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    kept = x.copy()
    seen = CORRUPTIONS[name](x, np.random.default_rng(1))
    assert seen.dtype == np.uint8
    assert seen.shape == x.shape
    assert (x == kept).all()
    assert np.mean(seen != x) > 0.5


def test_what_is_no_image_is_shaken_or_refused() -> None:
    x = np.random.default_rng(0).normal(size=(50, 7)).astype(np.float32)
    assert 0.3 < np.std(CORRUPTIONS["fog"](x, np.random.default_rng(1)) - x) / np.std(x) < 0.7
    with pytest.raises(DataError, match="no images"):
        CORRUPTIONS["rotate"](x, np.random.default_rng(1))


def test_images_come_as_a_model_takes_them(tmp_path: Path) -> None:
    for index in range(4):
        picture(tmp_path / "dog" / f"{index}.png", 40 * index, size=(12, 10), mode="RGB")
        picture(tmp_path / "cat" / f"{index}.png", 40 * index, size=(30, 20))
    seen = look(tmp_path, shape=(8, 6, 3), dtype="uint8")
    assert (seen.x.shape, seen.names) == ((8, 8, 6, 3), ("cat", "dog"))
    assert seen.y is not None
    assert seen.y.tolist() == [0] * 4 + [1] * 4
    assert look(tmp_path, shape=(8, 6), dtype="uint8").x.shape == (8, 8, 6)
    assert look(tmp_path, shape=(8, 6, 1), dtype="uint8").x.shape == (8, 8, 6, 1)
    alone = look(tmp_path / "cat", shape=(8, 6), dtype="uint8")  # nobody says what they show
    assert (len(alone.x), alone.y, alone.names) == (4, None, ())
    with pytest.raises(DataError, match=r"the model takes float32 \(3, 8, 6\): say how they are prepared"):
        look(tmp_path, shape=(3, 8, 6), dtype="float32")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="no images and no .npz"):
        look(tmp_path / "empty", shape=(8, 6), dtype="uint8")
