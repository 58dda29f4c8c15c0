"""What can hold the bytes?

Bytes by the sha256 of them. Whatever holds them keeps to this, and `tests/server/test_blobs.py` holds it to that:

    shards    SQLite files in a folder (shards.py); nothing to install or to run
    bucket    any S3 (bucket.py), for several machines, or more than a disk holds

What was put is durable when the call returns, is not written twice, and is checked every time that it is read.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Protocol

from server.errors import StoreError

_NAME = re.compile("[0-9a-f]{64}")


class Blobs(Protocol):
    """Bytes by their sha256. Safe to use from several threads and processes.

    Every method raises StoreError when what holds them cannot be read or written, with that as its cause; of a body
    that is missing or damaged it has none.
    """

    @property
    def where(self) -> str:
        """In words that an operator knows: a folder, or s3://bucket/prefix."""

    def put_named(self, bodies: Mapping[str, bytes | memoryview]) -> None:
        """Keep bodies whose sha256 the caller has just checked.

        They are durable when this returns. What is there already is not written again. StoreError when they cannot be
        kept; then some of them may be.
        """

    def put_many(self, bodies: Iterable[bytes]) -> list[str]:
        """Keep bodies; returns the sha256 of each, in order."""
        named = [(hashlib.sha256(body).hexdigest(), body) for body in bodies]
        self.put_named(dict(named))
        return [name for name, _ in named]

    def put(self, body: bytes) -> str:
        """Keep one body; returns its sha256."""
        return self.put_many([body])[0]

    def get(self, sha256: str) -> bytes:
        """The bytes of that name; StoreError when they are not here, or are not what they were."""
        (body,) = self.get_many([sha256])
        if isinstance(body, StoreError):
            raise body
        return body

    def get_many(self, names: Iterable[str]) -> Iterator[bytes | StoreError]:
        """The bytes of each name, in order, or what is wrong with them; read ahead where that is quicker.

        At most some dozens of bodies are in memory beside the one at hand.
        """

    def has(self, sha256: str) -> bool:
        """Whether bytes of that name are here; never of what is no name."""

    def names(self, after: str = "") -> Iterator[str]:
        """Every name beyond `after`, in order. What is put or deleted meanwhile may be among them."""

    def delete(self, sha256: str) -> bool:
        """Forget the bytes of that name; False when they were not here."""
        return self.delete_many([sha256]) == 1

    def delete_many(self, names: Iterable[str]) -> int:
        """Forget bytes, whose room is used again; how many were here."""

    def erase(self, names: Iterable[str]) -> int:
        """Forget bytes for good, and remember to `scrub` where that is a step of its own; how many were here."""

    def scrub(self) -> None:
        """Leave no byte of what was erased. StoreError: to be done again."""

    def __len__(self) -> int:
        """How many there are; a bucket is listed for it, a request for every 1,000."""

    @property
    def total_bytes(self) -> int:
        """Bytes in use; listed like `len`."""

    @property
    def free_bytes(self) -> int:
        """Bytes of files that hold nothing now, and will be used again."""

    def close(self) -> None:
        """Let go of files and connections."""


def is_name(sha256: str) -> bool:
    """Whether that can name a blob: 64 hex digits, in lower case.

    >>> is_name("ab" * 32), is_name("AB" * 32), is_name("no hex")
    (True, False, False)
    """
    return _NAME.fullmatch(sha256) is not None


def named(sha256: str) -> str:
    """The same; StoreError when it is none."""
    if not is_name(sha256):
        raise StoreError(f"blob {sha256[:80]!r}: expected 64 hex digits")
    return sha256


def checked(sha256: str, body: bytes, where: str) -> bytes | StoreError:
    """The body, or what is wrong with it."""
    if hashlib.sha256(body).hexdigest() == sha256:
        return body
    return StoreError(f"{where}: blob {sha256} is damaged: {len(body)} bytes with another hash")
