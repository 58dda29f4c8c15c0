"""By which files do the server's own parts prove who they are?

    <folder>/server.pem            the server's key and certificate in one file, 0600, so that both change in one step
    <folder>/winnow.worker.1.pem   the same of a process that only takes in, issued anew at each of its starts
    <folder>/crl.pem               the list of revoked certificates, written anew at every start

The certificate is issued anew when less than a third of its time is left, or the server is called by other names.
"""

from __future__ import annotations

import ssl
from collections.abc import Iterable, Sequence
from pathlib import Path

from cryptography import x509

from edge_agent.contract.artifact import write_durably
from edge_agent.contract.keys import NOT_X509, new_key, private_pem, read_key
from server.errors import IdentityError
from server.identity.authority import CA_CERT, Authority

SERVER_DAYS = 365.0
WORKER_DAYS = 3650.0  # its key lies beside the authority's own, and a shorter time guards nothing
RENEW_SHARE = 1 / 3  # of its time that is left; smaller, and a server that is seldom on finds it expired
LOCAL = ("localhost", "127.0.0.1", "::1")
"""Where the server reaches itself."""


class Credentials:
    """The server's certificate, and the list of revoked ones."""

    def __init__(self, authority: Authority, folder: Path, *, hosts: Sequence[str]) -> None:
        """`hosts`: names and addresses by which devices reach the server. Nothing is written before `refresh`."""
        self.ca_file = folder / CA_CERT
        self.cert_file = folder / "server.pem"
        self.crl_file = folder / "crl.pem"
        self._authority = authority
        self._hosts = tuple(dict.fromkeys([*hosts, *LOCAL]))

    def refresh(self, now_ms: int) -> bool:
        """Issue the certificate if it is time to; whether it was. IdentityError when it cannot be written."""
        if self._is_good(now_ms):
            return False
        key = new_key()
        made = self._authority.issue_server(key.public_key(), hosts=self._hosts, now_ms=now_ms, days=SERVER_DAYS)
        self._write(self.cert_file, private_pem(key) + made.pem)
        return True

    def revoke(self, serials: Iterable[str], *, now_ms: int) -> None:
        """Write the list of revoked certificates; IdentityError when it cannot be written."""
        self._write(self.crl_file, self._authority.revocation_list(serials, now_ms=now_ms))

    def listed(self) -> frozenset[str]:
        """The serials on the list as it was written last, hex; none when it cannot be read."""
        try:
            found = x509.load_pem_x509_crl(self.crl_file.read_bytes())
        except (OSError, *NOT_X509):
            return frozenset()
        return frozenset(f"{entry.serial_number:x}" for entry in found)

    def context(self) -> ssl.SSLContext:
        """To connect with, as the server."""
        context = ssl.create_default_context(cafile=self.ca_file)
        context.load_cert_chain(self.cert_file)
        return context

    def _is_good(self, now_ms: int) -> bool:
        try:
            pem = self.cert_file.read_bytes()
            found, key = self._authority.recognise(pem)
            if read_key(self.cert_file).public_key() != key:
                return False
        except (OSError, *NOT_X509):  # there is none yet, it is damaged, or of another authority
            return False
        left_ms, whole_ms = found.not_after_ms - now_ms, found.not_after_ms - found.not_before_ms
        return left_ms > RENEW_SHARE * whole_ms and _hosts(pem) == set(self._hosts)

    def _write(self, path: Path, data: bytes) -> None:
        try:
            write_durably(path, data, mode=0o600)
        except OSError as error:
            raise IdentityError(f"{path}: {error.strerror}") from error


def worker_context(authority: Authority, folder: Path, name: str, *, now_ms: int) -> ssl.SSLContext:
    """To connect with, as a process that only takes in; IdentityError when its certificate cannot be written."""
    key, file = new_key(), folder / f"{name}.pem"
    made = authority.issue_worker(name, key.public_key(), now_ms=now_ms, days=WORKER_DAYS)
    try:
        write_durably(file, private_pem(key) + made.pem, mode=0o600)
    except OSError as error:
        raise IdentityError(f"{file}: {error.strerror}") from error
    context = ssl.create_default_context(cafile=folder / CA_CERT)
    context.load_cert_chain(file)
    return context


def _hosts(pem: bytes) -> set[str]:
    extensions = x509.load_pem_x509_certificate(pem).extensions
    names = extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    return {str(name.value) for name in names}
