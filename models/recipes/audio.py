"""Which net learns from sound?

Raw PCM in, as microphones and .wav files give it. The log-mel spectrogram is part of the graph: a device computes
nothing beside it, and training cannot disagree with it. A short-time Fourier transform is a convolution with sines and
cosines, and a bank of filters one of width 1, so any runtime can do it.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from models.errors import DataError
from models.net import EMBEDDING, Parts, Prepare, Shape
from models.recipes.cnn import cnn

FRAME_S, HOP_S = 0.025, 0.010  # as for speech: shorter blurs pitches, longer what changes quickly
MELS = 40  # filters; fewer blur, more cost time
LOW_HZ = 20.0
FLOOR = 1e-6  # of the mean energy, 60 dB below it: what is quieter is noise
FRAMES_MIN = 8
AT_ONCE = 64  # samples that are measured at once


def audio(shape: Shape, *, rate_hz: int = 16_000) -> Parts:
    """Mono sound (T,) or (T, 1) of 0.1 s or more, int16 or floats, at 16 kHz; `cnn`'s body on its spectrogram.

    Another rate than 16 kHz stretches the scale of the filters; `audio8k` is for 8 kHz.
    """
    steps = shape[0]
    frame, hop = round(FRAME_S * rate_hz), round(HOP_S * rate_hz)
    frames = (steps - frame) // hop + 1
    if shape[1:] not in ((), (1,)) or frames < FRAMES_MIN:
        least = frame + (FRAMES_MIN - 1) * hop
        raise DataError(f"recipe 'audio' at {rate_hz} Hz takes mono sound (T,) or (T, 1), T from {least}, got {shape}")
    return Parts(_LogMel(shape, rate_hz), cnn((MELS, frames)).body, EMBEDDING)


class _LogMel(Prepare):
    """Log energies of mel filters, standardised filter by filter.

    Energy of bin k in frame i: |sum_n hann(n) x(i * hop + n) exp(-2 pi i k n / frame)|^2, no padding at the ends.
    """

    kernels: Tensor
    filters: Tensor
    level: Tensor

    def __init__(self, shape: Shape, rate_hz: int) -> None:
        super().__init__("sound", shape)
        frame, self.hop, self.steps = round(FRAME_S * rate_hz), round(HOP_S * rate_hz), shape[0]
        bank = mel_filters(frame, rate_hz)
        self.register_buffer("kernels", _kernels(frame))  # (2 * bins, 1, frame)
        self.register_buffer("filters", torch.cat([bank, bank], dim=1).float().unsqueeze(2))  # (MELS, 2 * bins, 1)
        self.register_buffer("level", torch.ones(()))  # mean energy of a filter: int16 and floats come out alike
        self.register_buffer("mean", torch.zeros(MELS, 1))
        self.register_buffer("gain", torch.ones(MELS, 1))

    def energies(self, x: Tensor) -> Tensor:
        """(N, *shape) raw -> (N, MELS, frames), of each filter in each frame."""
        with torch.autocast(x.device.type, enabled=False):  # half precision has not the range of a spectrum
            waves = nn.functional.conv1d(x.float().reshape(-1, 1, self.steps), self.kernels, stride=self.hop)
            found: Tensor = nn.functional.conv1d(waves * waves, self.filters)
            return found

    def measure(self, x: Tensor) -> None:
        """Level, mean and gain from raw samples (N, *shape); from some 1,024 of them when there are more."""
        some = x[:: max(1, len(x) // 1024)]
        found = torch.cat([self.energies(part) for part in torch.split(some, AT_ONCE)])
        level = found.mean()
        self.level.copy_(torch.where(level > 0.0, level, torch.ones_like(level)))
        logs = torch.log(found / self.level + FLOOR)
        sd = logs.std(dim=(0, 2), correction=0)
        self.mean.copy_(logs.mean(dim=(0, 2)).unsqueeze(1))
        self.gain.copy_(1.0 / torch.where(sd > 1e-3, sd, torch.ones_like(sd)).unsqueeze(1))

    def forward(self, x: Tensor) -> Tensor:
        """x: (N, *shape) raw -> (N, 1, MELS, frames) float32."""
        logs = torch.log(self.energies(x) / self.level + FLOOR)
        return ((logs - self.mean) * self.gain).unsqueeze(1)


def _kernels(frame: int) -> Tensor:
    """(2 * bins, 1, frame): cosines, then sines, under a periodic Hann window."""
    n = torch.arange(frame, dtype=torch.float64)
    window = 0.5 - 0.5 * torch.cos(2.0 * math.pi * n / frame)
    angle = 2.0 * math.pi * torch.arange(frame // 2 + 1, dtype=torch.float64)[:, None] * n / frame
    return (torch.cat([torch.cos(angle), torch.sin(angle)]) * window).float().unsqueeze(1)


def mel_filters(frame: int, rate_hz: int) -> Tensor:
    """(MELS, bins) float64: triangles of height 1, evenly spaced from LOW_HZ to half the rate on the mel scale of HTK.

    mel(f) = 2595 log10(1 + f / 700) (O'Shaughnessy 1987, as in the HTK Book).
    """
    low, high = (2595.0 * math.log10(1.0 + hz / 700.0) for hz in (LOW_HZ, rate_hz / 2.0))
    corners = 700.0 * (10.0 ** (torch.linspace(low, high, MELS + 2, dtype=torch.float64) / 2595.0) - 1.0)
    bins = torch.arange(frame // 2 + 1, dtype=torch.float64) * rate_hz / frame
    left, middle, right = (corners[i : i + MELS, None] for i in range(3))
    return torch.minimum((bins - left) / (middle - left), (right - bins) / (right - middle)).clamp(min=0.0)
