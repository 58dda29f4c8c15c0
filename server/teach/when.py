"""Is it time to teach?

    by hand    somebody asked for it
    erasure    the version in force learned from what was erased since, and no round has begun after that
    harm       the labels say that the version in force errs more than when it was published (harm.py)
    labels     enough new ones
    age        the version is old, and there are at least some new labels

Without a single new label nothing is due but the first two: the same data would give the same model. Where a round has
set out from the version in force already, and it still is, harm and age wait for more of them: with one label more the
next would come to nothing as well. Pure.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

from server import config
from server.teach.harm import Harm

Rule = Literal["hand", "erasure", "harm", "labels", "age"]

AGAIN_SHARE = 0.1
"""Part of `labels_per_round` that another round for harm or age waits for: less trains for nothing again and again,
more leaves a harmful version in force for longer."""


class Look(NamedTuple):
    """What the rules look at."""

    new_labels: int  # from devices, since the last round
    age_days: float  # of the version in force; 0: there is none
    harm: Harm | None = None
    tried: bool = False  # a round has set out from that version, and it is in force all the same
    erased: str = ""  # version and erasure, where the one learned from the other; empty: it did not
    asked_by: str = ""  # who asked for a round; empty: nobody
    asked_why: str = ""


class Due(NamedTuple):
    """Why a round is due."""

    rule: Rule
    why: str


def due(rules: config.Teach, look: Look) -> Due | None:
    """The first rule that holds; None: nothing to do.

    >>> due(config.Teach(labels_per_round=200), Look(new_labels=210, age_days=1.0)).why
    '210 new labels, 200 start a round'
    """
    if look.asked_by:
        return Due("hand", f"{look.asked_by} asked for it: {look.asked_why}")
    if look.erased:
        return Due("erasure", look.erased)
    if look.new_labels < max(1.0, AGAIN_SHARE * rules.labels_per_round if look.tried else 0.0):
        return None
    if look.harm is not None and look.harm.alarm_at is not None:
        harm = look.harm
        return Due(
            "harm",
            f"version {harm.version} is wrong in {harm.errors} of {harm.labels} labels of the audit, "
            f"{harm.allowed:.1%} is allowed: such evidence comes once in {harm.evidence:.2g} labels without harm",
        )
    if look.new_labels >= rules.labels_per_round:
        return Due("labels", f"{look.new_labels} new labels, {rules.labels_per_round} start a round")
    if rules.max_age_days and look.age_days >= rules.max_age_days:
        return Due("age", f"the version is {look.age_days:.1f} days old, with {look.new_labels} new labels")
    return None
