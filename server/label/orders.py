"""What may be decided about labels, beside answering?

Who is asked again, which class is vouched for, which class is new. Each is kept in the audit trail with who said so and
why, in the caller's transaction.
"""

from __future__ import annotations

from collections.abc import Sequence

import sqlalchemy as sa

from edge_agent.contract.task import Task
from server.errors import LabelError
from server.label.answer import Reply, meant
from server.label.classes import add_class
from server.label.queue import PERSON
from server.label.truth import Named
from server.store import consensus, labels, questions, samples, trail
from server.store.consensus import AGAIN, FIRST, SECOND_LOOK
from server.store.questions import SOON, Queued


def ask_several(connection: sa.Connection, sample_id: str, wanted: int, *, who: str, why: str, now_ms: int) -> None:
    """Have so many people answer about a sample, in all (since it was doubted), before what a plan asks.

    LabelError: it is not here, or as many have answered.
    """
    _check_here(connection, sample_id)
    known = questions.get(connection, sample_id)
    asked = known or Queued(sample_id, AGAIN, now_ms, wanted, SOON)
    if (already := questions.answered(connection, asked)) >= wanted:
        raise LabelError(f"{sample_id}: {already} people have answered it: expected more than that, got {wanted}")
    if known is None:
        questions.put(connection, [asked])
    else:
        questions.want(connection, sample_id, wanted)
    questions.make_room(connection, now_ms=now_ms)
    detail = {"labelers": wanted}
    trail.record(connection, "ask again", f"sample {sample_id}", why=why, who=who, detail=detail, now_ms=now_ms)


def ask_soon(connection: sa.Connection, ids: Sequence[str], *, who: str, why: str, now_ms: int) -> int:
    """Have somebody label samples before what a plan asks; returns how many: what is answered already is left out."""
    new = [one for one in ids if not labels.is_answered(connection, one)]
    number = questions.put(connection, [Queued(one, FIRST, now_ms, 1, SOON) for one in new])
    questions.make_room(connection, now_ms=now_ms)
    detail = {"samples": new}
    trail.record(connection, "ask soon", f"{number} samples", why=why, who=who, detail=detail, now_ms=now_ms)
    return number


def look_again(connection: sa.Connection, ids: Sequence[str], *, who: str, why: str, now_ms: int) -> int:
    """Have somebody look at labelled samples a second time: that answer takes the place of those before it."""
    number = questions.put(connection, [Queued(one, SECOND_LOOK, now_ms, 1, SOON) for one in ids])
    questions.make_room(connection, now_ms=now_ms)
    detail = {"samples": list(ids)}
    trail.record(connection, "second look", f"{number} labels", why=why, who=who, detail=detail, now_ms=now_ms)
    return number


def vouch(
    connection: sa.Connection,
    sample_id: str,
    said: str,
    *,
    truth: Named | None = None,
    task: Task = "classification",
    who: str,
    why: str,
    now_ms: int,
) -> None:
    """A sample's class (or truth, by names) is known for sure, until it is doubted: no answer changes that.

    LabelError: no such sample or class, it is "cannot tell", or no answer on a server of that task.
    """
    _check_here(connection, sample_id)
    reply = Reply(sample_id, said, truth=truth)
    found = meant(connection, reply, task=task, who=who, new=False, now_ms=now_ms)
    class_index, sure = found.class_index, found.plain
    if class_index == labels.CANNOT_TELL:
        raise LabelError(f"{sample_id}: who cannot tell cannot vouch for it: expected a class, or 'none of these'")
    asked = questions.get(connection, sample_id) or Queued(sample_id, FIRST, now_ms)
    questions.vouch(connection, sample_id, class_index, truth=sure, labeler=who, at_ms=now_ms)
    questions.drop(connection, sample_id)
    labels.add(connection, [labels.Label(sample_id, class_index, who, now_ms, kind=PERSON, truth=sure, **asked.drawn)])
    labels.spare(connection, dict.fromkeys(asked.beside, sample_id))
    detail = {"class": said} if sure is None else {"truth": sure}
    trail.record(connection, "vouch", f"sample {sample_id}", why=why, who=who, detail=detail, now_ms=now_ms)


def doubt(connection: sa.Connection, sample_id: str, *, who: str, why: str, now_ms: int) -> None:
    """It is gold no more: its labels decide. LabelError: it was none."""
    if not questions.doubt(connection, sample_id):
        raise LabelError(f"{sample_id}: is no gold sample: `winnow-server label gold list` names them")
    consensus.resolve(connection, [sample_id])
    trail.record(connection, "doubt", f"sample {sample_id}", why=why, who=who, now_ms=now_ms)


def new_class(connection: sa.Connection, name: str, *, who: str, why: str, now_ms: int) -> None:
    """The label schema has a class more. LabelError: nothing can be called so."""
    detail = {"index": add_class(connection, name)}
    trail.record(connection, "add class", f"class {name}", why=why, who=who, detail=detail, now_ms=now_ms)


def _check_here(connection: sa.Connection, sample_id: str) -> None:
    if sample_id not in samples.body_names(connection, [sample_id]):
        raise LabelError(f"{sample_id}: no such sample: it was erased, or its id is another")
