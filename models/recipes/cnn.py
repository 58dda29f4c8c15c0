"""Which net learns from small images?"""

from __future__ import annotations

from torch import nn

from models.errors import DataError
from models.net import EMBEDDING, Parts, Prepare, Shape


def cnn(shape: Shape) -> Parts:
    """Images (H, W) or (H, W, C) from 8x8 to 224x224, 48k to 80k parameters.

    The last convolution spans the whole remaining map. Averaging over the map instead, as is usual, cost 4-6 points
    with 3,000 Fashion-MNIST images: a small net wants to know where things are.
    """
    if min(shape[:2]) < 8:
        raise DataError(f"recipe 'cnn' takes images from 8x8, got {shape}; use 'cnn1d' if it is a series (T, C)")
    size, channels = list(shape[:2]), shape[2] if len(shape) == 3 else 1
    layers: list[nn.Module] = []
    width = 16
    while True:
        stride = 2 if min(size) > 64 else 1  # a convolution at full size would cost more than all the others
        layers += _conv(nn.Conv2d(channels, width, 3, stride, 1, bias=False))
        size = [-(-n // stride) for n in size]
        if max(size) <= 8:
            break
        pool = [2 if n > 8 else 1 for n in size]
        layers.append(nn.MaxPool2d((pool[0], pool[1])))
        size = [n // p for n, p in zip(size, pool, strict=True)]
        channels, width = width, 32
    layers.append(nn.MaxPool2d(3, 2, 1))
    rest = ((size[0] + 1) // 2, (size[1] + 1) // 2)
    layers += [*_conv(nn.Conv2d(width, EMBEDDING, rest, bias=False)), nn.Flatten()]
    return Parts(Prepare("image", shape), nn.Sequential(*layers), EMBEDDING)


def _conv(conv: nn.Conv2d) -> list[nn.Module]:
    return [conv, nn.BatchNorm2d(conv.out_channels), nn.ReLU(inplace=True)]
