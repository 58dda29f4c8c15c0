"""How does the demo say that something takes a while?

A bar on a terminal, one line at the end everywhere.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn

Advance = Callable[[float], None]
"""Told how much of a stage is done, 0..1."""


@contextmanager
def stage(console: Console, text: str) -> Iterator[Advance]:
    """Show that `text` is under way; says how long it took."""
    begun = time.monotonic()
    if console.is_terminal:
        columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeElapsedColumn())
        with Progress(*columns, console=console, transient=True) as progress:
            task = progress.add_task(text, total=1.0)
            yield lambda share: progress.update(task, completed=share)
    else:
        yield lambda _: None
    console.print(f"{text}: {time.monotonic() - begun:.1f} s", highlight=False, soft_wrap=True)
