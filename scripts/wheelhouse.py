"""Which wheels does an agent need on another machine? `python scripts/wheelhouse.py --arch arm64 --python 3.11`.

Puts our own wheel, and those of its dependencies in the versions that are pinned, for a processor and a Python that
need not be this machine's, into a folder: for install.sh --wheels where a device has no network, for the .deb.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

from step import ROOT, StepFailed

EXTRAS = "images"  # those of pyproject.toml that the agent has some use for: images, camera, serial
PLATFORMS = {"amd64": "x86_64", "arm64": "aarch64"}  # as Debian calls them -> as wheels do
GLIBC = ("2014", "_2_17", "_2_26", "_2_27", "_2_28")  # of manylinux; Ubuntu 22.04 has 2.35, Debian 12 has 2.36
ADVICE = "the lines above say which wheel there is not: pip takes no source here, as a board should not compile"


def main() -> None:
    """Fill the folder."""
    parser = argparse.ArgumentParser(description="Fetch the wheels that an agent needs; see the top of this file.")
    parser.add_argument("--arch", choices=sorted(PLATFORMS), default=this_arch())
    parser.add_argument("--python", default=".".join(map(str, sys.version_info[:2])), help="version, such as 3.11")
    parser.add_argument("--extras", default=EXTRAS, help="such as images,camera,serial (default: images)")
    parser.add_argument("--to", type=Path, help="folder (default: dist/wheels-ARCH-pyPYTHON)")
    options = parser.parse_args()
    folder = options.to or ROOT / "dist" / f"wheels-{options.arch}-py{options.python}"
    try:
        found = fill(folder, arch=options.arch, python=options.python, extras=options.extras)
    except StepFailed as error:
        raise SystemExit(f"wheelhouse: {error}") from error
    size = sum(wheel.stat().st_size for wheel in found)
    print(f"wheelhouse: {len(found)} wheels, {size / 1e6:.0f} MB, in {folder}")


def this_arch() -> str:
    """As Debian calls it."""
    import platform

    return next((arch for arch, name in PLATFORMS.items() if name == platform.machine()), "amd64")


def choice(arch: str, python: str) -> list[str]:
    """Options of pip: wheels for that processor and that Python, in the versions that are pinned for it, alone."""
    platforms = [f"--platform=manylinux{glibc}_{PLATFORMS[arch]}" for glibc in GLIBC]
    pinned = ROOT / ("constraints-py310.txt" if python == "3.10" else "constraints.txt")
    wanted = ["--only-binary=:all:", "--implementation=cp", f"--python-version={python}", *platforms]
    return [*wanted, f"--constraint={pinned}"]


def fill(folder: Path, *, arch: str, python: str, extras: str = EXTRAS) -> list[Path]:
    """The wheels, in a folder that has nothing else then; StepFailed when one cannot be had."""
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob("*.whl"):
        old.unlink()
    ours = build(folder)
    # pip looks at markers with this Python's version, not with that of the wheels.
    older = ["tomli>=2"] if python == "3.10" and sys.version_info >= (3, 11) else []
    _pip("download", "--dest", folder, *choice(arch, python), f"{ours}[{extras}]", *older)
    return sorted(folder.glob("*.whl"))


def build(folder: Path) -> Path:
    """Our own wheel: pure Python, good for every machine."""
    with tempfile.TemporaryDirectory() as name:
        _pip("wheel", "--no-deps", "--wheel-dir", name, ROOT)
        wheel = next(Path(name).glob("winnow_edge-*.whl"))
        target = folder / wheel.name
        target.write_bytes(wheel.read_bytes())
    return target


def _pip(*arguments: str | Path) -> None:
    command = [sys.executable, "-m", "pip", arguments[0], "--quiet", "--disable-pip-version-check", *arguments[1:]]
    if subprocess.run(command, cwd=ROOT, check=False).returncode:
        raise StepFailed(f"pip {arguments[0]} failed: {ADVICE}")


if __name__ == "__main__":
    main()
