"""What is a net to be blamed for?

For what it has wrong, by the truth; for what it says otherwise than the parent, above all where the parent was right
(focal distillation: Yan et al., "Positive-Congruent Training", CVPR 2021), so that an update breaks little that worked;
and for what it says of an unlabelled sample once that is changed a little, if it was sure of it before (FixMatch: Sohn
et al., NeurIPS 2020). The last two are off unless asked for.

Each is a mean over the batch. Of several ranks each has a part of the batch: what it gets is its part of the mean, and
`total` says what all of them have to be divided by.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from models.net import as_one
from models.ranks import Total, itself
from models.regressor import LOG_VARIANCE, Regressor

SOFTENING = 2.0  # temperature of distillation: at 1 only the parent's top class speaks, at many all classes alike
FOCUS_RIGHT = 5.0  # how much more a sample counts that the parent has right; the paper's figure


def truth(logits: Tensor, y: Tensor, weight: Tensor, *, smoothing: float, total: Total = itself) -> Tensor:
    """Cross-entropy with label smoothing (Szegedy et al. 2016), of every head by itself.

    logits: (B, C) or (B, T, C); y: (B,); weight: (B, T) of a sample with a head.
    """
    each = logits.unsqueeze(1) if logits.ndim == 2 else logits
    flat = functional.cross_entropy(
        each.flatten(0, 1),
        y.repeat_interleave(each.shape[1]),
        label_smoothing=smoothing,
        reduction="none",
    )
    return (flat * weight.flatten()).sum() / total(weight.sum()).clamp(min=1.0)


def several(logits: Tensor, y: Tensor, weight: Tensor, *, total: Total = itself) -> Tensor:
    """Binary cross-entropy of every class and head by itself.

    logits: (B, K) or (B, T, K); y: (B, K) of 0 and 1; weight: (B, T).
    """
    heads = logits.unsqueeze(1) if logits.ndim == 2 else logits
    wanted = y.unsqueeze(1).expand_as(heads)
    each = functional.binary_cross_entropy_with_logits(heads, wanted, reduction="none").mean(dim=2)
    return (each * weight).sum() / total(weight.sum()).clamp(min=1.0)


def values(net: Regressor, raw: Tensor, y: Tensor, weight: Tensor, *, total: Total = itself) -> Tensor:
    """Of a normal distribution, its negative log likelihood (Nix and Weigend 1994), of every head by itself.

    raw: (B, T, K, 2) means and log variances in units of the scale; y: (B, K) in the targets' units, NaN where it is
    not known; weight: (B, T).
    """
    known = torch.isfinite(y)
    true = torch.where(known, (y - net.centre) / net.scale, torch.zeros_like(y)).unsqueeze(1)
    log_variance = raw[..., 1].clamp(-LOG_VARIANCE, LOG_VARIANCE)
    each = 0.5 * (log_variance + (raw[..., 0] - true).square() * (-log_variance).exp()) * known.unsqueeze(1)
    count = total((known.sum(dim=1, keepdim=True) * weight).sum())
    return (each.sum(dim=2) * weight).sum() / count.clamp(min=1.0)


def softened(logits: Tensor) -> Tensor:
    """(B, C) log-probabilities to distil from or to, of logits (B, C) or (B, T, C)."""
    return as_one(logits / SOFTENING)


def focus(logits: Tensor, y: Tensor) -> Tensor:
    """(N,) how much each sample is to stay as the parent has it, by the parent's logits (N, K); at most 1.

    A class that the parent does not know (y >= K) is none of its business.
    """
    right = (as_one(logits).argmax(dim=1) == y).float()
    return (1.0 + FOCUS_RIGHT * right) / (1.0 + FOCUS_RIGHT) * (y < logits.shape[-1])


def change(logits: Tensor, teacher: Tensor, focus: Tensor, *, total: Total = itself) -> Tensor:
    """Divergence from the parent over the classes that it knows: teacher (B, K) log-probabilities, focus (B,)."""
    own = softened(logits)[:, : teacher.shape[1]].log_softmax(dim=1)
    apart = functional.kl_div(own, teacher, log_target=True, reduction="none").sum(dim=1)
    return SOFTENING**2 * (apart * focus).sum() / total(_count(focus))


def consistency(before: Tensor, after: Tensor, *, sure: float, total: Total = itself) -> Tensor:
    """Cross-entropy of what is said after a change with what was said before, where that was `sure` or more.

    before, after: logits (M, C) or (M, T, C) of the same samples; before takes no gradient.
    """
    confidence, said = as_one(before.detach()).exp().max(dim=1)
    blamed = functional.nll_loss(as_one(after), said, reduction="none")
    return (blamed * (confidence >= sure)).sum() / total(_count(confidence))


def _count(rows: Tensor) -> Tensor:
    return rows.new_full((), float(len(rows)))
