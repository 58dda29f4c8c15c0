"""How right was a model, of what it said of a labelled sample?

A score of 0..1 (edge_agent/contract/score.py): of a class 1 or 0; where the truth is more than a class, by what came
with the sample, and by the terms that the metrics of its version state. A device that sent no word of it (an older
agent, or a model of another task) cannot be scored.
"""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
import sqlalchemy as sa
from numpy.typing import NDArray

from edge_agent.contract import score
from edge_agent.contract.task import Said, truth_of
from server.store import labels, versions
from server.store.consensus import VALUED
from server.store.schema import consensus, sample

COLUMNS = (sample.c.predicted, sample.c.model_version, sample.c.said, consensus.c.class_index, consensus.c.truth)
"""What a row needs to be scored."""


class Scorer:
    """Scores rows with the COLUMNS, of one moment."""

    def __init__(self, connection: sa.Connection) -> None:
        self._connection = connection
        self._classes = len(labels.names(connection))
        self._terms: dict[int, dict[str, float]] = {}

    def of(self, rows: list[Any]) -> NDArray[np.float64]:
        """(N,) 0..1."""
        return np.array([self._score(row) for row in rows], np.float64)

    def _score(self, row: Any) -> float:
        if row.class_index != VALUED:
            return float(row.class_index == row.predicted)
        said = msgspec.convert(row.said, Said)
        terms = self._terms_of(row.model_version)
        return score.of_said(said, truth_of(row.truth), classes=self._classes, terms=terms)

    def _terms_of(self, number: int) -> dict[str, float]:
        if number not in self._terms:
            version = versions.get(self._connection, number)
            self._terms[number] = version.metrics if version else {}
        return self._terms[number]
