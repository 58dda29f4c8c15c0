"""Where is an OpenCV that has GStreamer for its tests? `make soak` gets one: 120 MB of Debian packages, a minute.

That of pip has none, and every part of OpenCV hangs together with every other in Debian's. It is unpacked into the
cache folder, as the system's Python need not be that of .venv; the tests' children import it from there.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import debian
from step import StepFailed, cache_dir, note, take

PACKAGES = ("python3-opencv", "gstreamer1.0-plugins-base")


def main() -> None:
    """Make sure that it is there, where there can be one."""
    take("gstreamer", get_gstreamer)


def get_gstreamer() -> str:
    """One line on what there is."""
    if not debian.present():
        return "none, some tests are skipped: it comes from a Debian-family system, and this is none"
    for package in PACKAGES:
        if not (_folder() / package).exists():
            note("gstreamer", f"unpacking {package} into {_folder()}")
            try:
                debian.unpack(package, _folder() / package)
            except StepFailed as error:
                return f"none, some tests are skipped: {error}"
    return why_none() or str(_folder())


def why_none() -> str:
    """Why a child of this Python cannot have it; empty: it can."""
    tag = f"cpython-{sys.version_info.major}{sys.version_info.minor}-"
    found = [path.name for path in _packages().glob("cv2*.so")]
    if not found or not all((_folder() / package).exists() for package in PACKAGES):
        return "no OpenCV with GStreamer: python scripts/gstreamer.py gets one"
    return "" if any(tag in name for name in found) else f"Debian's OpenCV is {found[0]}, and this Python another"


def environment() -> dict[str, str]:
    """What to set for a program that is to have it."""
    libraries = sorted({str(path.parent) for path in _folder().rglob("lib*.so*")})
    plugins = sorted({str(path) for path in _folder().rglob("gstreamer-1.0") if path.is_dir()})
    return {
        "PYTHONPATH": os.pathsep.join([str(_packages()), *filter(None, [os.environ.get("PYTHONPATH", "")])]),
        "LD_LIBRARY_PATH": os.pathsep.join(libraries),
        "GST_PLUGIN_PATH": os.pathsep.join(plugins),
        "GST_REGISTRY": str(_folder() / "registry.bin"),
    }


def _packages() -> Path:
    return _folder() / PACKAGES[0] / "usr" / "lib" / "python3" / "dist-packages"


def _folder() -> Path:
    return cache_dir() / "gstreamer"


if __name__ == "__main__":
    main()
