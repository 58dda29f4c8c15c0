"""Do lines of a program or of a serial port become samples? Through a real pipe and a real pseudo-terminal."""

from __future__ import annotations

import contextlib
import itertools
import os
import pty
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_agent.contract.errors import SourceError
from edge_agent.contract.types import Reading
from edge_agent.source import Counts, Fit, Start
from edge_agent.source.kinds import open_source
from edge_agent.source.lines import LINE_MAX_BYTES, LineReader
from edge_agent.source.live import Live
from edge_agent.source.options import Lines, Serial, Source, Window
from edge_agent.source.port import Stdin
from edge_agent.testing import check_source

FIT = Fit((4, 2), "float32")


class Pieces:
    """A port that gives what it was told to."""

    name = "pieces"

    def __init__(self, pieces: list[bytes]) -> None:
        self.pieces = pieces

    def open(self) -> None: ...

    def read(self) -> bytes | None:
        return self.pieces.pop(0) if self.pieces else None

    def close(self) -> None: ...


def text(count: int) -> bytes:
    return b"".join(f"{2 * step},{2 * step + 1}\n".encode() for step in range(count))


def present(readings: Iterator[Reading | None], count: int) -> list[Reading]:
    found: list[Reading] = []
    for reading in readings:
        found += [reading] if reading is not None else []
        if len(found) == count:
            break
    return found


@settings(deadline=None)  # a loaded machine is no mistake
@given(st.lists(st.integers(0, 120), max_size=6))
def test_any_pieces_of_bytes_give_the_same_samples(cuts: list[int]) -> None:
    whole = text(20)
    edges = [0, *sorted(cuts), len(whole)]
    pieces = [whole[a:b] for a, b in itertools.pairwise(edges)]
    reader = LineReader(Pieces(pieces), fit=FIT, lines=Lines(), window=Window(), counts=Counts())
    found = [taken.data.tolist() for taken in reader.samples(Start()) if taken is not None]
    assert found == np.arange(40.0).reshape(5, 4, 2).tolist()


def test_the_last_line_needs_no_newline_and_what_is_no_line_is_counted() -> None:
    counts = Counts()
    reader = LineReader(
        Pieces([b"1,2\nbroken\n3,4\r\n\n5\n\xff\xfe\n5,6\n7,8"]), fit=FIT, lines=Lines(), window=Window(), counts=counts
    )
    found = [taken.data.tolist() for taken in reader.samples(Start()) if taken is not None]
    assert found == [[[1, 2], [3, 4], [5, 6], [7, 8]]]
    assert counts.unreadable == 3


def test_what_never_ends_a_line_is_no_text() -> None:
    reader = LineReader(Pieces([b"x" * (LINE_MAX_BYTES + 1)]), fit=FIT, lines=Lines(), window=Window(), counts=Counts())
    with pytest.raises(SourceError, match=r"pieces: 1000001 bytes without a newline"):
        list(reader.samples(Start()))


# --- the standard input ---


def piped(data: bytes, *, counts: Counts | None = None, window: Window | None = None) -> Live:
    """A source over a pipe with that in it, closed at the other end."""
    ours, theirs = os.pipe()

    def write() -> None:
        with os.fdopen(theirs, "wb") as end:
            end.write(data)

    threading.Thread(target=write, daemon=True).start()
    counts = counts or Counts()
    reader = LineReader(Stdin(ours), fit=FIT, lines=Lines(), window=window or Window(), counts=counts)
    return Live(reader, keep="every", counts=counts)


def test_a_pipe_of_lines_is_read_to_its_end_whatever_its_length() -> None:
    found = [reading for reading in piped(text(40_000)).readings(Start()) if reading is not None]
    assert [reading.seq for reading in found] == list(range(10_000))
    assert found[-1].data.tolist() == np.arange(79_992.0, 80_000.0).reshape(4, 2).tolist()


def test_stdin_keeps_the_contract_of_a_source() -> None:
    check_source(lambda: piped(text(100)), live=True)


# --- a serial port ---


@pytest.fixture
def line() -> Iterator[tuple[int, str]]:
    """Our end of a serial line, and the path of the other."""
    pytest.importorskip("serial")
    ours, theirs = pty.openpty()
    yield ours, os.ttyname(theirs)
    for handle in (ours, theirs):
        with contextlib.suppress(OSError):  # the test has closed it
            os.close(handle)


def serial(path: str, counts: Counts | None = None, **window: object):
    told = Source(kind="serial", serial=Serial(port=path, baud=9600), window=Window(**window))
    return open_source(told, fit=FIT, counts=counts)


def test_a_serial_port_gives_windows_and_counts_pauses(line: tuple[int, str]) -> None:
    ours, path = line
    counts = Counts()
    readings = serial(path, counts, rate_per_s=100.0, gap_steps=10.0).readings(Start(5))
    assert next(readings) is None
    os.write(ours, text(6))
    assert [reading.seq for reading in present(readings, 1)] == [5]
    time.sleep(0.3)  # a pause is 100 ms: the two steps that are left belong to no window
    os.write(ours, b"1,1\n2,2\n3,3\n4,4\n")
    assert present(readings, 1)[0].data.tolist() == [[1, 1], [2, 2], [3, 3], [4, 4]]
    assert counts.gaps == 1
    readings.close()


@contextlib.contextmanager
def speaking(ours: int) -> Iterator[None]:
    """A sensor that goes on whoever listens: what came before a port was opened is not heard."""
    over = threading.Event()

    def speak() -> None:
        while not over.wait(0.05):
            with contextlib.suppress(BlockingIOError):  # nobody listens
                os.write(ours, text(40))

    os.set_blocking(ours, False)
    thread = threading.Thread(target=speak)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def test_a_serial_port_keeps_the_contract_of_a_source(line: tuple[int, str]) -> None:
    ours, path = line
    with speaking(ours):
        check_source(lambda: serial(path), live=True)


def test_a_port_that_is_not_there_or_is_pulled_out_is_a_source_error(line: tuple[int, str], tmp_path: Path) -> None:
    ours, path = line
    with pytest.raises(SourceError, match="nowhere"):
        next(serial(str(tmp_path / "nowhere")).readings(Start()))
    readings = serial(path).readings(Start())
    next(readings)
    os.close(ours)
    with pytest.raises(SourceError, match=path):
        present(readings, 1)
