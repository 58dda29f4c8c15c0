"""What when each rank has a part of every weight?

Sharded data parallel (FSDP2; Zhao et al., VLDB 2023): weights, gradients and the optimiser's state are in pieces, put
together only while a layer computes. What is kept on disk is whole, so that any number of ranks goes on from it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn


def in_pieces(module: nn.Module) -> None:
    """Each rank keeps its part of every weight; blocks of a list (a transformer's) are put together one by one."""
    from torch.distributed.fsdp import fully_shard, register_fsdp_forward_method

    for blocks in [one for one in module.modules() if isinstance(one, nn.ModuleList)]:
        for block in blocks:
            fully_shard(block)
    fully_shard(module)
    register_fsdp_forward_method(module, "raw")


def whole(value: Any) -> Any:
    """The same with whole tensors in the place of a rank's pieces; every rank has to ask for it."""
    if isinstance(value, Tensor):
        return value.full_tensor() if is_piece(value) else value  # type: ignore[attr-defined]
    if isinstance(value, dict):
        return {key: whole(one) for key, one in value.items()}
    return [whole(one) for one in value] if isinstance(value, list) else value


def own(tensors: Sequence[Tensor]) -> list[Tensor]:
    """What this rank has of each, to be computed with."""
    return [one.to_local() if is_piece(one) else one for one in tensors]  # type: ignore[attr-defined]


def is_piece(tensor: Tensor) -> bool:
    """Of this tensor a rank has a part (a DTensor: its module takes a second to load, and is seldom there)."""
    return type(tensor) is not Tensor and hasattr(tensor, "full_tensor")


def as_kept(state: Mapping[str, Tensor], module: nn.Module) -> dict[str, Tensor]:
    """Whole tensors cut into this rank's pieces, where `module` has pieces."""
    return {name: _cut(state[name], like) for name, like in module.state_dict().items()}


def optimiser_as_kept(state: Mapping[str, Any], optimiser: torch.optim.Optimizer) -> dict[str, Any]:
    """The same, of the state of an optimiser: what has the shape of its weight goes where that is."""
    weights = [weight for group in optimiser.param_groups for weight in group["params"]]
    own = {
        number: {name: _cut(one, weights[number]) if name != "step" else one for name, one in kept.items()}
        for number, kept in state["state"].items()
    }
    return {**state, "state": own}


def _cut(tensor: Tensor, like: Tensor) -> Tensor:
    if not is_piece(like):
        return tensor
    from torch.distributed.tensor import DTensor, distribute_tensor

    assert isinstance(like, DTensor)  # noqa: S101 - for the type checker
    made: Tensor = distribute_tensor(tensor.to(like.device), like.device_mesh, like.placements)
    return made
