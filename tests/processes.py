"""The real programs, as processes that a test may kill."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path


class Program:
    """One process; `kill` is kill -9, and it can be started again. Either does nothing where it is done."""

    def __init__(self, log: Path, *argv: str, python: str = sys.executable) -> None:
        self._log = log
        self._argv = [python, "-m", *argv]
        self._process: subprocess.Popen[bytes] | None = None
        self.start()

    def start(self) -> None:
        if self._process is not None and self.running():
            return
        with open(self._log, "ab") as log:
            self._process = subprocess.Popen(self._argv, stdout=log, stderr=log, stdin=subprocess.DEVNULL)

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def kill(self) -> None:
        assert self._process is not None
        self._process.kill()
        self._process.wait()

    def stop(self, *, within_s: float = 10.0) -> int:
        """SIGTERM; its exit code."""
        assert self._process is not None
        if self._process.poll() is None:
            self._process.terminate()
        return self._process.wait(within_s)

    def running(self) -> bool:
        assert self._process is not None
        return self._process.poll() is None

    def said(self) -> str:
        return self._log.read_text(errors="replace")


class Programs(list[Program]):
    """Those of one test: whoever still runs at its end is killed."""

    def run(self, log: Path, *argv: str, python: str = sys.executable) -> Program:
        """Start one; `python` runs it."""
        self.append(Program(log, *argv, python=python))
        return self[-1]

    def wait_for(self, what: str, true: Callable[[], bool], *, within_s: float = 60.0) -> None:
        """Poll until `true`; fails with what they said."""
        wait_for(what, true, self, within_s=within_s)

    def __enter__(self) -> Programs:
        return self

    def __exit__(self, *_: object) -> None:
        for program in self:
            program.kill()


def wait_for(what: str, true: Callable[[], bool], programs: Sequence[Program] = (), *, within_s: float = 60.0) -> None:
    """Poll until `true`; fails with what the programs said."""
    deadline = time.monotonic() + within_s
    while not true():
        if time.monotonic() > deadline:
            said = "\n".join(f"--- {program.said()[-2000:]}" for program in programs)
            raise AssertionError(f"not within {within_s:.0f} s: {what}\n{said}")
        time.sleep(0.05)


def query(path: Path, sql: str) -> list[tuple]:
    """Rows of an SQLite file that others are writing; none while it is not there."""
    if not path.exists():
        return []
    connection = sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=10)
    try:
        return connection.execute(sql).fetchall()
    except sqlite3.OperationalError:  # not yet made
        return []
    finally:
        connection.close()


def children_of(pid: int) -> list[int]:
    """Processes below `pid`, at any depth."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                parent = int((entry / "stat").read_text().rsplit(")", 1)[1].split()[1])
            except (OSError, IndexError, ValueError):
                continue
            if parent == pid:
                found += [int(entry.name), *children_of(int(entry.name))]
    return found


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return "Z" not in Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]


def kill(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)
