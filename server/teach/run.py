"""One round, in a process of its own.

    python -m server.teach.run --data-dir DIR --store JSON --terms JSON --settings JSON --why WHY

So that it can be killed, frees its memory, and never holds up what the server does meanwhile. It says on stdout what it
does, one line each, and ends with 0 when the outcome is in the store. The run is there once the snapshot is: one that
is killed before leaves nothing.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import time
from collections.abc import Sequence
from types import FrameType

import msgspec

from edge_agent.contract.errors import WinnowError
from server.store.store import accept, accepted
from server.teach.training import Settings, begin, run_round

CHECKPOINTS = "training"  # folder beside the store
_NICE = 5  # below the server and the broker, which must answer while we compute


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one round; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m server.teach.run")
    accept(parser)
    parser.add_argument("--settings", type=lambda said: msgspec.json.decode(said, type=Settings), required=True)
    parser.add_argument("--why", required=True)
    options = parser.parse_args(arguments)
    os.nice(_NICE)
    signal.signal(signal.SIGTERM, _leave)
    store = accepted(options)
    try:
        run_id = begin(store, options.settings, why=options.why, say=_say, now_ms=_now_ms)
        run_round(store, run_id, folder=store.folder / CHECKPOINTS, say=_say, now_ms=_now_ms)
    except WinnowError as error:
        print(error, file=sys.stderr, flush=True)  # noqa: T201 - the server keeps it
        return 1
    finally:
        store.close()
    return 0


def _leave(number: int, _frame: FrameType | None) -> None:
    """Told to go, we clean up first: the job of ranks holds samples."""
    sys.exit(128 + number)


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


def _say(text: str) -> None:
    print(text, flush=True)  # noqa: T201 - stdout is how we report


if __name__ == "__main__":
    sys.exit(main())
