"""By which files does a device prove who it is?

    <folder>/ca.pem        the authority that the server and the broker must prove to be of
    <folder>/device.pem    the device's key and certificate in one file, 0600, so that both change in one step
    <folder>/next.key      the key of a certificate that was asked for and did not come yet

A key is made here and goes nowhere. One that was asked about is kept until the answer is on disk, so that the question
can be asked again when the answer is lost: the server gives the same key the same certificate.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from edge_agent.contract.artifact import write_durably
from edge_agent.contract.enrolment import BACKDATED_S
from edge_agent.contract.errors import ConfigError, IdentityError
from edge_agent.contract.keys import NOT_X509, PrivateKey, new_key, private_pem, read_key, write_key


class Certificate(NamedTuple):
    """What a certificate says. Times are s since 1970."""

    device: str
    pem: str
    issued_s: float
    expires_s: float


class Papers:
    """The files of one identity."""

    def __init__(self, *, ca_file: Path, cert_file: Path) -> None:
        """Nothing is read or written yet."""
        self.ca_file = ca_file
        self.cert_file = cert_file
        self._next = cert_file.with_name("next.key")

    @classmethod
    def within(cls, folder: Path) -> Papers:
        """Those in a folder, by their usual names."""
        return cls(ca_file=folder / "ca.pem", cert_file=folder / "device.pem")

    def current(self) -> tuple[Certificate, PrivateKey]:
        """The certificate and its key; IdentityError when they cannot be read."""
        try:
            pem = self.cert_file.read_bytes()
            key = read_key(self.cert_file)
            return described(pem), key
        except OSError as error:
            raise IdentityError(
                f"{self.cert_file}: {error.strerror}: enrol the device (`winnow-agent enrol`)"
            ) from error
        except NOT_X509 as error:
            raise IdentityError(f"{self.cert_file}: expected a key and its certificate in PEM: {error}") from error

    def check(self, device: str) -> None:
        """ConfigError unless they are there, and of `device`: a broker drops what others say, without a word."""
        try:
            found = self.current()[0].device
            self.authority()
        except IdentityError as error:
            raise ConfigError(f"[uplink] cert_file, ca_file: {error}") from error
        if found != device:
            raise ConfigError(f"[device] name = {device!r}: its certificate is of {found!r}: enrol it under this name")

    def authority(self) -> str:
        """The authority's certificate, in PEM; IdentityError when it cannot be read."""
        try:
            return self.ca_file.read_text(encoding="ascii")
        except (OSError, UnicodeDecodeError) as error:
            raise IdentityError(f"{self.ca_file}: {error}") from error

    def next_key(self) -> PrivateKey:
        """The key to ask a certificate for: made now, or the one whose answer was lost."""
        try:
            if self._next.exists():
                key = read_key(self._next)
                if not self.cert_file.exists() or self.current()[1].public_key() != key.public_key():
                    return key
                self._next.unlink()  # its answer did come, and then the power went
            key = new_key()
            write_key(self._next, key)
        except OSError as error:
            raise IdentityError(f"{self._next}: {error.strerror}: expected a folder to write to") from error
        except NOT_X509 as error:
            raise IdentityError(f"{self._next}: {error}: delete it, and try again") from error
        return key

    def take(self, key: PrivateKey, pem: str, *, device: str) -> Certificate:
        """Make a certificate that came the current one; IdentityError when it is not for `key` and `device`."""
        try:
            certificate = described(pem.encode())
            fits = x509.load_pem_x509_certificate(pem.encode()).public_key() == key.public_key()
        except NOT_X509 as error:
            raise IdentityError(f"the server sent something that is no certificate: {error}") from error
        if not fits or certificate.device != device:
            raise IdentityError(f"the server sent a certificate for {certificate.device!r} or for another key")
        try:
            write_durably(self.cert_file, private_pem(key) + certificate.pem.encode(), mode=0o600)
            self._next.unlink(missing_ok=True)
        except OSError as error:
            raise IdentityError(f"{self.cert_file}: {error.strerror}") from error
        return certificate


def described(pem: bytes) -> Certificate:
    """What the certificate in a PEM file says; one of NOT_X509 when there is none."""
    found = x509.load_pem_x509_certificate(pem)
    names = found.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    from_s, to_s = found.not_valid_before_utc.timestamp(), found.not_valid_after_utc.timestamp()
    text = found.public_bytes(Encoding.PEM).decode("ascii")
    return Certificate(str(names[0].value) if names else "", text, from_s + BACKDATED_S, to_s)
