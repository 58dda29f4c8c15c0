"""Is a recording drawn and played as it is?"""

from __future__ import annotations

import io
import wave

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from server.label.series import CHANNELS, drawn, kind_of, wav


@given(length=st.integers(1, 3000), channels=st.integers(1, 20), points=st.integers(100, 2000), seed=st.integers(0, 99))
@settings(max_examples=40, deadline=None)
def test_thinned_out_no_peak_is_lost(length, channels, points, seed):
    x = np.random.default_rng(seed).normal(size=(length, channels)).astype(np.float32)
    found = drawn(x, points=points)
    assert (found.length, found.channels, len(found.values)) == (length, channels, min(channels, CHANNELS))
    assert {len(values) for values in found.values} == {len(found.at)}
    assert len(found.at) <= points + 2  # the ends
    assert found.at == sorted(set(found.at))
    assert (found.at[0], found.at[-1]) == (0, length - 1)
    for channel, values in enumerate(found.values):
        assert (min(values), max(values)) == (float(x[:, channel].min()), float(x[:, channel].max()))


def test_what_is_not_finite_is_a_gap_and_time_is_in_seconds():
    x = np.array([1.0, np.nan, 2.0, np.inf], np.float32)
    found = drawn(x, points=1000, unit="V at 2 Hz")
    assert found.values == [[1.0, None, 2.0, None]]
    assert (found.at, found.names, found.rate_hz) == ([0.0, 0.5, 1.0, 1.5], ["V"], 2.0)


def test_a_sound_is_a_file_that_players_read():
    x = np.sin(np.linspace(0, 200, 8000)).astype(np.float32) * 3.0
    with wave.open(io.BytesIO(wav(x, rate_hz=8000))) as file:
        assert (file.getnchannels(), file.getframerate(), file.getnframes()) == (1, 8000, 8000)
        heard = np.frombuffer(file.readframes(8000), "<i2")
    assert abs(heard).max() == 32767
    assert np.corrcoef(heard, x)[0, 1] > 0.9999


def test_silence_is_silence():
    with wave.open(io.BytesIO(wav(np.zeros((4000, 2), np.float32), rate_hz=16_000))) as file:
        assert not any(file.readframes(4000))


def test_what_was_sent_as_an_image_is_one():
    assert kind_of((480, 640, 3), "uint8", "jpeg") == "image"
    assert kind_of((50_000, 2), "int16", "zlib") == "sound"
    assert kind_of((50_000, 3), "int16", "zlib") == "series"
    assert kind_of((12,), "float32", "raw") == "series"
