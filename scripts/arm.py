"""How does the agent run as on a Raspberry Pi, on a machine that is none? `make test-arm`.

    emulator    qemu-user-static, unpacked into the cache folder: programs of aarch64 Linux run as if they were ours
    python      Debian's or Ubuntu's own for arm64, unpacked beside it
    wheels      the agent's dependencies for aarch64, at the versions that constraints.txt pins
    boards      a folder to a board, with the description of its processor, and a `python` that runs as on it

Nothing is installed, no right is needed, and nothing outside the cache folder changes. Times under emulation say
nothing about a board's; that results are equal, that wheels exist and that the agent starts, they do show.

    python3 scripts/arm.py             prepare
    python3 scripts/arm.py --wheels    write docs/wheels.md: the wheels of every dependency for Python 3.10 to 3.13
"""

from __future__ import annotations

import argparse
import hashlib
import json
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import NamedTuple

import debian
import wheelhouse
from step import ROOT, StepFailed, ask, cache_dir, take

HOME = cache_dir() / "arm"
EMULATOR = HOME / "qemu-aarch64-static"
PYTHON_PACKAGES = ("python3-minimal", "libpython3-stdlib", "libstdc++6")
PYTHONS = ("3.10", "3.11", "3.12", "3.13")
OLD = "python_version < '3.11'"  # the one marker that a dependency of ours has
WHEELS = ROOT / "docs" / "wheels.md"
PAGE = """# What the agent installs on aarch64

Every package that `pip install winnow-edge` brings, then what its extras for sensors add, as of the pinned versions,
with its wheel: nothing is compiled on the board. Written by `python3 scripts/arm.py --wheels`; `make test-arm` resolves
it anew. JetPack 6 has Python 3.10, Raspberry Pi OS 12 has 3.11. There is no wheel of onnxruntime for 32-bit ARM
(armv7): such boards cannot run the agent.

"""


class Board(NamedTuple):
    """A processor: what the emulator is told, and what programs read of it.

    The two have to agree: a feature that is said to be there and is not ends a program with signal 4.
    """

    cpu: str
    part: str  # of /proc/cpuinfo, by ARM's numbering
    features: str


BOARDS = {
    "pi4": Board("cortex-a72", "0xd08", "fp asimd evtstrm crc32 cpuid"),
    "pi5": Board(
        "cortex-a76",
        "0xd0b",
        "fp asimd evtstrm aes pmull sha1 sha2 crc32 atomics fphp asimdhp cpuid asimdrdm lrcpc dcpop asimddp",
    ),
}
CPUINFO = """processor\t: 0
BogoMIPS\t: 108.00
Features\t: {features}
CPU implementer\t: 0x41
CPU architecture: 8
CPU variant\t: 0x0
CPU part\t: {part}
CPU revision\t: 3

"""
# A child that starts `sys.executable` comes through this script as well: the kernel cannot run what it names otherwise.
# Bytecode is kept, beside the sources: compiling them would be two thirds of an emulated start of the agent.
START = """#!/bin/sh
export PYTHONHOME="{root}/usr" PYTHONPATH="{site}${{PYTHONPATH:+:$PYTHONPATH}}"
exec "{emulator}" -cpu {cpu} -L "{root}" -0 "$0" "{root}/usr/bin/{python}" "$@"
"""


def main() -> int:
    """Prepare, or write the list."""
    parser = argparse.ArgumentParser(description="Prepare what runs the agent as on an aarch64 board.")
    parser.add_argument("--wheels", action="store_true", help="write docs/wheels.md")
    parser.add_argument("--where-possible", action="store_true", help="where it cannot be prepared, say so and succeed")
    options = parser.parse_args()
    if options.wheels:
        WHEELS.write_text(PAGE + table({python: resolved(python) for python in PYTHONS}))
        print(f"wrote {WHEELS.relative_to(ROOT)}")
        return 0
    try:
        prepare()
    except StepFailed as error:
        print(f"setup: aarch64    cannot be prepared here: {error}", flush=True)
        return 0 if options.where_possible else 1
    return 0


def python_of(board: str) -> Path | None:
    """A Python that runs as on that board; None while it is not prepared."""
    place = HOME / "boards" / board / "python"
    return place if place.exists() else None


def prepare() -> None:
    """Take every step whose result is not there."""
    if not debian.present():
        raise StepFailed("arm64 packages of Python come from a Debian-family system, and this is none")
    stamp = HOME / "stamp"
    wanted = hashlib.sha256(b"".join(file.read_bytes() for file in _sources())).hexdigest()
    if stamp.is_file() and stamp.read_text() == wanted and EMULATOR.exists():
        print(f"setup: aarch64    {', '.join(BOARDS)}: all there", flush=True)
        return
    stamp.unlink(missing_ok=True)
    take("emulator", _emulator)
    take("python", _python)
    take("wheels", _wheels)
    take("boards", _boards)
    stamp.write_text(wanted)


def _sources() -> list[Path]:
    pinned = (ROOT / name for name in ("constraints.txt", "constraints-py310.txt", "pyproject.toml"))
    return [Path(__file__), Path(wheelhouse.__file__), *pinned]


def _emulator() -> str:
    if not EMULATOR.exists():
        HOME.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=HOME) as name:
            debian.unpack("qemu-user-static", Path(name, "tree"))
            shutil.move(Path(name, "tree", "usr", "bin", EMULATOR.name), EMULATOR)
    code, said = ask([EMULATOR, "--version"])
    if code:
        raise StepFailed(f"{EMULATOR} does not start: {said.strip()}")
    return said.splitlines()[0]


