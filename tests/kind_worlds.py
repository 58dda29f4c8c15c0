"""Real data of other kinds than pictures, a class each.

table   569 biopsies by 30 measurements: malignant or benign (scikit-learn's `load_breast_cancer`; Street et al. 1993)
text    800 mails in the order in which they came, July to October 2002: wanted or spam (models/mail.py)
sound   500 prompts of a telephone exchange, half a second each: which of five languages (models/voices.py)
watch   500 windows of 2 s of a smartwatch: which of seven exercises (seglearn's; models/data.py)

Mail and voices are those that `python -m models.data fetch` keeps, as `make setup` does; where it could not, the test
is skipped.
"""

from __future__ import annotations

import calendar
from typing import Literal, get_args

import numpy as np
import pytest
from task_worlds import World

from models import data
from models.errors import DataError

Kind = Literal["table", "text", "sound", "watch"]
KINDS: tuple[Kind, ...] = get_args(Kind)
STEPS = 4_000
FROM, TO = (calendar.timegm((2002, month, 1, 0, 0, 0)) for month in (7, 11))


def world(kind: Kind) -> World:
    """Shuffled, but for mail."""
    return {"table": _biopsies, "text": _mails, "sound": _voices, "watch": _exercises}[kind]()


def _biopsies() -> World:
    found = pytest.importorskip("sklearn.datasets").load_breast_cancer()
    order = np.random.default_rng(3).permutation(len(found.target))
    x, y = found.data.astype(np.float32)[order], found.target[order]
    return _world(x, y, ("malignant", "benign"), {"recipe": "mlp", "epochs": 12, "batch_size": 32})


def mails(count: int) -> data.Labelled:
    """So many of July to October, evenly."""
    found = fetched("mail")
    assert found.t is not None
    rows = np.flatnonzero((found.t >= FROM) & (found.t < TO))
    return found.take(rows[np.linspace(0, len(rows) - 1, count).astype(int)])


def _mails(count: int = 800) -> World:
    some = mails(count)
    return _world(some.x[:, :256], some.y, some.names, {"recipe": "text", "epochs": 6})


def _voices(count: int = 500) -> World:
    found = fetched("voices")
    some = found.take(np.random.default_rng(3).permutation(len(found.y))[:count])
    return _world(some.x[:, :STEPS], some.y, some.names, {"recipe": "audio8k", "epochs": 5})


def _exercises(count: int = 500) -> World:
    try:
        found = data.load_watch()
    except DataError as error:
        pytest.skip(str(error))
    some = found.take(np.random.default_rng(3).permutation(len(found.y))[:count])
    return _world(some.x, some.y, some.names, {"epochs": 6})


def fetched(name: str) -> data.Labelled:
    try:
        return data.load_fetched(name, data.default_cache())
    except DataError as error:
        pytest.skip(str(error))


def _world(x: np.ndarray, y: np.ndarray, names: tuple[str, ...], told: dict[str, object]) -> World:
    return World("classification", names, x, [int(label) for label in y], told)
