"""What is asked about next?

Reads what waits, what the champion makes of it and what is known of labels, lets plan.py choose, and says for each
question what else need not be asked once it is answered. `arrival` looks at none of that.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import sqlalchemy as sa
from numpy.typing import NDArray

from edge_agent.contract.artifact import Manifest
from server.label import plan as rules
from server.label.encoder import Encoder
from server.label.plan import Evidence, Labelled, Waiting
from server.store import embeddings, labels
from server.store.embeddings import Embedding
from server.store.labels import Answered
from server.store.samples import AUDIT_REASONS
from server.store.store import Store

log = logging.getLogger(__name__)

CANDIDATES = 10_000  # the newest that are drawn from: fewer passes over what a busy day brings, more slows every draw
LABELLED = 2_000  # the newest that candidates are held against: fewer asks old things anew, more costs a run of each
TIMES_KNOWN = 10.0  # labels at which a class's own mean time weighs as much as everybody's; fewer follows single clicks


class Asked(NamedTuple):
    """A row of `sample`, 1 / weight of being asked about, and the ids of what shows the same and need not be."""

    row: Any
    probability: float | None
    beside: tuple[str, ...] = ()


class Chooser:
    """One strategy over one store."""

    def __init__(
        self,
        store: Store,
        *,
        strategy: str,
        rng: np.random.Generator,
        exploration: float,
        duplicate_cosine: float,
    ) -> None:
        """`strategy`: "arrival", "auto" (what the evidence favours) or one of choice.STRATEGIES."""
        self._store = store
        self._strategy = strategy
        self._rng = rng
        self._exploration = exploration
        self._min_cosine = duplicate_cosine
        self._behind = False
        self._encoder = Encoder(store, waiting=CANDIDATES, labelled=LABELLED)

    def keep_up(self, *, stopped: Callable[[], bool]) -> Manifest | None:
        """Run the champion over what is new; its manifest, or None where there is none to go by."""
        return None if self._strategy == "arrival" else self._encoder.catch_up(stopped=stopped)

    def everything(self, count: int, *, champion: Manifest | None) -> list[Asked]:
        """The next `count` where all will be asked in the end: the order is all that is chosen, nothing is spared."""
        if self._strategy == "arrival":
            with self._store.database.read() as connection:
                return [Asked(row, 1.0) for row in labels.waiting(connection, limit=count)]
        return [asked._replace(probability=1.0) for asked in self._chosen(count, champion, min_cosine=None)]

    def within(self, count: int, *, champion: Manifest | None) -> list[Asked]:
        """The `count` labels that there is room for, of all that waits; what need not be asked is spared."""
        if self._strategy == "arrival":
            with self._store.database.read() as connection:
                return [Asked(row, None) for row in labels.waiting(connection, limit=count)]
        return self._chosen(count, champion, min_cosine=self._min_cosine)

    def _chosen(self, count: int, champion: Manifest | None, *, min_cosine: float | None) -> list[Asked]:
        if count == 0:
            return []
        if champion is not None and champion.task != "classification":
            champion = None  # there are no probabilities of classes: what devices said decides
        with self._store.database.read() as connection:
            rows = labels.waiting(connection, limit=CANDIDATES, newest=True)
            known = _encoded(connection, champion, [row.id for row in rows])
            answered = labels.last_answered(connection, limit=LABELLED)
            seen = _encoded(connection, champion, [row.id for row in answered])
            by_class = labels.by_class(connection)
        if not rows:
            return []
        waiting = _waiting(rows, known, champion, by_class)
        labelled = Labelled(
            [row.body_sha256 for row in answered], _stacked(answered, seen, waiting.embeddings.shape[1])
        )
        made = rules.plan(
            waiting,
            labelled,
            count,
            strategy=self._favoured(waiting, champion, by_class),
            rng=self._rng,
            exploration=self._exploration,
            min_cosine=min_cosine,
        )
        self._say_behind(int(waiting.audit.sum() - waiting.audit[made.rows].sum()), count)
        return self._asked(rows, [row.id for row in answered], made)

    def _say_behind(self, left: int, count: int) -> None:
        """Once, that the audit gets more samples than labels."""
        if left > count and not self._behind:
            log.warning(
                "%d samples of the audit wait for more labels than labels_per_day leaves them: accuracy rests on those "
                "that are labelled; allow more labels, or lower the devices' floor_share",
                left,
            )
        self._behind = left > count

    def _asked(self, rows: Sequence[Any], answered: Sequence[str], made: rules.Plan) -> list[Asked]:
        """The plan by ids; what stands with a labelled sample is spared at once."""
        beside: dict[int, list[str]] = {}
        spared = {}
        for row, other in enumerate(made.stands_with.tolist()):
            if other >= len(rows):
                spared[rows[row].id] = answered[other - len(rows)]
            elif other != row:
                beside.setdefault(other, []).append(rows[row].id)
        if spared:
            with self._store.database.write() as connection:
                labels.spare(connection, spared)
        picks = zip(made.rows.tolist(), made.probability.tolist(), strict=True)
        return [Asked(rows[row], p, tuple(beside.get(row, ()))) for row, p in picks]

    def _favoured(self, waiting: Waiting, champion: Manifest | None, by_class: Mapping[str, Answered]) -> str:
        if self._strategy != "auto":
            return self._strategy
        if champion is None:
            return "gumbel"  # nothing to go by but what devices said
        accuracy = champion.metrics.get("candidate_stream_accuracy", champion.metrics.get("accuracy"))
        counts = np.array([by_class[name].labels if name in by_class else 0 for name in champion.classes])
        return rules.favoured(waiting.probabilities[waiting.encoded], Evidence(accuracy, counts))


def _encoded(connection: sa.Connection, champion: Manifest | None, ids: Sequence[str]) -> dict[str, Embedding]:
    return embeddings.of(connection, version=champion.version, ids=ids) if champion else {}


def _waiting(
    rows: Sequence[Any],
    known: Mapping[str, Embedding],
    champion: Manifest | None,
    by_class: Mapping[str, Answered],
) -> Waiting:
    encoded = np.array([row.id in known for row in rows], np.bool_)
    some = next(iter(known.values()), None)
    width = 0 if some is None or some.vector is None else len(some.vector)
    probabilities = np.zeros((len(rows), len(champion.classes) if champion else 0), np.float32)
    if encoded.any():
        logits = np.array([known[row.id].logits for row in rows if row.id in known], np.float32)
        logits = np.exp(logits - logits.max(axis=1, keepdims=True))
        probabilities[encoded] = logits / logits.sum(axis=1, keepdims=True)
    times = _times(champion, by_class)
    price = None
    if times is not None and encoded.any():
        price = np.ones(len(rows), np.float32)
        price[encoded] = rules.price_of(probabilities[encoded], times)
    return Waiting(
        audit=np.array([row.reason in AUDIT_REASONS for row in rows], np.bool_),
        utility=np.array([row.utility or 0.0 for row in rows], np.float32),
        bodies=[row.body_sha256 for row in rows],
        encoded=encoded,
        embeddings=_stacked(rows, known, width),
        probabilities=probabilities,
        price=price,
    )


def _stacked(rows: Sequence[Any], known: Mapping[str, Embedding], width: int) -> NDArray[np.float32]:
    """(N, width) embedding of each, 0 where there is none."""
    stacked = np.zeros((len(rows), width), np.float32)
    for i, row in enumerate(rows):
        if width and row.id in known:
            stacked[i] = known[row.id].vector
    return stacked


def _times(champion: Manifest | None, by_class: Mapping[str, Answered]) -> NDArray[np.float64] | None:
    """(C,) mean seconds of a person's answer, drawn to the mean of all where there are few; None where unknown."""
    timed, seconds = (sum(getattr(one, key) for one in by_class.values()) for key in ("timed", "seconds"))
    if champion is None or not timed:
        return None
    mean = seconds / timed
    nobody = Answered(0, 0, 0.0)
    own = [by_class.get(name, nobody) for name in champion.classes]
    return np.array([(one.seconds + TIMES_KNOWN * mean) / (one.timed + TIMES_KNOWN) for one in own])
