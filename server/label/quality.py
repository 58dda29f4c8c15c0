"""How good are the labelers, and what do their labels cost?

Of each: answers, minutes and money; how many gold questions were answered rightly, with a Wilson interval; how many
answers are in force where others answered too; and the accuracy that follows from all samples which several answered,
by agreement.py. Of a model that labels by itself: its share, and how often people disagree, on samples drawn at random
from what it labelled. Of the guesses that people are shown: how much oftener they agree with one that they see.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa

from server.store import agreement, consensus, labelers, questions
from server.store.consensus import MODELS
from server.store.labelers import Effort, Score

View = dict[str, Any]


def of_labelers(connection: sa.Connection) -> list[View]:
    """One row to each labeler."""
    gold, others = labelers.by_gold(connection), labelers.by_consensus(connection)
    counts = consensus.refit(connection)
    rows = []
    for one in labelers.efforts(connection):
        rates = counts.get(one.labeler)
        known = rates is not None and rates.sum() > 0.0
        rows.append(
            {"labeler": one.labeler, "kind": one.kind, "answers": one.answers, "undone": one.undone}
            | _cost(one)
            | _scored("gold", gold.get(one.labeler, Score(0, 0)))
            | _scored("in_force", others.get(one.labeler, Score(0, 0)))
            | {
                "estimated_accuracy": float(agreement.accuracy_of(rates[None])[0])
                if known and rates is not None
                else None
            }
        )
    return rows


def of_models(connection: sa.Connection) -> list[View]:
    """One row to each model that labels: its share of all labels but imports, and its error by people."""
    checks = labelers.models_against_people(connection)
    efforts = [one for one in labelers.efforts(connection) if one.kind != "import"]
    total = sum(one.answers for one in efforts)
    return [
        {"model": one.labeler, "labels": one.answers, "share": one.answers / max(total, 1)}
        | _wrong(checks.get(one.labeler, Score(0, 0)))
        for one in efforts
        if one.kind in MODELS
    ]


def of_guesses(connection: sa.Connection) -> View:
    """How often people answer what a model guessed, where they saw it and where they did not."""
    by = labelers.by_guess(connection)
    shown, blind = by.get(True, Score(0, 0)), by.get(False, Score(0, 0))
    both = shown.n and blind.n
    sway = shown.right / shown.n - blind.right / blind.n if both else None
    return _scored("shown", shown) | _scored("blind", blind) | {"sway": sway}


def effort(connection: sa.Connection, *, since_ms: int, currency: str) -> View:
    """What labelling took: by kind of labeler, and what is at hand."""
    rows = labelers.efforts(connection, since_ms=since_ms)
    kinds = dict.fromkeys(one.kind for one in rows if one.kind != "import")
    return {
        "currency": currency,
        "kinds": [_together(kind, [one for one in rows if one.kind == kind]) for kind in kinds],
        "minutes": round(sum(one.seconds for one in rows) / 60.0, 2),
        "price": round(sum(one.price for one in rows), 4),
    }


def effort_line(view: View) -> str:
    """What labelling took, and what stands in the queue, for people."""
    queued = ", ".join(f"{number} {purpose}" for purpose, number in view["queue"].items()) or "nothing"
    at_hand = ", ".join(f"{number} with {labeler}" for labeler, number in view["leased"].items())
    spent = f"{view['minutes']:.1f} label-minutes, {view['price']:.2f} {view['currency']}"
    return f"{spent}; in the queue: {queued}{', of them ' + at_hand if at_hand else ''}"


def at_hand(connection: sa.Connection, *, now_ms: int) -> View:
    """What stands in the queue, and who has what."""
    return {"queue": questions.count(connection), "leased": questions.leased(connection, now_ms=now_ms)}


def _together(kind: str, rows: Sequence[Effort]) -> View:
    answers, seconds, price = (sum(getattr(one, name) for one in rows) for name in ("answers", "seconds", "price"))
    return {
        "kind": kind or "not said",
        "labelers": len(rows),
        "answers": answers,
        "cannot_tell": sum(one.cannot_tell for one in rows),
        "minutes": round(seconds / 60.0, 2),
        "price": round(price, 4),
        "seconds_each": round(seconds / answers, 2) if answers else None,
        "price_each": round(price / answers, 4) if answers else None,
    }


def _cost(one: Effort) -> View:
    return {"minutes": round(one.seconds / 60.0, 2), "price": round(one.price, 4)}


def _scored(name: str, found: Score) -> View:
    from models.evaluate import wilson_interval

    low, high = wilson_interval(found.right, found.n)
    share = found.right / found.n if found.n else None
    return {
        name: share,
        f"{name}_n": found.n,
        f"{name}_low": low if found.n else None,
        f"{name}_high": high if found.n else None,
    }


def _wrong(found: Score) -> View:
    """As an error: what people did not confirm."""
    return _scored("error", Score(found.n - found.right, found.n))
