"""Where is mosquitto, and how is it got?

The server starts mosquitto >= 2.0 as a child. One in the system is taken as it is; else it is installed, where that
needs no password; else it is unpacked into the cache folder, where a small script starts it with its libraries.
"""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import debian
from step import StepFailed, ask, cache_dir, note

OLDEST = (2, 0)
PLACES = ("/usr/sbin/mosquitto", "/usr/local/sbin/mosquitto", "/opt/homebrew/sbin/mosquitto")
ADVICE = """install mosquitto 2.0 or newer and run `make setup` again:
    Debian, Ubuntu, Raspberry Pi OS   sudo apt-get install mosquitto
    Fedora                            sudo dnf install mosquitto
    macOS                             brew install mosquitto
    other systems                     see the downloads of the Eclipse Mosquitto project"""


def get_mosquitto(*, rootless: bool) -> str:
    """Make sure that there is a mosquitto; `rootless` skips whatever the system has or could install."""
    found = None if rootless else _in_system()
    if found:
        return _line(found)
    if _version(unpacked()) >= OLDEST:
        return _line(unpacked())
    if not debian.present():
        raise StepFailed(ADVICE)
    prefix = None if rootless else debian.root_prefix()
    if prefix is None:
        note("mosquitto", f"unpacking it into {unpacked().parent}, no rights needed")
        _unpack()
        return _line(unpacked())
    note("mosquitto", "installing it")
    try:
        debian.install("mosquitto", prefix, service="mosquitto")
    except StepFailed as error:
        raise StepFailed(f"{error}\n{ADVICE}") from error
    return _line(_in_system() or unpacked())


def unpacked() -> Path:
    """The script that starts the unpacked mosquitto."""
    return cache_dir() / "mosquitto" / "mosquitto"


def _in_system() -> Path | None:
    places = (shutil.which("mosquitto"), *PLACES)
    return next((Path(place) for place in places if place and _version(Path(place)) >= OLDEST), None)


def _unpack() -> None:
    folder = unpacked().parent
    try:
        debian.unpack("mosquitto", folder)
    except StepFailed as error:
        raise StepFailed(f"{error}\n{ADVICE}") from error
    libraries = ":".join(sorted({str(file.parent) for file in folder.glob("**/lib/**/*.so*")}))
    program = folder / "usr" / "sbin" / "mosquitto"
    path = f"{libraries}${{LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}}"
    unpacked().write_text(f'#!/bin/sh\nLD_LIBRARY_PATH="{path}" exec "{program}" "$@"\n')
    unpacked().chmod(0o755)


def _line(program: Path) -> str:
    version = _version(program)
    if version < OLDEST:
        said = ask([program, "-h"])[1].strip().splitlines()[:1]
        raise StepFailed(f"{program} does not run as mosquitto {OLDEST[0]}.{OLDEST[1]}: {said}\n{ADVICE}")
    return f"{'.'.join(map(str, version))}, {program}"


def _version(program: Path) -> tuple[int, ...]:
    """Of the program at that path; () when there is none that starts."""
    found = re.search(r"mosquitto version (\d+)\.(\d+)\.(\d+)", ask([program, "-h"])[1])
    return tuple(map(int, found.groups())) if found else ()
