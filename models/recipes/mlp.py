"""Which net learns from a row of a table?"""

from __future__ import annotations

from torch import nn

from models.net import EMBEDDING, Parts, Prepare, Shape


def mlp(shape: Shape) -> Parts:
    """Vectors (D,), each number standardised; two hidden layers."""
    body = nn.Sequential(nn.Linear(shape[0], EMBEDDING), nn.ReLU(), nn.Linear(EMBEDDING, EMBEDDING), nn.ReLU())
    return Parts(Prepare("vector", shape), body, EMBEDDING)
