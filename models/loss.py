"""What is a net to be blamed for?

For what it has wrong, by the truth; for what it says otherwise than the parent, above all where the parent was right
(focal distillation: Yan et al., "Positive-Congruent Training", CVPR 2021), so that an update breaks little that worked;
and for what it says of an unlabelled sample once that is changed a little, if it was sure of it before (FixMatch: Sohn
et al., NeurIPS 2020). The last two are off unless asked for.
"""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional

from models.net import as_one

SOFTENING = 2.0  # temperature of distillation: at 1 only the parent's top class speaks, at many all classes alike
FOCUS_RIGHT = 5.0  # how much more a sample counts that the parent has right; the paper's figure


def truth(logits: Tensor, y: Tensor, weight: Tensor, *, smoothing: float) -> Tensor:
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
    return (flat * weight.flatten()).sum() / weight.sum().clamp(min=1.0)


def softened(logits: Tensor) -> Tensor:
    """(B, C) log-probabilities to distil from or to, of logits (B, C) or (B, T, C)."""
    return as_one(logits / SOFTENING)


def focus(logits: Tensor, y: Tensor) -> Tensor:
    """(N,) how much each sample is to stay as the parent has it, by the parent's logits (N, K); at most 1.

    A class that the parent does not know (y >= K) is none of its business.
    """
    right = (as_one(logits).argmax(dim=1) == y).float()
    return (1.0 + FOCUS_RIGHT * right) / (1.0 + FOCUS_RIGHT) * (y < logits.shape[-1])


def change(logits: Tensor, teacher: Tensor, focus: Tensor) -> Tensor:
    """Divergence from the parent over the classes that it knows: teacher (B, K) log-probabilities, focus (B,)."""
    own = softened(logits)[:, : teacher.shape[1]].log_softmax(dim=1)
    apart = functional.kl_div(own, teacher, log_target=True, reduction="none").sum(dim=1)
    return SOFTENING**2 * (apart * focus).mean()


def consistency(before: Tensor, after: Tensor, *, sure: float) -> Tensor:
    """Cross-entropy of what is said after a change with what was said before, where that was `sure` or more.

    before, after: logits (M, C) or (M, T, C) of the same samples; before takes no gradient.
    """
    confidence, said = as_one(before.detach()).exp().max(dim=1)
    blamed = functional.nll_loss(as_one(after), said, reduction="none")
    return (blamed * (confidence >= sure)).mean()
