from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest

from models import data
from models import fashion as fashion_source
from models.errors import DataError


def write(path: Path, **arrays: object) -> Path:
    np.savez(path, **arrays)
    return path


def good(n: int = 6) -> dict[str, object]:
    return {"x": np.zeros((n, 8, 8), np.uint8), "y": np.arange(n) % 3, "names": np.array(["a", "b", "c"])}


def test_npz_is_read_with_everything_in_it(tmp_path: Path) -> None:
    x = np.zeros((6, 20, 3), np.float32)
    x[2, 1, 0] = np.nan
    path = write(tmp_path / "d.npz", **good() | {"x": x, "device": np.array(list("aabbcc")), "t": np.arange(6) / 2})
    read = data.load_npz(path)
    assert read.names == ("a", "b", "c")
    assert read.y.dtype == np.int64
    assert read.x.shape == (6, 20, 3)
    assert data.finite_rows(read.x).tolist() == [True, True, False, True, True, True]
    part = read.take(np.array([4, 0]))
    assert part.device is not None
    assert part.t is not None
    assert part.device.tolist() == ["c", "a"]
    assert part.t.tolist() == [2.0, 0.0]


def test_npz_without_names_counts_its_classes(tmp_path: Path) -> None:
    arrays = good()
    del arrays["names"]
    assert data.load_npz(write(tmp_path / "d.npz", **arrays)).names == ("0", "1", "2")
    with pytest.raises(DataError, match="y holds class 0 alone, expected two classes"):
        data.load_npz(write(tmp_path / "d.npz", **arrays | {"y": np.zeros(6, int)}))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"x": np.zeros((6, 8, 8))}, "x is float64, expected float32 or uint8"),
        ({"x": np.zeros(6, np.float32)}, r"x has shape \(6,\), expected \(N, D\)"),
        ({"x": np.zeros((0, 8), np.float32), "y": np.zeros(0, int)}, r"x has shape \(0, 8\)"),
        ({"x": np.full((6, 4), np.nan, np.float32)}, "every sample of x holds NaN"),
        ({"y": np.arange(5)}, r"y has shape \(5,\), expected \(6,\)"),
        ({"y": np.zeros(6)}, "y is float64, expected whole numbers"),
        ({"y": np.array([-1, 0, 1, 2, 0, 1])}, "y holds -1"),
        ({"y": np.arange(6)}, "y goes up to 5 but names has 3, expected at least 6"),
        ({"names": np.arange(3)}, "names is int64"),
        ({"names": np.array(["a", "a", "b"])}, "each once"),
        ({"device": np.zeros((6, 2), int)}, r"device has shape \(6, 2\)"),
        ({"device": np.zeros(6)}, "device is float64"),
        ({"t": np.array(list("abcdef"))}, "t is <U1, expected numbers"),
        ({"t": np.array([0.0, 1.0, np.nan, 3.0, np.inf, 5.0])}, "t holds NaN or infinity for 2 samples"),
        ({"devices": np.zeros(6, int)}, "unknown array 'devices' \\(did you mean 'device'\\?\\)"),
        ({"names": np.array([{}], dtype=object)}, "holds objects, not numbers"),
    ],
)
def test_npz_that_does_not_fit_is_told_what_was_expected(tmp_path: Path, changes: dict[str, object], said: str) -> None:
    with pytest.raises(DataError, match=said):
        data.load_npz(write(tmp_path / "d.npz", **good() | changes))


def test_npz_that_is_none(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such file"):
        data.load_npz(tmp_path / "d.npz")
    (tmp_path / "text.npz").write_text("hello")
    with pytest.raises(DataError, match=r"cannot be read as \.npz"):
        data.load_npz(tmp_path / "text.npz")
    np.save(tmp_path / "one.npy", np.zeros(3))
    with pytest.raises(DataError, match="one array"):
        data.load_npz(tmp_path / "one.npy")
    with pytest.raises(DataError, match="no array 'y'; got x"):
        data.load_npz(write(tmp_path / "d.npz", x=np.zeros((2, 3), np.float32)))


def test_watch_has_ten_people_and_an_order_on_each() -> None:
    watch = data.load_watch()
    assert watch.x.shape == (4677, 100, 6)
    assert watch.x.dtype == np.float32
    assert np.isfinite(watch.x).all()
    assert watch.device is not None
    assert watch.t is not None
    assert np.unique(watch.device).tolist() == list(range(1, 11))
    assert set(watch.y.tolist()) == set(range(len(watch.names)))
    for person in range(1, 11):
        assert np.array_equal(watch.t[watch.device == person], np.arange((watch.device == person).sum()))


def test_fashion_not_there_says_what_to_run(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"python -m models\.data fetch"):
        data.load_fashion(tmp_path)


def test_fashion_is_seventy_thousand_images(fashion: object) -> None:
    train, test = data.load_fashion(data.default_cache())
    assert (train.x.shape, test.x.shape, train.x.dtype) == ((60_000, 28, 28), (10_000, 28, 28), np.uint8)
    assert np.bincount(train.y).tolist() == [6000] * 10
    assert np.bincount(test.y).tolist() == [1000] * 10


def test_fashion_damaged_in_the_cache_is_refused(fashion: object, tmp_path: Path) -> None:
    folder = tmp_path / fashion_folder().name
    folder.mkdir()
    for file in fashion_folder().iterdir():
        content = bytearray(file.read_bytes())
        if file.name.startswith("t10k-labels"):
            content[-1] ^= 1
        (folder / file.name).write_bytes(content)
    with pytest.raises(DataError, match=r"t10k-labels-idx1-ubyte: sha256 .* expected 0402a96d92fd"):
        data.load_fashion(tmp_path)


def test_fashion_there_is_not_fetched_again(fashion: object, capsys: pytest.CaptureFixture[str]) -> None:
    assert data.main(["fetch", "--cache", str(data.default_cache())]) == 0
    assert "already in" in capsys.readouterr().out


def test_fashion_that_no_way_brings_says_why_and_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    # No programs and no network: an empty search path, and a home that nobody listens at.
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(fashion_source, "HOME", "http://127.0.0.1:9")
    assert data.main(["fetch", "--cache", str(tmp_path)]) == 1
    said = capsys.readouterr().err
    assert "Debian package: " in said
    assert "apt-get" in said
    assert "public home: " in said
    assert "by hand" in said


def test_fashion_archives_with_other_content_are_not_put_in_place(tmp_path: Path) -> None:
    for file in fashion_source.FILES:
        (tmp_path / f"{file.name}.gz").write_bytes(gzip.compress(b"something else"))
    with pytest.raises(DataError, match="sha256"):
        fashion_source._unpack(tmp_path, tmp_path / "out")
    assert list((tmp_path / "out").iterdir()) == []


def fashion_folder() -> Path:
    return data.default_cache() / fashion_source.FOLDER
