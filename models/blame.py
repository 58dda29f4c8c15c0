"""What is a net to be blamed for, by its task?"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from models import focal, loss
from models.detector import Detector
from models.net import Network, as_one
from models.ranks import Ranks, Total, itself
from models.regressor import Regressor
from models.samples import AT_ONCE, Held


def blame(
    module: Network, raw: Tensor, y: Tensor, weight: Tensor, *, smoothing: float, total: Total = itself
) -> Tensor:
    """By the truth; raw: what `module` gave, y: (B, ...), weight: (B, T); total: as in loss.py."""
    if isinstance(module, Detector):
        return focal.detection(module, raw, y, weight, total=total)
    if isinstance(module, Regressor):
        return loss.values(module, raw, y, weight, total=total)
    if module.task == "multilabel":
        return loss.several(raw, y, weight, total=total)
    return loss.truth(raw, y, weight, smoothing=smoothing, total=total)


def held(module: Network, back: Held, ranks: Ranks) -> tuple[float, float | None]:
    """What it is blamed for on all that is kept back: the mean negative log likelihood, in nats, of the heads as one.

    Of another task, what `blame` says. And the share that is right; None of another task. Each rank looks at its part.
    """
    was = module.training
    module.eval()
    with torch.no_grad():
        looks = [
            (rows, module.raw(x)[0].float())
            for part in torch.split(torch.arange(len(back.y)), AT_ONCE)
            for rows, x in [back.part(part, ranks)]
        ]
        raw, y = torch.cat([said for _, said in looks]), back.y[torch.cat([rows for rows, _ in looks])]
        found = _of_classes(raw, y) if module.task == "classification" else _of_others(module, raw, y, ranks)
        found = ranks.total(found)
    module.train(was)
    if module.task == "classification":
        missed, right = (found / len(back.y)).tolist()
        return missed, right
    return float(found), None


def _of_classes(raw: Tensor, y: Tensor) -> Tensor:
    """Sums of the negative log likelihood and of what is right."""
    logs = as_one(raw)
    return torch.stack([nn.functional.nll_loss(logs, y, reduction="sum"), (logs.argmax(dim=1) == y).sum()])


def _of_others(module: Network, raw: Tensor, y: Tensor, ranks: Ranks) -> Tensor:
    ones = torch.ones(len(y), module.heads, device=y.device)
    return blame(module, raw, y, ones, smoothing=0.0, total=ranks.total)
