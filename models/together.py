"""How does batch normalisation see the whole batch, when each rank has a part of it?

Mean and variance are of all ranks' rows, by Chan's formula out of each rank's own (Chan, Golub, LeVeque 1979), and the
gradient goes back through them. torch's SyncBatchNorm does the same on GPUs alone; this one does it on a CPU too, and a
rank may have no row at all.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, distributed, nn
from torch.nn.modules.batchnorm import _BatchNorm


def synchronised(module: nn.Module) -> None:
    """Let all batch normalisation of `module` see what every rank has; parameters and their names stay."""
    for one in module.modules():
        if isinstance(one, _BatchNorm):
            one.forward = _Forward(one)  # type: ignore[assignment, method-assign]


class _Forward:
    """In the place of a layer's own."""

    def __init__(self, layer: _BatchNorm) -> None:
        self._layer = layer

    def __call__(self, x: Tensor) -> Tensor:
        layer = self._layer
        if not layer.training or not layer.track_running_stats:
            return type(layer).forward(layer, x)
        made: Tensor
        weight = torch.ones(x.shape[1], device=x.device) if layer.weight is None else layer.weight
        bias = torch.zeros(x.shape[1], device=x.device) if layer.bias is None else layer.bias
        made, mean, variance, count = _Normalise.apply(x, weight, bias, layer.eps)  # type: ignore[no-untyped-call]
        _follow(layer, mean, variance, count)
        return made


def _follow(layer: _BatchNorm, mean: Tensor, variance: Tensor, count: Tensor) -> None:
    """The running figures, as torch's own: the variance there is without bias."""
    assert layer.running_mean is not None  # noqa: S101 - it tracks them
    assert layer.running_var is not None  # noqa: S101
    assert layer.num_batches_tracked is not None  # noqa: S101
    with torch.no_grad():
        layer.num_batches_tracked.add_(1)
        share = layer.momentum if layer.momentum is not None else 1.0 / layer.num_batches_tracked
        layer.running_mean.lerp_(mean.to(layer.running_mean.dtype), share)
        unbiased = variance * (count / (count - 1.0).clamp(min=1.0))
        layer.running_var.lerp_(unbiased.to(layer.running_var.dtype), share)


class _Normalise(torch.autograd.Function):
    """(x - mean) / sd * weight + bias, of x (N, C, ...) by channel."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> tuple[Tensor, ...]:
        count, mean, variance = _of_all(x.detach().float())
        inverse = (variance + eps).rsqrt()
        shape = (1, -1, *[1] * (x.ndim - 2))
        normal = (x.float() - mean.view(shape)) * inverse.view(shape)
        ctx.save_for_backward(normal, weight, inverse, count)
        ctx.mark_non_differentiable(mean, variance, count)
        return (normal * weight.view(shape) + bias.view(shape)).to(x.dtype), mean, variance, count

    @staticmethod
    def backward(ctx: Any, *blamed: Tensor) -> tuple[Tensor | None, ...]:
        normal, weight, inverse, count = ctx.saved_tensors
        change = blamed[0].float()
        over = [0, *range(2, change.ndim)]
        sums = torch.stack([change.sum(over), (change * normal).sum(over)])
        own_bias, own_weight = sums.clone()
        distributed.all_reduce(sums)
        shape = (1, -1, *[1] * (change.ndim - 2))
        mean, along = (sums / count).view(2, *shape)
        back = (change - mean - normal * along) * (inverse * weight).view(shape)
        return back.to(blamed[0].dtype), own_weight, own_bias, None


def _of_all(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Count, mean and variance (C,) of all ranks' x (N, C, ...)."""
    over = [0, *range(2, x.ndim)]
    channels, world, rank = x.shape[1], distributed.get_world_size(), distributed.get_rank()
    each = torch.zeros(world, 2 * channels + 1, device=x.device)
    if len(x):
        variance, mean = torch.var_mean(x, over, correction=0)
        each[rank] = torch.cat([mean.new_full((1,), x.numel() / channels), mean, variance])
    distributed.all_reduce(each)  # each rank's own in a row of its own: the same bits on all, whatever adds them up
    counts, means, variances = torch.split(each, [1, channels, channels], dim=1)
    count = counts.sum()
    mean = (counts * means).sum(0) / count
    return count, mean, (counts * (variances + (means - mean).square())).sum(0) / count