def _python() -> str:
    root = HOME / "root"
    if not root.exists():
        debian.unpack_foreign(PYTHON_PACKAGES, "arm64", root)
    return f"{_python_name()}, {root}"


def _python_name() -> str:
    found = sorted(path.name for path in (HOME / "root" / "usr" / "bin").glob("python3.*") if "config" not in path.name)
    if not found:
        raise StepFailed(f"no Python in {HOME / 'root'}: remove that folder, and run this again")
    return found[-1]


def _wheels() -> str:
    site, version = HOME / "site", _python_name().removeprefix("python")
    with tempfile.TemporaryDirectory(dir=HOME) as name:
        _pip("download", "-d", name, *wheelhouse.choice("arm64", version), *_dependencies(version))
        shutil.rmtree(site, ignore_errors=True)
        wheels = sorted(Path(name).glob("*.whl"))
        for wheel in wheels:
            zipfile.ZipFile(wheel).extractall(site)
    return f"{len(wheels)} for Python {version}"


def _boards() -> str:
    for name, board in BOARDS.items():
        folder = HOME / "boards" / name
        shutil.rmtree(folder, ignore_errors=True)
        root, machine = folder / "root", folder / "root" / "sys" / "devices" / "system" / "cpu"
        (machine / "cpu0" / "topology").mkdir(parents=True)
        (root / "proc").mkdir()
        for part in (HOME / "root").iterdir():
            if not (root / part.name).exists():
                (root / part.name).symlink_to(part)
        # onnxruntime reads the processor's description, and crashes on that of this machine.
        (root / "proc" / "cpuinfo").write_text(CPUINFO.format(features=board.features, part=board.part))
        for file in ("possible", "present", "online", "kernel_max"):
            (machine / file).write_text("0\n")
        for file in ("physical_package_id", "core_id"):
            (machine / "cpu0" / "topology" / file).write_text("0\n")
        start = START.format(root=root, site=HOME / "site", emulator=EMULATOR, cpu=board.cpu, python=_python_name())
        (folder / "python").write_text(start)
        (folder / "python").chmod(0o755)
        code, said = ask([folder / "python", "-c", "import onnxruntime, platform; print(platform.machine())"])
        if code or said.split()[-1:] != ["aarch64"]:
            raise StepFailed(f"{folder / 'python'} ended with {code}: {said.strip()[-300:]}")
    return ", ".join(f"{name} ({board.cpu})" for name, board in BOARDS.items())


# --- wheels ---


def resolved(python: str) -> dict[str, str]:
    """Package -> the file that an aarch64 board with that Python installs; StepFailed when something has no wheel."""
    said = _pip(
        "install", "--dry-run", "--ignore-installed", "--report", "-", "--target", "none",
        *wheelhouse.choice("arm64", python), *_dependencies(python), *extras().values(),
    )  # fmt: skip
    items = json.loads(said)["install"]
    return {item["metadata"]["name"].lower(): item["download_info"]["url"].rpartition("/")[2] for item in items}


def table(by_python: dict[str, dict[str, str]]) -> str:
    """Markdown: a row to a package, a column to a Python; the version, and which platform its wheel is for."""
    of = {re.split("[<>=]", needed)[0]: extra for extra, needed in extras().items()}
    names = sorted({name for found in by_python.values() for name in found}, key=lambda name: (of.get(name, ""), name))
    rows = [["package", *(f"Python {python}" for python in by_python)], ["---"] * (1 + len(by_python))]
    for name in names:
        shown = f"{name}, of `{of[name]}`" if name in of else name
        rows.append([shown, *(brief(found.get(name, "")) for found in by_python.values())])
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)


def brief(file: str) -> str:
    """Version and platform of a wheel's file name.

    >>> brief("numpy-2.4.6-cp311-cp311-manylinux_2_27_aarch64.manylinux_2_28_aarch64.whl")
    '2.4.6, aarch64'
    >>> brief("tuf-7.0.1-py3-none-any.whl")
    '7.0.1, any'
    """
    if not file:
        return "not needed"
    version, platform = file.split("-")[1], file.removesuffix(".whl").rpartition("-")[2]
    return f"{version}, {'aarch64' if 'aarch64' in platform else platform}"


def _dependencies(python: str) -> list[str]:
    """Of the base install, out of pyproject.toml; read by hand, for Python 3.10 has no reader of it.

    pip holds markers against the Python that runs it, and not against the one that is asked for.
    """
    text = (ROOT / "pyproject.toml").read_text()
    listed = re.search(r"^dependencies = \[(.*?)^\]", text, re.DOTALL | re.MULTILINE)
    lines = re.findall(r'^\s*"([^"]+)"', listed[1] if listed else "", re.MULTILINE)
    named = [line.partition(";") for line in lines]
    return [name.strip() for name, _, marker in named if not marker or (OLD in marker) == (python == "3.10")]


def extras() -> dict[str, str]:
    """Those of pyproject.toml that the agent has some use for, one package each."""
    found = re.findall(r'^(images|camera|serial) = \["([^"]+)"\]', (ROOT / "pyproject.toml").read_text(), re.MULTILINE)
    return dict(found)


def _pip(*words: str) -> str:
    done = subprocess.run([sys.executable, "-m", "pip", "-q", *words], capture_output=True, text=True, check=False)
    if done.returncode:
        raise StepFailed(f"pip: {done.stderr.strip()[-400:]}")
    return done.stdout


if __name__ == "__main__":
    sys.exit(main())
