"""Which class does a word name?

Of the label schema, which only grows, or one of the two answers that are no class.
"""

from __future__ import annotations

from collections.abc import Mapping

import sqlalchemy as sa

from edge_agent.contract.errors import did_you_mean
from server.errors import LabelError
from server.label.labeler import CANNOT_TELL, NAME_MAX, NONE_OF_THESE, is_name
from server.store import labels, wording

WORDS = {word: index for index, word in wording.WORDS.items()}


def class_index_of(connection: sa.Connection, said: str, *, new: bool = False) -> int:
    """Index of a class, added with `new` where it is not known, or of what is none; LabelError when it is neither."""
    if said in WORDS:
        return WORDS[said]
    names = labels.names(connection)
    if said in names:
        return names.index(said)
    if not new:
        raise LabelError(
            f"class {said!r}: not known{did_you_mean(said, names)}; known are {', '.join(names) or 'none'}. "
            "One that is new has to be said to be: --new-class, or `winnow-server label classes --add`"
        )
    return add_class(connection, said)


def index_of(answer: str | int | None, known: Mapping[str, int], *, who: str) -> int:
    """Index of what a labeler said, of a class or of what is none; LabelError: its index is of no class."""
    if answer is None:
        return labels.CANNOT_TELL
    if isinstance(answer, str):
        return WORDS[answer] if answer in WORDS else known[answer]
    if answer >= len(known):
        raise LabelError(f"labeler {who}: answered class {answer}, known are 0..{len(known) - 1}")
    return answer


def add_class(connection: sa.Connection, name: str) -> int:
    """Index of a new class, or of the one of that name; LabelError when nothing can be called so."""
    if not is_name(name):
        raise LabelError(
            f"class {name!r}: expected a name of 1 to {NAME_MAX} characters, without blanks around it, "
            f"and neither {CANNOT_TELL!r} nor {NONE_OF_THESE!r}"
        )
    return labels.ensure_names(connection, [name])[name]
