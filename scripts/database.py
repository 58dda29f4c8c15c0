"""Where is PostgreSQL, and how is it got?

Only tests want one: the catalogue is a file unless somebody says otherwise. One in the system is taken as it is; else
it is installed, where that needs no password; else those tests are skipped, and say why.
"""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import debian
from step import StepFailed, ask, note

OLDEST = 15
FOLDER = Path("/usr/lib/postgresql")  # Debian's: a folder to each version


def get_postgresql(*, rootless: bool) -> str:
    """Make sure that there is one if that can be; `rootless` installs nothing."""
    found = _in_system()
    prefix = None if rootless or not debian.present() else debian.root_prefix()
    if not found and prefix is not None:
        note("postgresql", "installing it")
        try:
            debian.install("postgresql", prefix, service="postgresql")
        except StepFailed as error:
            return f"none, and the tests that want one are skipped: {error}"
        found = _in_system()
    return f"{found} {_version(found)}" if found else "none: the tests that want one are skipped"


def _in_system() -> Path | None:
    there = shutil.which("postgres")
    places = [*sorted(FOLDER.glob("*/bin/postgres"), reverse=True), *([Path(there)] if there else [])]
    return next((place for place in places if _version(place) >= OLDEST), None)


def _version(program: Path) -> int:
    found = re.search(r"(\d+)", ask([program, "--version"])[1])
    return int(found[1]) if found else 0
