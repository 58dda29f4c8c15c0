"""By which processes is a net learned, and what when one of them dies?

    here       in this process
    torchrun   in as many on this machine as there are GPUs, or as one says; on several machines (node.py)
    ray        in workers of Ray Train (on_ray.py)

The job lies in a folder beside the checkpoint; the first rank tells there how far it is. When one dies the others are
ended, it is said which one and what it said last, and all begin again from the checkpoint: to the same weights.
"""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import msgspec

from models.curve import Point, Progress
from models.errors import DataError, RankError

if TYPE_CHECKING:
    from models.job import Job

log = logging.getLogger(__name__)

STARTS = 3  # a rank that dies each time dies of something that starting again does not mend
POLL_S = 0.1  # between two looks at how far the first rank is
END_S = 5.0  # for torchrun to end its ranks; they die with it anyway
LAST_LINES = 12  # of a rank that died
FOLDER, NET, SAID, DIED, REFUSED, LOGS = "ranks", "net.pt", "said.jsonl", "died.json", "refused.txt", "logs"

Kind = Literal["here", "torchrun", "ray"]


@dataclass(frozen=True, kw_only=True)
class Launch:
    """Which processes learn."""

    kind: Kind = "here"
    processes: int = 0  # of each node; 0: one for each GPU, and one without
    nodes: int = 1
    rendezvous: str = ""  # host:port of the first node, where the others find it; of Ray, its address


HERE = Launch()


class Line(msgspec.Struct, frozen=True):
    """What the first rank says of itself; `share` as in Progress."""

    share: float
    text: str
    point: Point | None = None


class Death(msgspec.Struct, frozen=True):
    """Of a rank that did not end by itself."""

    rank: int
    local: int
    code: int  # exit code; negative: the signal


def launched(job: Job, begun: bytes, launch: Launch, *, folder: Path | None, progress: Progress | None) -> bytes:
    """Let the ranks learn; returns the weights.

    Args:
        job: what is learned from.
        begun: weights of the net as it is before the first step.
        launch: who learns.
        folder: where the job and the checkpoint lie, the latter to stay; None: in one that is gone afterwards.
        progress: told by the first rank, and when one dies.

    Raises:
        DataError: a rank refuses the job.
        RankError: a rank died in each of STARTS attempts.
    """
    with _folder(folder) as home:
        place = home / FOLDER
        shutil.rmtree(place, ignore_errors=True)
        try:
            job.write(place, begun=begun, digest=job.digest())
            return _learned(place, launch, Listener(place / SAID, progress))
        finally:
            shutil.rmtree(place, ignore_errors=True)


@contextlib.contextmanager
def _folder(wanted: Path | None) -> Iterator[Path]:
    if wanted is not None:
        yield wanted
        return
    with tempfile.TemporaryDirectory(prefix="winnow-") as made:
        yield Path(made)


class Listener:
    """Hears what the first rank writes down, and passes it on in the process that asked for the training."""

    def __init__(self, file: Path, progress: Progress | None) -> None:
        self._file, self._progress = file, progress
        self._read, self._share = 0, 0.0

    def hear(self) -> None:
        """What is new."""
        try:
            with self._file.open("rb") as file:
                file.seek(self._read)
                new = file.read()
        except FileNotFoundError:
            return
        complete = new[: new.rfind(b"\n") + 1]
        self._read += len(complete)
        for line in complete.splitlines():
            said = msgspec.json.decode(line, type=Line)
            self.tell(said.text, said.point, share=said.share)

    def tell(self, text: str, point: Point | None = None, *, share: float | None = None) -> None:
        """A line of one's own, or the rank's."""
        self._share = self._share if share is None else share
        if self._progress is not None:
            self._progress(self._share, text, point)


def _learned(place: Path, launch: Launch, listener: Listener) -> bytes:
    for start in range(1, STARTS + 1):
        (place / DIED).unlink(missing_ok=True)
        shutil.rmtree(place / LOGS, ignore_errors=True)
        code = _watched(command(place, launch), place, listener)
        if (place / REFUSED).exists():
            raise DataError((place / REFUSED).read_text())
        if code == 0 and (place / NET).exists():
            return (place / NET).read_bytes()
        trouble = obituary(place, code)
        if start < STARTS:
            log.warning("%s", trouble)  # however fresh the last word of progress is
            listener.tell(f"{trouble.split(';')[0]}: all ranks begin again from the last checkpoint")
    raise RankError(f"the training died {STARTS} times, the last time because {trouble}")


def command(place: Path, launch: Launch) -> list[str]:
    """Of the program that starts the ranks of this machine and waits for them."""
    program = "models.node" if launch.kind == "torchrun" else "models.on_ray"
    told = [f"--processes={launch.processes}", f"--nodes={launch.nodes}", f"--rendezvous={launch.rendezvous}"]
    return [sys.executable, "-m", program, str(place), *told, f"--parent={os.getpid()}"]


def _watched(argv: list[str], place: Path, listener: Listener) -> int:
    """Its exit status; it is ended if we are."""
    (place / LOGS).mkdir(exist_ok=True)
    with (place / LOGS / "launcher.log").open("wb") as log:
        process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    try:
        while process.poll() is None:
            listener.hear()
            time.sleep(POLL_S)
        listener.hear()
        return process.returncode
    finally:
        _end(process)


def _end(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(END_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def obituary(place: Path, code: int) -> str:
    """Which rank died, of what, and its last lines.

    A rank that is left alone ends with an error of its own, a moment later: one that was killed comes first.
    """
    try:
        deaths = msgspec.json.decode((place / DIED).read_bytes(), type=list[Death])
    except FileNotFoundError:
        return f"what starts the ranks ended with {code}; its last lines:\n{_last(place / LOGS / 'launcher.log')}"
    # Those that were left are ended by SIGTERM.
    deaths.sort(key=lambda one: (one.code == -signal.SIGTERM, one.code >= 0, one.rank))
    first = deaths[0]
    return f"rank {first.rank} {_cause(first.code)}; its last lines:\n{_last(_log(place, first.local))}"


def _cause(code: int) -> str:
    return f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with {code}"


def _log(place: Path, local: int) -> Path:
    found = sorted((place / LOGS).glob(f"*/attempt_*/{local}/stderr.log"))
    return found[-1] if found else place / LOGS / "launcher.log"


def _last(file: Path) -> str:
    try:
        lines = file.read_text(errors="replace").splitlines()
    except FileNotFoundError:
        lines = []
    return "\n".join(lines[-LAST_LINES:]) or "(it said nothing)"
