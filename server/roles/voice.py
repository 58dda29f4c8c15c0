"""Through whom are devices spoken to?

Whoever speaks to devices is made before the connection is: it needs the broker's address, and answers what comes in.
"""

from __future__ import annotations

from server.release.downloads import Publish


class Voice:
    """Hands messages to the connection, once there is one; before, nobody can have asked."""

    def __init__(self) -> None:
        """Nobody speaks yet."""
        self._publish: Publish | None = None

    def through(self, publish: Publish) -> None:
        """The connection is there."""
        self._publish = publish

    def __call__(self, topic: str, payload: bytes, *, qos: int, retain: bool) -> None:
        """Hand a message to the broker, at once or when it is there again."""
        if self._publish is not None:
            self._publish(topic, payload, qos=qos, retain=retain)
