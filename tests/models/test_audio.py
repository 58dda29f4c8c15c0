"""Is the spectrum in the graph the textbook's, whatever the scale, and does int8 leave it alone?"""

from __future__ import annotations

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper

from models import evaluate
from models.corruption import bright
from models.errors import DataError
from models.package import package
from models.recipes.audio import FLOOR, MELS, mel_filters
from models.recipes.catalogue import build
from models.train import Settings, fit


def reference(x: np.ndarray, rate_hz: int) -> np.ndarray:
    """(N, MELS, frames) energies by numpy's FFT, filters drawn in Hz."""
    frame, hop = rate_hz // 40, rate_hz // 100
    cut = np.lib.stride_tricks.sliding_window_view(x.astype(np.float64), frame, axis=1)[:, ::hop]
    power = np.abs(np.fft.rfft(cut * np.hanning(frame + 1)[:-1])) ** 2
    mel = np.linspace(*(1127.0 * np.log1p(np.array([20.0, rate_hz / 2.0]) / 700.0)), MELS + 2)
    corners = 700.0 * np.expm1(mel / 1127.0)
    hz = np.fft.rfftfreq(frame, 1.0 / rate_hz)
    bank = np.stack([np.interp(hz, corners[i : i + 3], [0.0, 1.0, 0.0]) for i in range(MELS)])
    return (power @ bank.T).swapaxes(1, 2)


def sounds(count: int, *, rate_hz: int = 16_000) -> tuple[np.ndarray, np.ndarray]:
    """Low and high hums, from loud to soft, in noise; int16."""
    rng = np.random.default_rng(count)
    y, t = np.arange(count) % 2, np.arange(rate_hz // 5) / rate_hz
    pitch = np.where(y == 0, 300.0, 500.0) * rng.uniform(0.9, 1.1, count)
    loud = 10.0 ** rng.uniform(2.0, 4.0, count)
    wave = np.sin(2.0 * np.pi * pitch[:, None] * t + rng.uniform(0.0, 6.0, (count, 1)))
    return (loud[:, None] * (wave + 0.1 * rng.standard_normal(wave.shape))).astype(np.int16), y


@pytest.mark.parametrize(("recipe", "rate_hz"), [("audio", 16_000), ("audio8k", 8_000)])
def test_the_spectrum_is_the_textbook_s(recipe: str, rate_hz: int) -> None:
    x, _ = sounds(6, rate_hz=rate_hz)
    assert (mel_filters(rate_hz // 40, rate_hz).sum(dim=1) > 0.0).all()  # none falls between two bins
    prepare = build(recipe, x.shape[1:], classes=2, seed=0).prepare
    prepare.measure(torch.tensor(x))
    found, true = prepare.forward(torch.tensor(x)).numpy(), reference(x, rate_hz)
    logs = np.log(true / true.mean() + FLOOR)
    wanted = (logs - logs.mean(axis=(0, 2))[:, None]) / logs.std(axis=(0, 2))[:, None]
    np.testing.assert_allclose(found[:, 0], wanted, atol=5e-3)


def test_whole_numbers_and_shares_are_the_same_sound() -> None:
    x, _ = sounds(6)
    made = []
    for form in (x, (x / np.float32(32_768.0)).astype(np.float32), x[:, :, None]):
        prepare = build("audio", form.shape[1:], classes=2, seed=0).prepare
        prepare.measure(torch.tensor(form))
        made.append(prepare.forward(torch.tensor(form)).numpy())
    np.testing.assert_allclose(made[1], made[0], atol=1e-3)
    np.testing.assert_array_equal(made[2], made[0])


def test_silence_is_no_catastrophe() -> None:
    x = np.zeros((4, 3_200), np.int16)
    net = build("audio", (3_200,), classes=2, seed=0)
    net.prepare.measure(torch.tensor(x))
    assert all(torch.isfinite(one).all() for one in net.eval()(torch.tensor(x)))


def test_int8_leaves_the_spectrum_as_it_is_and_the_net_hears() -> None:
    x, y = sounds(96)
    new, truth = sounds(60)
    net = fit(x, y, classes=2, settings=Settings(recipe="audio", epochs=4, batch_size=16))
    made = package(net, name="hum", names=["low", "high"], version=1, calibration=x, holdout=(new, truth))
    assert made.manifest.input.dtype == "int16"
    assert made.int8_agreement > 0.97
    logits, _ = evaluate.run_onnx(made.onnx, new)
    assert evaluate.accuracy(logits, truth) > 0.95
    graph = onnx.load_model_from_string(made.onnx).graph
    weights = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    before = [node.op_type for node in graph.node][: [node.op_type for node in graph.node].index("Log")]
    assert before.count("Conv") == 2
    assert "QuantizeLinear" not in before
    assert sum(array.size for array in weights.values() if array.dtype == np.int8) > 10_000
    kernels = max(weights.values(), key=lambda array: array.size)
    assert (kernels.shape, kernels.dtype) == ((402, 1, 400), np.float32)


@pytest.mark.parametrize("shape", [(900,), (16_000, 2), (16_000, 1, 1)])
def test_what_is_no_mono_sound_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(DataError, match=r"recipe 'audio'.*takes"):
        build("audio", shape, classes=2, seed=0)


def test_louder_than_16_bits_is_clipped_and_not_turned_round() -> None:
    x = np.array([[30_000, -30_000, 100]], np.int16)
    assert bright(x, np.random.default_rng(0)).tolist() == [[32_767, -32_768, 150]]
