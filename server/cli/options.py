"""What do commands have in common: their options, their tables, their clock?"""

from __future__ import annotations

import logging
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

Config = Annotated[Path, typer.Argument(metavar="server.toml", help="the configuration file")]
AsJson = Annotated[bool, typer.Option("--json", help="as JSON, for programs")]
By = Annotated[str, typer.Option("--by", help="who says so; empty: whoever is logged in here")]
Why = Annotated[str, typer.Option("--why", help="kept in the audit trail")]
Health = Annotated[
    str, typer.Option("--health", metavar="HOST:PORT", help="where to answer /healthz and /metrics; empty: nowhere")
]
NO_REASON = "no reason given"


def show(rows: list[dict[str, Any]], as_json: bool) -> None:
    """As a table, or as JSON."""
    from server import status as views

    if as_json:
        typer.echo(views.as_json(rows))
    else:
        views.print_table(rows, views.console())


def listed(text: str) -> list[str]:
    """What stands between commas."""
    return [part.strip() for part in text.split(",") if part.strip()]


def log_plainly() -> None:
    """Lines with the time of day, to stderr."""
    logging.basicConfig(level="INFO", format="%(asctime)s %(levelname)-7s %(message)s", datefmt="%H:%M:%S")


def until_told(stop: Callable[[], None]) -> None:
    """Have SIGTERM and Ctrl-C call `stop`.

    In a thread: a handler interrupts the main thread, which may hold the lock of the very event it would set.
    """
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: threading.Thread(target=stop).start())


def now_ms() -> int:
    """The wall clock, ms since 1970."""
    return time.time_ns() // 1_000_000
