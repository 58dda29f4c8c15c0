"""How does a network learn, from scratch or from its parent?

`fit` puts the pieces together: where the weights begin (start.py), what is learned from and how often (samples.py),
what is kept back (split.py), the loop (learn.py), and which processes run it (launch.py). The same call gives the same
weights on the same machine with as many threads and processes, killed and resumed or not.
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
from models.checkpoint import Checkpoint
from models.curve import Progress
from models.data import DTYPES, require_finite, require_truth
from models.errors import DataError
from models.job import Beside, Job, Rows
from models.launch import HERE, Launch, launched
from models.learn import Learner
from models.net import Network, Shape
from models.pieces import whole
from models.ranks import Ranks
from models.recipes.catalogue import build
from models.samples import AT_ONCE
from models.settings import LABEL_SMOOTHING, Part, Settings

__all__ = ["LABEL_SMOOTHING", "Beside", "Net", "Part", "Settings", "fit", "learned", "threads"]


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
        state = {name: tensor.cpu() for name, tensor in whole(self.module.state_dict()).items()}
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
    launch: Launch = HERE,
    rows: Rows | None = None,
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
        launch: by which processes.
        rows: how other machines read x by themselves; None: they are sent it.

    Raises:
        DataError: x or y do not fit each other, or the parent.
        RankError: one of several processes died, again and again.
        ArtifactError: the parent's bytes are no weights.
        OSError: the checkpoint cannot be written.
    """
    _check(x, y, classes, task)
    _check_settings(settings, task)
    given = beside or Beside()
    job = Job(x=x, y=y, classes=classes, settings=settings, task=task, parent=parent, beside=given, rows=rows)
    with threads(settings.threads):
        before = None if parent is None else Net.load(parent)
        net = _begun(job, before)
        if launch.kind != "here":
            return Net.load(launched(job, net.weights(), launch, folder=folder, progress=progress))
        kept = None if folder is None else Checkpoint(folder, job.digest())
        return learned(job, net, before, Ranks(), checkpoint=kept, progress=progress)


def learned(
    job: Job, net: Net, before: Net | None, ranks: Ranks, *, checkpoint: Checkpoint | None, progress: Progress | None
) -> Net:
    """Let `net` learn, alone or as one of several ranks; each comes to the same.

    Args:
        job: what is learned from; of a rank whose node has a shard of the samples, x is that shard.
        net: as it is before the first step.
        before: the parent; None: from scratch.
        ranks: who learns.
        checkpoint: where it goes on from; the same for all ranks.
        progress: called after each epoch, of the first rank.
    """
    settings = job.settings
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    # Channels last is 15 % faster than NCHW on a CPU; torch's types do not know the argument.
    module = net.module.to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    back = _kept_back(job)
    if settings.patience and back is None and progress is not None:
        progress(0.0, "nothing can be kept back of so few samples: it does not stop early")
    data = samples.home(torch.as_tensor(np.require(job.x, requirements=["C", "W"])), device)
    learner = Learner(
        module,
        _samples(job, data, before, back, device, ranks),
        settings,
        part=settings.part if before else "whole",
        augment=augment.chosen(module.prepare.layout, settings.augment, job.task),
        kept_back=None if back is None else _held(job, data, back, device, ranks),
        ranks=ranks,
    )
    learner.run(checkpoint=checkpoint, progress=progress)
    if not (settings.pieces and ranks.together):
        module.cpu()
    return net


def _kept_back(job: Job) -> NDArray[np.bool_] | None:
    """(N,) which samples are looked at and not learned from; None: none."""
    if not job.settings.patience:
        return None
    known = (
        job.y if job.task == "classification" else np.zeros(len(job.y), np.int64)
    )  # none of its samples has one class
    back = split.kept_back(known, job.beside.device, job.beside.order, seed=job.settings.seed)
    return back if back.any() else None  # of a handful nothing can be spared


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


def _begun(job: Job, before: Net | None) -> Net:
    """The net as it is before the first step; that of the parent is left as it was."""
    x, y, classes, settings, task = job.x, job.y, job.classes, job.settings, job.task
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
    job: Job, data: Tensor, before: Net | None, back: NDArray[np.bool_] | None, device: torch.device, ranks: Ranks
) -> samples.Samples:
    settings, beside = job.settings, job.beside
    rows: Any = slice(None) if back is None else ~back
    truth = _truth(job.y[rows])
    place = torch.arange(len(job.y)) if back is None else torch.tensor(np.flatnonzero(~back))
    known = None if beside.known is None or before is None else torch.tensor(beside.known[rows])
    weight = samples.bootstrap(len(truth), settings.heads, seed=settings.seed)
    if settings.importance_clip and beside.probability is not None:
        weight = weight * samples.importance(beside.probability[rows], clip=settings.importance_clip).unsqueeze(1)
    teaching = samples.Held(data, _first_row(ranks), place, truth.to(device))
    teacher, focus = None, torch.zeros(len(truth))
    if before and settings.distil:
        teacher, focus = _teacher(before.module.to(device), teaching, ranks)
    wants_more = settings.pseudo_labels and beside.unlabelled is not None and len(beside.unlabelled)
    return samples.Samples(
        x=data,
        first=teaching.first,
        place=place,
        y=teaching.y,
        shares=samples.shares(truth, known, replay=settings.replay),
        weight=weight.to(device),
        teacher=teacher,
        focus=focus.to(device),
        unlabelled=samples.home(torch.tensor(beside.unlabelled), device) if wants_more else None,
    )


def _held(job: Job, data: Tensor, back: NDArray[np.bool_], device: torch.device, ranks: Ranks) -> samples.Held:
    place = torch.tensor(np.flatnonzero(back))
    return samples.Held(data, _first_row(ranks), place, _truth(job.y[back]).to(device))


def _first_row(ranks: Ranks) -> int:
    return 0 if ranks.shard is None else ranks.shard[0]


def _teacher(parent: Network, of: samples.Held, ranks: Ranks) -> tuple[Tensor, Tensor]:
    """What the parent says of every sample as it came, softened, and how much each is to stay so."""
    logits: Tensor | None = None
    with torch.no_grad():
        for part in torch.split(torch.arange(len(of.y)), AT_ONCE):
            rows, x = of.part(part, ranks)
            said = parent(x)[0]
            logits = said.new_zeros((len(of.y), *said.shape[1:])) if logits is None else logits
            logits[rows.to(logits.device)] = said
    assert logits is not None  # noqa: S101 - there are two samples at least
    logits = ranks.total(logits)  # each rank has asked for its part
    return loss.softened(logits), loss.focus(logits, of.y)


@contextmanager
def threads(count: int) -> Iterator[None]:
    """Torch uses as many within: more than cores that are free wait for each other."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
