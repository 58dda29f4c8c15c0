"""How does another program on the device send samples and get predictions back?

    POST /v1/samples       one sample a request:  application/octet-stream   the array's bytes, in C order
                                                  application/x-npy          what np.save writes
                                                  application/json           nested lists
                                                  image/jpeg, png, webp, bmp brought to the model's size
                           200 {"seq": 17, "label": 3, "name": "cat", "confidence": 0.91, "version": 7}
    GET /v1/input          200 {"shape": [32, 32, 3], "dtype": "uint8"}

HTTP/1.1 with keep-alive, on loopback or a socket of the file system; anywhere else a token is asked for. Whether a
sample was selected is not said: that is decided by blocks, and nobody should wait for it.

400 says what was expected, 401 the token is wrong, 403 a browser's page, 413 too large, 415 no such type, 503 with
Retry-After: the model was not free in time, or a newer sample took the place (`keep = "newest"`).
"""

from __future__ import annotations

import hmac
import ipaddress
import logging
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from typing import Any, Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from edge_agent.contract.errors import ConfigError, SourceError
from edge_agent.contract.settings import read_secret
from edge_agent.contract.task import Said
from edge_agent.contract.types import Prediction, Reading
from edge_agent.listener import Listener
from edge_agent.source import IDLE_S, Counts, Fit, Start
from edge_agent.source import options as told
from edge_agent.source.body import JSON, RAW, Body, RefusalError
from edge_agent.source.feed import Feed
from edge_agent.source.options import UNIX

log = logging.getLogger(__name__)

IDLE_CONNECTION_S = 60.0  # after which a sender that says nothing is cut off
RETRY_AFTER_S = 1
REF_MAX = 200


