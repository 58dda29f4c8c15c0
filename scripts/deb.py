"""How does the agent become a Debian package? `make deb`, and `make deb ARGS="--arch arm64 --python 3.11"`.

    /usr/lib/winnow-agent/wheels      every wheel that it needs, for one processor and one Python
    /usr/lib/winnow-agent/install.sh  what the maintainer scripts run: deploy/agent/install.sh
    /usr/lib/systemd/system           the unit
    /etc/winnow/agent.toml            an example of the configuration, a conffile

The virtual environment is made when the package is configured, from these wheels alone: docs/adr/0028. Built by
dpkg-deb, without root.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import tomllib
import wheelhouse
from step import ROOT, StepFailed

SOURCE = ROOT / "deploy" / "agent"
STAMP_S = 1_767_225_600  # of every file, 2026-01-01: the same files give the same package
SCRIPTS = ("postinst", "prerm", "postrm")
COPYRIGHT = """\
Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/
Upstream-Name: winnow-edge

Files: *
Copyright: 2026 The Winnow developers
License: Apache-2.0

Files: usr/lib/winnow-agent/wheels/*
Copyright: their authors
License: of-each-wheel
Comment: The licence of each library lies in its wheel, in the folder that ends in .dist-info.

License: Apache-2.0
 On Debian systems the text is in /usr/share/common-licenses/Apache-2.0.

License: of-each-wheel
 See the comment above.
"""


def main() -> None:
    """Build one."""
    parser = argparse.ArgumentParser(description="Build the agent's Debian package; see the top of this file.")
    parser.add_argument("--arch", choices=sorted(wheelhouse.PLATFORMS), default=wheelhouse.this_arch())
    parser.add_argument("--python", default=".".join(map(str, sys.version_info[:2])), help="of the distribution")
    parser.add_argument("--extras", default=wheelhouse.EXTRAS, help="such as images,camera,serial (default: images)")
    parser.add_argument("--to", type=Path, default=ROOT / "dist", help="folder (default: dist)")
    options = parser.parse_args()
    try:
        deb = build(options.to, arch=options.arch, python=options.python, extras=options.extras)
    except StepFailed as error:
        raise SystemExit(f"deb: {error}") from error
    print(f"deb: {deb}, {deb.stat().st_size / 1e6:.0f} MB")


def build(to: Path, *, arch: str, python: str, extras: str = wheelhouse.EXTRAS) -> Path:
    """The package; StepFailed when a wheel cannot be had, or dpkg-deb is not here."""
    if shutil.which("dpkg-deb") is None:
        raise StepFailed("dpkg-deb is not here: build on Debian or Ubuntu (apt-get install dpkg)")
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    to.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as name:
        tree = Path(name, "tree")
        lay_out(tree, arch=arch, python=python, version=version, extras=extras)
        deb = to / f"winnow-agent_{version}+py{python}_{arch}.deb"
        environment = {**os.environ, "SOURCE_DATE_EPOCH": str(STAMP_S)}
        command = ["dpkg-deb", "--build", "--root-owner-group", "-Zxz", "-z1", str(tree), str(deb)]  # wheels are zipped
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise StepFailed(f"dpkg-deb ended with {done.returncode}: {done.stderr.strip()}")
    return deb


def lay_out(tree: Path, *, arch: str, python: str, version: str, extras: str) -> None:
    """All files, as they will lie on the device, and DEBIAN/."""
    library = tree / "usr/lib/winnow-agent"
    wheelhouse.fill(library / "wheels", arch=arch, python=python, extras=extras)
    _copy(SOURCE / "install.sh", library / "install.sh", 0o755)
    _copy(SOURCE / "winnow-agent.service", tree / "usr/lib/systemd/system/winnow-agent.service")
    _copy(SOURCE / "gpu.conf", tree / "usr/share/doc/winnow-agent/examples/gpu.conf")
    _copy(SOURCE / "agent.toml", tree / "etc/winnow/agent.toml")
    document = tree / "usr/share/doc/winnow-agent"
    (document / "copyright").write_text(COPYRIGHT)
    log = f"winnow-agent ({version}+py{python}) unstable; urgency=low\n\n  * See CHANGELOG.md of Winnow.\n\n"
    log += " -- The Winnow developers <winnow@localhost>  Thu, 01 Jan 2026 00:00:00 +0000\n"
    (document / "changelog.gz").write_bytes(gzip.compress(log.encode(), 9, mtime=0))
    files = sorted(path for path in tree.rglob("*") if path.is_file())
    size_kb = sum(-(-path.stat().st_size // 1024) for path in files)
    _control(tree, arch=arch, python=python, version=version, extras=extras, size_kb=size_kb)
    sums = (f"{hashlib.md5(path.read_bytes()).hexdigest()}  {path.relative_to(tree)}\n" for path in files)  # noqa: S324
    (tree / "DEBIAN/md5sums").write_text("".join(sums))
    for path in [tree, *tree.rglob("*")]:
        path.chmod(0o755 if path.is_dir() or path.stat().st_mode & 0o100 else 0o644)
        os.utime(path, (STAMP_S, STAMP_S))


def _control(tree: Path, *, arch: str, python: str, version: str, extras: str, size_kb: int) -> None:
    major, minor = python.split(".")
    words = {
        "@VERSION@": f"{version}+py{python}",
        "@ARCH@": arch,
        "@KB@": str(size_kb),
        "@PYTHON_NEXT@": f"{major}.{int(minor) + 1}",
        "@PYTHON_PROGRAM@": f"python{python}",
        "@PYTHON@": python,
        "@EXTRAS@": extras,
    }
    folder = tree / "DEBIAN"
    folder.mkdir()
    for name in ("control", *SCRIPTS):
        text = (SOURCE / "debian" / name).read_text()
        for word, value in words.items():
            text = text.replace(word, value)
        (folder / name).write_text(text)
        (folder / name).chmod(0o755 if name in SCRIPTS else 0o644)
    (folder / "conffiles").write_text("/etc/winnow/agent.toml\n")


def _copy(source: Path, target: Path, mode: int = 0o644) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(source.read_bytes())
    target.chmod(mode)


if __name__ == "__main__":
    main()
