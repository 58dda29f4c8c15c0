"""How does a device talk to the server before the broker lets it in?

By HTTPS, to a server that proves to be of the fleet's authority, and to no other. Who has only a token knows the
SHA-256 of the authority's certificate: it is fetched first, from whoever answers, and checked before anything is said.
"""

from __future__ import annotations

import hashlib
import http.client
import ssl
from typing import NamedTuple, TypeVar
from urllib.parse import urlsplit

import msgspec

from edge_agent.contract.enrolment import MESSAGE_MAX_BYTES, Refusal
from edge_agent.contract.errors import ConfigError, IdentityError, UplinkError

TIMEOUT_S = 20.0
CA_PATH = "/ca.pem"

Answer = TypeVar("Answer", bound=msgspec.Struct)


class Portal(NamedTuple):
    """Where the server answers HTTPS."""

    host: str
    port: int

    @classmethod
    def parse(cls, url: str) -> Portal:
        """Take `https://host:port`, of a token or of [uplink] renewal, apart; ConfigError when it is none.

        >>> Portal.parse("https://winnow.lan:8884")
        Portal(host='winnow.lan', port=8884)
        """
        expected = f"the server's address: got {url!r}, expected https://host:port"
        try:
            parts = urlsplit(url)
            if parts.scheme == "https" and parts.hostname and parts.path in ("", "/") and parts.username is None:
                return cls(parts.hostname, parts.port or 443)
        except ValueError as error:
            raise ConfigError(f"{expected}: {error}") from error
        raise ConfigError(expected)

    def fetch_authority(self, sha256: bytes) -> str:
        """The certificate, in PEM, of the authority with that SHA-256 (of the DER).

        UplinkError when nobody answers; IdentityError when it is another: somebody stands in between, or the token is
        of another fleet.
        """
        anybody = ssl.create_default_context()
        anybody.check_hostname = False  # nothing is told to it, and what it tells is checked by its hash
        anybody.verify_mode = ssl.CERT_NONE
        _, body = self._call("GET", CA_PATH, b"", anybody)
        try:
            pem = body.decode("ascii")
            der = ssl.PEM_cert_to_DER_cert(pem)
        except ValueError as error:
            raise IdentityError(f"{self}: expected the certificate of a fleet's CA: {error}") from error
        if hashlib.sha256(der).digest() != sha256:
            raise IdentityError(
                f"{self}: its CA is not the one in the token: this is another server, or somebody stands in between; "
                "nothing was sent to it"
            )
        return ssl.DER_cert_to_PEM_cert(der)

    def ask(self, path: str, word: msgspec.Struct, kind: type[Answer], *, ca_pem: str) -> Answer:
        """Send `word` to a server of that authority, and to no other; returns what it answers.

        UplinkError when it cannot be reached, or not now; IdentityError when it is not of the authority, or says no.
        """
        status, body = self._call("POST", path, msgspec.json.encode(word), _trusting(ca_pem))
        try:
            if status == 200:
                return msgspec.json.decode(body, type=kind)
            said = msgspec.json.decode(body, type=Refusal).error
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            said = f"status {status}, and nothing that can be read"
        if status in (400, 403):
            raise IdentityError(f"{self} refuses: {said}")
        raise UplinkError(f"{self}: {said}")

    def __str__(self) -> str:
        """For messages."""
        return f"{self.host}:{self.port}"

    def _call(self, method: str, path: str, body: bytes, context: ssl.SSLContext) -> tuple[int, bytes]:
        connection = http.client.HTTPSConnection(self.host, self.port, timeout=TIMEOUT_S, context=context)
        try:
            connection.request(method, path, body or None, {"Content-Type": "application/json"} if body else {})
            answer = connection.getresponse()
            return answer.status, answer.read(MESSAGE_MAX_BYTES)
        except ssl.SSLCertVerificationError as error:
            raise IdentityError(
                f"{self}: is not a server of this fleet, or the clock of one of us is wrong: {error.verify_message}"
            ) from error
        except (OSError, http.client.HTTPException) as error:
            raise UplinkError(f"{self}: {error or type(error).__name__}") from error
        finally:
            connection.close()


def _trusting(ca_pem: str) -> ssl.SSLContext:
    """Nobody but that authority: asked to trust nothing at all, Python trusts whom the system trusts."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # checks names and certificates
    try:
        context.load_verify_locations(cadata=ca_pem)
    except (ssl.SSLError, ValueError) as error:
        raise IdentityError(f"the certificate of the fleet's CA that is kept here is none: {error}") from error
    return context
