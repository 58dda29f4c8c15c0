"""How accurate is the fleet: as a whole, each device, class, day and model?

Plain data, for JSON and tables. A figure is given where its interval can be believed; elsewhere it is None, and
`missing` says about how many more labels would do.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal, get_args

from server.audit.estimators import Estimate, hajek, post_stratified
from server.audit.evidence import Evidence
from server.store.consensus import NONE_OF_THESE, VALUED
from server.store.stretches import Stretch

View = dict[str, Any]
By = Literal["fleet", "device", "class", "day", "version"]
BY: tuple[By, ...] = get_args(By)

_KEYS: dict[str, Callable[[Stretch], Any]] = {
    "fleet": lambda _: "all",
    "device": lambda one: one.device,
    "day": lambda one: one.day,
    "version": lambda one: one.model_version or "several",
}


def fleet(evidence: Evidence) -> View:
    """On everything that was seen."""
    return _accuracy(evidence)


def table(evidence: Evidence, by: By, *, names: Sequence[str]) -> list[View]:
    """One row per device, class, day or version; `names` are those of the classes."""
    if by == "class":
        evidence = evidence.of(evidence.truth != VALUED)  # what shows several classes has none to be recalled by
        seen = sorted({*evidence.predicted.tolist(), *evidence.truth.tolist()})
        return [_class(evidence, index, names) for index in seen]
    key = _KEYS[by]
    values = sorted({key(one) for one in evidence.stretches}, key=lambda value: (isinstance(value, str), value))
    return [{by: value} | _accuracy(_those(evidence, key, value)) for value in values]


def _those(evidence: Evidence, key: Callable[[Stretch], Any], value: object) -> Evidence:
    return evidence.where(lambda one: key(one) == value)


def _accuracy(evidence: Evidence) -> View:
    found = post_stratified(
        evidence.right, evidence.confidence, evidence.probability, evidence.bins, stream=evidence.stream()
    )
    return _figure("accuracy", found) | {"samples": evidence.samples}


def _class(evidence: Evidence, index: int, names: Sequence[str]) -> View:
    """Recall: of what truly is of the class, how much is called so. Precision: of what is called so, how much is."""
    recall, precision = (
        hajek(part.right, part.probability)
        for part in (evidence.of(evidence.truth == index), evidence.of(evidence.predicted == index))
    )
    name = "none of these" if index == NONE_OF_THESE else names[index] if index < len(names) else str(index)
    return {"class": name} | _figure("recall", recall) | _figure("precision", precision, prefix="precision_")


def _figure(name: str, found: Estimate, *, prefix: str = "") -> View:
    said = found.enough
    return {
        name: found.value if said else None,
        f"{prefix}low": found.low if said else None,
        f"{prefix}high": found.high if said else None,
        f"{prefix}labels": found.labels,
        f"{prefix}effective": round(found.effective, 1),
        f"{prefix}missing": found.missing,
    }
