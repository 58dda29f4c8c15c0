"""What happens at each step of a training?

One plain loop, in one process or in each of several ranks (ranks.py). All that is random about a step follows from the
seed and the number of the step, so that a training that was killed goes on from its last checkpoint as if nothing had
been: on a CPU to the very same weights. It reads no clock and leaves torch's own generator as it was.

    samples -> our part of a batch -> augment -> logits -> loss -> step of the optimiser -> running average of weights
                       after each epoch: progress, a look at what was kept back; at times a checkpoint
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import msgspec
import torch
from torch import Tensor, nn

from models import loss
from models.augment import Augmentation
from models.blame import blame, held
from models.checkpoint import Checkpoint
from models.curve import Point, Progress
from models.net import Network
from models.pieces import as_kept, in_pieces, optimiser_as_kept, own, whole
from models.ranks import Draw, Ranks
from models.samples import Batch, Held, Samples, batches
from models.settings import Part, Settings

WEIGHT_DECAY = 0.01
GENTLE_SHARE = 0.25  # of the learning rate, for plain descent: Adam moves every weight by a step, wherever it was going
CHECKPOINT_STEPS = 200  # fewer cost more than they save (each is a copy of weights and optimiser, flushed to disk)


class Learner:
    """One training of a network that is on the device where it learns."""

    def __init__(
        self,
        module: Network,
        samples: Samples,
        settings: Settings,
        *,
        part: Part,
        augment: list[Augmentation],
        kept_back: Held | None,
        ranks: Ranks,
    ) -> None:
        """`kept_back`: the samples to look at after each epoch; None: there is no early stop."""
        self.module, self.samples, self.settings = module, samples, settings
        self._device = samples.y.device
        self._augment, self._kept_back, self._ranks = augment, kept_back, ranks
        self._trains = part == "whole"  # otherwise batch normalisation keeps its figures, which scale every weight
        module.requires_grad_(part != "head").head.requires_grad_(True)
        self._average = copy.deepcopy(module).requires_grad_(False) if settings.ema else None
        forward = ranks.joined(module, pieces=settings.pieces)
        if self._average is not None and settings.pieces and ranks.together:
            in_pieces(self._average.to(memory_format=torch.contiguous_format))  # type: ignore[call-overload]
        self._optimiser, rate = _optimiser(module, settings.learning_rate, part)
        self.per_epoch = len(self._order(0))
        self.steps = settings.epochs * self.per_epoch
        self._schedule = torch.optim.lr_scheduler.OneCycleLR(self._optimiser, rate, max(2, self.steps))
        self._best: dict[str, Tensor] | None = None
        self._best_loss, self._best_epoch = math.inf, 0
        self._forward: Callable[[Tensor], tuple[Tensor, Tensor]]
        self._forward = torch.compile(forward) if settings.compile == "on" else forward

    def run(self, *, checkpoint: Checkpoint | None, progress: Progress | None) -> None:
        """Learn; the module has the outcome, on its device and ready to be asked."""
        with _own_randomness(self._device), _same_kernels():
            step = self._resumed(checkpoint)
            while step < self.steps and not self._stopped(step):
                step = self._epoch(step, checkpoint, progress)
        final = self._best if self._best is not None else self._kept().state_dict()
        self.module.load_state_dict(final)
        self.module.eval()

    def _epoch(self, step: int, checkpoint: Checkpoint | None, progress: Progress | None) -> int:
        """From `step` to the end of its epoch; returns the number of the step after it."""
        epoch, place = divmod(step, self.per_epoch)
        losses = []
        self.module.train(self._trains)
        for batch in self.samples.batches(self._order(epoch)[place:], self._ranks):
            losses.append(self._step(step, batch))
            step += 1
            if step % self.per_epoch:
                self._save(step, checkpoint)
        point = self._look(epoch, float(self._ranks.total(torch.stack(losses).mean())))
        self._save(step, checkpoint)
        if progress is not None:
            progress(1.0 if self._stopped(step) else step / self.steps, self._said(point), point)
        return step

    def _step(self, step: int, batch: Batch) -> Tensor:
        """Returns our part of the mean over the batch."""
        seed = _seed_of(self.settings.seed, step)
        _seed(self._device, seed)
        x = self._changed(batch.x, batch.draw)
        pairs = self._unlabelled(batch.size)
        if not self._ranks.first:  # what a net drops is not the same in the other half of the batch
            _seed(self._device, seed ^ (self._ranks.rank << 20))
        with self._autocast():
            blamed = self._loss(x, batch.rows)
            if pairs is not None:
                blamed = blamed + self._unlabelled_loss(*pairs)
        self._optimiser.zero_grad(set_to_none=True)
        # Gradients come to their mean over the ranks, and the sum is wanted.
        ours = blamed * self._ranks.world if self._ranks.together else blamed
        ours.backward()  # type: ignore[no-untyped-call]
        self._optimiser.step()
        self._schedule.step()
        if self._average is not None:
            _follow(self._average, self.module, min(self.settings.ema, (1.0 + step) / (10.0 + step)))
        return blamed.detach()

    def _changed(self, x: Tensor, draw: Draw) -> Tensor:
        for change in self._augment:
            x = change(x, draw)
        return x

    def _loss(self, x: Tensor, rows: Tensor) -> Tensor:
        samples, settings, total = self.samples, self.settings, self._ranks.total
        logits = self._forward(x)[0].float()
        y, weight = samples.y[rows], samples.weight[rows]
        blamed = blame(self.module, logits, y, weight, smoothing=settings.label_smoothing, total=total)
        if samples.teacher is None:
            return blamed
        return blamed + settings.distil * loss.change(logits, samples.teacher[rows], samples.focus[rows], total=total)

    def _unlabelled(self, size: int) -> tuple[Tensor, Tensor] | None:
        """As many as a batch has, all ranks together: as they came, and changed."""
        pool, draw = self.samples.unlabelled, self._ranks.share(size)
        if pool is None:
            return None
        x = pool[draw(size, lambda n: torch.randint(len(pool), (n,), device=pool.device))].to(self._device)
        return x, self._changed(x, draw)

    def _unlabelled_loss(self, x: Tensor, changed: Tensor) -> Tensor:
        self.module.eval()  # what it says of them as they came must not move its running figures
        with torch.no_grad():
            before = self._forward(x)[0].float()
        self.module.train(self._trains)
        after = self._forward(changed)[0].float()
        return loss.consistency(before, after, sure=self.settings.pseudo_labels, total=self._ranks.total)

    # --- what an epoch is ---

    def _order(self, epoch: int) -> list[Tensor]:
        generator = torch.Generator().manual_seed(_seed_of(self.settings.seed, -1 - epoch))
        return batches(self.samples.shares, self.settings.batch_size, generator)

    def _look(self, epoch: int, loss: float) -> Point:
        """How it does, on what is kept back too; remembers the best."""
        point = Point(epoch=epoch + 1, loss=loss, learning_rate=float(self._schedule.get_last_lr()[0]))
        if self._kept_back is None:
            return point
        found, right = self._ranks.told(held(self._kept(), self._kept_back, self._ranks))
        if found < self._best_loss:
            self._best_loss, self._best_epoch = found, epoch
            self._best = {name: tensor.clone() for name, tensor in self._kept().state_dict().items()}
        return msgspec.structs.replace(point, held_loss=found, held_accuracy=right)

    def _said(self, point: Point) -> str:
        said = f"epoch {point.epoch}/{self.settings.epochs}, loss {point.loss:.3f}"
        return said if point.held_loss is None else f"{said}, {point.held_loss:.3f} on what is kept back"

    def _stopped(self, step: int) -> bool:
        """No better for `patience` epochs."""
        return self._best is not None and step // self.per_epoch - 1 - self._best_epoch >= self.settings.patience

    def _kept(self) -> Network:
        return self.module if self._average is None else self._average

    # --- checkpoints ---

    def _save(self, step: int, checkpoint: Checkpoint | None) -> None:
        if checkpoint and (step % CHECKPOINT_STEPS == 0 or step == self.steps):
            state = whole(self._state()) if self.settings.pieces else self._state()
            if self._ranks.first:
                checkpoint.save({"step": step, **state})

    def _state(self) -> dict[str, Any]:
        return {
            "module": self.module.state_dict(),
            "average": None if self._average is None else self._average.state_dict(),
            "optimiser": self._optimiser.state_dict(),
            "schedule": self._schedule.state_dict(),
            "best": self._best,
            "best_loss": self._best_loss,
            "best_epoch": self._best_epoch,
        }

    def _resumed(self, checkpoint: Checkpoint | None) -> int:
        """The step to go on from."""
        state = self._ranks.told(checkpoint.load() if checkpoint and self._ranks.first else None)
        if state is None:
            return 0
        self.module.load_state_dict(as_kept(state["module"], self.module))
        if self._average is not None:
            self._average.load_state_dict(as_kept(state["average"], self._average))
        self._optimiser.load_state_dict(optimiser_as_kept(state["optimiser"], self._optimiser))
        self._schedule.load_state_dict(state["schedule"])
        self._best = None if state["best"] is None else as_kept(state["best"], self._kept())
        self._best_loss, self._best_epoch = state["best_loss"], state["best_epoch"]
        return int(state["step"])

    # --- speed ---

    def _autocast(self) -> AbstractContextManager[Any]:
        wanted = self.settings.precision
        has = self._device.type == "cuda" and torch.cuda.is_bf16_supported()
        on = wanted == "bf16" or (wanted == "auto" and has)
        return torch.autocast(self._device.type, torch.bfloat16) if on else nullcontext()


def _optimiser(module: Network, rate: float, part: Part) -> tuple[torch.optim.Optimizer, float]:
    """And the highest rate that it is meant for."""
    if part == "gently":
        return torch.optim.SGD(module.parameters(), lr=rate * GENTLE_SHARE, momentum=0.9), rate * GENTLE_SHARE
    learning = module.head if part == "head" else module
    # One kernel for all weights, where starting kernels is most of a step.
    fused = next(module.head.parameters()).is_cuda
    return torch.optim.AdamW(learning.parameters(), lr=rate, weight_decay=WEIGHT_DECAY, fused=fused), rate


def _follow(average: nn.Module, module: nn.Module, decay: float) -> None:
    """Running average of weights and of running figures; counters are copied."""
    pairs = list(zip(average.state_dict().values(), module.state_dict().values(), strict=True))
    floats = [pair for pair in pairs if pair[0].is_floating_point()]
    with torch.no_grad():
        torch._foreach_lerp_(own([mean for mean, _ in floats]), own([value for _, value in floats]), 1.0 - decay)
        for mean, value in pairs:
            if not mean.is_floating_point():
                mean.copy_(value)


def _seed_of(seed: int, number: int) -> int:
    """Of a step (0, 1 ...) or of an epoch's order (-1, -2 ...): apart for every seed, within 64 bits."""
    return ((seed << 40) + (number << 1) + (number < 0)) % (1 << 63)


def _seed(device: torch.device, seed: int) -> None:
    """As torch.manual_seed, of what is in use alone: that asks for every kind of device, .6 ms a step on a CPU."""
    torch.default_generator.manual_seed(seed)
    if device.type == "cuda":
        torch.cuda.default_generators[torch.cuda.current_device()].manual_seed(seed)


@contextmanager
def _own_randomness(device: torch.device) -> Iterator[None]:
    """Torch's own generator, which nets with dropout and augmentations use, is as before afterwards."""
    with torch.random.fork_rng(devices=[torch.cuda.current_device()] if device.type == "cuda" else []):
        yield


@contextmanager
def _same_kernels() -> Iterator[None]:
    """On a GPU, convolutions that add up in one order: others end in other weights each time (seen in fp32)."""
    was, torch.backends.cudnn.deterministic = torch.backends.cudnn.deterministic, True
    try:
        yield
    finally:
        torch.backends.cudnn.deterministic = was
