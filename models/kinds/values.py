"""Regression: a number for each of K targets, with its spread.

logits (N, K) are means and `spread` (N, K) log variances; or logits (N, T, K) are the means of T heads, whose variance
is what they differ by, beside what they state on average where there is a `spread` (N, T, K). The root of it all, times
the temperature, is the standard deviation.
"""

from __future__ import annotations

import math

import numpy as np

from edge_agent.choose.tasks.regression import Regression as Scores
from edge_agent.contract import score
from edge_agent.contract.artifact import Answer
from edge_agent.contract.task import Task
from models import evaluate
from models.data import require_truth
from models.kinds.kind import Array, Expected, Floats, Outputs, said_by, shape_error

COVERED_SD = 1.645  # within which nine in ten of a normal distribution lie


class Regression:
    """Numbers."""

    task: Task = "regression"

    def __init__(self, names: tuple[str, ...], answer: Answer) -> None:
        self.names, self.answer = names, answer
        self.scale = np.array(answer.scale or (1.0,) * len(names), np.float64)

    def check(self, outputs: Outputs) -> None:
        """As of Kind."""
        shape, targets = outputs.logits.shape, len(self.names)
        if len(shape) not in (2, 3) or shape[-1] != targets:
            raise shape_error("logits", shape, f"(N, {targets}): one for each name, or (N, T, {targets}) of T heads")
        if outputs.more is not None and outputs.more.shape != shape:
            raise shape_error(self.answer.spread, outputs.more.shape, f"{shape}, as the means")
        if outputs.more is None and len(shape) == 2:
            raise shape_error("logits", shape, f"(N, T, {targets}) of T heads, or a second output of log variances")

    def check_truth(self, y: Array, samples: int) -> None:
        """As of Kind."""
        require_truth(y, self.task, samples=samples, classes=len(self.names))

    def read(self, outputs: Outputs, temperature: float = 1.0) -> tuple[Floats, Floats]:
        """(N, K) mean and sd."""
        heads = np.asarray(outputs.logits, np.float64)
        heads = heads if heads.ndim == 3 else heads[:, None]
        variance = heads.var(axis=1)
        if outputs.more is not None:
            stated = np.exp(np.asarray(outputs.more, np.float64))
            variance = variance + (stated.mean(axis=1) if stated.ndim == 3 else stated)
        return heads.mean(axis=1), np.sqrt(variance) * temperature

    def temperature(self, outputs: Outputs, y: Array) -> float:
        """One factor on every sd (Levi et al. 2022)."""
        return evaluate.worthwhile_temperature(np.stack(self.read(outputs), axis=1), y, each=nll)

    def score(self, outputs: Outputs, y: Array) -> Floats:
        """Nearness in units of the target's scale."""
        return score.of_values(self.read(outputs)[0], y, self.scale) * outputs.sound

    def agreement(self, ours: Outputs, theirs: Outputs) -> float:
        """How near the one's numbers are to the other's."""
        return float(self.score(ours, self.read(theirs)[0]).mean())

    def metrics(self, outputs: Outputs, y: Array, temperature: float) -> dict[str, float]:
        """As of Kind. mae, rmse: of each target, in its unit; coverage: share of truths within 1.64 sd, to be .9."""
        mean, sd = self.read(outputs, temperature)
        off = mean - y
        coverage = np.nanmean(np.where(np.isfinite(y), np.abs(off) <= COVERED_SD * sd, np.nan))
        found = {"accuracy": float(self.score(outputs, y).mean()), "coverage": float(coverage)}
        for k, name in enumerate(self.names):
            found[f"mae/{name}"] = float(np.nanmean(np.abs(off[:, k])))
            found[f"rmse/{name}"] = math.sqrt(float(np.nanmean(np.square(off[:, k]))))
        likely = nll(np.stack([mean, sd], axis=1), y, 1.0)
        terms = score.terms_of(scale=self.scale.tolist())
        return found | terms | {"nll": float(likely.mean()), "samples": float(len(y))}

    def expected(self, outputs: Outputs, temperature: float) -> Expected:
        """By the device's own adapter."""
        members = outputs.logits.shape[1] if outputs.logits.ndim == 3 else 1
        adapter = Scores("margin", temperature=temperature, members=members, scale=self.answer.scale)
        return said_by(adapter.score(outputs.logits, outputs.more))


def nll(said: Array, y: Array, factor: float) -> Floats:
    """(N,) negative log likelihood of y (N, K) under normal distributions, in nats to a target that is known.

    said: (N, 2, K) mean and sd; factor: on the sd.
    """
    variance = np.maximum(np.square(said[:, 1] * factor), 1e-12)
    each = 0.5 * (np.log(2.0 * np.pi * variance) + np.square(said[:, 0] - y) / variance)
    known = np.isfinite(y)
    found: Floats = np.where(known, each, 0.0).sum(axis=1) / np.maximum(known.sum(axis=1), 1)
    return found
