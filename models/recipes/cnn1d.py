"""Which net learns from series of measurements?"""

from __future__ import annotations

from torch import Tensor, nn

from models.net import EMBEDDING, Parts, Prepare, Shape


def cnn1d(shape: Shape) -> Parts:
    """Series (T, C) of any length, about 25k parameters; averaged over time, for a window may start anywhere."""
    layers: list[nn.Module] = []
    steps, channels = shape
    for width in (32, 48, EMBEDDING):
        layers += [nn.Conv1d(channels, width, 5, 1, 2, bias=False), nn.BatchNorm1d(width), nn.ReLU(inplace=True)]
        if width != EMBEDDING and steps >= 16:
            layers.append(nn.MaxPool1d(2))
            steps //= 2
        channels = width
    return Parts(Prepare("series", shape), nn.Sequential(*layers, _Average()), EMBEDDING)


class _Average(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        """(N, D, T) -> (N, D)."""
        return x.mean(dim=2)
