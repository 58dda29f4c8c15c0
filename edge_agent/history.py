"""What became of the models that came to this device?

The last steps of its updates with their reasons, as the server was told of them: kept here too, for whoever looks on
the device, and for one that has no server.
"""

from __future__ import annotations

import logging
from pathlib import Path

import msgspec

from edge_agent.contract.artifact import write_durably
from edge_agent.contract.wire import Event

log = logging.getLogger(__name__)

HISTORY = "updates.json"
KINDS = frozenset({"refused", "staged", "trial", "commit", "revert"})
KEPT = 50  # steps; an update has three or four


class Step(msgspec.Struct, frozen=True):
    """One thing that happened to a version."""

    at_ms: int
    kind: str
    version: int
    text: str


class History:
    """Adds to the file. Not for several threads at once."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def add(self, event: Event) -> None:
        """Keep a step of an update; other events pass. A disk that will not is no reason to stop."""
        if event.kind not in KINDS:
            return
        steps = [*read(self._folder), Step(event.at_ms, event.kind, event.model_version, event.text)]
        try:
            write_durably(self._folder / HISTORY, msgspec.json.format(msgspec.json.encode(steps[-KEPT:]), indent=1))
        except OSError as error:
            log.warning("%s: %s: a step of an update is not kept", HISTORY, error)


def read(folder: Path) -> list[Step]:
    """The steps, oldest first; none where there is no file, or none that can be read."""
    try:
        return msgspec.json.decode((folder / HISTORY).read_bytes(), type=list[Step])
    except (OSError, msgspec.DecodeError) as error:
        if not isinstance(error, FileNotFoundError):
            log.warning("%s: %s: the steps before are not known", HISTORY, error)
        return []
