"""How do files go out by HTTPS without taking the uplink, or the door?

Piece by piece: each waits for its turn, as blocks that go as messages do, and for the connection to have room. Files on
their way leave half of the room at the door (door.py) to those who come to enrol or renew.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
from collections import Counter
from collections.abc import AsyncIterator, Callable

from fastapi.concurrency import run_in_threadpool
from fastapi.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from server.errors import ServerError, StoreError
from server.identity.door import ALL, OF_ONE_ADDRESS

PIECE_BYTES = 64 * 1024  # for one turn: what goes in one message
AT_ONCE, TO_ONE_ADDRESS = ALL // 2, OF_ONE_ADDRESS // 2  # files on their way
FULL_S = 1.0  # until a piece that found no room in the line looks again

_log = logging.getLogger(__name__)

Part = tuple[int, dict[str, str], memoryview]
"""Status, headers, body."""
Files = Callable[[str, str | None], Part | None]
"""Hash, and what was asked for of it (Range) -> what to answer; None: there is no such file. StoreError."""
Turn = Callable[[int, Callable[[], None]], bool]
"""So many bytes are to go: calls back when they may, from any thread; False: too many wait, come again."""


class BusyError(ServerError):
    """Not now: blocks come as messages, too."""


def at_once(_size_bytes: int, go: Callable[[], None]) -> bool:
    """A turn that needs no waiting."""
    go()
    return True


class Handout:
    """Files, to whoever knows their hash. For one event loop."""

    def __init__(self, files: Files, *, turn: Turn = at_once) -> None:
        """`files`: what there is; `turn`: at whose pace it goes."""
        self._files, self._turn = files, turn
        self._sending: Counter[str] = Counter()  # by address

    async def answer(self, sha256: str, asked: str | None, *, peer: str) -> StreamingResponse | None:
        """What goes out; None when there is no such file. BusyError when it cannot be had now."""
        try:
            found = await run_in_threadpool(self._files, sha256, asked)
        except StoreError as error:
            _log.error("%s", error)
            raise BusyError("the file cannot be read now") from error
        if found is None:
            return None
        if self._sending.total() >= AT_ONCE or self._sending[peer] >= TO_ONE_ADDRESS:
            raise BusyError(f"{self._sending.total()} files are on their way, {self._sending[peer]} of them to you")
        return _Outgoing(found, self._turn, self._sending, peer)


class _Outgoing(StreamingResponse):
    """One answer; counted while it is on its way."""

    def __init__(self, found: Part, turn: Turn, sending: Counter[str], peer: str) -> None:
        status, headers, body = found
        headers = headers | {"Content-Length": str(len(body))}
        super().__init__(_paced(body, turn), status, headers, media_type="application/octet-stream")
        self._sending, self._peer = sending, peer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self._sending[self._peer] += 1
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._sending.subtract([self._peer])
            self._sending += Counter()  # forgets who is gone


async def _paced(body: memoryview, turn: Turn) -> AsyncIterator[bytes]:
    loop = asyncio.get_running_loop()
    for start in range(0, len(body), PIECE_BYTES):
        piece, come = bytes(body[start : start + PIECE_BYTES]), asyncio.Event()
        while not turn(len(piece), functools.partial(_wake, loop, come)):
            await asyncio.sleep(FULL_S)
        await come.wait()
        yield piece


def _wake(loop: asyncio.AbstractEventLoop, come: asyncio.Event) -> None:
    with contextlib.suppress(RuntimeError):  # the service has ended meanwhile
        loop.call_soon_threadsafe(come.set)
