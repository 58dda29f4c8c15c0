"""Who may come in, by what, and who no longer?

    token         good once, until it expires; only its hash is kept
    certificate   every one that was given out; of a device's, the one with the highest number is in force
    revocation    a device is revoked while one of its rows has no readmission

Certificates and revocations are only ever added: what was once known to be bad stays on the list.
"""

from __future__ import annotations

from typing import NamedTuple

import sqlalchemy as sa

from server.store.among import Question
from server.store.schema import certificate, device, revocation, sample, token


class Token(NamedTuple):
    """An enrolment token, without its secret."""

    secret_sha256: str
    device: str
    created_at_ms: int
    expires_at_ms: int
    used_at_ms: int | None = None
    key_sha256: str | None = None


class Issued(NamedTuple):
    """A certificate that a device was given."""

    serial: str  # hex
    n: int
    device: str
    key_sha256: str
    issued_at_ms: int
    not_after_ms: int
    pem: bytes
    revoked_at_ms: int | None = None


class Revocation(NamedTuple):
    """A device that was shut out, once."""

    device: str
    at_ms: int
    why: str
    samples_left_out: bool
    readmitted_at_ms: int | None


def add_token(connection: sa.Connection, made: Token) -> None:
    """Remember a token; those of the same device that nobody used are good no more."""
    unused = (token.c.device == made.device, token.c.used_at_ms.is_(None))
    connection.execute(sa.delete(token).where(*unused))
    connection.execute(sa.insert(token).values(made._asdict()))


def use_token(connection: sa.Connection, secret_sha256: str, *, key_sha256: str, now_ms: int) -> bool:
    """Use it up; False when it is unknown, expired or used. One statement, so of several at once exactly one wins."""
    good = (
        token.c.secret_sha256 == secret_sha256,
        token.c.used_at_ms.is_(None),
        token.c.expires_at_ms > now_ms,
    )
    values = {"used_at_ms": now_ms, "key_sha256": key_sha256}
    return connection.execute(sa.update(token).where(*good).values(values)).rowcount == 1


def get_token(connection: sa.Connection, secret_sha256: str) -> Token | None:
    """The token with that hash."""
    row = connection.execute(sa.select(token).where(token.c.secret_sha256 == secret_sha256)).one_or_none()
    return None if row is None else Token(*row)


def add_certificate(connection: sa.Connection, made: Issued) -> None:
    """Remember a certificate; its number is one more than the device's last, whatever it says."""
    last = sa.select(sa.func.coalesce(sa.func.max(certificate.c.n), 0)).where(certificate.c.device == made.device)
    n = connection.execute(last).scalar_one() + 1
    connection.execute(sa.insert(certificate).values(made._replace(n=n)._asdict()))


def supersede(connection: sa.Connection, name: str, *, now_ms: int) -> int:
    """The certificates that a device has had are good no more: it enrols anew. Returns how many there were."""
    mine = (certificate.c.device == name, certificate.c.revoked_at_ms.is_(None))
    return connection.execute(sa.update(certificate).where(*mine).values(revoked_at_ms=now_ms)).rowcount


def latest_certificate(connection: sa.Connection, name: str) -> Issued | None:
    """The one in force of a device, if it was ever enrolled."""
    query = sa.select(certificate).where(certificate.c.device == name).order_by(certificate.c.n.desc()).limit(1)
    row = connection.execute(query).one_or_none()
    return None if row is None else Issued(*row)


def latest_certificates(connection: sa.Connection) -> dict[str, Issued]:
    """Of every enrolled device the one in force."""
    return {row.device: Issued(*row) for row in connection.execute(sa.select(certificate).order_by(certificate.c.n))}


def revoked_serials(connection: sa.Connection) -> dict[str, str]:
    """Every revoked certificate -> its device. None is forgotten when its time is over: a clock may be wrong."""
    query = sa.select(certificate.c.serial, certificate.c.device).where(certificate.c.revoked_at_ms.is_not(None))
    return {row.serial: row.device for row in connection.execute(query)}


def revoke(connection: sa.Connection, name: str, *, why: str, samples_left_out: bool, now_ms: int) -> int:
    """Shut a device out: its certificates and tokens are good no more. Returns the number of its certificates."""
    connection.execute(
        sa.insert(revocation).values(device=name, at_ms=now_ms, why=why, samples_left_out=samples_left_out)
    )
    connection.execute(sa.delete(token).where(token.c.device == name, token.c.used_at_ms.is_(None)))
    connection.execute(sa.update(device).where(device.c.name == name).values(online=False))
    return supersede(connection, name, now_ms=now_ms)


def readmit(connection: sa.Connection, name: str, *, now_ms: int) -> None:
    """A revoked device may be enrolled again. What was left out stays left out, and old certificates stay revoked."""
    mine = (revocation.c.device == name, revocation.c.readmitted_at_ms.is_(None))
    connection.execute(sa.update(revocation).where(*mine).values(readmitted_at_ms=now_ms))


def revoked(connection: sa.Connection) -> frozenset[str]:
    """The devices that are shut out now."""
    return frozenset(name for (name,) in _REVOKED.ask(connection))


_REVOKED = Question(lambda _: sa.select(revocation.c.device).where(revocation.c.readmitted_at_ms.is_(None)))


def history(connection: sa.Connection) -> list[Revocation]:
    """Every revocation there was, the first first."""
    return [Revocation(*row[1:]) for row in connection.execute(sa.select(revocation).order_by(revocation.c.id))]


def left_out() -> sa.ColumnElement[bool]:
    """Of a row of `sample`: whether it came from a device that was revoked later, its samples with it."""
    query = sa.select(revocation.c.id).where(
        revocation.c.device == sample.c.device,
        revocation.c.samples_left_out,
        sample.c.received_at_ms <= revocation.c.at_ms,
    )
    return sa.and_(sample.c.origin == "device", sa.exists(query))


def names(connection: sa.Connection) -> list[str]:
    """Of every device that was seen, enrolled or is to be."""
    query = sa.union(sa.select(device.c.name), sa.select(certificate.c.device), sa.select(token.c.device))
    return sorted(connection.scalars(query))
