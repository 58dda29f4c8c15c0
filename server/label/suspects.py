"""Which labels are probably wrong?

A logistic regression on the champion's embeddings is taught with four fifths of the labels and asked about the last
fifth, in turn, so that no label is judged by a model that has seen it. What it finds is cleanlab's confident learning
(Northcutt, Jiang and Chuang, JAIR 2021): as many suspects of each class as the noise of the labels comes to, those
first whose own label is least probable. Where labels are boxes, several classes or numbers, those are suspected that
are little like what a model said that was sure of it. Somebody looks at them again, and is not told what they were;
gold, and what was looked at twice, is not suspected.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from msgspec import convert
from numpy.typing import NDArray

from edge_agent.contract.task import Said, truth_of
from server.errors import LabelError
from server.label.encoder import Encoder
from server.store import consensus, embeddings, labels
from server.store.store import Store
from server.store.truths import likeness
from server.store.wording import words

FOLDS = 5  # fewer teaches with less, more takes longer for hardly any better judge
SAMPLES = 100_000  # labelled last: more takes minutes
ALIKE = 0.5  # two truths that are less so say different things
SURE = 0.8  # confidence of a model whose word is held against a person's: lower suspects what is only hard
STEPS = 500  # of the regression: it has converged long before on what can be told apart


class Suspect(NamedTuple):
    """A label that is probably wrong."""

    sample_id: str
    labelled: str
    suggested: str  # what the others' labels make it
    own_probability: float  # of the label that it has, 0..1; of a truth: how like it is to what was suggested
    suggested_probability: float


class Found(NamedTuple):
    """Of how many labels, and which; the most suspicious first."""

    judged: int
    left_out: int  # without an embedding, or of a class with too few labels
    suspects: list[Suspect]


def find(store: Store, *, seed: int = 0, most: int = SAMPLES) -> Found:
    """Judge the labels in force. LabelError: no champion, nothing to judge by, or cleanlab is not installed."""
    with store.database.read() as connection:
        rows, names = labels.suspectable(connection, limit=most), labels.names(connection)
        scales = consensus.scales(connection)
    if any(row.truth is not None for row in rows):
        return _unlike([row for row in rows if row.truth is not None], names, scales)
    manifest = Encoder(store, waiting=0, labelled=most).catch_up(stopped=lambda: False)
    if manifest is None:
        raise LabelError("suspects: there is no champion to see samples with: train one, or `winnow-server model add`")
    with store.database.read() as connection:
        seen = embeddings.of(connection, version=manifest.version, ids=[row.id for row in rows])
    known = [row for row in rows if row.id in seen]
    y = np.array([row.class_index for row in known], np.int64)
    enough = np.isin(y, [k for k in np.unique(y) if (y == k).sum() >= FOLDS])
    kept = [row for row, ok in zip(known, enough.tolist(), strict=True) if ok]
    if len(np.unique(y[enough])) < 2:
        raise LabelError(f"suspects: {len(rows)} labels: expected two classes with {FOLDS} each that the champion sees")
    x = np.stack([np.asarray(seen[row.id].vector, np.float32) for row in kept])
    found = judge(x, y[enough], seed=seed)
    suspects = [_suspect(kept[i].id, y[enough][i], found, i, names) for i in found.suspected.tolist()]
    return Found(len(kept), len(rows) - len(kept), suspects)


def _unlike(rows: Sequence[Any], names: Sequence[str], scales: Mapping[int, float]) -> Found:
    """Truths that are little like what a sure model said; the least, and the surest, first."""
    found = []
    for row in rows:
        alike = likeness(truth_of(row.truth), convert(row.said, Said), scales=scales)
        if alike < ALIKE and (row.confidence or 0.0) >= SURE:
            said = (words(row.truth, names), words(row.said, names))
            found.append(Suspect(row.id, *said, round(alike, 4), round(row.confidence, 4)))
    found.sort(key=lambda one: (one.own_probability - one.suggested_probability, one.sample_id))
    return Found(len(rows), 0, found)


class Judged(NamedTuple):
    """What the others' labels say of each.

    classes: (C,) of the columns. probability: (N, C), by models that have not seen the row. suspected: the worst first.
    """

    classes: NDArray[np.int64]
    probability: NDArray[np.float64]
    suspected: NDArray[np.intp]


def judge(x: NDArray[np.float32], y: NDArray[np.int64], *, seed: int) -> Judged:
    """Which labels y (N,) of embeddings x (N, D) are probably wrong; every class occurs FOLDS times or more."""
    try:
        from cleanlab.filter import find_label_issues
        from sklearn.linear_model import LogisticRegression
        from sklearn.model_selection import StratifiedKFold, cross_val_predict
        from sklearn.pipeline import make_pipeline
        from sklearn.preprocessing import StandardScaler
    except ImportError as error:
        raise LabelError(f"suspects: {error}: install them with pip install 'winnow-edge[labels]'") from error
    classes, place = np.unique(y, return_inverse=True)
    folds = StratifiedKFold(FOLDS, shuffle=True, random_state=seed)
    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=STEPS))
    probability = cross_val_predict(model, x, place, cv=folds, method="predict_proba")
    suspected = find_label_issues(place, probability, return_indices_ranked_by="self_confidence", n_jobs=1)
    return Judged(classes, probability, np.asarray(suspected, np.intp))


def _suspect(sample_id: str, labelled: int, found: Judged, row: int, names: Sequence[str]) -> Suspect:
    probability: Any = found.probability[row]
    best = int(probability.argmax())
    own = int(np.searchsorted(found.classes, labelled))
    return Suspect(
        sample_id,
        names[labelled],
        names[int(found.classes[best])],
        round(float(probability[own]), 4),
        round(float(probability[best]), 4),
    )
