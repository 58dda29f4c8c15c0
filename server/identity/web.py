"""Where do devices enrol and renew, and fetch files if they can?

A small HTTPS service beside the broker. Who comes has no certificate yet, or one that has run out, so TLS proves only
the server here; the device proves itself by what it sends (enrolment.py). Connections are few (door.py), and live on
only while they take a file; bodies are bounded before they are read, and an address that is refused too often has to
wait.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
import threading
from collections.abc import Callable
from typing import Any, TypeVar

import msgspec
import uvicorn
from fastapi import FastAPI, Request, Response
from fastapi.concurrency import run_in_threadpool
from starlette.types import Message, Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol

from edge_agent.contract.enrolment import ENROL, MESSAGE_MAX_BYTES, RENEW, Enrol, Refusal, Renew
from server.errors import IdentityError, ServerError, SigningError, StoreError
from server.identity.authority import Authority
from server.identity.door import Door
from server.identity.enrolment import Enrolment
from server.identity.handout import PIECE_BYTES, BusyError, Handout
from server.identity.patience import Patience

CIPHERS = "ECDHE+AESGCM:ECDHE+CHACHA20"  # of TLS 1.2; said here, because older uvicorn asks for those of 1999
IDLE_S = 5
STOP_S = 2.0
LIFE_S = 30.0  # of a connection; shorter cuts off slow links, longer lets whoever says nothing keep others out. Who
# took a piece of a file meanwhile, 2 kB/s, lives on; slower than that, messages carry more

_log = logging.getLogger(__name__)

FILES = "/files"

Word = TypeVar("Word", bound=msgspec.Struct)


def make_app(
    enrolment: Enrolment, authority: Authority, *, now_ms: Callable[[], int], handout: Handout | None = None
) -> FastAPI:
    """The service, without its socket. `handout`: of what can be had at `FILES`; None: nothing can."""
    app = FastAPI(title="winnow", docs_url=None, redoc_url=None, openapi_url=None)
    patience = Patience(now_ms=now_ms)

    async def answer(request: Request, kind: type[Word], act: Callable[[Word], msgspec.Struct]) -> Response:
        peer = request.client.host if request.client else ""
        if not patience.has(peer):
            return _refuse(429, "too many refusals: try again in a minute")
        body = await _body(request)
        if body is None:
            patience.lose(peer)
            return _refuse(413, f"expected at most {MESSAGE_MAX_BYTES} bytes")
        try:
            word = msgspec.json.decode(body, type=kind)
            made = await run_in_threadpool(act, word)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            patience.lose(peer)
            return _refuse(400, f"expected {kind.__name__} as JSON: {error}")
        except IdentityError as error:
            patience.lose(peer)
            _log.warning("%s from %s: %s", kind.__name__.lower(), peer, error)
            return _refuse(403, str(error))
        except (SigningError, StoreError) as error:
            _log.error("%s from %s: %s", kind.__name__.lower(), peer, error)
            return _refuse(503, "the server cannot do that now: try again later")
        return Response(msgspec.json.encode(made), media_type="application/json")

    @app.post(ENROL)
    async def enrol(request: Request) -> Response:
        return await answer(request, Enrol, lambda word: enrolment.enrol(word, now_ms=now_ms()))

    @app.post(RENEW)
    async def renew(request: Request) -> Response:
        return await answer(request, Renew, lambda word: enrolment.renew(word, now_ms=now_ms()))

    @app.get("/ca.pem")
    async def ca() -> Response:
        return Response(authority.pem, media_type="application/x-pem-file")

    @app.get(f"{FILES}/{{sha256}}")
    async def file(sha256: str, request: Request) -> Response:
        # Who knows the hash of a model may have it: only the broker tells it, and only to members.
        peer = request.client.host if request.client else ""
        if not patience.has(peer):
            return _refuse(429, "too many refusals: try again in a minute")
        try:
            found = await handout.answer(sha256, request.headers.get("Range"), peer=peer) if handout else None
        except BusyError as error:
            return _refuse(503, str(error))
        if found is None:
            patience.lose(peer)
            return _refuse(404, "nothing of that hash is published")
        return found

    return app


async def _body(request: Request) -> bytes | None:
    """What was sent; None when it is too much."""
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > MESSAGE_MAX_BYTES:
            return None
    return bytes(body)


def _refuse(status: int, why: str) -> Response:
    return Response(msgspec.json.encode(Refusal(error=why)), status_code=status, media_type="application/json")


def _brief(life_s: float) -> type[H11Protocol]:
    """Connections that end after `life_s` in which they took no piece of a file: uvicorn waits for ever."""

    class Brief(H11Protocol):
        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
            super().connection_made(transport)
            self._taken, self._asked = 0, self.app
            self.app = self._answer
            self._end = self.loop.call_later(life_s, self._look)

        async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
            async def counted(message: Message) -> None:
                await send(message)  # returns when the connection has room for more
                self._taken += len(message.get("body", b""))

            await self._asked(scope, receive, counted)

        def _look(self) -> None:
            if self._taken < PIECE_BYTES:
                self.transport.abort()
                return
            self._taken = 0
            self._end = self.loop.call_later(life_s, self._look)

        def connection_lost(self, exc: Exception | None) -> None:
            self._end.cancel()  # it holds on to the connection
            super().connection_lost(exc)

    return Brief


class Web:
    """The service, on its socket, in a thread of its own."""

    def __init__(self, app: Any, *, listen: str, port: int, cert_file: str, life_s: float = LIFE_S) -> None:
        """`cert_file`: certificate and key of the server; `life_s`: of a connection. Nothing happens before `start`."""
        self._listen = listen
        self._port = port
        self._cert_file = cert_file
        self._config = uvicorn.Config(
            app,
            loop="asyncio",  # which asks the door; uvloop would not
            http=_brief(life_s),
            ssl_certfile=cert_file,
            ssl_keyfile=cert_file,
            ssl_ciphers=CIPHERS,
            log_config=None,
            access_log=False,
            lifespan="off",
            server_header=False,
            timeout_keep_alive=IDLE_S,
            timeout_graceful_shutdown=1,
        )
        self._server = uvicorn.Server(self._config)
        self._thread = threading.Thread(target=self._run, name="web", daemon=True)

    def start(self) -> None:
        """Listen; ServerError when that cannot be had."""
        logging.getLogger("uvicorn").setLevel(logging.ERROR)  # less is the noise that any stranger can make
        self._config.load()
        try:
            self._door = Door.at(self._listen, self._port)
        except OSError as error:
            raise ServerError(
                f"HTTPS cannot listen at {self._listen}:{self._port}: {error.strerror}: see [server] listen and "
                "[identity] port"
            ) from error
        self._thread.start()

    def reload(self) -> None:
        """Read the certificate again: it holds for whoever connects from now on."""
        if isinstance(self._config.ssl, ssl.SSLContext):
            self._config.ssl.load_cert_chain(self._cert_file)

    def stop(self) -> None:
        """End it."""
        self._server.should_exit = True
        if self._thread.is_alive():
            self._thread.join(STOP_S)

    def _run(self) -> None:
        with self._door:
            self._server.run(sockets=[self._door])
