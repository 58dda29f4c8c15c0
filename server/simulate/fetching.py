"""How far is a version on its way to a light device?

It asks block by block, as the agent does: with the agent's own requests.
"""

from __future__ import annotations

from edge_agent.contract.wire import Assignment
from edge_agent.update.fetch import WINDOW as BLOCKS_AT_ONCE
from edge_agent.update.fetch import Requests
from server.simulate.shelf import Shelf


class Fetching:
    """Its manifest, then the file that it names."""

    def __init__(self, assignment: Assignment) -> None:
        """None of it is here."""
        self.assignment = assignment
        self.file_is_manifest = True
        self._aim(assignment.manifest_sha256, assignment.manifest_bytes)

    def follow(self, sha256: str, total_bytes: int) -> None:
        """The manifest is here: now the file."""
        self.file_is_manifest = False
        self._aim(sha256, total_bytes)

    def _aim(self, sha256: str, total_bytes: int) -> None:
        self.sha256 = sha256
        self.missing = tuple(range(Shelf.blocks_of(total_bytes)))
        self._blocks = len(self.missing)
        self.requests = Requests(window=BLOCKS_AT_ONCE)

    @property
    def share(self) -> float:
        """Of the file that is here, 0..1."""
        return 0.0 if self.file_is_manifest else 1.0 - len(self.missing) / self._blocks
