"""How does something come from a Debian-family distribution, with or without its administrator's rights?

With them, `apt-get install`. Without, the packages are downloaded and unpacked into a folder of ours: nothing of the
system changes.
"""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from pathlib import Path
from typing import Sequence  # noqa: UP035 - these scripts also run on Python 3.8

from step import StepFailed, ask, cache_dir

# A service that its package starts is not wanted here: the server starts a broker of its own. policy-rc.d is Debian's
# way to say so; systemd would also start it at the next boot, hence the `disable`.
INSTALL = """
set -e
guard=/usr/sbin/policy-rc.d
if [ ! -e $guard ]; then
    trap 'rm -f $guard' EXIT
    trap 'exit 130' INT TERM
    printf '#!/bin/sh\\nexit 101\\n' > $guard
    chmod 755 $guard
fi
DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends "$1"
if [ -n "$2" ] && [ -d /run/systemd/system ]; then systemctl disable --quiet "$2"; fi
"""


def present() -> bool:
    """Whether this is a system with apt."""
    return bool(shutil.which("apt-get") and shutil.which("dpkg-deb"))


def root_prefix() -> list[str] | None:
    """What to put before a command that needs rights: nothing for root, sudo where it asks no password, else None."""
    if os.geteuid() == 0:
        return []
    return ["sudo", "-n"] if ask(["sudo", "-n", "true"])[0] == 0 else None


def install(package: str, prefix: list[str], service: str = "") -> None:
    """Install a package, its service neither started nor enabled; StepFailed with the end of apt's output."""
    if not _known(package, []):
        ask([*prefix, "apt-get", "update"])
    _must([*prefix, "sh", "-c", INSTALL, "install", package, service])


def unpack(package: str, folder: Path, *, alone: bool = False) -> None:
    """Download a package and those of its dependencies that are not installed, and unpack them into `folder`.

    `alone`: without them.
    """
    options: list[str] = []
    if not _known(package, options):
        options = _own_lists()
    missing: list[str] = []
    if not alone:
        _, plan = ask(["apt-get", *options, "-s", "install", "--no-install-recommends", package])
        missing = re.findall(r"^Inst (\S+)", plan, re.MULTILINE)
    _unpack(sorted({package, *missing}), options, folder)


def _unpack(packages: Sequence[str], options: list[str], folder: Path) -> None:
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=str(folder.parent)) as name:
        downloads = Path(name, "downloads")
        downloads.mkdir()
        os.chdir(downloads)  # `apt-get download` knows no other target
        _must(["apt-get", *options, "download", *packages])
        for file in downloads.glob("*.deb"):
            _must(["dpkg-deb", "-x", file, Path(name, "tree")])
        shutil.rmtree(folder, ignore_errors=True)
        Path(name, "tree").rename(folder)
        os.chdir(folder)  # the one we stand in goes


def unpack_foreign(packages: Sequence[str], architecture: str, folder: Path) -> None:
    """Download packages of another architecture with all that they depend on, and unpack them into `folder`.

    apt is given a state of its own, in which nothing is installed; the system's knows nothing of it.
    """
    options = [f"-oAPT::Architecture={architecture}", f"-oAPT::Architectures={architecture}", *_own_state(architecture)]
    _must(["apt-get", *options, "update"])
    _, plan = ask(["apt-get", *options, "-s", "install", "--no-install-recommends", *packages])
    wanted = re.findall(r"^Inst (\S+)", plan, re.MULTILINE)
    if not wanted:
        raise StepFailed(f"apt knows no {', '.join(packages)} for {architecture}: {plan.strip()[-300:]}")
    _unpack(wanted, options, folder)


def _known(package: str, options: list[str]) -> bool:
    return ask(["apt-get", *options, "download", "--print-uris", package])[0] == 0


def _own_lists() -> list[str]:
    """Fetch package lists into our cache: the system's are empty (as in a container), and not ours to fill."""
    options = _places(cache_dir() / "apt")
    _must(["apt-get", *options, "update"])
    return options


def _own_state(architecture: str) -> list[str]:
    apt = cache_dir() / f"apt-{architecture}"
    options = _places(apt)
    (apt / "status").touch()
    return [*options, f"-oDir::State::status={apt / 'status'}"]


def _places(apt: Path) -> list[str]:
    (apt / "lists" / "partial").mkdir(parents=True, exist_ok=True)
    (apt / "archives" / "partial").mkdir(parents=True, exist_ok=True)
    return [f"-oDir::State::lists={apt / 'lists'}", f"-oDir::Cache={apt}"]


def _must(command: list[str | Path]) -> None:
    code, said = ask(command)
    if code:
        tail = " | ".join(said.strip().splitlines()[-3:])
        raise StepFailed(f"{command[0]} ended with {code}: {tail}")
