"""What is a labeler shown with a question?

The sample, and what a model takes it for: the champion, where the server has run it, else the model on the device. Of
some the guess is hidden, to see how much it sways; it is kept with the lease, and with the answer.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
import sqlalchemy as sa
from numpy.typing import NDArray

from edge_agent.contract.artifact import Answer, decode_manifest
from server.store import embeddings, labels, samples, versions
from server.store.blobs import Blobs
from server.store.questions import Lease
from server.store.wording import View, named, words


class Task(NamedTuple):
    """What a labeler is shown. Why he is asked it does not say: a gold question is to look like any other."""

    sample_id: str
    row: Any  # of `sample`
    guess: str  # class by a model, or its truth in words; empty: none, or not to be shown
    guess_by: str  # that model: "version 7"
    confidence: float | None  # of the guess
    until_ms: int
    key: str  # to be sent back with the answer
    said: View | None = None  # what the device's model said beyond that, by names; None: nothing, or not to be shown

    @property
    def view(self) -> dict[str, Any]:
        """Plain data."""
        shown = {name: getattr(self.row, name) for name in ("device", "stream", "captured_at_ms", "reason")}
        return {name: value for name, value in self._asdict().items() if name != "row"} | shown


def with_guesses(connection: sa.Connection, taken: Sequence[Lease], *, hide: Callable[[], bool]) -> list[Lease]:
    """New leases with a guess, where there is one; `hide` is asked whether it is not to be shown."""
    champion = versions.champion(connection)
    ids = [one.sample_id for one in taken]
    seen = embeddings.of(connection, version=champion.number, ids=ids) if champion else {}
    rows = {row.id: row for row in samples.rows(connection, ids)}
    found = []
    for one in taken:
        row = rows[one.sample_id]
        guess, sure, by = row.predicted, row.confidence, f"version {row.model_version}"
        if (
            row.said is None
            and champion
            and one.sample_id in seen
            and (logits := seen[one.sample_id].logits) is not None
            and len(logits)
        ):
            guess, sure, by = *_top(logits), f"version {champion.number}"
        shown = guess is not None and not hide()
        new = one._replace(guess=guess, guess_by=by, confidence=sure, shown=shown)
        found.append(one if guess is None else new)
    return found


def tasks_of(connection: sa.Connection, taken: Sequence[Lease]) -> list[Task]:
    """What the labelers of these leases are shown."""
    names = labels.names(connection)
    rows = {row.id: row for row in samples.rows(connection, [one.sample_id for one in taken])}
    found = []
    for one in taken:
        guess = names[one.guess] if one.shown and one.guess is not None and one.guess < len(names) else ""
        by, sure = (one.guess_by, one.confidence) if guess else ("", None)
        key = f"{one.sample_id}:{one.labeler}:{one.at_ms}"
        said = rows[one.sample_id].said if one.shown else None
        if said is not None:
            guess, by, sure = words(said, names), one.guess_by, one.confidence
        row = rows[one.sample_id]
        found.append(Task(one.sample_id, row, guess, by, sure, one.until_ms, key, named(said, names)))
    return found


class Reading(NamedTuple):
    """How what models say is read, as the champion's manifest has it."""

    score_min: float = Answer().score_min  # of a box that counts
    units: Mapping[str, str] = MappingProxyType({})  # target -> its unit


def reading_of(connection: sa.Connection, blobs: Blobs) -> Reading:
    """The champion's, or what a manifest has that says nothing."""
    champion, answer = versions.champion(connection), Answer()
    classes: tuple[str, ...] = ()
    if champion is not None:
        manifest = decode_manifest(blobs.get(champion.manifest_sha256), where=f"version {champion.number}")
        answer, classes = manifest.answer or answer, manifest.classes
    return Reading(answer.score_min, dict(zip(classes, answer.units, strict=False)))


def _top(logits: NDArray[Any]) -> tuple[int, float]:
    """The likeliest class by logits (C,), and how sure that is, 0..1."""
    powers = np.exp(logits.astype(np.float64) - logits.max())
    return int(powers.argmax()), float(powers.max() / powers.sum())
