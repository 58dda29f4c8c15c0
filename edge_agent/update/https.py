"""How does a device fetch blocks where the server offers files by HTTPS?

One GET with a Range for each run of blocks (RFC 9110, 14), over a connection that is kept. The blocks go the same way
as those that come as messages: the same bitmap on disk, the same hashes. Whenever it does not work (no route, another's
certificate, a server without ranges) messages carry on, and it is tried again after a while.
"""

from __future__ import annotations

import http.client
import itertools
import logging
import re
import ssl
import time
from collections.abc import Callable, Iterator, Sequence
from urllib.parse import urlsplit

from edge_agent.contract.wire import BLOCK_BYTES, BlockHeader, Fetch

log = logging.getLogger(__name__)

TIMEOUT_S = 5.0  # of a connection and of every read; the updater waits that long for a silent server, and no longer
LONGEST_S = 30.0  # of one answer of half a megabyte; slower than that, messages are no slower
REST_S = 300.0  # before it is tried again. Less, and every few seconds go by in waiting; more, and messages carry more

_CONTENT_RANGE = re.compile(r"bytes (\d{1,15})-(\d{1,15})/(\d{1,15})")


class Https:
    """Fetches blocks from one server at a time. Not for several threads."""

    def __init__(
        self,
        context: Callable[[], ssl.SSLContext],
        *,
        may: Callable[[], bool] = lambda: True,
        came: Callable[[int], None] = lambda _size: None,
        timeout_s: float = TIMEOUT_S,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """`context`: whose certificates are believed; made when it is first needed.

        `may`: whether the link is to carry this now. `came` is told how many bytes did.
        """
        self._make_context, self._timeout_s, self._monotonic = context, timeout_s, monotonic
        self._may, self._came = may, came
        self._connection: http.client.HTTPSConnection | None = None
        self._url = ""
        self._rest_until_s = -1.0

    def get(self, url: str, fetch: Fetch) -> list[tuple[BlockHeader, bytes]]:
        """The blocks asked for, as far as they came; none when they have to come otherwise."""
        if self._monotonic() < self._rest_until_s or not self._may():
            return []
        found: list[tuple[BlockHeader, bytes]] = []
        try:
            for run in _runs(fetch.blocks):
                found += self._get_run(url, fetch.sha256, run)
        except (OSError, http.client.HTTPException, ValueError) as error:
            log.warning("%s: %s: messages carry the blocks for the next %g s", url[:200], error, REST_S)
            self._rest_until_s = self._monotonic() + REST_S
            self.close()
        return found

    def close(self) -> None:
        """Let the connection go."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _get_run(self, url: str, sha256: str, run: Sequence[int]) -> Iterator[tuple[BlockHeader, bytes]]:
        first, last = run[0] * BLOCK_BYTES, (run[-1] + 1) * BLOCK_BYTES - 1
        answer = self._ask(url, sha256, f"bytes={first}-{last}")
        where = _CONTENT_RANGE.fullmatch(answer.headers.get("Content-Range", ""))
        if answer.status != http.client.PARTIAL_CONTENT or where is None:
            raise http.client.HTTPException(f"{answer.status} {answer.reason}: expected 206 and a Content-Range")
        begins, ends, total = (int(number) for number in where.groups())
        if begins != first or not first <= ends <= last:
            raise http.client.HTTPException(f"bytes {begins}-{ends} came, expected {first}-{last}")
        data = self._read(answer, ends - begins + 1)
        answer.close()
        for number, index in enumerate(run):
            block = data[number * BLOCK_BYTES : (number + 1) * BLOCK_BYTES]
            if block:
                yield BlockHeader(sha256=sha256, index=index, total_bytes=total), block

    def _read(self, answer: http.client.HTTPResponse, count: int) -> bytes:
        """What came, when the connection ends early: a server may let none live for long. A block at least."""
        data, until_s, least = bytearray(), self._monotonic() + LONGEST_S, min(count, BLOCK_BYTES)
        try:
            while len(data) < count and (more := answer.read1(count - len(data))):
                data += more
                if self._monotonic() > until_s:
                    raise TimeoutError(f"{len(data)} of {count} bytes after {LONGEST_S:g} s")
            if len(data) < least:  # or the same would be asked for again and again
                raise http.client.HTTPException(f"{len(data)} of {count} bytes came")
        except (OSError, http.client.HTTPException):
            self.close()
            if len(data) < least:
                raise
        finally:
            self._came(len(data))
        return bytes(data)

    def _ask(self, url: str, sha256: str, span: str) -> http.client.HTTPResponse:
        """A connection that was kept may be dead by now, which shows when it is used: then a new one is made."""
        parts = urlsplit(url)
        if parts.scheme != "https" or not parts.hostname:
            raise ValueError("expected https://host:port/path")
        if url != self._url:
            self.close()
            self._url = url
        for again in (True, False):
            kept = self._connection is not None
            if self._connection is None:
                self._connection = http.client.HTTPSConnection(
                    parts.hostname, parts.port, timeout=self._timeout_s, context=self._make_context()
                )
            try:
                self._connection.request("GET", f"{parts.path.rstrip('/')}/{sha256}", headers={"Range": span})
                return self._connection.getresponse()
            except (OSError, http.client.HTTPException):
                self.close()
                if not (kept and again):
                    raise
        raise AssertionError("unreachable")


def _runs(blocks: Sequence[int]) -> Iterator[list[int]]:
    """Neighbours together.

    >>> list(_runs([3, 4, 5, 9]))
    [[3, 4, 5], [9]]
    """
    for _, run in itertools.groupby(enumerate(sorted(set(blocks))), key=lambda pair: pair[1] - pair[0]):
        yield [block for _, block in run]
