"""Do recordings and a microphone become windows of sound? The microphone is a program that stands in for arecord."""

from __future__ import annotations

import sys
import time
import wave
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from edge_agent.contract.errors import ConfigError, SourceError
from edge_agent.contract.types import Reading
from edge_agent.source import Counts, Fit, Start
from edge_agent.source import options as told
from edge_agent.source.kinds import open_source
from edge_agent.source.mic import Mic
from edge_agent.testing import check_source

FIT = Fit((100,), "int16")


def recording(path: Path, sound: np.ndarray, *, rate: int = 16_000, width: int = 2) -> Path:
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1 if sound.ndim == 1 else sound.shape[1])
        file.setsampwidth(width)
        file.setframerate(rate)
        file.writeframes(sound.astype("<i2" if width == 2 else "u1").tobytes())
    return path


def wav(path: Path, *, fit: Fit = FIT, **window: object):
    return open_source(told.Source(kind="wav", path=str(path), window=told.Window(**window)), fit=fit)


def present(readings: Iterator[Reading | None], count: int = 10_000) -> list[Reading]:
    found: list[Reading] = []
    for reading in readings:
        found += [reading] if reading is not None else []
        if len(found) == count:
            break
    return found


SOUND = np.arange(1050) * 30 - 15_000


@pytest.mark.parametrize(
    ("hop", "starts"), [(0, range(0, 1000, 100)), (50, range(0, 951, 50)), (300, (0, 300, 600, 900))]
)
def test_a_recording_plays_window_by_window(tmp_path: Path, hop: int, starts: range) -> None:
    found = present(wav(recording(tmp_path / "a.wav", SOUND), hop=hop).readings(Start()))
    assert [reading.ref for reading in found] == [f"a:{start}" for start in starts]
    assert all((r.data == SOUND[s : s + 100]).all() for r, s in zip(found, starts, strict=True))


def test_floats_go_from_minus_one_to_one_and_channels_stand_as_the_model_wants(tmp_path: Path) -> None:
    stereo = np.stack([SOUND[:100], np.full(100, -32768)], axis=1)
    path = recording(tmp_path / "a.wav", stereo)
    found = present(wav(path, fit=Fit((2, 100), "float32"), channels_first=True).readings(Start()))[0].data
    assert found.dtype == np.float32
    assert (found[1] == -1.0).all()
    assert found[0].tolist() == (SOUND[:100] / 32768).astype(np.float32).tolist()


def test_a_recording_keeps_the_contract_of_a_source(tmp_path: Path) -> None:
    recording(tmp_path / "a.wav", SOUND)
    check_source(lambda: wav(tmp_path / "a.wav", hop=60))


def test_a_recording_that_does_not_fit_says_what_it_is(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="expected a .wav"):
        wav(tmp_path / "none.wav")
    (tmp_path / "b.wav").write_bytes(b"RIFF")
    with pytest.raises(SourceError, match="expected a .wav"):
        wav(tmp_path / "b.wav")
    with pytest.raises(SourceError, match=r"8 bits, 1 channels: expected 16 bits and 1, as the model takes \(100,\)"):
        wav(recording(tmp_path / "c.wav", SOUND % 200, width=1))
    with pytest.raises(SourceError, match="16 bits, 1 channels: expected 16 bits and 2"):
        wav(recording(tmp_path / "d.wav", SOUND), fit=Fit((50, 2), "int16"))
    with pytest.raises(SourceError, match=r"16000 steps a second, \[source.window\] says 8000"):
        wav(tmp_path / "d.wav", rate_per_s=8000.0)
    with pytest.raises(ConfigError, match="the model takes uint8, expected int16 or floats"):
        wav(tmp_path / "d.wav", fit=Fit((100,), "uint8"))


# --- a microphone ---

ARECORD = """#!{python}
import array, os, sys, time
device, rate, channels = (sys.argv[sys.argv.index(flag) + 1] for flag in ("-D", "-r", "-c"))
if device == "broken":
    sys.exit("arecord: main:831: audio open error: No such file or directory")
assert (rate, channels, sys.argv[sys.argv.index("-f") + 1]) == ("16000", "1", "S16_LE"), sys.argv
out = sys.stdout.buffer
data = array.array("h", range(350)).tobytes()
out.write(data[:301])  # in the middle of a value
out.flush()
out.write(data[301:])
out.flush()
def wait_for(name):
    while device == "late" and not os.path.exists(os.path.join(os.path.dirname(sys.argv[0]), name)):
        time.sleep(0.01)
if device in ("lossy", "late"):
    time.sleep(0.2)
    wait_for("busy")
    if device == "late":
        out.write(array.array("h", range(2000, 2020)).tobytes())  # not read yet when it says what it lost
        out.flush()
    word = "overrun" if os.environ.get("LC_ALL") == "C" else "Überlauf"
    sys.stderr.write(word + "!!! (at least 3.2 ms long)\\n")
    sys.stderr.flush()
    open(os.path.join(os.path.dirname(sys.argv[0]), "said"), "w").close()
    time.sleep(0.2)
    wait_for("free")
    out.write(array.array("h", range(1000, 1100)).tobytes())
    out.flush()
time.sleep(60)
"""


@pytest.fixture
def arecord(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "arecord"
    program.write_text(ARECORD.format(python=sys.executable))
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))


def mic(device: str, counts: Counts | None = None, *, rate_per_s: float = 16_000.0):
    source = told.Source(kind="mic", mic=told.Mic(device=device), window=told.Window(rate_per_s=rate_per_s))
    return open_source(source, fit=FIT, counts=counts)


@pytest.mark.usefixtures("arecord")
def test_a_microphone_gives_windows_and_counts_what_it_lost() -> None:
    counts = Counts()
    readings = mic("lossy", counts).readings(Start())
    found = [reading.data.tolist() for reading in present(readings, 4)]
    readings.close()
    assert found == [list(range(at, at + 100)) for at in (0, 100, 200, 1000)], "no window spans what was lost"
    assert counts.gaps == 1


@pytest.mark.usefixtures("arecord")
def test_what_a_busy_reader_left_in_the_pipe_is_in_no_window_with_what_comes_after_a_loss(tmp_path: Path) -> None:
    counts = Counts()
    heard = Mic(told.Mic(device="late"), fit=FIT, window=told.Window(rate_per_s=16_000.0), counts=counts)
    samples = heard.samples(Start())
    found = [next(taken for taken in samples if taken is not None) for _ in range(3)]
    while next(samples) is not None:  # all that was written is read
        pass
    (tmp_path / "busy").touch()
    deadline = time.monotonic() + 10.0
    while not (tmp_path / "said").exists():
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert next(samples) is None
    (tmp_path / "free").touch()
    found.append(next(taken for taken in samples if taken is not None))
    samples.close()
    assert found[-1].data.tolist() == list(range(1000, 1100))
    assert counts.gaps == 1


@pytest.mark.usefixtures("arecord")
def test_a_microphone_keeps_the_contract_of_a_source() -> None:
    check_source(lambda: mic("default"), readings=3, live=True)


@pytest.mark.usefixtures("arecord")
def test_a_microphone_that_is_not_there_says_what_arecord_says() -> None:
    with pytest.raises(SourceError, match="broken: arecord: main:831: audio open error: No such file"):
        present(mic("broken").readings(Start()), 1)
    with pytest.raises(ConfigError, match=r"\[source.window\] rate_per_s: expected the rate to record at"):
        mic("default", rate_per_s=0.0)


def test_without_arecord_it_is_said_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(ConfigError, match="needs arecord: sudo apt-get install alsa-utils"):
        mic("default")
