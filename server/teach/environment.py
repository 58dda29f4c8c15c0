"""By what was a model made?

The code, the libraries whose arithmetic is in the weights, and the machine: recorded with every run, so that one who
makes it again knows whether to expect the same bits.
"""

from __future__ import annotations

import hashlib
import platform
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

LIBRARIES = ("torch", "numpy", "onnx", "onnxscript", "onnxruntime", "pillow")
PACKAGES = ("edge_agent", "models", "server")
GIT_S = 5.0
_ROOT = Path(__file__).resolve().parents[2]


def environment() -> dict[str, Any]:
    """As it is in this process."""
    return {
        "code": {"version": _version("winnow-edge"), "sha256": code_sha256(), "commit": commit()},
        "python": sys.version.split()[0],
        "libraries": {name: found for name in LIBRARIES if (found := _version(name))},
        "machine": {"system": platform.system(), "processor": platform.machine()},
    }


def code_sha256(root: Path = _ROOT) -> str:
    """Sha256 over our source files, by name: what runs, whether or not it was ever committed."""
    digest = hashlib.sha256()
    for package in PACKAGES:
        for path in sorted((root / package).rglob("*.py")):
            digest.update(f"{path.relative_to(root).as_posix()} {path.stat().st_size}\n".encode() + path.read_bytes())
    return digest.hexdigest()


def commit(root: Path = _ROOT) -> str:
    """The commit that is checked out; "" when this is no checkout, or git is not here."""
    if not (root / ".git").exists():
        return ""
    try:
        done = subprocess.run(
            ["git", "-C", str(root), "rev-parse", "HEAD"], capture_output=True, text=True, timeout=GIT_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


def differences(was: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """What is not as it was, in words.

    >>> differences({"python": "3.11.2", "libraries": {"torch": "2.12.0"}}, {"python": "3.11.2", "libraries": {}})
    ['libraries.torch: 2.12.0, now nothing']
    """
    found = []
    for name in sorted({*was, *now}):
        before, after = was.get(name), now.get(name)
        if isinstance(before, dict) or isinstance(after, dict):
            found += [f"{name}.{line}" for line in differences(before or {}, after or {})]
        elif before != after:
            found.append(f"{name}: {before or 'nothing'}, now {after or 'nothing'}")
    return found


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""
