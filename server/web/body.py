"""How much may be sent to the pages?

FastAPI reads a body before anybody has asked who sent it: without a limit a stranger could fill the memory.
"""

from __future__ import annotations

from fastapi import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

BYTES_MAX = 2 << 20  # an order that names 10,000 devices has a third of it


class Bounded:
    """Takes no more than that (ASGI)."""

    def __init__(self, app: ASGIApp) -> None:
        """`app`: what is sent to it."""
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on; 413 as soon as it is too large."""
        taken = 0

        async def bounded() -> Message:
            nonlocal taken
            message = await receive()
            taken += len(message.get("body", b""))
            if taken > BYTES_MAX:
                raise HTTPException(413, f"got more than {BYTES_MAX} bytes, expected fewer: send it in parts")
            return message

        await self._app(scope, bounded, send)
