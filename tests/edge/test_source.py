from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from edge_agent.contract.errors import ConfigError, SourceError
from edge_agent.contract.types import Reading
from edge_agent.source import Fit, Start
from edge_agent.source.folder import Folder
from edge_agent.source.kinds import open_source
from edge_agent.source.options import Source
from edge_agent.source.replay import Replay
from edge_agent.testing import check_source

FIT = Fit((8, 8), "uint8")


class Clock:
    """Virtual time: sleeping moves it."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


def taken(readings: Iterator[Reading | None], count: int) -> list[Reading]:
    found: list[Reading] = []
    for reading in readings:
        if reading is not None:
            found.append(reading)
            if len(found) == count:
                break
    return found


# --- replay ---


def recording(path: Path, count: int = 20) -> np.ndarray:
    x = np.arange(count * 64).reshape(count, 8, 8).astype(np.uint8)
    np.savez(path, x=x, y=np.zeros(count))
    return x


def test_replay_gives_every_row_once_with_its_reference(tmp_path: Path) -> None:
    x = recording(tmp_path / "cam-1.npz")
    found = list(Replay(tmp_path / "cam-1.npz").readings(Start()))
    assert [(r.seq, r.ref) for r in found if r] == [(i, f"cam-1:{i}") for i in range(20)]
    assert (np.stack([r.data for r in found if r]) == x).all()


def test_replay_goes_on_where_it_was_left(tmp_path: Path) -> None:
    recording(tmp_path / "a.npz")
    assert [r.seq for r in Replay(tmp_path / "a.npz").readings(Start(17)) if r] == [17, 18, 19]


def test_replay_keeps_its_rate_and_never_sleeps_long(tmp_path: Path) -> None:
    recording(tmp_path / "a.npz")
    clock = Clock()
    replay = Replay(tmp_path / "a.npz", rate_per_s=2.0, monotonic=clock, sleep=clock.sleep)
    times, idle = [], 0
    for reading in replay.readings(Start()):
        idle += reading is None
        if reading is not None:
            times.append(clock.now)
    assert np.allclose(np.diff(times), 0.5)
    assert idle >= 19 * 9  # a chance to do what falls due, every 50 ms


def test_replay_catches_up_when_the_taker_was_late(tmp_path: Path) -> None:
    recording(tmp_path / "a.npz")
    clock = Clock()
    readings = Replay(tmp_path / "a.npz", rate_per_s=10.0, monotonic=clock, sleep=clock.sleep).readings(Start())
    taken(readings, 1)
    clock.now += 1.0
    before = clock.now
    assert [r.seq for r in taken(readings, 10)] == list(range(1, 11))
    assert clock.now == before


@pytest.mark.parametrize("content", [b"", b"not a zip", None])
def test_replay_of_something_else_says_what_was_expected(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "a.npz"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(SourceError, match="expected an .npz"):
        Replay(path)


def test_replay_without_x_or_of_scalars_is_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", z=np.zeros(3))
    with pytest.raises(SourceError, match="array x"):
        Replay(tmp_path / "a.npz")
    np.savez(tmp_path / "b.npz", x=np.zeros(3))
    with pytest.raises(SourceError, match="one sample a row"):
        Replay(tmp_path / "b.npz")


# --- folder ---


def folder(path: Path, clock: Clock, fit: Fit = FIT) -> Folder:
    return Folder(path, fit=fit, poll_s=0.5, monotonic=clock, sleep=clock.sleep)


def drop(path: Path, name: str, array: np.ndarray, *, at_s: int) -> None:
    np.save(path / name, array)
    os.utime(path / name, (at_s, at_s))


def test_folder_takes_files_oldest_first_and_new_ones_as_they_come(tmp_path: Path) -> None:
    drop(tmp_path, "b.npy", np.full((8, 8), 1, np.uint8), at_s=100)
    drop(tmp_path, "a.npy", np.full((8, 8), 2, np.uint8), at_s=200)
    (tmp_path / "notes.txt").write_text("not a sample")
    readings = folder(tmp_path, Clock()).readings(Start())
    assert [(r.ref, r.seq, int(r.data[0, 0])) for r in taken(readings, 2)] == [("b.npy", 0, 1), ("a.npy", 1, 2)]
    drop(tmp_path, "0.npy", np.full((8, 8), 3, np.uint8), at_s=300)
    assert [(r.ref, r.seq) for r in taken(readings, 1)] == [("0.npy", 2)]


def test_folder_goes_on_after_its_mark(tmp_path: Path) -> None:
    for i in range(4):
        drop(tmp_path, f"{i}.npy", np.zeros((8, 8), np.uint8), at_s=100 + i)
    first = taken(folder(tmp_path, Clock()).readings(Start()), 2)[-1]
    (tmp_path / first.ref).unlink()
    again = taken(folder(tmp_path, Clock()).readings(Start(first.seq + 1, first.mark)), 2)
    assert [(r.ref, r.seq) for r in again] == [("2.npy", 2), ("3.npy", 3)]


def test_a_folder_and_a_recording_keep_the_contract_of_a_source(tmp_path: Path) -> None:
    for number in range(6):
        np.save(tmp_path / f"{number}.npy", np.full(FIT.shape, number, FIT.dtype))
    np.savez(tmp_path / "a.npz", x=np.arange(12.0).reshape(6, 2))
    check_source(lambda: Folder(tmp_path, fit=FIT, poll_s=0.01), readings=6)
    check_source(lambda: Replay(tmp_path / "a.npz"), readings=6)


def test_files_that_keep_their_old_times_are_not_passed_over(tmp_path: Path) -> None:
    drop(tmp_path, "b.npy", np.zeros((8, 8), np.uint8), at_s=2_000_000_000)
    readings = folder(tmp_path, Clock()).readings(Start())
    last = taken(readings, 1)[-1]
    drop(tmp_path, "a.npy", np.zeros((8, 8), np.uint8), at_s=100)  # as `cp -p` leaves it
    (tmp_path / "c.npy.part").write_bytes((tmp_path / "b.npy").read_bytes())
    os.utime(tmp_path / "c.npy.part", (50, 50))
    (tmp_path / "c.npy.part").rename(tmp_path / "c.npy")
    assert [(r.ref, r.seq) for r in taken(readings, 2)] == [("a.npy", 1), ("c.npy", 2)]
    again = folder(tmp_path, Clock()).readings(Start(last.seq + 1, last.mark))
    assert [(r.ref, r.seq) for r in taken(again, 2)] == [("a.npy", 1), ("c.npy", 2)]


def test_a_file_comes_once_though_its_rights_change(tmp_path: Path) -> None:
    drop(tmp_path, "a.npy", np.zeros((8, 8), np.uint8), at_s=100)
    readings = folder(tmp_path, Clock()).readings(Start())
    taken(readings, 1)
    (tmp_path / "a.npy").chmod(0o600)
    drop(tmp_path, "b.npy", np.zeros((8, 8), np.uint8), at_s=100)
    assert [r.ref for r in taken(readings, 1)] == ["b.npy"]


def test_a_file_that_cannot_be_read_is_counted_not_fatal(tmp_path: Path) -> None:
    (tmp_path / "a.npy").write_bytes(b"\x93NUMPY broken")
    os.utime(tmp_path / "a.npy", (1, 1))
    drop(tmp_path, "b.npy", np.zeros((8, 8), np.uint8), at_s=2)
    assert [r.data.size for r in taken(folder(tmp_path, Clock()).readings(Start()), 2)] == [0, 64]


def test_a_file_still_being_written_waits(tmp_path: Path) -> None:
    clock = Clock()
    drop(tmp_path, "a.npy", np.zeros((8, 8), np.uint8), at_s=100)
    readings = folder(tmp_path, clock).readings(Start())
    for _ in range(5):
        assert next(readings) is None  # first look: seen, not yet known to be left alone
    drop(tmp_path, "a.npy", np.ones((8, 8), np.uint8), at_s=101)
    assert int(taken(readings, 1)[0].data[0, 0]) == 1


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp", ".bmp"])
@pytest.mark.parametrize("fit", [Fit((8, 8), "uint8"), Fit((8, 8, 1), "uint8"), Fit((6, 10, 3), "float32")])
def test_images_are_brought_to_the_models_size(tmp_path: Path, suffix: str, fit: Fit) -> None:
    image = pytest.importorskip("PIL.Image")
    image.fromarray(np.full((40, 30, 3), 200, np.uint8)).save(tmp_path / f"a{suffix}")
    reading = taken(folder(tmp_path, Clock(), fit).readings(Start()), 1)[0]
    assert reading.data.shape == fit.shape
    assert reading.data.dtype == fit.dtype
    assert abs(float(reading.data.mean()) - 200) < 4


def test_a_folder_that_is_none_or_goes_away_is_a_source_error(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="not a folder"):
        folder(tmp_path / "nowhere", Clock())
    (tmp_path / "here").mkdir()
    readings = folder(tmp_path / "here", Clock()).readings(Start())
    next(readings)
    (tmp_path / "here").rmdir()
    with pytest.raises(SourceError, match="No such file"):
        taken(readings, 1)


# --- by name ---


class Counting:
    """A plug-in, as somebody would write it."""

    def __init__(self, *, path: Path, fit: Fit, rate_per_s: float) -> None:
        self.fit = fit

    def readings(self, start: Start) -> Iterator[Reading | None]:
        for seq in range(start.seq, 3):
            yield Reading(np.full(self.fit.shape, seq, self.fit.dtype), seq)


def test_sources_by_name(tmp_path: Path) -> None:
    plug_in = open_source(Source(kind=f"{__name__}:Counting", path=str(tmp_path)), fit=FIT)
    assert [r.seq for r in plug_in.readings(Start(1)) if r] == [1, 2]
    with pytest.raises(ConfigError, match="did you mean 'replay'"):
        open_source(Source(kind="repaly"), fit=FIT)
    with pytest.raises(ConfigError, match="no_such_module"):
        open_source(Source(kind="no_such_module:X"), fit=FIT)


class Held:
    """Readings that are no generator: one of them at a time may have the sensor."""

    taken = False

    def __init__(self, start: Start) -> None:
        assert not Held.taken, "the sensor is another's"
        Held.taken, self.seq = True, start.seq

    def __iter__(self) -> Iterator[Reading | None]:
        return self

    def __next__(self) -> Reading | None:
        self.seq += 1
        return Reading(np.full(2, self.seq, np.float32), self.seq - 1)

    def close(self) -> None:
        Held.taken = False


class Exclusive:
    def readings(self, start: Start) -> Iterator[Reading | None]:
        return Held(start)


def test_a_check_lets_go_of_the_sensor_of_any_iterator() -> None:
    check_source(Exclusive)
    assert not Held.taken
