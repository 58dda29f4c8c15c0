"""One thing that somebody asked for on a page, in a process of its own.

    python -m server.web.chore --data-dir DIR --store JSON --terms JSON --chore N

So that it frees its memory, and holds up neither ingest nor pages. It ends with 0 when its outcome is in the store.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import time
import zipfile
from collections.abc import Sequence
from typing import Any

from edge_agent.contract.errors import WinnowError
from server.errors import StoreError
from server.label import mapping
from server.store import chores
from server.store.chores import Chore
from server.store.store import Store, accept, accepted
from server.teach.export.run import export

_NICE = 10  # below the server, the broker and a training
_PACKED = (".parquet", ".png", ".jpg", ".webp")  # is small already


def main(arguments: Sequence[str] | None = None) -> int:
    """Do it; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m server.web.chore")
    accept(parser)
    parser.add_argument("--chore", type=int, required=True)
    options = parser.parse_args(arguments)
    os.nice(_NICE)
    store = accepted(options)
    try:
        do(store, options.chore)
    finally:
        store.close()
    return 0


def do(store: Store, number: int) -> None:
    """Do it, and say how it ended."""
    with store.database.read() as connection:
        one = chores.get(connection, number)
    if one is None:
        return
    try:
        result = _exported(store, one) if one.kind == "export" else {"points": mapping.draw(store)}
    except WinnowError as error:
        with store.database.write() as connection:
            chores.fail(connection, number, str(error), now_ms=_now_ms())
        return
    with store.database.write() as connection:
        wanted = chores.finish(connection, number, result, now_ms=_now_ms())
    if not wanted:  # something was erased meanwhile, and may be in it
        chores.archive_of(store, number).unlink(missing_ok=True)


def _exported(store: Store, one: Chore) -> dict[str, Any]:
    folder, archive = chores.folder_of(store, one.id), chores.archive_of(store, one.id)
    done = export(
        store,
        one.order["snapshot"],
        folder,
        form=one.order["form"],
        share=one.order["share"],
        who=one.who,
        why=one.why,
        now_ms=one.at_ms,
        chore=one.id,
    )
    beside = chores.beside(archive)
    try:
        with zipfile.ZipFile(beside, "w", allowZip64=True) as into:
            for path in sorted(folder.rglob("*")):
                if path.is_file():
                    kind = zipfile.ZIP_STORED if path.suffix in _PACKED else zipfile.ZIP_DEFLATED
                    into.write(path, path.relative_to(folder), kind)
        beside.replace(archive)
        shutil.rmtree(folder)
    except OSError as error:
        raise StoreError(f"{archive}: {error.strerror}") from error
    return {"records": done.records, "left_out": done.left_out, "bytes": archive.stat().st_size}


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


if __name__ == "__main__":
    sys.exit(main())
