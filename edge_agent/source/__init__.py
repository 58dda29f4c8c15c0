"""Where do samples come from?

A source is one method, `readings(start)`: an iterator of Reading, or of None when there is nothing for the moment, so
that the agent can do what falls due. It ends when there will be nothing more. It raises SourceError when the sensor
cannot be read; the agent then opens it again, later and later.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple, Protocol, cast

from edge_agent.contract.errors import ConfigError, did_you_mean
from edge_agent.contract.types import Reading

BUILT_IN = ("replay", "folder")
IDLE_S = 0.05  # longest silence before a None; longer delays what falls due, shorter wakes the processor for nothing


class Start(NamedTuple):
    """Where to go on: the next sequence number, and the mark of the last reading that was dealt with ("" at first)."""

    seq: int = 0
    mark: str = ""


class Fit(NamedTuple):
    """What the model takes: one sample's shape and dtype."""

    shape: tuple[int, ...]
    dtype: str


class Source(Protocol):
    """The seam. A plug-in is a class of this shape, made with (path=, fit=, rate_per_s=)."""

    def readings(self, start: Start) -> Iterator[Reading | None]:
        """Samples from `start` on."""
        ...


def open_source(kind: str, *, path: Path, fit: Fit, rate_per_s: float = 0.0, poll_s: float = 0.5) -> Source:
    """Make the source named `kind`; ConfigError when there is none, SourceError when it cannot be read."""
    if kind == "replay":
        from edge_agent.source.replay import Replay

        return Replay(path, rate_per_s=rate_per_s)
    if kind == "folder":
        from edge_agent.source.folder import Folder

        return Folder(path, fit=fit, poll_s=poll_s)
    module, _, name = kind.partition(":")
    if not name:
        known = ", ".join(BUILT_IN)
        raise ConfigError(f"[source] kind = {kind!r}: unknown{did_you_mean(kind, BUILT_IN)}; known: {known}")
    try:
        plug_in = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise ConfigError(f"[source] kind = {kind!r}: {error}") from error
    return cast(Source, plug_in(path=path, fit=fit, rate_per_s=rate_per_s))
