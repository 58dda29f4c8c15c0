"""How does a network learn, from scratch or from its parent?

`fit` puts the pieces together: where the weights begin (start.py), what is learned from and how often (samples.py),
what is kept back (split.py), and the loop (learn.py). The same call gives the same weights on the same machine and
number of threads, killed and resumed or not.
"""

from __future__ import annotations

import copy
import io
import pickle
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from edge_agent.contract.errors import ArtifactError
from edge_agent.contract.task import Task
from models import augment, loss, samples, split, start
from models.checkpoint import Checkpoint, digest_of
from models.curve import Progress
from models.data import DTYPES, require_finite, require_truth
from models.errors import DataError
from models.learn import AT_ONCE, LABEL_SMOOTHING, Learner, Part, Settings
from models.net import Network, Shape
from models.recipes.catalogue import build

__all__ = ["LABEL_SMOOTHING", "Beside", "Net", "Part", "Settings", "fit", "threads"]


@dataclass(frozen=True)
class Net:
    """A trained network and what it takes to build it again."""

    module: Network
    recipe: str
    shape: Shape  # of one raw sample
    dtype: str
    classes: int
    task: Task = "classification"

    def weights(self) -> bytes:
        """Everything needed to go on training, for `load`."""
        buffer = io.BytesIO()
        state = {name: tensor.cpu() for name, tensor in self.module.state_dict().items()}
        plain = {"recipe": self.recipe, "shape": self.shape, "dtype": self.dtype, "classes": self.classes}
        torch.save({**plain, "task": self.task, "heads": self.module.heads, "state": state}, buffer)
        return buffer.getvalue()

    @classmethod
    def load(cls, data: bytes) -> Net:
        """Read what `weights` wrote; ArtifactError when it is something else.

        Nothing in it is executed; a recipe of "package.module:name" is imported from what is installed here.
        """
        try:
            plain = torch.load(io.BytesIO(data), weights_only=True, map_location="cpu")
            state, heads = plain.pop("state"), plain.pop("heads", 1)
            task = plain.get("task", "classification")
            module = build(plain["recipe"], plain["shape"], classes=plain["classes"], seed=0, heads=heads, task=task)
            module.load_state_dict(state)
            return cls(module=module.eval(), **plain)
        except (
            DataError,
            RuntimeError,
            pickle.UnpicklingError,
            EOFError,
            KeyError,
            TypeError,
            AttributeError,
            ValueError,
        ) as error:
            raise ArtifactError(f"weights of {len(data)} bytes: {error}; expected those of Net.weights()") from error


@dataclass(frozen=True, kw_only=True)
class Beside:
    """What may be known of the samples beside their classes; only some settings ask for it."""

    device: NDArray[Any] | None = None  # (N,) where each came from: for `patience`
    order: NDArray[Any] | None = None  # (N,) numbers by which they came there: for `patience`
    known: NDArray[np.bool_] | None = None  # (N,) which the parent learned from: for `replay`
    probability: NDArray[np.float64] | None = None  # (N,) of selection, in (0, 1]: for `importance_clip`
    unlabelled: NDArray[Any] | None = None  # (M, *shape) raw: for `pseudo_labels`


def fit(
    x: NDArray[Any],
    y: NDArray[Any],
    *,
    classes: int,
    settings: Settings,
    task: Task = "classification",
    parent: bytes | None = None,
    progress: Progress | None = None,
    beside: Beside | None = None,
    folder: Path | None = None,
) -> Net:
    """Train from scratch, or on from a parent; new classes grow its head.

    Args:
        x: (N, *shape) uint8, float32, int16 or int32, raw and finite.
        y: (N,) int, 0..classes-1; or the truth of another task, as contract/score.py has it.
        classes: C; at least as many as the parent has.
        settings: how.
        task: what it is to say; the parent's.
        parent: `Net.weights()` of the net to go on from.
        progress: called after each epoch.
        beside: what more is known of the samples.
        folder: where a checkpoint is kept: the same call after a kill goes on from it. None: nowhere.

    Raises:
        DataError: x or y do not fit each other, or the parent.
        ArtifactError: the parent's bytes are no weights.
        OSError: the checkpoint cannot be written.
    """
    _check(x, y, classes, task)
    _check_settings(settings, task)
    beside = beside or Beside()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    with threads(settings.threads):
        before = None if parent is None else Net.load(parent)
        net = _begun(x, y, classes, settings, before, task)
        # Channels last is 15 % faster than NCHW on a CPU; torch's types do not know the argument.
        module = net.module.to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        known = y if task == "classification" else np.zeros(len(y), np.int64)  # none of its samples has one class
        back = split.kept_back(known, beside.device, beside.order, seed=settings.seed) if settings.patience else None
        back = back if back is not None and back.any() else None  # of a handful nothing can be spared
        if settings.patience and back is None and progress is not None:
            progress(0.0, "nothing can be kept back of so few samples: it does not stop early")
        learner = Learner(
            module,
            _samples(x, y, beside, settings, before, back, device),
            settings,
            part=settings.part if before else "whole",
            augment=augment.chosen(module.prepare.layout, settings.augment, task),
            kept_back=None if back is None else (torch.tensor(x[back]), _truth(y[back]).to(device)),
        )
        kept = None if folder is None else Checkpoint(folder, _digest(x, y, classes, settings, task, parent, beside))
        learner.run(checkpoint=kept, progress=progress)
        module.cpu()
    return net


