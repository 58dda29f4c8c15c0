"""A net as people bring who have a GPU: residual (He et al., CVPR 2016), 18 layers, 11 million weights."""

from __future__ import annotations

from torch import Tensor, nn

from models.net import Parts, Prepare, Shape

WIDTHS = (64, 128, 256, 512)


def deep(shape: Shape) -> Parts:
    """Images (H, W, 3)."""
    layers: list[nn.Module] = [_conv(shape[2], WIDTHS[0], 2), nn.ReLU(inplace=True)]
    width = WIDTHS[0]
    for wide in WIDTHS:
        layers += [_Block(width, wide, 2), _Block(wide, wide, 1)]
        width = wide
    return Parts(Prepare("image", shape), nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten()), width)


class _Block(nn.Module):
    """Two convolutions, and what they were given added."""

    def __init__(self, width: int, wide: int, stride: int) -> None:
        super().__init__()
        self.body = nn.Sequential(_conv(width, wide, stride), nn.ReLU(inplace=True), _conv(wide, wide, 1))
        self.past = nn.Identity() if (width, stride) == (wide, 1) else _conv(width, wide, stride, side=1)

    def forward(self, x: Tensor) -> Tensor:
        return (self.body(x) + self.past(x)).relu()


def _conv(width: int, wide: int, stride: int, *, side: int = 3) -> nn.Module:
    return nn.Sequential(nn.Conv2d(width, wide, side, stride, side // 2, bias=False), nn.BatchNorm2d(wide))
