"""A trainer for the real detector of people: its body stays, what its heads make of it for `person` is learned.

As SSD is (Liu et al., ECCV 2016): an anchor is a person's where it overlaps one by half, or most of all anchors; of the
others the ten surest to each of these count. What it begins with, and leaves, is the graph in float32.
"""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime as ort
import pedestrians
import torch
from onnx import numpy_helper
from torch.nn.functional import binary_cross_entropy_with_logits, conv2d

from edge_agent.contract.artifact import Answer
from edge_agent.contract.boxes import overlap
from models.trainer import Task, Trained

ANSWER = Answer(boxes="boxes", score_min=0.4, overlap_max=0.5, most=50)
NEAR, NEGATIVES = 0.5, 10
RATE, BATCH = 0.01, 16


def finetune(task: Task) -> Trained:
    """`epochs` rounds over what is known of the heads' inputs, which are computed once."""
    assert task.champion is not None
    model = onnx.load_model_from_string(task.champion.weights)
    heads = [node for node in model.graph.node if node.op_type == "Conv" and "/ClassPredictor/" in node.name]
    maps = _inputs(model, [node.input[0] for node in heads], task.x)
    weights = {one.name: torch.tensor(numpy_helper.to_array(one)) for one in model.graph.initializer}
    learned = [weights[name].requires_grad_() for node in heads for name in node.input[1:]]
    targets = torch.tensor(np.stack([_target(truth) for truth in task.y]))
    optimiser = torch.optim.Adam(learned, RATE)
    rng = np.random.default_rng(int(task.told.get("seed", 0)))
    for _ in range(int(task.told.get("epochs", 30))):
        order = rng.permutation(len(task.x))
        for at in range(0, len(order), BATCH):
            rows = order[at : at + BATCH]
            optimiser.zero_grad()
            logits = _logits([each[rows] for each in maps], learned)
            _loss(logits, targets[rows]).backward()
            optimiser.step()
    _keep(model, {name: weights[name] for node in heads for name in node.input[1:]})
    data: bytes = model.SerializeToString()
    return Trained(data, data, "logits", "embedding", answer=ANSWER)


def _inputs(model: onnx.ModelProto, names: list[str], x: np.ndarray) -> list[torch.Tensor]:
    """Of each head (N, D, side, side), in half the bytes: 0..6."""
    tapped = onnx.ModelProto()
    tapped.CopyFrom(model)
    tapped.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
    session = ort.InferenceSession(tapped.SerializeToString())
    rows = [[found[0].astype(np.float16) for found in session.run(names, {"image": one[None]})] for one in x]
    return [torch.tensor(np.stack(each)) for each in zip(*rows, strict=True)]


def _logits(maps: list[torch.Tensor], learned: list[torch.Tensor]) -> torch.Tensor:
    """(N, A) of person: the second of each anchor's two."""
    found = []
    for each, kernel, bias in zip(maps, learned[::2], learned[1::2], strict=True):
        said = conv2d(each.float(), kernel[1::2], bias[1::2])
        found.append(said.permute(0, 2, 3, 1).flatten(1))
    return torch.cat(found, dim=1)


def _target(truth: np.ndarray) -> np.ndarray:
    """(A,) 1 of a person's anchors, else 0. truth: (M, 6) class (-1: none), left, top, right, bottom, and 1."""
    target = np.zeros(pedestrians.ANCHORS, np.float32)
    boxes = truth[truth[:, 0] >= 0, 1:5]
    if len(boxes):
        shared = overlap(pedestrians.anchors().T[:, [1, 0, 3, 2]], boxes)
        target[shared.max(axis=1) >= NEAR] = 1.0
        target[shared.argmax(axis=0)] = 1.0
    return target


def _loss(logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    each = binary_cross_entropy_with_logits(logits, target, reduction="none")
    ours = target > 0
    others = each.masked_fill(ours, 0.0).flatten()
    count = max(int(ours.sum()), len(logits))
    return (each[ours].sum() + others.topk(NEGATIVES * count).values.sum()) / count


def _keep(model: onnx.ModelProto, learned: dict[str, torch.Tensor]) -> None:
    for one in model.graph.initializer:
        if one.name in learned:
            one.CopyFrom(numpy_helper.from_array(learned[one.name].detach().numpy(), one.name))
