"""Does a candidate keep the contract, as shipped?

What devices rely on: the same input, classes only added, the same task, and the answers that the manifest states.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from edge_agent.contract.artifact import Tensor
from edge_agent.contract.errors import WinnowError
from server.teach.answering import Model, outputs

if TYPE_CHECKING:
    from models.kinds.kind import Outputs


def unsound(ran: Outputs) -> list[str]:
    """That what it gave of held-out samples is no number."""
    none = int(np.count_nonzero(~ran.sound))
    return [f"its logits are not finite on {none} of {len(ran.logits)} held-out samples"] if none else []


def broken(candidate: Model, champion: Model | None) -> list[str]:
    """Terms of the contract that it breaks, in words."""
    ours, found_broken = candidate.manifest, list[str]()
    stated = {ours.logits: ours.golden.logits} | ours.golden.outputs
    try:
        found = outputs(candidate, np.asarray(ours.golden.inputs.array()), list(stated))
    except (WinnowError, ValueError) as error:
        return [f"it cannot be run on its golden inputs: {error}"]
    if not all(np.isfinite(one).all() for one in found):
        found_broken.append("its logits are not finite on the golden inputs")
    elif any(_apart(*pair) > ours.golden.tolerance for pair in zip(found, stated.values(), strict=True)):
        found_broken.append("its logits are not those that its manifest states for the golden inputs")
    if champion is None:
        return found_broken
    theirs = champion.manifest
    if theirs.task != ours.task:
        found_broken.append(f"its task is {ours.task}, was {theirs.task}")
    for what in ("shape", "dtype", "unit"):
        was, now = getattr(theirs.input, what), getattr(ours.input, what)
        if was != now:
            found_broken.append(f"the {what} of its input is {now}, was {was}")
    if ours.classes[: len(theirs.classes)] != theirs.classes:
        found_broken.append("its classes do not begin with the champion's: they are only ever added to")
    if theirs.embedding and not ours.embedding:
        found_broken.append("it has no embedding, and the champion has one")
    return found_broken


def _apart(found: NDArray[Any], stated: Tensor) -> float:
    """The largest difference; inf where they are not of one shape."""
    expected = np.asarray(stated.array(), np.float64)
    return float(np.abs(found - expected).max()) if found.shape == expected.shape else np.inf
