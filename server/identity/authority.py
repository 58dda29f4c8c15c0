"""Who belongs to the fleet?

Whoever holds a certificate of the fleet's own authority (CA) that is on no revocation list. It is made once, by
`winnow-server init`; of all that is on the server, its key alone cannot be had again.

    <folder>/ca.pem      the authority's certificate: what devices trust
    <folder>/ca.key      its key, 0600

Certificates and lists follow RFC 5280. Validity begins some days early, because small devices start with a clock that
is behind.
"""

from __future__ import annotations

import datetime as dt
import ipaddress
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from edge_agent.contract.artifact import write_durably
from edge_agent.contract.enrolment import BACKDATED_S
from edge_agent.contract.keys import (
    NOT_X509,
    PrivateKey,
    PublicKey,
    checked_key,
    key_sha256,
    new_key,
    read_key,
    write_key,
)
from edge_agent.contract.types import is_name
from server.errors import IdentityError

SERVER = "winnow.server"
"""The server's own name as a client of the broker. No device can have it: a device's name holds no dot."""

WORKER = "winnow.worker."
"""How the names begin of processes that only take in, as clients of the broker."""

BROKER = "winnow.broker"
"""The name in the certificate of a broker of the operator's own: it is no device's, whatever its host is called."""

CA_DAYS = 20 * 365  # to replace it is to visit every device; longer, and the key outlives whoever guards it

NAME_MAX_CHARS = 64  # of a common name (RFC 5280, appendix A.1)

CA_CERT = "ca.pem"
CA_KEY = "ca.key"


class Certificate(NamedTuple):
    """An issued certificate. Times are ms since 1970."""

    serial: str  # hex
    name: str  # its common name: device, MQTT user and client id
    pem: bytes
    key_sha256: str
    not_before_ms: int
    not_after_ms: int


