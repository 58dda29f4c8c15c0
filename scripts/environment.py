"""Which Python runs Winnow, and with which packages?

A virtual environment carries a stamp of what it was made from: this checkout, its Python, pyproject.toml, the pinned
versions. While the stamp fits, nothing is done.
"""

from __future__ import annotations

import hashlib
import re
import shutil
import sys
from pathlib import Path

import debian
from step import ROOT, StepFailed, ask, cache_dir, demand, note

STAMP = ".winnow-stamp"
PIP_ADVICE = (
    "The lines above say why; a network that pip can use is needed (a proxy or a mirror is told to pip by PIP_PROXY or "
    "PIP_INDEX_URL). Then run `make setup` again: it goes on where it stopped."
)


def find_python(oldest: tuple[int, int], named: str | None) -> Path:
    """The interpreter to use: `named`, else this one, else a newer one in PATH. StepFailed when there is none."""
    names = [named] if named else [sys.executable, "python3.13", "python3.12", "python3.11"]
    tried = []
    for name in names:
        path = shutil.which(name)
        version = python_version(Path(path)) if path else None
        if path and version and version >= oldest:
            return Path(path)
        tried.append(f"{name} ({'.'.join(map(str, version)) if version else 'no Python'})")
    wanted = ".".join(map(str, oldest))
    raise StepFailed(
        f"Python {wanted} or newer is needed; tried {', '.join(tried)}. Install one (Debian, Ubuntu: "
        f"`sudo apt-get install python{wanted} python{wanted}-venv`) and run `make setup`, or name one: "
        f"`make setup PYTHON=/path/to/python{wanted}`."
    )


def python_version(python: Path) -> tuple[int, int] | None:
    """(major, minor) of an interpreter, None when it does not start."""
    found = re.match(r"Python (\d+)\.(\d+)", ask([python, "--version"])[1])
    return (int(found[1]), int(found[2])) if found else None


def ensure(folder: Path, python: Path, constraints: Path, installs: list[list[str]], *, warning: str = "") -> str:
    """Make `folder` a virtual environment of `python` in which every one of `installs` was given to pip.

    `warning` is added to what is said before anything is downloaded.
    """
    version = python_version(python)
    wanted = _fingerprint(f"{ROOT} {version} {installs}", ROOT / "pyproject.toml", constraints)
    own = folder / "bin" / "python"
    same_python = python_version(own) == version
    if same_python and (folder / STAMP).is_file() and (folder / STAMP).read_text() == wanted:
        return f"{folder.name} is up to date"
    (folder / STAMP).unlink(missing_ok=True)
    if not (same_python and ask([own, "-m", "pip", "--version"])[0] == 0):
        _create(folder, python)
    note("packages", f"installing into {folder.name}, minutes the first time{warning}")
    quiet = [] if sys.stdout.isatty() else ["-qq"]
    for install in installs:
        # Not compiled: most of it is never imported, and what is, is compiled then.
        demand([own, "-m", "pip", "install", "--no-compile", *quiet, "-c", constraints, *install], PIP_ADVICE)
    (folder / STAMP).write_text(wanted)
    return f"{folder.name} has what {constraints.name} pins"


def _fingerprint(text: str, *files: Path) -> str:
    digest = hashlib.sha256(text.encode())
    for file in files:
        digest.update(file.read_bytes())
    return digest.hexdigest()


def _create(folder: Path, python: Path) -> None:
    version = ".".join(map(str, python_version(python) or ()))
    package = f"python{version}-venv"
    advice = f"Install Python's venv module (Debian, Ubuntu: `sudo apt-get install {package}`)."
    if ask([python, "-c", "import venv, ensurepip"])[0] == 0:
        demand([python, "-m", "venv", "--clear", folder], advice)
        return
    if not debian.present():
        raise StepFailed(f"{python} lacks its venv module. {advice}")
    prefix = debian.root_prefix()
    if prefix is None:
        _create_with_unpacked_pip(folder, python, advice)
        return
    note("packages", f"installing {package}")
    try:
        debian.install(package, prefix)
    except StepFailed as error:
        raise StepFailed(f"{error}. {advice}") from error
    demand([python, "-m", "venv", "--clear", folder], advice)


def _create_with_unpacked_pip(folder: Path, python: Path, advice: str) -> None:
    """Debian splits pip off Python's venv module: take it out of its package, which needs no rights."""
    note("packages", "unpacking pip, no rights needed")
    pip = cache_dir() / "pip"
    try:
        debian.unpack("python3-pip-whl", pip)
    except StepFailed as error:
        raise StepFailed(f"{python} lacks its venv module, and pip cannot be had: {error}. {advice}") from error
    wheel = next(pip.glob("usr/share/python-wheels/pip-*.whl"))
    demand([python, "-m", "venv", "--clear", "--without-pip", folder], advice)
    demand([folder / "bin" / "python", wheel / "pip", "install", "--quiet", "--no-index", wheel], PIP_ADVICE)
