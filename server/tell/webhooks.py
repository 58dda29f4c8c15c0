"""How do messages reach those who want to be told?

Over HTTP POST, signed as standardwebhooks.com says: `webhook-id` (the same at every try, so that a receiver can tell a
repeat), `webhook-timestamp`, and `webhook-signature`: "v1," and the base64 of HMAC-SHA256 over "id.timestamp.body". A
secret that begins with `whsec_` is base64, any other is taken as it is.

A receiver has taken a message when it answers 200 to 299. Otherwise it is tried again, later and later, and given up
after TRIES: it is dead then, and an event says so. Every receiver has a thread of its own, so that one that is slow
holds up neither the others nor the server; what waits is in the store. Redirects are not followed.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import logging
import ssl
import threading
import urllib.error
import urllib.request
from collections.abc import Callable
from http.client import HTTPException
from typing import Any, NamedTuple

import numpy as np

from edge_agent.contract.settings import read_secret
from server.config import Webhook, host_of
from server.errors import ServerConfigError, StoreError
from server.store import deliveries, events
from server.store.deliveries import Delivery
from server.store.store import Store

log = logging.getLogger(__name__)

TIMEOUT_S = 10.0
TRIES = 15  # over some 6 hours: fewer, and a night's maintenance loses messages; more, and stale ones arrive
FIRST_S, LONGEST_S = 10.0, 3600.0  # between tries
AT_ONCE = 50
AGAIN_S = 30.0  # when the store could not be read
IDLE_S = 3600.0  # nobody sleeps longer, whatever the clock does
KIND = "webhook"  # of the events
_OK = range(200, 300)


class Answer(NamedTuple):
    """What became of a try. `reached`: somebody answered, well or not."""

    ok: bool
    reached: bool
    text: str


class _Staying(urllib.request.HTTPRedirectHandler):
    """What was meant for one is not told to another."""

    def redirect_request(self, *_args: Any, **_kwargs: Any) -> None:
        return None


class Receiver:
    """One webhook: posts to it."""

    def __init__(self, hook: Webhook) -> None:
        """ServerConfigError when its secret or its certificates cannot be read."""
        self.url, self.host = hook.url, host_of(hook.url)
        self._secret = _secret(hook)
        try:
            context = ssl.create_default_context(cafile=hook.ca_file or None)
        except OSError as error:
            raise ServerConfigError(f"[[webhook]] ca_file: {hook.ca_file}: {error}") from error
        handlers = (_Staying(), urllib.request.HTTPSHandler(context=context), urllib.request.ProxyHandler({}))
        self._opener = urllib.request.build_opener(*handlers)

    def post(self, id_: str, body: bytes, *, now_ms: int) -> Answer:
        """Try once."""
        headers = {"Content-Type": "application/json", "User-Agent": "winnow"}
        headers |= signature(self._secret, id_, now_ms // 1000, body)
        request = urllib.request.Request(self.url, body, headers, method="POST")  # noqa: S310 - checked by the configuration
        try:
            with self._opener.open(request, timeout=TIMEOUT_S) as answer:
                return Answer(answer.status in _OK, True, f"{answer.status}")
        except urllib.error.HTTPError as error:
            return Answer(False, True, f"{error.code} {error.reason}"[:200])
        except (OSError, HTTPException, ValueError) as error:  # URLError is an OSError; ValueError: a mangled answer
            return Answer(False, False, f"{getattr(error, 'reason', error)}"[:200])


def signature(secret: bytes, id_: str, at_s: int, body: bytes) -> dict[str, str]:
    """The headers that sign a message; without a secret they only name it.

    >>> signature(b"secret", "msg_1", 1674087231, b"{}")["webhook-signature"]
    'v1,299AHAFlDdA/rU0aTOq+IJEc1vm5uzOXtMuTIv0RYbo='
    """
    named = {"webhook-id": id_, "webhook-timestamp": str(at_s)}
    if not secret:
        return named
    signed = hmac.new(secret, f"{id_}.{at_s}.".encode() + body, hashlib.sha256).digest()
    return named | {"webhook-signature": f"v1,{base64.b64encode(signed).decode()}"}


def _secret(hook: Webhook) -> bytes:
    text = read_secret(hook.secret_file).strip()
    if hook.secret_file and not text:
        raise ServerConfigError(f"[[webhook]] secret_file: {hook.secret_file} is empty: expected a secret")
    if not text.startswith("whsec_"):
        return text.encode()
    try:
        return base64.b64decode(text.removeprefix("whsec_"), validate=True)
    except ValueError as error:
        raise ServerConfigError(f"[[webhook]] secret_file: {hook.secret_file}: whsec_ and then no base64") from error


class Webhooks:
    """Delivers what waits, to all of them."""

    def __init__(
        self,
        store: Store,
        hooks: tuple[Webhook, ...],
        *,
        fleet: str,
        now_ms: Callable[[], int],
        rng: np.random.Generator,
    ) -> None:
        """ServerConfigError when one cannot be used. `rng` spreads the tries."""
        self._store, self._fleet, self._now_ms, self._rng = store, fleet, now_ms, rng
        self._receivers = [Receiver(hook) for hook in hooks]
        self._woken = {one.url: threading.Event() for one in self._receivers}
        self._stopped = threading.Event()
        self._threads = [
            threading.Thread(target=self._work, args=(one,), name="webhook", daemon=True) for one in self._receivers
        ]

    def start(self) -> None:
        """Deliver until `stop`. What waits for a receiver that is not configured any more is dead."""
        with self._store.database.write() as connection:
            gone = deliveries.abandon(connection, list(self._woken), now_ms=self._now_ms())
        if gone:
            log.warning("%d messages for webhooks that are no longer configured were given up", gone)
        for thread in self._threads:
            thread.start()

    def stop(self, *, timeout_s: float) -> None:
        """End; a try in hand is left behind after `timeout_s`, and is made again at the next start."""
        self._stopped.set()
        self.wake()
        for thread in self._threads:
            if thread.is_alive():
                thread.join(timeout_s)

    def wake(self) -> None:
        """Something waits."""
        for event in self._woken.values():
            event.set()

    def _work(self, receiver: Receiver) -> None:
        woken, failed = self._woken[receiver.url], False
        while not self._stopped.is_set():
            woken.clear()  # before looking, or what comes meanwhile would wait
            try:
                wait_s = self.deliver(receiver)
                failed = False
            except StoreError as error:
                if not failed:
                    log.error("webhook %s: what waits cannot be read, trying again: %s", receiver.host, error)
                wait_s, failed = AGAIN_S, True
            if not self._stopped.is_set():  # it may have been said before `clear`
                woken.wait(min(max(wait_s, 0.0), IDLE_S))

    def deliver(self, receiver: Receiver) -> float:
        """Try what is due; seconds until more is. One that cannot be reached is not asked for each message."""
        now_ms = self._now_ms()
        with self._store.database.read() as connection:
            due = deliveries.due(connection, receiver.url, now_ms=now_ms, limit=AT_ONCE)
        for one in due:
            if self._stopped.is_set():
                return 0.0
            answer = receiver.post(f"{self._fleet}-{one.id}", one.body.encode(), now_ms=self._now_ms())
            wait_s = self._note(receiver, one, answer)
            if not answer.reached:
                return wait_s
        with self._store.database.read() as connection:
            next_ms = deliveries.next_ms(connection, receiver.url)
        return IDLE_S if next_ms is None else (next_ms - self._now_ms()) / 1000

    def _note(self, receiver: Receiver, one: Delivery, answer: Answer) -> float:
        """Keep what came of a try; seconds until the next."""
        now_ms, wait_s = self._now_ms(), pause_s(one.tries, self._rng)
        with self._store.database.write() as connection:
            if answer.ok:
                deliveries.end(connection, one.id, "delivered", now_ms=now_ms)
            elif one.tries + 1 < TRIES:
                deliveries.failed(connection, one.id, error=answer.text, next_at_ms=now_ms + int(wait_s * 1000))
            else:
                deliveries.end(connection, one.id, "dead", error=answer.text, now_ms=now_ms)
                text = f"webhook {receiver.host}: {one.type} was given up after {TRIES} tries: {answer.text}"
                events.say(connection, KIND, text, version=0, detail={"delivery": one.id}, now_ms=now_ms)
                log.error(text)
        if not answer.ok and one.tries == 0:
            log.warning("webhook %s: %s is tried again: %s", receiver.host, one.type, answer.text)
        return wait_s


def pause_s(tries: int, rng: np.random.Generator) -> float:
    """How long to wait after so many failed tries and one more: doubling, with jitter.

    >>> [round(pause_s(tries, np.random.default_rng(0))) for tries in (0, 1, 8, 14)]
    [8, 16, 2095, 2947]
    """
    return float(min(LONGEST_S, FIRST_S * 2.0**tries) * rng.uniform(0.5, 1.0))
