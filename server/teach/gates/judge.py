"""May the candidate replace the champion?

Pure: what was measured goes in, a verdict comes out. Both are judged as shipped (int8, on onnxruntime), on the same
samples, so every figure is a paired difference, of scores of 0..1 (held.py). A class that the champion does not know
counts as wrong for it.

    contract              same input, classes only added, finite and as stated on the golden inputs
    held_out              is there anything to judge by?                        fails below min_samples
    stream                does it gain on the stream?                           fails when the upper end < min_gain
    import                does it keep what it knew?                            lower end >= -max_drop, where it can be
    stream/..., import/.. slices (slices.py), macro F1, calibration, Brier, negative flips (answers.py); of several
                          classes, numbers and boxes: several.py, values.py, detected.py
    forgetting/version v  what an earlier version knew, on what was held out then
    robustness, strangers bad input (hardship.py)
    int8_agreement        did quantisation change what it says?                 >= min_int8_agreement
    int8_accuracy         or how right it is?
    labels/...            whose labels contradict everybody else's (trust.py)
    latency/b, size/b     what a board bears (budgets.py)

A gate blocks on what the data do show; the verdict passes when none did. docs/gates.md has every formula.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from server.config import Gates
from server.teach.gates import budgets, paired
from server.teach.gates.answers import Said, judge_answers
from server.teach.gates.budgets import Cost
from server.teach.gates.detected import Detected, judge_detected
from server.teach.gates.hardship import Disturbed, Strange, judge_disturbed, judge_strange
from server.teach.gates.held import Held, Names
from server.teach.gates.paired import Difference, Floats
from server.teach.gates.several import Several, judge_several
from server.teach.gates.slices import judge_slices
from server.teach.gates.trust import Labelled, judge_labels
from server.teach.gates.values import Values, judge_values
from server.teach.gates.verdict import Gate, GateState, Verdict, at_least, checked, gate

Answers = Said | Several | Values | Detected

SHARP = 0.6
"""Of max_drop, half an interval: if it is wider, more than one in ten candidates that are every bit as good would be
turned down for want of proof (1.96 / (1.96 + 1.28)); far less than this, and losses are let through for want of it."""


class Int8(NamedTuple):
    """The quantised file against the float one, on held-out samples."""

    agreement: float  # share with the same top class
    gain: float  # of accuracy; negative: a loss
    n: int


class Forgotten(NamedTuple):
    """The candidate against an earlier version, on what was held out when that was made."""

    version: int
    change: Floats  # (N,) what the candidate scores more, -1..1; of classes 1: only it is right; -1: only the other


class Against(NamedTuple):
    """What was measured of candidate and champion, beside who is right."""

    known: Names  # classes that the champion knows
    candidate: Answers
    champion: Answers
    disturbed: Disturbed | None = None
    strange: Strange | None = None
    forgotten: Sequence[Forgotten] = ()


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """What was measured. What is None or empty was not, and has no gate."""

    held: Held
    against: Against | None = None  # None: there is no champion
    int8: Int8 | None = None  # None: fp32 is shipped
    labelled: Sequence[Labelled] = ()
    cost: Cost | None = None
    broken: Sequence[str] | None = None  # terms of the contract, in words


def judge(evidence: Evidence, *, rules: Gates) -> Verdict:
    """Hold the candidate against the champion."""
    held, gates = evidence.held, []
    if evidence.broken is not None:
        gates.append(_contract(evidence.broken))
    gates.append(_held_out(len(held.label), rules))
    gates.append(_stream(held.of(held.stream).difference(confidence=rules.confidence), rules))
    gates.append(_import(held.of(~held.stream).difference(confidence=rules.confidence), rules))
    gates += judge_slices(held, rules)
    if evidence.against is not None:
        gates += _against(held, evidence.against, rules)
    if evidence.int8 is not None:
        gates += _int8(evidence.int8, rules)
    for labelled in evidence.labelled:
        gates += judge_labels(labelled, rules)
    if evidence.cost is not None:
        gates += budgets.judge_cost(evidence.cost, budgets.parse(rules.budgets))
    return Verdict.of(gates)


def _contract(broken: Sequence[str]) -> Gate:
    return checked("contract", not broken, float(len(broken)), 0.0, n=1, why="; ".join(broken))


def _held_out(n: int, rules: Gates) -> Gate:
    return checked("held_out", n >= rules.min_samples, float(n), float(rules.min_samples), n=n, bound="least")


def _stream(found: Difference, rules: Gates) -> Gate:
    # The whole interval decides, never the point estimate: with a hundred samples its error is four points, and every
    # second good candidate would be turned down by chance.
    if not found.n:
        return gate("stream", "too_little_evidence", found, rules.min_gain, min_samples=rules.min_samples)
    return at_least("stream", found, rules.min_gain, min_samples=1)


def _import(found: Difference, rules: Gates) -> Gate:
    # What it knew must be kept, and that must be shown, where the samples can show it. Where the interval is too wide,
    # the point estimate must do, and the gate says that it could not show more.
    limit = -rules.max_drop
    wide = (found.high - found.low) / 2.0 > SHARP * rules.max_drop
    if found.effective < rules.min_samples:
        state: GateState = "too_little_evidence"
    elif found.low >= limit:
        state = "passed"
    else:
        state = "too_little_evidence" if wide and found.figure >= limit else "failed"
    return gate("import", state, found, limit, min_samples=rules.min_samples)


def _against(held: Held, against: Against, rules: Gates) -> list[Gate]:
    gates = _judge_answers(held, against.candidate, against.champion, against.known, rules)
    gates += [_forgetting(one, rules) for one in against.forgotten]
    if against.disturbed is not None:
        gates += judge_disturbed(against.disturbed, rules)
    if against.strange is not None:
        gates.append(judge_strange(against.strange, rules))
    return gates


def _judge_answers(held: Held, ours: Answers, theirs: Answers, known: Names, rules: Gates) -> list[Gate]:
    """By what the task's answers are; those of both models are of one."""
    match ours, theirs:
        case Said(), Said():
            return judge_answers(held, ours, theirs, known, rules)
        case Several(), Several():
            return judge_several(held, ours, theirs, known, rules)
        case Values(), Values():
            return judge_values(held, ours, theirs, known, rules)
        case Detected(), Detected():
            return judge_detected(held, ours, theirs, known, rules)
    raise TypeError(f"answers of {type(ours).__name__} held against {type(theirs).__name__}")


def _forgetting(one: Forgotten, rules: Gates) -> Gate:
    """Each version may lose a little against the one before; this adds up what several have lost."""
    found = paired.fixed(one.change, np.ones(len(one.change)), confidence=rules.confidence)
    return at_least(f"forgetting/version {one.version}", found, -rules.max_forgotten, min_samples=rules.min_samples)


def _int8(int8: Int8, rules: Gates) -> list[Gate]:
    least = rules.min_int8_agreement
    agree = checked("int8_agreement", int8.agreement >= least, int8.agreement, least, n=int8.n, bound="least")
    # Who changed sides is among those that disagree: at most so many gains and losses, whatever their sum.
    half = paired.z_of(rules.confidence) * paired.widened(max(1.0 - int8.agreement, 0.0) * int8.n, int8.n)
    found = Difference(int8.gain, int8.gain - half, int8.gain + half, int8.n, float(int8.n)).within(-1.0, 1.0)
    return [agree, at_least("int8_accuracy", found, -rules.max_int8_drop, min_samples=rules.min_samples)]
