"""How quick are the pages while it runs?

An operator's program asks for one page after the other, all the time, and notes how long each took.
"""

from __future__ import annotations

import http
import http.client
import itertools
import threading
import time
from collections.abc import Sequence
from urllib.parse import urlsplit

PAUSE_S = 0.5  # between two: more often, and they are themselves what costs the server
ANSWER_S = 60.0


class Visits:
    """A thread that asks, or waits to be told to."""

    def __init__(self, url: str, token: str, paths: Sequence[str]) -> None:
        """`url` of the server's pages, `token` of somebody who may see them."""
        parts = urlsplit(url)
        self._host, self._port = parts.hostname or "", parts.port or 80
        self._headers, self._paths = {"Authorization": f"Bearer {token}"}, paths
        self._lock = threading.Lock()
        self._took_ms: dict[str, list[float]] = {}
        self._failed = 0
        self._stopping, self._asking = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._work, name="visits", daemon=True)
        self._thread.start()

    def resume(self) -> None:
        """Ask, from now on."""
        self._asking.set()

    def pause(self) -> tuple[dict[str, list[float]], int]:
        """Ask no more; returns the milliseconds by path, and how many got no good answer, since this was last told."""
        self._asking.clear()
        with self._lock:
            took, failed = self._took_ms, self._failed
            self._took_ms, self._failed = {}, 0
        return took, failed

    def stop(self) -> None:
        """End."""
        self._stopping.set()
        self._asking.set()
        self._thread.join()

    def _work(self) -> None:
        for path in itertools.cycle(self._paths):
            self._asking.wait()
            if self._stopping.is_set():
                return
            self._ask(path)
            self._stopping.wait(PAUSE_S)

    def _ask(self, path: str) -> None:
        begun = time.perf_counter()
        connection = http.client.HTTPConnection(self._host, self._port, timeout=ANSWER_S)
        try:
            connection.request("GET", path, headers=self._headers)
            answer = connection.getresponse()
            answer.read()
            good = answer.status == http.HTTPStatus.OK
        except (OSError, http.client.HTTPException):
            good = False
        finally:
            connection.close()
        took_ms = 1000 * (time.perf_counter() - begun)
        with self._lock:
            if good:
                self._took_ms.setdefault(path, []).append(took_ms)
            else:
                self._failed += 1
