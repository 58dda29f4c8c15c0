"""How does data that Debian has a package of get here?

Downloaded with apt's own signatures checked, and unpacked instead of installed: that needs no rights.
"""

from __future__ import annotations

import subprocess
from pathlib import Path

from models.errors import DataError


def unpacked(package: str, temporary: Path) -> Path:
    """The root of the package's files, in a folder of ours; DataError when it cannot be had."""
    try:
        call(["apt-get", "download", package], temporary)
    except DataError:
        call(["apt-get", *_private_state(temporary), "update"], temporary)  # a fresh image has no package lists
        call(["apt-get", *_private_state(temporary), "download", package], temporary)
    for file in temporary.glob(f"{package}_*.deb"):
        call(["dpkg", "-x", str(file), "root"], temporary)
    return temporary / "root"


def _private_state(temporary: Path) -> list[str]:
    """Options that let apt work in a folder of ours: the system's is root's."""
    for folder in ("lists/partial", "archives/partial"):
        (temporary / folder).mkdir(parents=True, exist_ok=True)
    places = {"Dir::State": temporary, "Dir::State::status": "/var/lib/dpkg/status", "Dir::Cache": temporary}
    return [word for key, value in places.items() for word in ("-o", f"{key}={value}")]


def call(command: list[str], folder: Path) -> None:
    """Run a program in a folder; DataError with its last word when it fails or is not there."""
    try:
        done = subprocess.run(
            command, cwd=folder, capture_output=True, text=True, errors="replace", timeout=600, check=False
        )
    except OSError as error:
        raise DataError(f"{command[0]}: {error.strerror}") from error
    if done.returncode != 0:
        said = (done.stderr.strip() or done.stdout.strip() or "no message").splitlines()[-1]
        raise DataError(f"{command[0]} {command[-1]}: exit {done.returncode}: {said}")
