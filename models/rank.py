"""One of the processes that learn a net together.

    torchrun ... -m models.rank FOLDER [PARENT]

It reads the job in the folder (job.py); that of another machine than the first is filled first (shards.py). The first
rank writes there how far it is and, in the end, the weights. A job that does not fit is refused in a file, and not
begun again.
"""

from __future__ import annotations

import dataclasses
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

import msgspec

from edge_agent.contract.errors import WinnowError
from models.checkpoint import Checkpoint
from models.curve import Point
from models.job import read
from models.launch import NET, REFUSED, SAID, Line
from models.orphan import die_with_parent
from models.ranks import Ranks, group
from models.shards import handed_out
from models.train import Net, learned, threads


def main(arguments: Sequence[str] | None = None) -> int:
    """Learn; returns the exit status."""
    place, *parent = arguments or sys.argv[1:]
    folder = Path(place)
    die_with_parent(signal.SIGKILL, parent=int(parent[0]) if parent else 0)
    try:
        with group() as ranks:
            take_part(folder, ranks)
    except WinnowError as error:
        (folder / REFUSED).write_text(str(error))
        print(error, file=sys.stderr, flush=True)  # noqa: T201 - the log of a rank
        return 1
    return 0


def take_part(folder: Path, ranks: Ranks, *, shared: bool = False) -> None:
    """Learn what is in the folder of the first node, with the others; shared: every node sees it."""
    if ranks.world > ranks.beside and not shared:
        ranks = handed_out(folder, ranks)
    job, begun, digest = read(folder)
    if ranks.shard is not None and ranks.node == 0:  # whose file has all
        job = dataclasses.replace(job, x=job.x[slice(*ranks.shard)])
    with threads(job.settings.threads):
        net = learned(
            job,
            Net.load(begun),
            None if job.parent is None else Net.load(job.parent),
            ranks,
            checkpoint=Checkpoint(folder.parent, digest),
            progress=_Told(folder / SAID) if ranks.first else None,
        )
        weights = net.weights()
    if ranks.first:
        new = folder / f"{NET}.new"
        new.write_bytes(weights)
        new.replace(folder / NET)


class _Told:
    """Progress, written down a line at a time."""

    def __init__(self, file: Path) -> None:
        self._file = file

    def __call__(self, share: float, text: str, point: Point | None = None, /) -> None:
        with self._file.open("ab") as file:
            file.write(msgspec.json.encode(Line(share, text, point)) + b"\n")


if __name__ == "__main__":
    sys.exit(main())
