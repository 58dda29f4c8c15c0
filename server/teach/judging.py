"""What is a candidate judged by?

Candidate and champion are run on what is held out, as shipped; what follows from their answers is decided by the pure
rules of gates/.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from edge_agent.contract.task import Task
from server.config import Gates
from server.teach import terms, valued
from server.teach.answering import (
    Model,
    latency_ms,
    likelihood,
    logits,
    members,
    probabilities,
    right,
    run,
    said,
    strangeness,
    top,
)
from server.teach.champions import Champion, Elder, Known
from server.teach.dataset import Dataset, Part
from server.teach.gates import answers, hardship
from server.teach.gates.answers import Said
from server.teach.gates.budgets import Cost
from server.teach.gates.hardship import Disturbed, Strange
from server.teach.gates.held import Held, Names, Scores
from server.teach.gates.judge import Against, Answers, Evidence, Forgotten, Int8, judge
from server.teach.gates.paired import Floats
from server.teach.gates.portrait import Portrait, portraits
from server.teach.gates.slices import THIRDS, TIME, thirds
from server.teach.gates.trust import Labelled
from server.teach.gates.verdict import Verdict

if TYPE_CHECKING:
    from models.kinds.kind import Outputs
    from models.package import Packaged

HARD_SAMPLES = 256  # that are disturbed: a figure to three points, for 4,000 inferences
LABELLED_MOST = 4000  # labels that are looked at for whose contradict: the share of a device's to a few points
TIMES = ("first third", "second third", "last third")
Figures = dict[str, float]


class Judged(NamedTuple):
    """What came of it."""

    held: Held
    figures: Figures
    verdict: Verdict
    portraits: dict[str, Portrait]  # of the candidate's answers, by origin


def judge_candidate(
    data: Dataset,
    classes: Sequence[str],
    packaged: Packaged,
    champion: Champion | None,
    *,
    int8: bool,
    rules: Gates,
    known: Known,
) -> Judged:
    """Run both on what is held out and hold one against the other.

    Args:
        data: the snapshot's arrays.
        classes: the snapshot's.
        packaged: the candidate.
        champion: None for a first model.
        int8: whether the candidate was quantised.
        rules: the limits.
        known: what else there is to go by.
    """
    part, names = data.holdout, np.array(classes, dtype=np.str_)
    asked = Asked(data.task, names, valued.scale_of(names, champion, packaged))
    ran = run(packaged, part.x)  # once: a large model and many held-out samples take longer than all else here
    ours = asked.read(packaged, ran, part)
    theirs = asked.of(champion, part) if champion else None
    held = _held(part, asked, ours, theirs, known.sites)
    figures = {"onnx_bytes": float(len(packaged.onnx)), "latency_ms": latency_ms(packaged.onnx, part.x)}
    figures |= _figures("candidate", held, held.candidate, ours)
    against, factors = None, {}
    if champion and theirs:
        figures |= _figures("champion", held, held.champion, theirs)
        figures["champion_latency_ms"] = here = latency_ms(champion.onnx, part.x)
        factors = {device: there / here for device, there in known.latency_ms.items()}
        disturbed, strange, more = _hard(packaged, champion, part, held, asked)
        figures |= more
        forgotten = [found for elder in known.elders if (found := _forgotten(elder, held, part, ours, asked))]
        against = Against(_names(champion), ours, theirs, disturbed, strange, forgotten)
    if packaged.fp32_accuracy is not None:
        figures["fp32_accuracy"] = packaged.fp32_accuracy
    evidence = Evidence(
        held=held,
        against=against,
        int8=_int8(packaged, len(held.label)) if int8 else None,
        labelled=_labelled(packaged, ran, data, names, known) if data.task == "classification" else (),
        cost=Cost(figures["latency_ms"], len(packaged.onnx), factors),
        broken=[*terms.broken(packaged, champion), *terms.unsound(ran)],
    )
    drawn = portraits(held, ours) if isinstance(ours, Said) else {}
    return Judged(held, figures, judge(evidence, rules=rules), drawn)


class Asked(NamedTuple):
    """In whose terms models are asked: those of a snapshot."""

    task: Task
    names: Names  # of its classes or targets
    scale: Floats  # (K,) of targets

    def label(self, part: Part) -> Names:
        """(N,) the name of the one class; "" where a sample has not the one."""
        return self.names[part.y] if self.task == "classification" else np.full(len(part.y), "", np.str_)

    def of(self, model: Model, part: Part) -> Answers:
        """What it answers to the samples of a part."""
        return self.read(model, run(model, part.x), part)

    def read(self, model: Model, ran: Outputs, part: Part) -> Answers:
        """The same, of what it gave of them."""
        if self.task == "classification" or model.manifest.task != self.task:
            return said(model, ran, self.label(part))
        return valued.answers(model, ran, part.y, self.names, self.scale)

    def score(self, answered: Answers, label: Names, known: Names | None = None) -> Scores:
        """(N,) of each sample; of boxes, numbers and several classes by those in `known` alone."""
        if isinstance(answered, Said):
            right: Scores = answered.predicted == label
            return right
        return answered.score(np.ones(len(self.names), np.bool_) if known is None else np.isin(self.names, known))


def _held(part: Part, asked: Asked, ours: Answers, theirs: Answers | None, sites: Mapping[str, str]) -> Held:
    label = asked.label(part)
    before = np.zeros(len(label)) if theirs is None else asked.score(theirs, label)
    places = np.array([sites.get(name, "") for name in part.device], np.str_)
    conditions = {"site": np.where(part.stream, places, ""), **_conditions(part)}
    shows = valued.shown(asked.task, part.y, asked.names)
    after = asked.score(ours, label)
    return Held(after, before, part.stream, part.probability, part.device, label, conditions, shows)


def _int8(packaged: Packaged, n: int) -> Int8 | None:
    if packaged.accuracy is None or packaged.fp32_accuracy is None:
        return None
    return Int8(packaged.int8_agreement, packaged.accuracy - packaged.fp32_accuracy, n)


def _names(model: Model) -> Names:
    return np.array(model.manifest.classes, dtype=np.str_)


def _conditions(part: Part) -> dict[str, Names]:
    """In which third of its origin each sample is: by how it was taken, and by time of arrival."""
    from models.corruption import is_images

    flat = part.x.reshape(len(part.x), -1)
    spread = flat.std(axis=1, dtype=np.float64)
    taken = {"energy": spread}
    if is_images(part.x):
        taken = {"brightness": flat.mean(axis=1, dtype=np.float64), "contrast": spread}
    found = {kind: _thirds(values, part.stream) for kind, values in taken.items()}
    return found | {TIME: _thirds(part.received_at_ms.astype(np.float64), part.stream, TIMES)}


def _thirds(values: Floats, stream: NDArray[np.bool_], names: tuple[str, str, str] = THIRDS) -> Names:
    made = np.full(len(values), "", dtype="<U12")
    for rows in (stream, ~stream):
        made[rows] = thirds(values[rows], names)
    return made


def _forgotten(elder: Elder, held: Held, part: Part, ours: Answers, asked: Asked) -> Forgotten | None:
    """On what was held out for the elder: a set fixed then, that stands for itself."""
    rows, classes = np.isin(part.sample, sorted(elder.samples)), _names(elder.version)
    if asked.task == "classification":
        rows &= np.isin(held.label, classes)
    if not rows.any() or elder.version.manifest.task != asked.task:
        return None
    if isinstance(ours, Said):
        before = right(elder.version, part.x[rows], held.label[rows], among=classes)
        return Forgotten(elder.version.number, held.candidate[rows].astype(np.float64) - before)
    then = asked.score(asked.of(elder.version, part.of(rows)), held.label[rows], classes)
    return Forgotten(elder.version.number, asked.score(ours, held.label, classes)[rows] - then.astype(np.float64))


def _hard(
    candidate: Model, champion: Model, part: Part, held: Held, asked: Asked
) -> tuple[Disturbed | None, Strange | None, Figures]:
    """Both on disturbed samples and on strangers, made of some held-out samples of classes that both know.

    What is a stranger to several classes, to numbers or to boxes, no score of these models says: those have no gate.
    """
    from models.corruption import SUITE, strangers, suite

    classes = _names(champion)
    one_class = asked.task == "classification"
    both = np.flatnonzero(np.isin(held.label, classes)) if one_class else np.arange(len(held.label))
    some = np.sort(np.random.default_rng(0).permutation(both)[:HARD_SAMPLES])
    if not len(some) or champion.manifest.task != asked.task:
        return None, None, {}
    chosen, label, models = part.of(some), held.label[some], {"candidate": candidate, "champion": champion}

    def scores(model: Model, bad: NDArray[Any]) -> Scores:
        # Among the champion's classes, for both: to tell more classes apart is harder, and no loss of robustness.
        if one_class:
            return right(model, bad, label, among=classes)
        return asked.score(asked.of(model, replace(chosen, x=bad)), label, classes)

    x = chosen.x
    rights = {name: [scores(one, bad) for one in models.values()] for name, bad in suite(x)}
    disturbed = Disturbed(tuple(rights), *(np.stack(side) for side in zip(*rights.values(), strict=True)))
    figures = {
        f"{who}_{name}_accuracy": float(side.mean())
        for name, sides in rights.items()
        for who, side in zip(models, sides, strict=True)
    }
    figures["corruption_suite"] = float(SUITE)
    if not one_class:
        return disturbed, None, figures
    nowhere = np.concatenate([made for _, made in strangers(x)])
    odd = {who: (strangeness(one, x), strangeness(one, nowhere)) for who, one in models.items()}
    ours, theirs = ([found["energy"] for found in pair] for pair in odd.values())
    figures |= {
        f"{who}_auroc_{kind}": hardship.auroc(known[kind], unknown[kind])
        for who, (known, unknown) in odd.items()
        for kind in known
    }
    return disturbed, Strange((ours[0], theirs[0]), (ours[1], theirs[1])), figures


def _labelled(candidate: Model, ran: Outputs, data: Dataset, names: Names, known: Known) -> list[Labelled]:
    """What the candidate makes of the labels of devices, and of the answers of labelers; `ran`: of what is held out."""
    parts = [(part, part.stream) for part in (data.train, data.holdout)]
    ids = np.concatenate([part.sample[rows] for part, rows in parts])
    some = np.sort(np.random.default_rng(0).permutation(len(ids))[:LABELLED_MOST])
    if not len(some):
        return []

    def column(name: str) -> NDArray[Any]:
        return np.concatenate([getattr(part, name)[rows] for part, rows in parts])[some]

    taught = data.train.x[data.train.stream]
    seen = some[some < len(taught)]
    held = members(candidate, ran)[data.holdout.stream][some[len(seen) :] - len(taught)]
    said_of = [logits(candidate, taught[seen]), held] if len(seen) else [held]
    probs, classes = probabilities(np.concatenate(said_of), candidate.manifest.temperature), _names(candidate)

    def of(kind: str, who: Names, rows: NDArray[np.intp], label: Names) -> Labelled:
        mine = probs[rows]
        return Labelled(kind, who, label, top(mine, classes), mine.max(axis=1), likelihood(mine, classes, label))

    found = [of("device", column("device"), np.arange(len(some)), names[column("y")])]
    if known.answers is not None:
        place = {sample: row for row, sample in enumerate(ids[some])}
        rows = np.array([place.get(sample, -1) for sample in known.answers.sample], np.intp)
        here = rows >= 0
        found.append(of("labeler", known.answers.labeler[here], rows[here], known.answers.label[here]))
    return found


def _figures(who: str, held: Held, right: Scores, said: Answers) -> Figures:
    """What one model comes to, on the stream and on imports, weighted. "accuracy": the mean score."""
    found: Figures = {}
    for origin, rows in (("stream", held.stream), ("import", ~held.stream)):
        if not rows.any():
            continue
        weight = held.weight[rows]
        each = {"accuracy": float(np.average(right[rows], weights=weight))}
        if isinstance(said, Said):
            each |= _of_classes(held.label[rows], right[rows], said.of(rows), weight)
        else:
            each |= valued.figures(said.of(rows), weight)
        found |= {f"{who}_{origin}_{name}": value for name, value in each.items()}
    return found


def _of_classes(label: Names, right: Scores, part: Said, weight: Floats) -> Figures:
    error, chance, _ = answers.ece(right, part.confidence, weight)
    return {
        "macro_f1": answers.macro_f1(label, part.predicted, weight)[0],
        "ece": error,
        "ece_by_chance": chance,
        "brier": float(np.average(part.brier, weights=weight)),
        "nll": float(np.average(part.nll, weights=weight)),
    }
