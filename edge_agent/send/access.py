"""How does one get in at a broker, and what does a message cost there?"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from edge_agent.contract.broker import TlsFiles, tls_context

if TYPE_CHECKING:
    import ssl


class Access(msgspec.Struct, frozen=True):
    """How to get in, and as whom."""

    host: str
    port: int
    client_id: str
    username: str
    password: str
    tls: TlsFiles | None
    keepalive_s: int

    def context(self) -> ssl.SSLContext | None:
        """For TLS, of the files as they are now: certificates are renewed. ConfigError when one is no good."""
        return tls_context(self.tls) if self.tls else None


def packet_bytes(topic: str, payload: bytes, *, qos: int) -> int:
    """Bytes of a PUBLISH packet (MQTT 3.1.1, section 3.3): its header, topic, number and payload."""
    rest = 2 + len(topic.encode()) + (2 if qos else 0) + len(payload)
    length_of_length = 1 + (rest > 127) + (rest > 16_383) + (rest > 2_097_151)
    return 1 + length_of_length + rest
