"""What can be forgotten?"""

from __future__ import annotations

from typing import Literal, NamedTuple

import sqlalchemy as sa

from edge_agent.contract.errors import MessageError, did_you_mean
from edge_agent.contract.types import SampleId
from edge_agent.contract.wire import PURGE_SAMPLES_MAX
from server.errors import GovernError
from server.store import identities, labelers, users
from server.store.schema import label, sample

Kind = Literal["device", "sample", "labeler"]


class Subject(NamedTuple):
    """What is to be forgotten: all of a device, some samples, or what a labeler answered."""

    kind: Kind
    names: tuple[str, ...]  # of one device, of one labeler, or ids of samples


def check(connection: sa.Connection, subject: Subject) -> None:
    """GovernError unless it is there, or may come."""
    if subject.kind == "device":
        known = identities.names(connection)
    elif subject.kind == "labeler":
        known = labelers.names(connection)
    else:
        if len(subject.names) > PURGE_SAMPLES_MAX:
            raise GovernError(f"{len(subject.names)} samples: expected {PURGE_SAMPLES_MAX} at most in one erasure")
        known = [name for name in subject.names if _is_id(connection, name)]
    for name in subject.names:
        if name not in known:
            expected = "device.stream.boot.sequence, of a device that is known" if subject.kind == "sample" else ""
            nearest = did_you_mean(name, known)
            raise GovernError(f"{subject.kind} {name!r} is unknown{nearest}{expected and f': expected {expected}'}")
        if subject.kind == "labeler" and users.is_last_admin(connection, name):
            raise GovernError(
                f"labeler {name!r}: is the last admin who may sign in, and the account would go too: "
                "winnow-server user change NAME --role admin makes somebody else one"
            )


def _is_id(connection: sa.Connection, name: str) -> bool:
    """Whether a sample of that id is here, or may still come."""
    if connection.execute(sa.select(sample.c.id).where(sample.c.id == name)).first() is not None:
        return True
    try:
        return SampleId.parse(name).device in identities.names(connection)
    except MessageError:
        return False


def chosen(subject: Subject) -> sa.Select[tuple[str]]:
    """Query of the ids of the samples it is about; for a labeler these stay, and only the answers go."""
    one = sample.alias()  # the rows of `sample` are deleted by it too
    if subject.kind == "device":
        where = sa.and_(one.c.device == subject.names[0], one.c.origin == "device")
    elif subject.kind == "sample":
        where = one.c.id.in_(subject.names)
    else:
        said = label.alias()
        where = sa.exists().where(said.c.sample_id == one.c.id, said.c.labeler == subject.names[0])
    return sa.select(one.c.id).where(where)
