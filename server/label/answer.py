"""What does a labeler's answer mean, and what does it come to?

Said by names; kept by indices. A class that is new, and is said to be, goes into the audit trail.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import sqlalchemy as sa

from edge_agent.contract.task import Task, Truth, plain
from server.errors import LabelError
from server.label.classes import WORDS, class_index_of, index_of
from server.label.labeler import CANNOT_TELL, Answer, Later
from server.label.truth import Named, names_in, read, refuse_class
from server.store import labels, trail
from server.store.consensus import GOLD
from server.store.wording import in_words, named, words


class Reply(NamedTuple):
    """An answer, as a labeler gives it."""

    sample_id: str
    said: str  # a class's name, CANNOT_TELL or NONE_OF_THESE; "" with a truth
    seconds: float | None = None  # that it took; None: since it was leased
    key: str | None = None  # of the task; an answer with a key that is here already changes nothing
    truth: Named | None = None  # more than a class, by names (truth.py)


class Outcome(NamedTuple):
    """What an answer came to."""

    sample_id: str
    said: str
    in_force: str
    confidence: float | None
    labelers: int
    truth: Mapping[str, object] | None = None  # in force, by names


class Meant(NamedTuple):
    """An answer as it is kept."""

    class_index: int
    truth: Truth | None = None

    @property
    def plain(self) -> dict[str, object] | None:
        """The truth as the store has it."""
        return None if self.truth is None else plain(self.truth)


def meant(connection: sa.Connection, one: Reply, *, task: Task, who: str, new: bool, now_ms: int) -> Meant:
    """What a reply means.

    Args:
        connection: that writes.
        one: the reply.
        task: of the server.
        who: says so.
        new: a name that is not known is a new class, and not a slip.
        now_ms: the time.

    Raises:
        LabelError: there is no such class, or it is no answer on a server of that task.
    """

    def index(said: str) -> int:
        known = len(labels.names(connection))
        found = class_index_of(connection, said, new=new)
        if found >= known:
            detail, why = {"index": found}, f"said of sample {one.sample_id}"
            trail.record(connection, "add class", f"class {said}", why=why, who=who, detail=detail, now_ms=now_ms)
        return found

    if one.truth is not None:
        return Meant(labels.VALUED, read(one.truth, {said: index(said) for said in names_in(one.truth)}, task=task))
    refuse_class(one.said, task)
    return Meant(index(one.said))


def names_of(answer: Answer) -> list[str]:
    """The classes that a program's answer names."""
    if isinstance(answer, Mapping):
        return names_in(answer)
    return [answer] if isinstance(answer, str) and answer not in WORDS else []


def meant_by(answer: Answer, known: Mapping[str, int], *, task: Task, who: str) -> Meant:
    """What a program's answer means; LabelError when it is none on a server of that task. known: class -> index."""
    if isinstance(answer, Mapping):
        return Meant(labels.VALUED, read(answer, known, task=task))
    if isinstance(answer, Later):
        raise LabelError(f"labeler {who}: its answer is to come")
    refuse_class(CANNOT_TELL if answer is None else str(answer), task)
    return Meant(index_of(answer, known, who=who))


def outcome(connection: sa.Connection, labeler: str, one: Reply) -> Outcome:
    """Of a gold question what a first answer comes to: nobody is to see by what he is measured."""
    found = labels.standing(connection, one.sample_id)
    said = one.said if one.truth is None else words(one.truth, ())
    if found is None:  # taken back meanwhile
        return Outcome(one.sample_id, said, "", None, 0)
    if labels.purpose_of(connection, one.sample_id, labeler) == GOLD:
        return Outcome(one.sample_id, said, said, None, 1, one.truth)
    names = labels.names(connection)
    in_force = in_words(found.class_index, found.truth, names)
    return Outcome(one.sample_id, said, in_force, found.confidence, found.labelers, named(found.truth, names))
