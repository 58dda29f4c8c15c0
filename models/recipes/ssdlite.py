"""Which net finds things in photographs, of which there are few?

As SSDLite (Sandler et al., CVPR 2018): depthwise heads on the maps of a light net, here EfficientNet-Lite0 with its
ImageNet weights instead of MobileNetV2, at strides of 8, 16 and 32; without anchors, see detector.py.
"""

from __future__ import annotations

from torch import Tensor, nn

from models.net import Parts, Prepare, Shape
from models.recipes.lite0 import IMAGENET, pretrained

LEVELS = ((4, 40), (10, 112), (15, 320))  # last block of each stride, and how wide it is


def ssdlite(shape: Shape) -> Parts:
    """Images (H, W, 3) or (H, W), from 64x64; 3.1 M parameters. DataError as of lite0."""
    net, channels = pretrained(shape, "ssdlite", side_min=64)
    widths = tuple(width for _, width in LEVELS)
    return Parts(Prepare("image", shape, fixed=IMAGENET), _Maps(net, channels), widths[-1], widths)


class _Maps(nn.Module):
    """The blocks up to the last map."""

    def __init__(self, net: nn.Module, channels: int) -> None:
        super().__init__()
        self.stem, self.norm, self.act = net._conv_stem, net._bn0, net._swish
        self.blocks, self.channels = net._blocks, channels

    def forward(self, x: Tensor) -> list[Tensor]:
        """(N, 1 or 3, H, W) float -> maps at strides 8, 16 and 32."""
        if self.channels == 1:
            x = x.expand(-1, 3, -1, -1)
        x = self.act(self.norm(self.stem(x)))  # type: ignore[operator]  # untyped
        ends, maps = {block for block, _ in LEVELS}, []
        for number, block in enumerate(self.blocks):  # type: ignore[arg-type]
            x = block(x)
            if number in ends:
                maps.append(x)
        return maps