class Reply(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a sender gets back. label: of a class, name: what the model calls it. confidence: null when not finite.

    said: boxes, classes or numbers; not there of a classifier.
    """

    seq: int
    label: int
    name: str
    confidence: float
    version: int
    said: Said | None = None


class Asked:
    """A sample somebody waits for."""

    def __init__(self, data: NDArray[np.generic], ref: str) -> None:
        self.data, self.ref = data, ref
        self.answer: Reply | None = None
        self.refusal = ""
        self._done = threading.Event()

    def settle(self, answer: Reply | None, refusal: str = "") -> None:
        """Let the sender go on."""
        self.answer, self.refusal = answer, refusal
        self._done.set()

    def wait(self, seconds: float) -> bool:
        """Whether it was settled in time."""
        return self._done.wait(seconds)


class Push:
    """The source of whatever is sent. Everything public runs in the loop's thread but `ask`."""

    def __init__(
        self,
        options: told.Push,
        *,
        fit: Fit,
        frame: told.Frame,
        keep: Literal["every", "newest"],
        room: int = 0,
        counts: Counts,
    ) -> None:
        """ConfigError when it may not listen there."""
        self._at = _address(options)
        self._token = _token(options)
        self._timeout_s = options.timeout_s
        self._max_bytes = options.max_bytes
        self._body = Body(fit, frame)
        self._keep, self._room, self._counts = keep, room, counts
        self._feed: Feed[Asked] = self._make_feed()
        self._waiting: dict[int, Asked] = {}  # seq -> who waits
        self._counting = threading.Lock()  # senders have threads of their own

    def readings(self, start: Start) -> Iterator[Reading | None]:
        """What is sent from now on, for ever."""
        self._feed = self._make_feed()
        try:
            listener = Listener(self._at, self._handler())
        except OSError as error:
            raise SourceError(f"[source.push] listen {self._at}: {error.strerror}") from error
        thread = threading.Thread(target=listener.serve_forever, args=(IDLE_S,), name="push", daemon=True)
        thread.start()
        seq = start.seq
        try:
            while True:
                asked = self._feed.take(IDLE_S)
                if asked is None:
                    yield None
                    continue
                self._waiting[seq] = asked
                yield Reading(asked.data, seq, asked.ref)
                seq += 1
        finally:
            listener.shutdown()
            listener.server_close()
            for left in (*self._feed.end(), *self._waiting.values()):
                left.settle(None, "the agent stops")
            self._waiting.clear()

    def answer(self, reading: Reading, said: Prediction | None, version: int, name: str) -> None:
        """To whoever sent that reading."""
        asked = self._waiting.pop(reading.seq, None)
        if asked is None:
            return
        if said is None:
            asked.settle(None, "the model that runs now takes other samples: ask /v1/input again")
        else:
            asked.settle(
                Reply(
                    seq=reading.seq,
                    label=said.label,
                    name=name,
                    confidence=said.confidence,
                    version=version,
                    said=said.said,
                )
            )

    def ask(self, kind: str, data: bytes, ref: str) -> Reply:
        """A sample's answer, waited for. RefusalError. From any thread."""
        try:
            asked = Asked(self._body.read(kind, data), ref[:REF_MAX])
        except RefusalError:
            with self._counting:
                self._counts.unreadable += 1
            raise
        until = time.monotonic() + self._timeout_s
        taken = self._feed.put(asked, wait_s=self._timeout_s)
        if not taken or not asked.wait(max(0.0, until - time.monotonic())):
            raise RefusalError(503, f"the model was not free within {self._timeout_s:g} s")
        if asked.answer is None:
            raise RefusalError(503, asked.refusal)
        return asked.answer

    def _make_feed(self) -> Feed[Asked]:
        return Feed(
            keep=self._keep,
            room=self._room,
            counts=self._counts,
            on_skip=lambda asked: asked.settle(None, "skipped: a newer sample came before the model was free"),
        )

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        push = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            timeout = IDLE_CONNECTION_S
            disable_nagle_algorithm = isinstance(push._at, tuple)  # or an answer waits 40 ms; a socket file has none

            def do_GET(self) -> None:
                self._reply(push._described)

            def do_POST(self) -> None:
                self._reply(push._taken)

            def _reply(self, what: Any) -> None:
                try:
                    status, body = 200, msgspec.json.encode(what(self))
                except RefusalError as error:
                    status, body = error.status, msgspec.json.encode({"error": str(error)})
                self.send_response(status)
                self.send_header("Content-Type", JSON)
                self.send_header("Content-Length", str(len(body)))
                if status == 503:
                    self.send_header("Retry-After", str(RETRY_AFTER_S))
                if status in (
                    401,
                    403,
                    411,
                    413,
                ):  # the body was not read: what follows on this connection is not a request
                    self.close_connection = True
                    self.send_header("Connection", "close")
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: object) -> None:
                log.debug(format, *args)

        return Handler

    def _described(self, request: BaseHTTPRequestHandler) -> dict[str, object]:
        self._check_sender(request)
        if request.path != "/v1/input":
            raise RefusalError(404, "expected POST /v1/samples or GET /v1/input")
        return {"shape": self._body.fit.shape, "dtype": self._body.fit.dtype}

    def _taken(self, request: BaseHTTPRequestHandler) -> Reply:
        self._check_sender(request)
        length = request.headers.get("Content-Length", "")
        if not length.isdecimal():
            raise RefusalError(411, "expected Content-Length")
        if int(length) > self._max_bytes:
            raise RefusalError(413, f"{length} bytes, at most {self._max_bytes} ([source.push] max_bytes)")
        data = request.rfile.read(int(length))
        if request.path != "/v1/samples":
            raise RefusalError(404, "expected POST /v1/samples or GET /v1/input")
        kind = request.headers.get_content_type() if request.headers.get("Content-Type") else RAW
        return self.ask(kind, data, request.headers.get("X-Ref", ""))

    def _check_sender(self, request: BaseHTTPRequestHandler) -> None:
        if request.headers.get("Origin"):
            raise RefusalError(403, "a page in a browser: expected a program")
        said = request.headers.get("Authorization", "").removeprefix("Bearer ")
        if self._token and not hmac.compare_digest(said.encode(), self._token.encode()):
            raise RefusalError(401, "expected Authorization: Bearer, and the token of [source.push] token_file")


def _token(options: told.Push) -> str:
    token = read_secret(options.token_file)
    if options.token_file and not token:
        raise ConfigError(f"[source.push] token_file {options.token_file}: empty: expected a secret")
    return token


def _address(options: told.Push) -> tuple[str, int] | str:
    """Where to listen; ConfigError when that is nowhere, or others could reach it without a token."""
    listen = options.listen
    if listen.startswith(UNIX):
        return listen.removeprefix(UNIX)
    host, _, port = listen.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    try:
        loopback = host == "localhost" or ipaddress.ip_address(host).is_loopback
        number = int(port)
    except ValueError:
        raise ConfigError(
            f"[source.push] listen = {listen!r}: expected an address and a port (127.0.0.1:8765), or unix:PATH"
        ) from None
    if not loopback and not options.token_file:
        raise ConfigError(f"[source.push] listen = {listen!r}: others can reach it: set token_file")
    return host, number
