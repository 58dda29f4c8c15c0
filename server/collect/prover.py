"""Is what came as an image one?

A thread of its own asks the sandbox, so that an image that takes long holds up nothing but other images. Nothing is
answered before it is known. What finds no room here was not answered either, and its device sends it again.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from edge_agent.contract.errors import MessageError
from server.collect.backlog import Backlog
from server.collect.inbound import Bad, Picture, Upload
from server.errors import StoreError
from server.store.sandbox import Sandbox

TICK_S = 10.0  # between looks whether nothing was missed

_log = logging.getLogger(__name__)


class Prover:
    """Proves pictures, the devices in turn."""

    def __init__(self, waiting: Backlog[Picture], *, done: Callable[[Upload | Bad], None]) -> None:
        """`done` is called from the prover's thread."""
        self._waiting = waiting
        self._done = done
        self._sandbox = Sandbox()
        self._known: set[tuple[str, str]] = set()  # id and hash of those that wait: a device may send one again
        self._thread = threading.Thread(target=self._work, name="prover", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """End; pictures that wait were not answered, and come again."""
        self._waiting.stop()
        self._sandbox.close()
        if self._thread.is_alive():
            self._thread.join()

    def put(self, picture: Picture) -> None:
        """Have it proven, once."""
        name = (picture.header.id, picture.header.body_sha256)
        if name in self._known:
            return
        self._known.add(name)  # first: once it waits it may be proven, and forgotten, before we are back
        if not self._waiting.put_or_leave(picture.device, picture, len(picture.body)):
            self._known.discard(name)

    def throttled(self) -> dict[str, int]:
        """Device -> pictures that were left for want of room since this was last asked."""
        return self._waiting.throttled()

    def _work(self) -> None:
        while not self._waiting.stopped:
            for picture in self._waiting.gather(1, patience_s=TICK_S):
                self._prove(picture)
                self._waiting.done()

    def _prove(self, picture: Picture) -> None:
        try:
            found = _proven(self._sandbox, picture)
        except StoreError as error:
            _log.error("%s: %s: not answered, its device sends it again", picture.device, error)
        except Exception:  # noqa: BLE001 - the supervising loop: one image must not end the proving of all others
            _log.exception("%s: an image could not be proven, and is not answered", picture.device)
        else:
            self._done(found)
        self._known.discard((picture.header.id, picture.header.body_sha256))


def _proven(sandbox: Sandbox, picture: Picture) -> Upload | Bad:
    header, kind = picture.header, picture.header.encoding
    try:
        sandbox.decode(picture.body, kind, header.shape)  # type: ignore[arg-type]  # a picture's encoding is a kind
    except MessageError as error:
        return Bad(picture.message, picture.device, f"sample {header.id}: {error}", header.id)
    return Upload(*picture)
