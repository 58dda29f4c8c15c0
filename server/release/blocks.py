"""Which bytes may a device fetch?

Those of published versions, by hash: manifests, the ONNX files they name, and the parcels of these; and the signatures
that vouch for them. Nothing else that happens to be a blob (another device's samples are blobs too). What is on its way
to the fleet is kept in memory: a thousand devices ask for the same file.
"""

from __future__ import annotations

import logging
import threading
from collections import OrderedDict

from edge_agent.contract.artifact import decode_manifest
from edge_agent.contract.errors import ArtifactError
from edge_agent.contract.wire import BLOCK_BYTES, BlockHeader, encode_frame
from server.errors import StoreError
from server.release.signing import Signing
from server.store import parcels, versions
from server.store.store import Store
from server.store.versions import Version

CACHED_FILES = 8  # a rollout needs its manifest, its model and some parcels of that; more only hold memory
CACHED_BYTES = (
    256 << 20
)  # of them together, but for the last; a larger model is read anew for each that takes turns with it

log = logging.getLogger(__name__)


class Blocks:
    """Files that devices may have, cut into blocks. Safe to use from several threads."""

    def __init__(self, store: Store, signing: Signing | None = None) -> None:
        self._store, self._signing = store, signing
        self._lock = threading.Lock()
        self._newest = 0  # version up to which `_public` is known
        self._public: set[str] = set()
        self._cached: OrderedDict[str, bytes] = OrderedDict()

    def has(self, sha256: str) -> bool:
        """Whether those bytes are for devices, and here. StoreError when the store cannot be read."""
        if self._signatures(sha256) is not None:
            return True
        with self._lock:
            if sha256 not in self._public:
                self._look_again()
            return sha256 in self._public and (sha256 in self._cached or self._store.blobs.has(sha256))

    def file(self, sha256: str) -> bytes | None:
        """The whole of it; None for what is not published. StoreError when it is gone or damaged."""
        return self._bytes(sha256) if self.has(sha256) else None

    def frame(self, sha256: str, index: int) -> bytes | None:
        """The message that carries a block of what we have; None when the file has no such block.

        StoreError when the file is gone or damaged.
        """
        data = self._bytes(sha256)
        start = index * BLOCK_BYTES
        if not 0 <= start < len(data):
            return None
        header = BlockHeader(sha256=sha256, index=index, total_bytes=len(data))
        return encode_frame(header, memoryview(data)[start : start + BLOCK_BYTES])

    def _signatures(self, sha256: str) -> bytes | None:
        return self._signing.file(sha256) if self._signing else None

    def _bytes(self, sha256: str) -> bytes:
        if (signatures := self._signatures(sha256)) is not None:
            return signatures
        with self._lock:
            if sha256 in self._cached:
                self._cached.move_to_end(sha256)
                return self._cached[sha256]
            data = self._cached[sha256] = self._store.blobs.get(sha256)
            while len(self._cached) > 1 and not self._holds():
                self._cached.popitem(last=False)
            return data

    def _holds(self) -> bool:
        """Whether what is in memory may stay there."""
        return len(self._cached) <= CACHED_FILES and sum(map(len, self._cached.values())) <= CACHED_BYTES

    def _look_again(self) -> None:
        with self._store.database.read() as connection:
            new = versions.every(connection, above=self._newest)
        for version in new:
            try:
                self._public |= self._files_of(version)
            except (StoreError, ArtifactError) as error:  # of that version: the others go on
                log.error("version %d is offered to nobody until the next start: %s", version.number, error)
            self._newest = version.number

    def _files_of(self, version: Version) -> set[str]:
        manifest = decode_manifest(self._store.blobs.get(version.manifest_sha256), where=f"version {version.number}")
        files = {file.sha256 for file in manifest.files.values()}
        with self._store.database.read() as connection:
            travelling = {parcel.sha256 for parcel in parcels.of(connection, files)}
        return {version.manifest_sha256} | files | travelling
