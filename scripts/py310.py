"""Does the agent still run on Python 3.10, the one of JetPack 6?

Its unit tests, under a python3.10 with nothing but the base install (the `images` extra for the folder source): what
needs torch or onnx is not there, what many draws come to is judged under one Python, and of what a property draws there
a quarter is drawn here. Where no python3.10 is installed, that is said, and nothing fails.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

from environment import ensure, python_version
from step import ROOT, take

VENV = ROOT / ".venv310"
INSTALLS = [["-e", ".[images]", "pytest", "pytest-timeout", "pytest-xdist", "hypothesis"]]


def main() -> int:
    """Prepare .venv310 and run the agent's tests in it; the exit code of pytest."""
    python = _python310()
    if python is None:
        print("py310: no python3.10 is installed here: the agent's tests run under this Python alone")
        return 0
    take("python3.10", lambda: ensure(VENV, python, ROOT / "constraints-py310.txt", INSTALLS))
    command = [str(VENV / "bin" / "python"), "-m", "pytest", "-n", "2", "-m", "not long and not chance"]
    command += ["--hypothesis-profile", "brief", "edge_agent", "tests/edge", *sys.argv[1:]]
    return subprocess.run(command, cwd=ROOT, check=False).returncode


def _python310() -> Path | None:
    pyenv = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv")
    places = [shutil.which("python3.10"), *sorted(pyenv.glob("versions/3.10*/bin/python"), reverse=True)]
    return next((Path(place) for place in places if place and python_version(Path(place)) == (3, 10)), None)


if __name__ == "__main__":
    sys.exit(main())
