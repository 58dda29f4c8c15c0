"""What do a device and the server say to each other before there is a certificate, or when one runs out?

Over HTTPS, as JSON, to a server whose certificate is of the authority that the token names:

    POST /enrol    Enrol: a token, a request for a certificate     ->  Enrolled
    POST /renew    Renew: the certificate so far, a request, signed by the key so far   ->  Renewed

Anything else is answered by a status of 400 or more and a Refusal.

A token is one word, to be pasted: where the server is, the SHA-256 of its authority's certificate, and a secret that is
good once. The fingerprint is what the device trusts: whoever else answers is not sent the secret.
"""

from __future__ import annotations

import base64
import binascii

import msgspec

from edge_agent.contract.errors import ConfigError

PREFIX = "winnow1"
SECRET_BYTES = 32
ENROL = "/enrol"
RENEW = "/renew"
MESSAGE_MAX_BYTES = 16 * 1024
"""Of a message in either direction: certificates and requests of P-256 keys have less than 1 KB each."""

BACKDATED_S = 2 * 86_400
"""Certificates begin to be valid so long before they are issued: a clock without a battery starts behind. Shorter, and
more such devices refuse their first certificate; longer buys nothing."""


class Token(msgspec.Struct, frozen=True, kw_only=True):
    """What `winnow-server device enrol` hands out."""

    url: str  # https://host:port
    ca_sha256: bytes  # of the DER of the authority's certificate
    secret: bytes

    def __str__(self) -> str:
        """As it is pasted; `parse_token` reads it."""
        packed = msgspec.msgpack.encode((self.url, self.ca_sha256, self.secret))
        return f"{PREFIX}.{base64.urlsafe_b64encode(packed).decode().rstrip('=')}"


def parse_token(text: str) -> Token:
    """Read a pasted token; ConfigError when it is none, or not whole.

    >>> made = Token(url="https://winnow.lan:8884", ca_sha256=bytes(32), secret=bytes(32))
    >>> parse_token(str(made)) == made
    True
    """
    prefix, _, rest = text.strip().partition(".")
    try:
        packed = base64.b64decode(rest + "=" * (-len(rest) % 4), altchars=b"-_", validate=True)
        url, ca_sha256, secret = msgspec.msgpack.decode(packed, type=tuple[str, bytes, bytes])
    except (binascii.Error, ValueError) as error:
        raise ConfigError(
            f"token: got {text[:12]!r}..., which is not whole: paste all that `winnow-server device enrol` printed"
        ) from error
    if prefix != PREFIX or len(ca_sha256) != 32 or len(secret) != SECRET_BYTES or not url.startswith("https://"):
        raise ConfigError(f"token: got {text[:12]!r}..., expected one of `winnow-server device enrol`: {PREFIX}....")
    return Token(url=url, ca_sha256=ca_sha256, secret=secret)


class Enrol(msgspec.Struct, frozen=True, kw_only=True):
    """A device wants in."""

    secret: bytes
    request: bytes  # PKCS 10 in DER


class Enrolled(msgspec.Struct, frozen=True, kw_only=True):
    """It is in."""

    device: str
    fleet: str
    broker: str  # mqtts://host:port
    certificate: str  # PEM


class Renew(msgspec.Struct, frozen=True, kw_only=True):
    """A device wants another certificate; the one it shows may have expired."""

    certificate: str  # PEM
    request: bytes  # PKCS 10 in DER, of the new key
    signature: bytes  # over `renewal_bytes`, by the key of the certificate


class Renewed(msgspec.Struct, frozen=True, kw_only=True):
    """It has another."""

    certificate: str  # PEM


class Refusal(msgspec.Struct, frozen=True, kw_only=True):
    """No."""

    error: str


def renewal_bytes(certificate: str, request: bytes) -> bytes:
    """What the old key signs: that this certificate is to be followed by one for that request."""
    return b"winnow renewal 1\n" + certificate.encode() + b"\n" + request
