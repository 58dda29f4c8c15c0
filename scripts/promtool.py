"""Where is promtool, and how is it got?

Prometheus' own judge of rules, of their tests and of what is served to it. One in the system is taken; else that of
Debian's package is unpacked into the cache folder: a single file, which needs nothing else of the package.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import debian
from step import StepFailed, cache_dir, note


def get_promtool() -> str:
    """Which one tests find; where there can be none, that is said, and they are skipped."""
    found = shutil.which("promtool")
    if found:
        return found
    if not unpacked().exists():
        if not debian.present():
            return "none, some tests are skipped: it comes from a Debian-family system, and this is none"
        note("promtool", f"unpacking it into {_folder()}")
        try:
            debian.unpack("prometheus", _folder(), alone=True)
        except StepFailed as error:
            return f"none, some tests are skipped: {error}"
    return str(unpacked())


def unpacked() -> Path:
    """The unpacked one."""
    return _folder() / "usr" / "bin" / "promtool"


def _folder() -> Path:
    return cache_dir() / "prometheus"