class Authority:
    """The fleet's authority."""

    def __init__(self, certificate: x509.Certificate, key: PrivateKey) -> None:
        """Of a certificate and its key."""
        self._certificate = certificate
        self._key = key

    @classmethod
    def create(cls, folder: Path, *, fleet: str, now_ms: int) -> Authority:
        """Make one in `folder`; IdentityError when there is one already: it is never overwritten.

        A key without a certificate is of a command that was killed in between: it is taken.
        """
        if (folder / CA_CERT).exists():
            raise IdentityError(f"{folder / CA_CERT}: there is a fleet CA already, and devices trust it")
        key = cls._key_in(folder)
        name = _subject(f"Winnow fleet {fleet}"[:NAME_MAX_CHARS])
        certificate = (
            _builder(name, name, key.public_key(), now_ms=now_ms, days=CA_DAYS)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(_usage(authority=True), critical=True)
            .sign(key, hashes.SHA256())
        )
        try:
            write_durably(folder / CA_CERT, certificate.public_bytes(serialization.Encoding.PEM))
        except OSError as error:
            raise IdentityError(f"{error.filename}: {error.strerror}: expected a folder for the fleet CA") from error
        return cls(certificate, key)

    @staticmethod
    def _key_in(folder: Path) -> PrivateKey:
        """A new one, or the one that is there."""
        path = folder / CA_KEY
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            if not path.exists():
                write_key(path, new_key())
            return read_key(path)
        except FileExistsError as error:
            raise IdentityError(f"{path}: there is a fleet CA already, and devices trust it") from error
        except OSError as error:
            raise IdentityError(f"{error.filename}: {error.strerror}: expected a folder for the fleet CA") from error
        except ValueError as error:
            raise IdentityError(f"{error}: expected the fleet CA's key in PEM") from error

    @classmethod
    def load(cls, folder: Path) -> Authority:
        """The one in `folder`; IdentityError when it cannot be read, or key and certificate do not belong together."""
        try:
            certificate = x509.load_pem_x509_certificate((folder / CA_CERT).read_bytes())
            key = read_key(folder / CA_KEY)
        except OSError as error:
            raise IdentityError(
                f"{error.filename}: {error.strerror}: make a fleet CA with `winnow-server init`, or put your copy back"
            ) from error
        except NOT_X509 as error:
            raise IdentityError(f"{folder}: {error}: expected {CA_CERT} and {CA_KEY} in PEM") from error
        if key.public_key() != certificate.public_key():
            raise IdentityError(f"{folder}: {CA_KEY} is not the key of {CA_CERT}: put your copy of both back")
        return cls(certificate, key)

    @property
    def pem(self) -> bytes:
        """Its certificate, which is no secret."""
        return self._certificate.public_bytes(serialization.Encoding.PEM)

    @property
    def fingerprint(self) -> bytes:
        """SHA-256 of the certificate's DER, 32 bytes."""
        return self._certificate.fingerprint(hashes.SHA256())

    def issue_device(self, name: str, key: PublicKey, *, now_ms: int, days: float) -> Certificate:
        """A certificate by which a device comes in as `name`."""
        if not is_name(name):
            raise IdentityError(f"device {name!r}: expected letters, digits, - and _, at most 63")
        return self._issue(name, key, [ExtendedKeyUsageOID.CLIENT_AUTH], now_ms=now_ms, days=days)

    def issue_server(self, key: PublicKey, *, hosts: Sequence[str], now_ms: int, days: float) -> Certificate:
        """The server's own, for its listeners and as a client of the broker; `hosts`: names and addresses it is at."""
        purposes = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
        return self._issue(SERVER, key, purposes, hosts=hosts, now_ms=now_ms, days=days)

    def issue_worker(self, name: str, key: PublicKey, *, now_ms: int, days: float) -> Certificate:
        """A certificate by which a process that only takes in comes in as `name`."""
        return self._issue(name, key, [ExtendedKeyUsageOID.CLIENT_AUTH], now_ms=now_ms, days=days)

    def issue_broker(self, key: PublicKey, *, host: str, now_ms: int, days: float) -> Certificate:
        """For a broker of the operator's own at `host`: it lets devices know the broker, and nobody in."""
        purposes = [ExtendedKeyUsageOID.SERVER_AUTH]
        return self._issue(BROKER, key, purposes, hosts=[host], now_ms=now_ms, days=days)

    def revocation_list(self, serials: Iterable[str], *, now_ms: int) -> bytes:
        """The certificates that are no longer good, in PEM. It ends with the authority: an old one shuts nobody out."""
        now = _time(now_ms)
        builder = x509.CertificateRevocationListBuilder(
            issuer_name=self._certificate.subject,
            last_update=now - dt.timedelta(seconds=BACKDATED_S),
            next_update=self._certificate.not_valid_after_utc,
        )
        for serial in sorted(set(serials)):
            entry = x509.RevokedCertificateBuilder().serial_number(int(serial, 16)).revocation_date(now)
            builder = builder.add_revoked_certificate(entry.build())
        return builder.sign(self._key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)

    def recognise(self, pem: bytes) -> tuple[Certificate, PublicKey]:
        """Read a certificate that somebody shows, of whatever time; ValueError unless this authority issued it."""
        try:
            shown = x509.load_pem_x509_certificate(pem)
            shown.verify_directly_issued_by(self._certificate)
        except InvalidSignature as error:
            raise ValueError("the certificate is not of this fleet's CA") from error
        except NOT_X509 as error:
            raise ValueError(f"not a certificate of this fleet's CA: {error}") from error
        return _described(shown), checked_key(shown.public_key())

    def _issue(
        self,
        name: str,
        key: PublicKey,
        purposes: Sequence[x509.ObjectIdentifier],
        *,
        now_ms: int,
        days: float,
        hosts: Sequence[str] = (),
    ) -> Certificate:
        builder = (
            _builder(_subject(name), self._certificate.subject, key, now_ms=now_ms, days=days)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_usage(authority=False), critical=True)
            .add_extension(x509.ExtendedKeyUsage(purposes), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()), critical=False)
        )
        if hosts:
            names = x509.SubjectAlternativeName([_host(host) for host in hosts])
            builder = builder.add_extension(names, critical=False)
        return _described(builder.sign(self._key, hashes.SHA256()))


def _builder(
    subject: x509.Name, issuer: x509.Name, key: PublicKey, *, now_ms: int, days: float
) -> x509.CertificateBuilder:
    now = _time(now_ms)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(seconds=BACKDATED_S))
        .not_valid_after(now + dt.timedelta(days=days))
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
    )


def _subject(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


def _usage(*, authority: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not authority,
        key_cert_sign=authority,
        crl_sign=authority,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _host(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _described(certificate: x509.Certificate) -> Certificate:
    names = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    return Certificate(
        serial=f"{certificate.serial_number:x}",
        name=str(names[0].value) if names else "",
        pem=certificate.public_bytes(serialization.Encoding.PEM),
        key_sha256=key_sha256(checked_key(certificate.public_key())),
        not_before_ms=_ms(certificate.not_valid_before_utc),
        not_after_ms=_ms(certificate.not_valid_after_utc),
    )


def _time(at_ms: int) -> dt.datetime:
    return dt.datetime.fromtimestamp(at_ms // 1000, dt.timezone.utc)


def _ms(at: dt.datetime) -> int:
    return int(at.timestamp() * 1000)
