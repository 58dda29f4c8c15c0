"""What is an answer for?

    gold          to measure who gives it
    second look   the label was doubted: the answer takes the place of what was said before it. Of several to one doubt
                  the first does; the others join it. Whoever had the question when it was doubted looks a second time
    first         there was no label
    again         another opinion

Decided when the answer comes, by what is asked then. Whoever was not asked, and answers where there is a label already,
corrects it, which is a second look; but for people elsewhere, who see a task as often as they are shown it.
"""

from __future__ import annotations

import sqlalchemy as sa

from server.store import labels, questions
from server.store.consensus import AGAIN, FIRST, GOLD, SECOND_LOOK
from server.store.questions import Lease, Queued


def purpose_of(
    connection: sa.Connection, sample_id: str, held: Lease | None, asked: Queued | None, *, corrects: bool
) -> str:
    """Of an answer about a sample that its labeler has, or has not, and that is asked about, or is not.

    `corrects`: it was not given elsewhere.
    """
    if held is not None and held.purpose == GOLD:
        return GOLD
    if asked is not None and asked.purpose == SECOND_LOOK:
        return AGAIN if questions.answered(connection, asked) else SECOND_LOOK
    if not labels.is_answered(connection, sample_id):
        return asked.purpose if asked is not None else FIRST
    return SECOND_LOOK if corrects and held is None and asked is None else AGAIN
