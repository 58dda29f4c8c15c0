"""When does a server that was started as a process listen?

For whoever plays a script over the product: `winnow-server run` as a user would start it, ended with us.
"""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from server.child import spawn
from server.errors import ServerError

LOOK_S = 0.1
FILES = ("broker.url", "web.url")
"""Where a running server says, in its data folder, how it is reached."""


@contextmanager
def stopping_on_signals() -> Iterator[None]:
    """SIGTERM ends the block as Ctrl-C does: through every `with`."""

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def start(toml: Path, log: Path, *, environment: Mapping[str, str] | None = None) -> subprocess.Popen[bytes]:
    """Start it; what it says goes to `log`."""
    with open(log, "wb") as output:
        return spawn([sys.executable, "-m", "server", "run", str(toml)], output=output, environment=environment)


def forget(data_dir: Path) -> None:
    """Before a start: what an earlier one said of itself."""
    for name in FILES:
        (data_dir / name).unlink(missing_ok=True)


def wait(data_dir: Path, log: Path, *, check: Callable[[], None], within_s: float = 30.0) -> tuple[str, str]:
    """Addresses of broker and pages, once both listen. ServerError when they do not; `check` raises when it died."""
    deadline = time.monotonic() + within_s
    files = [data_dir / name for name in FILES]
    while not all(file.exists() and file.read_text().strip() for file in files):
        check()
        if time.monotonic() > deadline:
            raise ServerError(f"the server did not start within {within_s:.0f} s: see {log}")
        time.sleep(LOOK_S)
    broker, pages = (file.read_text().strip() for file in files)
    return broker, pages


def tail(log: Path) -> str:
    """The last that a program said."""
    lines = log.read_text(errors="replace").strip().splitlines() if log.exists() else []
    return lines[-1] if lines else "it said nothing"
