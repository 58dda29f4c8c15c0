"""What starts the ranks of one machine?

    python -m models.node FOLDER --processes N

torchrun, in a process that ends with whoever started it, and takes its ranks along. It writes down which rank died.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

import msgspec

from models.launch import DIED, LOGS, Death
from models.orphan import die_with_parent


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the ranks to their end; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m models.node")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--processes", type=int, default=0)
    parser.add_argument("--nodes", type=int, default=1)
    parser.add_argument("--rendezvous", default="")
    options = parser.parse_args(arguments)
    die_with_parent(signal.SIGTERM, parent=os.getppid())
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.run import parse_args, run

    folder = options.folder
    where = ["--standalone"]
    told = [f"--nproc-per-node={options.processes or 'gpu'}", "--max-restarts=0", f"--log-dir={folder / LOGS}"]
    program = ["--redirects=3", "-m", "models.rank", str(folder)]
    try:
        run(parse_args([*where, *told, *program]))  # type: ignore[no-untyped-call]
    except ChildFailedError as error:
        deaths = [Death(rank, one.local_rank, one.exitcode) for rank, one in error.failures.items()]
        (folder / DIED).write_bytes(msgspec.json.encode(deaths))
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
