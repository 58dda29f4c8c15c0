"""Where are the files that ten thousand devices fetch?

Once in a process: every device counts its own blocks, and each block that comes is held against the first of its kind,
byte by byte. A file is whole when its hash is what was asked for.
"""

from __future__ import annotations

import hashlib

from edge_agent.contract.wire import BLOCK_BYTES, BlockHeader
from server.errors import StoreError


class Shelf:
    """The files of one process."""

    def __init__(self) -> None:
        self._blocks: dict[str, dict[int, bytes]] = {}
        self._whole: dict[str, bytes] = {}

    @staticmethod
    def blocks_of(total_bytes: int) -> int:
        """How many blocks a file has.

        >>> Shelf.blocks_of(1), Shelf.blocks_of(65_536), Shelf.blocks_of(65_537)
        (1, 1, 2)
        """
        return -(-total_bytes // BLOCK_BYTES)

    def put(self, header: BlockHeader, body: bytes) -> bool:
        """A block came; False when it is not the one that others were sent under its number."""
        return self._blocks.setdefault(header.sha256, {}).setdefault(header.index, body) == body

    def whole(self, sha256: str) -> bytes:
        """All of a file whose every block has come; StoreError when it is not what its hash says."""
        if sha256 not in self._whole:
            blocks = self._blocks[sha256]
            data = b"".join(blocks[index] for index in sorted(blocks))
            if hashlib.sha256(data).hexdigest() != sha256:
                raise StoreError(f"file {sha256}: the server sent {len(data)} bytes with another hash")
            self._whole[sha256] = data
        return self._whole[sha256]