def _check(x: NDArray[Any], y: NDArray[Any], classes: int, task: Task) -> None:
    if str(x.dtype) not in DTYPES or x.ndim < 2:
        raise DataError(f"x is {x.dtype} {x.shape}, expected one of {', '.join(DTYPES)} of shape (N, ...)")
    if task != "classification":
        require_truth(y, task, samples=len(x), classes=classes)
    elif y.shape != (len(x),) or y.dtype.kind not in "iu" or len(x) < 2:
        raise DataError(f"y is {y.dtype} {y.shape}, expected whole numbers of shape ({len(x)},), at least 2")
    elif classes < 2 or y.min() < 0 or y.max() >= classes:
        raise DataError(f"y holds {y.min()}..{y.max()}, expected 0..{classes - 1} (two classes or more)")
    require_finite(x, "x")


def _check_settings(settings: Settings, task: Task) -> None:
    """What follows from a sample's one class is refused where it has none."""
    if task == "classification":
        return
    for name in ("distil", "pseudo_labels"):
        if getattr(settings, name):
            raise DataError(f"{name} = {getattr(settings, name)}: is for classification, this is {task}: leave it out")


def _truth(y: NDArray[Any]) -> Tensor:
    """As it is learned from."""
    return torch.tensor(y.astype(np.int64 if y.ndim == 1 else np.float32))


def _begun(x: NDArray[Any], y: NDArray[Any], classes: int, settings: Settings, before: Net | None, task: Task) -> Net:
    """The net as it is before the first step; that of the parent is left as it was."""
    shape, dtype = tuple(x.shape[1:]), str(x.dtype)
    recipe = start.recipe_for(shape, dtype, settings.recipe, before.recipe if before else "", task)
    if before is None:
        module = start.fresh(recipe, x, y, classes, heads=settings.heads, seed=settings.seed, task=task)
        return Net(module, recipe, shape, dtype, classes, task)
    if task != before.task:
        raise DataError(f"the parent was taught {before.task}, and this is {task}: train without the parent")
    if (shape, dtype) != (before.shape, before.dtype):
        raise DataError(f"samples are {shape} {dtype}, the parent takes {before.shape} {before.dtype}")
    module = copy.deepcopy(before.module)
    start.grow(module, y, classes, heads=settings.heads, seed=settings.seed)
    if settings.part == "whole":
        start.shrink(module, recipe, shape, keep=settings.shrink, seed=settings.seed)
    return Net(module, recipe, shape, dtype, classes, task)


def _samples(
    x: NDArray[Any],
    y: NDArray[Any],
    beside: Beside,
    settings: Settings,
    before: Net | None,
    back: NDArray[np.bool_] | None,
    device: torch.device,
) -> samples.Samples:
    rows: Any = slice(None) if back is None else ~back  # a slice copies nothing, and samples may be most of the memory
    data, truth = torch.as_tensor(np.require(x[rows], requirements=["C", "W"])), _truth(y[rows])
    known = None if beside.known is None or before is None else torch.tensor(beside.known[rows])
    weight = samples.bootstrap(len(data), settings.heads, seed=settings.seed)
    if settings.importance_clip and beside.probability is not None:
        weight = weight * samples.importance(beside.probability[rows], clip=settings.importance_clip).unsqueeze(1)
    teacher, focus = None, torch.zeros(len(data))
    if before and settings.distil:
        teacher, focus = _teacher(before.module.to(device), data, truth, device)
    wants_more = settings.pseudo_labels and beside.unlabelled is not None and len(beside.unlabelled)
    return samples.Samples(
        x=samples.home(data, device),
        y=truth.to(device),
        shares=samples.shares(truth, known, replay=settings.replay),
        weight=weight.to(device),
        teacher=teacher,
        focus=focus.to(device),
        unlabelled=samples.home(torch.tensor(beside.unlabelled), device) if wants_more else None,
    )


def _teacher(parent: Network, x: Tensor, y: Tensor, device: torch.device) -> tuple[Tensor, Tensor]:
    """What the parent says of every sample as it came, softened, and how much each is to stay so."""
    with torch.no_grad():
        logits = torch.cat([parent(part.to(device))[0] for part in torch.split(x, AT_ONCE)])
    return loss.softened(logits), loss.focus(logits, y.to(device))


def _digest(
    x: NDArray[Any],
    y: NDArray[Any],
    classes: int,
    settings: Settings,
    task: Task,
    parent: bytes | None,
    beside: Beside,
) -> str:
    """Of all that the outcome depends on."""
    more = (beside.device, beside.order, beside.known, beside.probability, beside.unlabelled)
    return digest_of(settings, x, y, classes, task.encode(), parent, *more)


@contextmanager
def threads(count: int) -> Iterator[None]:
    """Torch uses as many within: more than cores that are free wait for each other."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
