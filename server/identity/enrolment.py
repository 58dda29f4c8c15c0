"""Who is given a certificate?

    invite   an operator names a device; a token, good once and for minutes, is what the device brings
    enrol    a device brings the token and a request made on it; of two that bring the same token exactly one gets in
    renew    a device shows its certificate, expired or not, and signs with that certificate's key

What gets lost on the way may be asked for again: the same key is given the same certificate. So a certificate that is
shown although another followed it, for another key, is on two machines: a card was copied. It is refused, and told.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable

import sqlalchemy as sa

from edge_agent.contract.enrolment import SECRET_BYTES, Enrol, Enrolled, Renew, Renewed, Token, renewal_bytes
from edge_agent.contract.keys import PublicKey, is_signed, key_sha256, requested_key
from edge_agent.contract.types import is_name
from server.errors import IdentityError
from server.identity import copies
from server.identity.authority import Authority
from server.store import identities, trail
from server.store.identities import Issued
from server.store.store import Store

AGAIN_SHARE = 0.1  # of its time that a certificate must have run; less, and a device in a loop fills the store


def invite(
    store: Store,
    name: str,
    *,
    again: bool,
    url: str,
    ca_sha256: bytes,
    secret: bytes,
    expires_at_ms: int,
    now_ms: int,
    who: str = trail.SERVER,
) -> Token:
    """A token for the device `name`. IdentityError when that is no name, or taken and not to be taken `again`.

    `secret`: 32 random bytes; the store keeps their hash. `who` goes into the audit trail.
    """
    if len(secret) != SECRET_BYTES:
        raise ValueError(f"secret of {len(secret)} bytes, expected {SECRET_BYTES}")
    if not is_name(name):
        raise IdentityError(f"device {name!r}: expected letters, digits, - and _, at most 63")
    with store.database.write() as connection:
        _check_free(connection, name, again=again)
        made = identities.Token(_hash(secret), name, now_ms, expires_at_ms)
        identities.add_token(connection, made)
        trail.record(connection, "invite", f"device {name}", why="", who=who, detail={"again": again}, now_ms=now_ms)
    return Token(url=url, ca_sha256=ca_sha256, secret=secret)


def _check_free(connection: sa.Connection, name: str, *, again: bool) -> None:
    if again:
        return
    if name in identities.revoked(connection):
        raise IdentityError(f"device {name!r} is revoked: choose another name, or let it in once more with --again")
    if identities.latest_certificate(connection, name) is not None:
        raise IdentityError(
            f"device {name!r} has a certificate: choose another name, or replace that certificate with --again"
        )


class Enrolment:
    """Gives certificates to those who may have one. IdentityError says why somebody may not."""

    def __init__(
        self,
        store: Store,
        authority: Authority,
        *,
        fleet: str,
        broker: str,
        days: float,
        root: Callable[[], str] = lambda: "",
    ) -> None:
        """Start with what the store remembers.

        Args:
            store: of the server.
            authority: issues.
            fleet: its name.
            broker: its URL, as devices are told it.
            days: the time of a certificate.
            root: what devices are to trust of models, as of now; empty: these are not signed.
        """
        self._store = store
        self._authority = authority
        self._fleet = fleet
        self._broker = broker
        self._days = days
        self._root = root

    def enrol(self, message: Enrol, *, now_ms: int) -> Enrolled:
        """Let the bearer of a token in."""
        key = _requested(message.request)
        with self._store.database.write() as connection:
            issued = self._redeem(connection, _hash(message.secret), key, now_ms)
        return Enrolled(
            device=issued.device,
            fleet=self._fleet,
            broker=self._broker,
            certificate=issued.pem.decode("ascii"),
            root=self._root(),
        )

    def renew(self, message: Renew, *, now_ms: int) -> Renewed:
        """Give a member its next certificate."""
        key = _requested(message.request)
        try:
            shown, old_key = self._authority.recognise(message.certificate.encode())
        except ValueError as error:
            raise IdentityError(str(error)) from error
        if not is_signed(old_key, message.signature, renewal_bytes(message.certificate, message.request)):
            raise IdentityError("the renewal is not signed by the key of its certificate")
        with self._store.database.write() as connection:
            current = _in_force(connection, shown.name)
            if current.key_sha256 == key_sha256(key):  # its answer was lost
                return Renewed(certificate=current.pem.decode("ascii"))
            copied = current.serial != shown.serial
            if copied:
                copies.tell(connection, shown.name, "a certificate was shown that another followed", now_ms=now_ms)
            elif self._is_early(current, now_ms):
                raise IdentityError(f"device {shown.name!r}: its certificate is new: renewed after half of its time")
            else:
                current = self._issue(connection, shown.name, key, now_ms)
        if copied:  # told in the store, so not before the end of the transaction
            raise IdentityError(
                f"device {shown.name!r}: another certificate followed this one: it may be in use on two machines; "
                "revoke the device and enrol it anew"
            )
        return Renewed(certificate=current.pem.decode("ascii"))

    def _redeem(self, connection: sa.Connection, secret_sha256: str, key: PublicKey, now_ms: int) -> Issued:
        found = identities.get_token(connection, secret_sha256)
        if found is None:
            raise IdentityError("the token is unknown: ask for a new one (`winnow-server device enrol`)")
        if found.expires_at_ms <= now_ms:
            raise IdentityError("the token has expired: ask for a new one (`winnow-server device enrol`)")
        mine = key_sha256(key)
        if identities.use_token(connection, secret_sha256, key_sha256=mine, now_ms=now_ms):
            identities.readmit(connection, found.device, now_ms=now_ms)  # not before: a token may never be used
            identities.supersede(connection, found.device, now_ms=now_ms)
            trail.record(connection, "enrol", f"device {found.device}", why="it had the token", now_ms=now_ms)
            return self._issue(connection, found.device, key, now_ms)
        current = identities.latest_certificate(connection, found.device)
        if current is not None and found.key_sha256 == current.key_sha256 == mine and current.revoked_at_ms is None:
            return current  # its answer was lost
        raise IdentityError(
            "the token was used already: if that was not this device, revoke it at once (`winnow-server device revoke`)"
        )

    def _issue(self, connection: sa.Connection, name: str, key: PublicKey, now_ms: int) -> Issued:
        made = self._authority.issue_device(name, key, now_ms=now_ms, days=self._days)
        issued = Issued(made.serial, 0, name, made.key_sha256, now_ms, made.not_after_ms, made.pem)
        identities.add_certificate(connection, issued)
        return issued

    def _is_early(self, current: Issued, now_ms: int) -> bool:
        return now_ms - current.issued_at_ms < AGAIN_SHARE * (current.not_after_ms - current.issued_at_ms)


def _in_force(connection: sa.Connection, name: str) -> Issued:
    """The certificate of a member; IdentityError when it is none."""
    if name in identities.revoked(connection):
        raise IdentityError(f"device {name!r} is revoked")
    current = identities.latest_certificate(connection, name)
    if current is None:
        raise IdentityError(f"device {name!r} was not enrolled here: enrol it (`winnow-server device enrol {name}`)")
    if current.revoked_at_ms is not None:
        raise IdentityError(f"device {name!r}: its certificate is revoked: it has to be enrolled anew")
    return current


def _requested(request: bytes) -> PublicKey:
    try:
        return requested_key(request)
    except ValueError as error:
        raise IdentityError(str(error)) from error


def _hash(secret: bytes) -> str:
    return hashlib.sha256(secret).hexdigest()
