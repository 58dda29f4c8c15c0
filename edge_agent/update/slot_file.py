"""Where is it written down which model runs?

In one small file, replaced in one step that survives a power cut. A file that cannot be read is set aside for people
to look at and never stops the agent.
"""

from __future__ import annotations

import logging
from pathlib import Path

from edge_agent.contract.artifact import write_durably
from edge_agent.update import slots

log = logging.getLogger(__name__)


class SlotFile:
    """The slots on disk."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def load(self) -> slots.State:
        """What was saved last; an empty `Steady` when there is nothing, or nothing readable."""
        try:
            return slots.decode(self._path.read_bytes())
        except FileNotFoundError:
            return slots.Steady()
        except ValueError as error:
            aside = self._path.with_name(self._path.name + ".unreadable")
            log.warning("%s: %s: set aside as %s; starting from the artifacts on disk", self._path, error, aside.name)
            self._path.replace(aside)
            return slots.Steady()

    def save(self, state: slots.State) -> None:
        """Durable when it returns. OSError when the disk will not."""
        write_durably(self._path, slots.encode(state))
