"""How are bytes kept in an S3?

    s3://bucket/prefix/ab/abcdef...    one object for each, named by its sha256

An object is put once, with `If-None-Match`; a server that does not know it writes the same bytes again, which changes
nothing. S3 has it for good when it answers, and refuses what does not fit the checksum that comes with it. Several are
under way at a time: one alone waits for the network most of the while.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

from server.errors import StoreError
from server.store.ahead import in_order
from server.store.blobs import Blobs, checked, is_name, named
from server.store.s3 import S3, Address, code_of, passes, status_of

AT_ONCE = 32  # requests: a far server answers so many in its round trip; a near one gains nothing beyond four
AHEAD = 2  # times as many bodies are waited for, so that a slow one does not hold up the others
PART_BYTES = 5 * 1024 * 1024  # what is larger goes in parts of it, the least that S3 takes: 10,000 are 50 GB
PARTS_AT_ONCE = 2  # more need a faster line: each has to be there in 20 s (SILENT_S)
LISTED_AT_ONCE = 1000
NOBODY = "0" * 64  # the hash of no bytes that anybody knows
NOT_KNOWN = ("NotImplemented", "MethodNotAllowed")  # of what a small server does not have

log = logging.getLogger(__name__)


class Bucket(Blobs):
    """Bytes by their sha256, under a prefix of a bucket."""

    def __init__(self, address: Address, *, at_once: int = AT_ONCE) -> None:
        """Nothing is asked of the server yet: see `look`. StoreError when there are no credentials, or no client."""
        self._address = address
        self._s3 = S3(address)
        self._ahead = AHEAD * at_once
        self._pool = ThreadPoolExecutor(at_once, thread_name_prefix="s3")

    @property
    def where(self) -> str:
        """s3://bucket/prefix."""
        return str(self._address)

    def look(self) -> None:
        """Raise the StoreError that an operator has to mend: no bucket, no right, another region.

        What passes by itself is said, and no more: the rest of the server goes on.
        """
        try:
            self._get(NOBODY)  # S3 says more of an object that is not there than HEAD does, and less than a listing
        except StoreError as error:
            if error.__cause__ is None or not passes(error.__cause__):
                raise
            log.warning("%s", error)

    def put_named(self, bodies: Mapping[str, bytes | memoryview]) -> None:
        """Each is an object of its own; the first that fails ends it."""
        named_bodies = [(named(sha256), body) for sha256, body in bodies.items()]
        for _ in in_order(self._pool, self._put, named_bodies, ahead=self._ahead):
            pass

    def get_many(self, names: Iterable[str]) -> Iterator[bytes | StoreError]:
        """Read ahead."""
        return in_order(self._pool, self._get, map(named, names), ahead=self._ahead)

    def has(self, sha256: str) -> bool:
        """A request that is answered without the body."""
        return is_name(sha256) and self._found(partial(self._head, sha256))

    def names(self, after: str = "") -> Iterator[str]:
        """As the bucket lists them."""
        return (name for name, _ in self._listed(self._address.key(after) if after else None))

    def delete_many(self, names: Iterable[str]) -> int:
        """With every version of them."""
        return self.erase(names)

    def erase(self, names: Iterable[str]) -> int:
        """At once, with every version of them where the bucket keeps versions: there is nothing to `scrub`."""
        forget = self._forget_versions if self._versioned() else self._forget
        return sum(in_order(self._pool, forget, map(named, names), ahead=self._ahead))

    def scrub(self) -> None:
        """Nothing: what S3 says is deleted cannot be read any more, and its disks are not ours."""

    def __len__(self) -> int:
        return sum(1 for _ in self._listed())

    @property
    def total_bytes(self) -> int:
        """Of the newest versions."""
        return sum(size for _, size in self._listed())

    @property
    def free_bytes(self) -> int:
        """None: what is deleted is not ours any more."""
        return 0

    def close(self) -> None:
        """Let what is under way end."""
        self._pool.shutdown(cancel_futures=True)

    def _put(self, item: tuple[str, bytes | memoryview]) -> None:
        import obstore
        from obstore.exceptions import AlreadyExistsError

        sha256, body = item
        key = self._address.key(sha256)
        put = partial(obstore.put, self._s3.objects, key, body)
        if len(body) > PART_BYTES:
            if not self.has(sha256):
                with self._s3.faults(key):
                    put(chunk_size=PART_BYTES, max_concurrency=PARTS_AT_ONCE)
            return
        with self._s3.faults(key):
            try:
                put(mode="create", use_multipart=False)
            except AlreadyExistsError as error:
                if status_of(error) != "412":  # 409: somebody else is at it, and may fail
                    put(use_multipart=False)

    def _get(self, sha256: str) -> bytes | StoreError:
        import obstore

        found: list[bytes] = []

        def read(key: str) -> None:
            found.append(obstore.get(self._s3.objects, key).bytes().to_bytes())

        if not self._found(partial(read, self._address.key(sha256))):
            return StoreError(f"{self.where}: no blob {sha256}")
        return checked(sha256, found[0], self.where)

    def _head(self, sha256: str) -> None:
        import obstore

        obstore.head(self._s3.objects, self._address.key(sha256))

    def _found(self, ask: Callable[[], None]) -> bool:
        """False when the object is not there; a bucket that is not there is an error."""
        with self._s3.faults():
            try:
                ask()
            except FileNotFoundError as error:
                if code_of(error) == "NoSuchBucket":
                    raise
                return False
        return True

    def _listed(self, after: str | None = None) -> Iterator[tuple[str, int]]:
        """Names and sizes."""
        import obstore

        with self._s3.faults():
            pages = iter(obstore.list(self._s3.objects, self._address.under, offset=after, chunk_size=LISTED_AT_ONCE))
        while True:
            with self._s3.faults():
                page = next(pages, None)
            if page is None:
                return
            for one in page:
                name = one["path"].rpartition("/")[2]
                if is_name(name):
                    yield name, one["size"]

    def _forget(self, sha256: str) -> bool:
        import obstore

        here = self.has(sha256)
        if here:
            with self._s3.faults(self._address.key(sha256)):
                obstore.delete(self._s3.objects, self._address.key(sha256))
        return here

    def _versioned(self) -> bool:
        """Whether older versions of an object may be there."""
        said = self._asked("get_bucket_versioning")
        return bool(said.get("Status"))

    def _forget_versions(self, sha256: str) -> bool:
        """All that the bucket ever had of it, and the marks of deletion; whether there was any."""
        key = self._address.key(sha256)
        gone, more = False, dict[str, str]()
        while True:
            page = self._asked("list_object_versions", Prefix=key, **more)
            for one in [*page.get("Versions", ()), *page.get("DeleteMarkers", ())]:
                self._asked("delete_object", Key=key, VersionId=one["VersionId"])
            gone = gone or bool(page.get("Versions"))
            if not page.get("IsTruncated"):
                return gone
            more = {"KeyMarker": page["NextKeyMarker"], "VersionIdMarker": page["NextVersionIdMarker"]}

    def _asked(self, action: str, **arguments: Any) -> dict[str, Any]:
        """One of botocore's actions on the bucket; {} of what this server does not know."""
        from botocore.exceptions import ClientError

        with self._s3.faults():
            try:
                answer: dict[str, Any] = getattr(self._s3.administration, action)(
                    Bucket=self._address.bucket, **arguments
                )
            except ClientError as error:
                if code_of(error) in NOT_KNOWN and action.startswith("get_"):
                    return {}
                raise
        return answer
