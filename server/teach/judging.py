"""What is a candidate judged by?

Candidate and champion are run on what is held out, as shipped; what follows from their answers is decided by the pure
rules of gates/.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from edge_agent.contract.errors import WinnowError
from server.config import Gates
from server.teach.answering import Model, latency_ms, likelihood, logits, probabilities, right, said, strangeness, top
from server.teach.champions import Champion, Elder, Known
from server.teach.dataset import Dataset, Part
from server.teach.gates import answers, hardship
from server.teach.gates.answers import Said
from server.teach.gates.budgets import Cost
from server.teach.gates.hardship import Disturbed, Strange
from server.teach.gates.held import Held, Names
from server.teach.gates.judge import Against, Evidence, Forgotten, Int8, judge
from server.teach.gates.paired import Floats
from server.teach.gates.portrait import Portrait, portraits
from server.teach.gates.slices import THIRDS, TIME, thirds
from server.teach.gates.trust import Labelled
from server.teach.gates.verdict import Verdict

if TYPE_CHECKING:
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
    label = names[part.y]
    ours = said(packaged, part.x, label)
    theirs = said(champion, part.x, label) if champion else None
    held = _held(part, label, ours, theirs, known.sites)
    figures = {"onnx_bytes": float(len(packaged.onnx)), "latency_ms": latency_ms(packaged.onnx, part.x)}
    figures |= _figures("candidate", held, held.candidate, ours)
    against, factors = None, {}
    if champion and theirs:
        figures |= _figures("champion", held, held.champion, theirs)
        figures["champion_latency_ms"] = here = latency_ms(champion.onnx, part.x)
        factors = {device: there / here for device, there in known.latency_ms.items()}
        disturbed, strange, more = _hard(packaged, champion, part, held)
        figures |= more
        forgotten = [found for elder in known.elders if (found := _forgotten(elder, held, part))]
        against = Against(_names(champion), ours, theirs, disturbed, strange, forgotten)
    if packaged.fp32_accuracy is not None:
        figures["fp32_accuracy"] = packaged.fp32_accuracy
    evidence = Evidence(
        held=held,
        against=against,
        int8=_int8(packaged, len(label)) if int8 else None,
        labelled=_labelled(packaged, data, names, known),
        cost=Cost(figures["latency_ms"], len(packaged.onnx), factors),
        broken=[*_broken(packaged, champion), *_unsound(ours)],
    )
    return Judged(held, figures, judge(evidence, rules=rules), portraits(held, ours))


def _held(part: Part, label: Names, ours: Said, theirs: Said | None, sites: Mapping[str, str]) -> Held:
    before = theirs.predicted == label if theirs else np.zeros(len(label), np.bool_)
    places = np.array([sites.get(name, "") for name in part.device], np.str_)
    conditions = {"site": np.where(part.stream, places, ""), **_conditions(part)}
    return Held(ours.predicted == label, before, part.stream, part.probability, part.device, label, conditions)


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


def _unsound(ours: Said) -> list[str]:
    none = np.count_nonzero(ours.predicted == "")
    return [f"its logits are not finite on {none} of {len(ours.predicted)} held-out samples"] if none else []


def _broken(candidate: Model, champion: Model | None) -> list[str]:
    """Terms of the contract that it breaks, in words."""
    ours, broken = candidate.manifest, []
    try:
        found = logits(candidate, np.asarray(ours.golden.inputs.array()))
    except (WinnowError, ValueError) as error:
        return [f"it cannot be run on its golden inputs: {error}"]
    stated = np.asarray(ours.golden.logits.array(), np.float64).reshape(found.shape)
    if not np.isfinite(found).all():
        broken.append("its logits are not finite on the golden inputs")
    elif np.abs(found - stated).max() > ours.golden.tolerance:
        broken.append("its logits are not those that its manifest states for the golden inputs")
    if champion is None:
        return broken
    theirs = champion.manifest
    for what in ("shape", "dtype", "unit"):
        was, now = getattr(theirs.input, what), getattr(ours.input, what)
        if was != now:
            broken.append(f"the {what} of its input is {now}, was {was}")
    if ours.classes[: len(theirs.classes)] != theirs.classes:
        broken.append("its classes do not begin with the champion's: they are only ever added to")
    if theirs.embedding and not ours.embedding:
        broken.append("it has no embedding, and the champion has one")
    return broken


def _forgotten(elder: Elder, held: Held, part: Part) -> Forgotten | None:
    """On what was held out for the elder: a set fixed then, that stands for itself."""
    rows = np.isin(part.sample, sorted(elder.samples)) & np.isin(held.label, elder.version.manifest.classes)
    if not rows.any():
        return None
    before = right(elder.version, part.x[rows], held.label[rows], among=_names(elder.version))
    return Forgotten(elder.version.number, held.candidate[rows].astype(np.int8) - before)


def _hard(
    candidate: Model, champion: Model, part: Part, held: Held
) -> tuple[Disturbed | None, Strange | None, Figures]:
    """Both on disturbed samples and on strangers, made of some held-out samples of classes that both know."""
    from models.corruption import SUITE, strangers, suite

    classes = _names(champion)
    both = np.flatnonzero(np.isin(held.label, classes))
    some = np.sort(np.random.default_rng(0).permutation(both)[:HARD_SAMPLES])
    if not len(some):
        return None, None, {}
    x, label, models = part.x[some], held.label[some], {"candidate": candidate, "champion": champion}
    # Among the champion's classes, for both: to tell more classes apart is harder, and no loss of robustness.
    rights = {name: [right(one, bad, label, among=classes) for one in models.values()] for name, bad in suite(x)}
    disturbed = Disturbed(tuple(rights), *(np.stack(side) for side in zip(*rights.values(), strict=True)))
    nowhere = np.concatenate([made for _, made in strangers(x)])
    scores = {who: (strangeness(one, x), strangeness(one, nowhere)) for who, one in models.items()}
    ours, theirs = ([found["energy"] for found in pair] for pair in scores.values())
    figures = {
        f"{who}_{name}_accuracy": float(side.mean())
        for name, sides in rights.items()
        for who, side in zip(models, sides, strict=True)
    } | {
        f"{who}_auroc_{kind}": hardship.auroc(known[kind], unknown[kind])
        for who, (known, unknown) in scores.items()
        for kind in known
    }
    figures["corruption_suite"] = float(SUITE)
    return disturbed, Strange((ours[0], theirs[0]), (ours[1], theirs[1])), figures


def _labelled(candidate: Model, data: Dataset, names: Names, known: Known) -> list[Labelled]:
    """What the candidate makes of the labels of devices, and of the answers of labelers."""
    parts = [(part, part.stream) for part in (data.train, data.holdout)]
    ids = np.concatenate([part.sample[rows] for part, rows in parts])
    some = np.sort(np.random.default_rng(0).permutation(len(ids))[:LABELLED_MOST])
    if not len(some):
        return []

    def column(name: str) -> NDArray[Any]:
        return np.concatenate([getattr(part, name)[rows] for part, rows in parts])[some]

    probs, classes = probabilities(logits(candidate, column("x")), candidate.manifest.temperature), _names(candidate)

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


def _figures(who: str, held: Held, right: NDArray[np.bool_], said: Said) -> Figures:
    """What one model comes to, on the stream and on imports, weighted."""
    found: Figures = {}
    for origin, rows in (("stream", held.stream), ("import", ~held.stream)):
        if not rows.any():
            continue
        weight, part = held.weight[rows], said.of(rows)
        error, chance, _ = answers.ece(right[rows], part.confidence, weight)
        each = {
            "accuracy": float(np.average(right[rows], weights=weight)),
            "macro_f1": answers.macro_f1(held.label[rows], part.predicted, weight)[0],
            "ece": error,
            "ece_by_chance": chance,
            "brier": float(np.average(part.brier, weights=weight)),
            "nll": float(np.average(part.nll, weights=weight)),
        }
        found |= {f"{who}_{origin}_{name}": value for name, value in each.items()}
    return found
