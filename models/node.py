"""What starts the ranks of one machine?

    python -m models.node FOLDER --processes N                                                  of the only machine
    python -m models.node --join --node 1 --nodes 2 --rendezvous HOST:PORT --processes N        on every other

torchrun, in a process that ends with whoever started it, and takes its ranks along. It writes down which rank died. On
another machine than the first it waits for trainings for as long as it runs, and learns each with the first. What they
tell each other is neither encrypted nor signed: let nobody else reach their ports.
"""

from __future__ import annotations

import argparse
import os
import signal
import socket
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import msgspec

from models.launch import DIED, LOGS, REFUSED, Death, obituary
from models.orphan import die_with_parent

LOOK_S = 1.0  # between two looks whether the first machine has a training
MEET_S = 120  # within which all machines have to be there


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the ranks to their end; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m models.node")
    parser.add_argument("folder", type=Path, nargs="?", help="of the job; another machine has none")
    parser.add_argument("--processes", type=int, default=0, help="0: one for each GPU; the same on every machine")
    parser.add_argument("--nodes", type=int, default=1, help="machines")
    parser.add_argument("--node", type=int, default=0, help="number of this machine: 1, 2 ...")
    parser.add_argument("--rendezvous", default="", help="host:port of the first machine")
    parser.add_argument("--parent", type=int, default=0, help="id of the process that it ends with")
    parser.add_argument("--join", action="store_true", help="wait for trainings, and learn each with the others")
    options = parser.parse_args(arguments)
    if options.join:
        return _join(options)
    die_with_parent(signal.SIGTERM, parent=options.parent)
    return _run(options.folder, options)


def _join(options: argparse.Namespace) -> int:
    """Learn each training with the first machine, until we are ended."""
    from torch.distributed.elastic.multiprocessing.api import SignalException

    try:
        while True:
            while not _answers(options.rendezvous):
                time.sleep(LOOK_S)
            print("a training begins", flush=True)  # noqa: T201 - stdout is how it reports
            print(_joined(options), flush=True)  # noqa: T201
            time.sleep(LOOK_S)
    except SignalException:  # torchrun's way to hear SIGTERM
        return 0


def _joined(options: argparse.Namespace) -> str:
    """How it ended, in words."""
    with tempfile.TemporaryDirectory(prefix="winnow-") as folder:
        try:
            code = _run(Path(folder), options)
        except RuntimeError as error:  # torch's, of a first machine that is gone
            return f"the first machine is gone: {error}"
        refused = Path(folder, REFUSED)
        if refused.exists():
            return f"it was refused: {refused.read_text()}"
        return "it ended" if code == 0 else obituary(Path(folder), code)


def _answers(rendezvous: str) -> bool:
    host, _, port = rendezvous.rpartition(":")
    try:
        socket.create_connection((host, int(port)), timeout=LOOK_S).close()
    except OSError:
        return False
    return True


def _run(folder: Path, options: argparse.Namespace) -> int:
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.run import parse_args, run

    processes = f"--nproc-per-node={options.processes or _gpus()}"
    told = [*_where(options), processes, "--max-restarts=0", f"--log-dir={folder / LOGS}", "--redirects=3"]
    try:
        run(parse_args([*told, "-m", "models.rank", str(folder), str(os.getpid())]))  # type: ignore[no-untyped-call]
    except ChildFailedError as error:
        deaths = [Death(rank, one.local_rank, one.exitcode) for rank, one in error.failures.items()]
        (folder / DIED).write_bytes(msgspec.json.encode(deaths))
        return 1
    return 0


def _where(options: argparse.Namespace) -> list[str]:
    if options.nodes == 1:
        return ["--standalone"]
    host, _, port = options.rendezvous.rpartition(":")
    return [
        f"--nnodes={options.nodes}", f"--node-rank={options.node}", f"--master-addr={host}", f"--master-port={port}",
        f"--rdzv-conf=timeout={MEET_S}",
    ]  # fmt: skip


def _gpus() -> int:
    import torch

    return max(1, torch.cuda.device_count())


if __name__ == "__main__":
    sys.exit(main())
