"""Which bytes may a device fetch?

Those of published versions, by hash: manifests, the ONNX files they name, and the parcels of these. Nothing else that
happens to be a blob (another device's samples are blobs too). What is on its way to the fleet is kept in memory: a
thousand devices ask for the same file.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterator

from edge_agent.contract.artifact import decode_manifest
from edge_agent.contract.wire import BLOCK_BYTES, FETCH_MAX_BLOCKS, BlockHeader, Fetch, encode_frame
from server.store import parcels, versions
from server.store.store import Store

CACHED_FILES = 8  # a rollout needs its manifest, its model and some parcels of that; more only hold memory


class Blocks:
    """Answers to requests for blocks. Safe to use from several threads."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._lock = threading.Lock()
        self._newest = 0  # version up to which `_public` is known
        self._public: set[str] = set()
        self._cached: OrderedDict[str, bytes] = OrderedDict()

    def answer(self, fetch: Fetch) -> Iterator[bytes]:
        """The frames that answer a request; for what is not published, one that says "unknown"."""
        data = self._bytes(fetch.sha256)
        if data is not None:
            return cut(data, fetch)
        header = BlockHeader(sha256=fetch.sha256[:64], index=0, total_bytes=0, error="unknown")
        return iter([encode_frame(header, b"")])

    def _bytes(self, sha256: str) -> bytes | None:
        with self._lock:
            if sha256 in self._cached:
                self._cached.move_to_end(sha256)
                return self._cached[sha256]
            if sha256 not in self._public:
                self._look_again()
            if sha256 not in self._public or not self._store.blobs.has(sha256):
                return None
            data = self._cached[sha256] = self._store.blobs.get(sha256)
            if len(self._cached) > CACHED_FILES:
                self._cached.popitem(last=False)
            return data

    def _look_again(self) -> None:
        with self._store.database.read() as connection:
            new = versions.every(connection, above=self._newest)
        for version in new:
            manifest = decode_manifest(
                self._store.blobs.get(version.manifest_sha256), where=f"version {version.number}"
            )
            files = {file.sha256 for file in manifest.files.values()}
            with self._store.database.read() as connection:
                travelling = {parcel.sha256 for parcel in parcels.of(connection, files)}
            self._public |= {version.manifest_sha256} | files | travelling
            self._newest = version.number


def cut(data: bytes, fetch: Fetch) -> Iterator[bytes]:
    """The blocks of `data` that are asked for and exist, each once, at most FETCH_MAX_BLOCKS of them."""
    count = -(-len(data) // BLOCK_BYTES)
    wanted = [index for index in dict.fromkeys(fetch.blocks) if 0 <= index < count]
    for index in wanted[:FETCH_MAX_BLOCKS]:
        header = BlockHeader(sha256=fetch.sha256, index=index, total_bytes=len(data))
        yield encode_frame(header, memoryview(data)[index * BLOCK_BYTES : (index + 1) * BLOCK_BYTES])
