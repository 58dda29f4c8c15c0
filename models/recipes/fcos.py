"""Which net finds things in small images?"""

from __future__ import annotations

from torch import Tensor, nn

from models.errors import DataError
from models.net import EMBEDDING, Parts, Prepare, Shape

SIDE_MIN, SMALL = 16, 96  # above SMALL the first convolution halves the image: at full size it would cost the most


def fcos(shape: Shape) -> Parts:
    """Images (H, W) or (H, W, C) from 16x16 to 320x320; about 110k parameters, places every 4 pixels (8 above 96)."""
    if min(shape[:2]) < SIDE_MIN:
        raise DataError(f"recipe 'fcos' takes images from {SIDE_MIN}x{SIDE_MIN}, got {shape}")
    channels = shape[2] if len(shape) == 3 else 1
    return Parts(Prepare("image", shape), _Maps(channels, large=max(shape[:2]) > SMALL), EMBEDDING, (EMBEDDING,) * 2)


class _Maps(nn.Module):
    def __init__(self, channels: int, *, large: bool) -> None:
        super().__init__()
        stem = _conv(channels, 16, stride=2 if large else 1)
        self.fine = nn.Sequential(
            *stem, nn.MaxPool2d(2), *_conv(16, 32), nn.MaxPool2d(2), *_conv(32, EMBEDDING), *_conv(EMBEDDING, EMBEDDING)
        )
        self.coarse = nn.Sequential(*_conv(EMBEDDING, EMBEDDING, stride=2))

    def forward(self, x: Tensor) -> list[Tensor]:
        """(N, C, H, W) -> maps of an object's parts, and of whole objects."""
        fine = self.fine(x)
        return [fine, self.coarse(fine)]


def _conv(before: int, after: int, *, stride: int = 1) -> list[nn.Module]:
    return [nn.Conv2d(before, after, 3, stride, 1, bias=False), nn.BatchNorm2d(after), nn.ReLU(inplace=True)]
