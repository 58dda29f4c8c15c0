"""What does the server say?

Desired state, receipts, blocks of a model, and whether it is there. What is none of these is counted, said once of each
kind, and harmless. All of it happens in paho's thread.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

from edge_agent.contract.errors import MessageError
from edge_agent.contract.wire import (
    BlockHeader,
    Desired,
    Receipt,
    ServerState,
    decode,
    decode_frame,
    down_topic,
    server_state_topic,
)

log = logging.getLogger(__name__)


class Inbox:
    """Reads what comes, and carries it to where it belongs."""

    def __init__(
        self,
        fleet: str,
        device: str,
        *,
        on_desired: Callable[[Desired], None],
        on_block: Callable[[BlockHeader, bytes], None],
        on_receipt: Callable[[Receipt], None],
        on_state: Callable[[bool, bool], None],
    ) -> None:
        """`on_state`: whether the server is there, and whether the broker had that in store."""
        self.messages_bad = 0
        self._on_desired, self._on_block = on_desired, on_block
        self._on_receipt, self._on_state = on_receipt, on_state
        self._bad_kinds: set[str] = set()
        self._readers: dict[str, Callable[[bytes, bool], None]] = {
            down_topic(fleet, device, "desired"): self._read_desired,
            down_topic(fleet, device, "receipt"): self._read_receipt,
            down_topic(fleet, device, "block"): self._read_block,
            server_state_topic(fleet): self._read_state,
        }

    @property
    def topics(self) -> list[str]:
        """To subscribe to."""
        return list(self._readers)

    def take(self, topic: str, payload: bytes, retained: bool) -> None:
        """A message came."""
        kind = topic.rsplit("/", 1)[-1]
        try:
            if (read := self._readers.get(topic)) is None:
                raise MessageError(f"topic {topic[:120]!r} was not subscribed to")
            read(payload, retained)
        except MessageError as error:
            self.messages_bad += 1
            if kind not in self._bad_kinds:
                self._bad_kinds.add(kind)
                log.warning("uplink: the server sent an undecodable %s, more of them are only counted: %s", kind, error)

    def _read_desired(self, payload: bytes, _retained: bool) -> None:
        self._on_desired(decode(Desired, payload))

    def _read_block(self, payload: bytes, _retained: bool) -> None:
        header, body = decode_frame(BlockHeader, payload)
        self._on_block(header, bytes(body))

    def _read_receipt(self, payload: bytes, _retained: bool) -> None:
        self._on_receipt(decode(Receipt, payload))

    def _read_state(self, payload: bytes, retained: bool) -> None:
        self._on_state(decode(ServerState, payload).online, retained)
