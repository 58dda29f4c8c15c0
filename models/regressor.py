"""What net says numbers, and how sure it is of each?

    embedding (N, D) -> head -> a mean and a log variance of each of K targets (Nix and Weigend 1994; Kendall and Gal,
    NeurIPS 2017), in units of the target's own spread on the first training data; the graph turns them into its unit

Several heads on one body are an ensemble (Lakshminarayanan et al., NeurIPS 2017): what they differ in is what more data
could tell, and the variance that they state is what data cannot.
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn

from models.net import Network, Parts, grown

LOG_VARIANCE = 8.0  # at most, in either direction: further off, one sample's likelihood outweighs a whole batch


class Regressor(Network):
    """Any recipe's parts under a head for numbers."""

    more = "spread"
    centre: Tensor
    scale: Tensor

    def __init__(self, parts: Parts, targets: int, *, heads: int = 1) -> None:
        super().__init__(parts, targets, heads=heads, task="regression")
        self.register_buffer("centre", torch.zeros(targets))
        self.register_buffer("scale", torch.ones(targets))

    def head_for(self, parts: Parts, outputs: int) -> nn.Module:
        """A mean and a log variance for each."""
        return nn.Linear(parts.width, 2 * outputs)

    def measure(self, y: Tensor, *, first: int = 0) -> None:
        """Centre and scale of targets from y: (N, K), NaN where it is not known; one that never varies has 1."""
        for k in range(first, self.classes):
            known = y[:, k][torch.isfinite(y[:, k])].double()
            self.centre[k] = known.mean() if len(known) else 0.0
            sd = known.std(correction=0) if len(known) else torch.tensor(0.0)
            self.scale[k] = sd if sd > 1e-6 * (1.0 + self.centre[k].abs()) else 1.0

    def raw(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """x: (N, *shape) raw -> (N, T, K, 2) means and log variances in units of the scale, and embedding (N, D)."""
        embedding = self.body(self.prepare(x))
        return self.head(embedding).reshape(-1, self.heads, self.classes, 2), embedding

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """Means (N, K) or, of T > 1 heads, (N, T, K); embedding; log variances, of the shape of the means."""
        raw, embedding = self.raw(x)
        mean, log_variance = raw[..., 0] * self.scale + self.centre, raw[..., 1].clamp(-LOG_VARIANCE, LOG_VARIANCE)
        log_variance = log_variance + 2.0 * self.scale.log()
        return (mean[:, 0], embedding, log_variance[:, 0]) if self.heads == 1 else (mean, embedding, log_variance)

    def grow(self, targets: int, *, heads: int = 0) -> None:
        """Add targets at the end, whose scale is to be measured; what is said of the old ones stays as it is."""
        was = (self.heads, self.classes)
        self.heads, self.classes = heads or self.heads, targets
        self.head = grown(cast(nn.Linear, self.head), was, (self.heads, targets))
        more = targets - was[1]
        self.centre = torch.cat([self.centre, torch.zeros(more)])
        self.scale = torch.cat([self.scale, torch.ones(more)])
