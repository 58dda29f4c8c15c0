"""What happens at each step of a training?

One plain loop. All that is random about a step follows from the seed and the number of the step, so that a training
that was killed goes on from its last checkpoint as if nothing had been: on a CPU to the very same weights. It reads no
clock and leaves torch's own generator as it was.

    samples -> batch -> augment -> logits -> loss -> step of the optimiser -> running average of the weights
                       after each epoch: progress, a look at what was kept back; at times a checkpoint
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Annotated, Any, Literal

import msgspec
import torch
from torch import Tensor, nn

from models import focal, loss
from models.augment import Augmentation
from models.checkpoint import Checkpoint
from models.curve import Point, Progress
from models.detector import Detector
from models.net import Network, as_one
from models.regressor import Regressor
from models.samples import Samples, batches

WEIGHT_DECAY = 0.01
LABEL_SMOOTHING = 0.05  # without it a small set ends in logits so large that margins tie; much more flattens them
GENTLE_SHARE = 0.25  # of the learning rate, for plain descent: Adam moves every weight by a step, wherever it was going
CHECKPOINT_STEPS = 200  # fewer cost more than they save (each is a copy of weights and optimiser, flushed to disk)
AT_ONCE = 1024  # samples kept back that are looked at in one pass

Part = Literal["whole", "gently", "head"]
"""What learns: all of it; all of it, but no weight far; the head alone. The less, the fewer bytes differ."""


class Settings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How a net learns; the defaults suit a few thousand samples. What a recipe's TOML file says comes before them."""

    recipe: str = ""  # empty: the parent's, else by the shape of a sample
    heads: Annotated[int, msgspec.Meta(ge=1)] = 1  # on one body; several are a committee
    epochs: Annotated[int, msgspec.Meta(ge=1)] = 8
    batch_size: Annotated[int, msgspec.Meta(ge=2)] = 64
    learning_rate: Annotated[float, msgspec.Meta(gt=0.0)] = 4e-3  # highest of the one-cycle schedule
    threads: int = 1
    seed: int = 0
    label_smoothing: float = LABEL_SMOOTHING  # 0: plain cross-entropy
    part: Part = "whole"  # that learns, of a net that goes on from a parent
    shrink: float = 1.0  # what of the parent's weights is kept at the start (models/start.py); 1: all
    distil: float = 0.0  # weight of staying with what the parent says (models/loss.py); 0: off
    ema: float = 0.0  # of the running average of the weights that is what is kept in the end; 0: the last weights
    augment: tuple[str, ...] = ()  # names of models/augment.py
    replay: float = 1.0  # how often what the parent knew comes, against what is new
    patience: int = 0  # epochs without a better look at what is kept back, after which it stops; 0: nothing kept back
    importance_clip: float = 0.0  # largest weight by 1 / probability, in means; 0: all count alike
    pseudo_labels: float = 0.0  # how sure it must be of an unlabelled sample to learn from it; 0: off
    precision: Literal["auto", "fp32", "bf16"] = "auto"  # auto: bf16 on a GPU that has it
    compile: Literal["on", "off"] = "off"  # by torch.compile


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
        kept_back: tuple[Tensor, Tensor] | None,
    ) -> None:
        """`kept_back`: x and y of the samples to look at after each epoch; None: there is no early stop."""
        self.module, self.samples, self.settings = module, samples, settings
        self._device = samples.y.device
        self._augment, self._kept_back = augment, kept_back
        self._trains = part == "whole"  # otherwise batch normalisation keeps its figures, which scale every weight
        module.requires_grad_(part != "head").head.requires_grad_(True)
        self._optimiser, rate = _optimiser(module, settings.learning_rate, part)
        self.per_epoch = len(self._order(0))
        self.steps = settings.epochs * self.per_epoch
        self._schedule = torch.optim.lr_scheduler.OneCycleLR(self._optimiser, rate, max(2, self.steps))
        self._average = copy.deepcopy(module).requires_grad_(False) if settings.ema else None
        self._best: dict[str, Tensor] | None = None
        self._best_loss, self._best_epoch = math.inf, 0
        self._forward: Callable[[Tensor], tuple[Tensor, Tensor]]
        self._forward = torch.compile(module.raw) if settings.compile == "on" else module.raw

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
        for rows, x in self.samples.batches(self._order(epoch)[place:]):
            losses.append(self._step(step, rows, x))
            step += 1
            if step % self.per_epoch:
                self._save(step, checkpoint)
        point = self._look(epoch, float(torch.stack(losses).mean()))
        self._save(step, checkpoint)
        if progress is not None:
            progress(1.0 if self._stopped(step) else step / self.steps, self._said(point), point)
        return step

    def _step(self, step: int, rows: Tensor, x: Tensor) -> Tensor:
        _seed(self._device, _seed_of(self.settings.seed, step))
        for change in self._augment:
            x = change(x)
        with self._autocast():
            blamed = self._loss(x, rows)
        self._optimiser.zero_grad(set_to_none=True)
        blamed.backward()  # type: ignore[no-untyped-call]
        self._optimiser.step()
        self._schedule.step()
        if self._average is not None:
            _follow(self._average, self.module, min(self.settings.ema, (1.0 + step) / (10.0 + step)))
        return blamed.detach()

    def _loss(self, x: Tensor, rows: Tensor) -> Tensor:
        samples, settings = self.samples, self.settings
        logits = self._forward(x)[0].float()
        total = blame(self.module, logits, samples.y[rows], samples.weight[rows], smoothing=settings.label_smoothing)
        if samples.teacher is not None:
            total = total + settings.distil * loss.change(logits, samples.teacher[rows], samples.focus[rows])
        if samples.unlabelled is not None:
            total = total + self._unlabelled_loss(samples.unlabelled, len(rows))
        return total

    def _unlabelled_loss(self, pool: Tensor, count: int) -> Tensor:
        x = pool[torch.randint(len(pool), (count,), device=pool.device)].to(self._device)
        self.module.eval()  # what it says of them as they came must not move its running figures
        with torch.no_grad():
            before = self._forward(x)[0].float()
        self.module.train(self._trains)
        for change in self._augment:
            x = change(x)
        return loss.consistency(before, self._forward(x)[0].float(), sure=self.settings.pseudo_labels)

    # --- what an epoch is ---

    def _order(self, epoch: int) -> list[Tensor]:
        generator = torch.Generator().manual_seed(_seed_of(self.settings.seed, -1 - epoch))
        return batches(self.samples.shares, self.settings.batch_size, generator)

    def _look(self, epoch: int, loss: float) -> Point:
        """How it does, on what is kept back too; remembers the best."""
        point = Point(epoch=epoch + 1, loss=loss, learning_rate=float(self._schedule.get_last_lr()[0]))
        if self._kept_back is None:
            return point
        found, right = _held(self._kept(), *self._kept_back)
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
            checkpoint.save(self._state(step))

    def _state(self, step: int) -> dict[str, Any]:
        return {
            "step": step,
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
        state = checkpoint.load() if checkpoint else None
        if state is None:
            return 0
        self.module.load_state_dict(state["module"])
        if self._average is not None:
            self._average.load_state_dict(state["average"])
        self._optimiser.load_state_dict(state["optimiser"])
        self._schedule.load_state_dict(state["schedule"])
        self._best, self._best_loss, self._best_epoch = state["best"], state["best_loss"], state["best_epoch"]
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
        torch._foreach_lerp_([mean for mean, _ in floats], [value for _, value in floats], 1.0 - decay)
        for mean, value in pairs:
            if not mean.is_floating_point():
                mean.copy_(value)


def blame(module: Network, raw: Tensor, y: Tensor, weight: Tensor, *, smoothing: float) -> Tensor:
    """By the truth, for its task; raw: what `module` gave, y: (B, ...), weight: (B, T)."""
    if isinstance(module, Detector):
        return focal.detection(module, raw, y, weight)
    if isinstance(module, Regressor):
        return loss.values(module, raw, y, weight)
    if module.task == "multilabel":
        return loss.several(raw, y, weight)
    return loss.truth(raw, y, weight, smoothing=smoothing)


def _held(module: Network, x: Tensor, y: Tensor) -> tuple[float, float | None]:
    """What it is blamed for on all of x: of classes the mean negative log likelihood, in nats, of the heads as one.

    And the share that is right; None of another task.
    """
    was = module.training
    module.eval()
    with torch.no_grad():
        raw = torch.cat([module.raw(part.to(y.device))[0].float() for part in torch.split(x, AT_ONCE)])
        ones = torch.ones(len(y), module.heads, device=y.device)
        of_classes = module.task == "classification"
        found = nn.functional.nll_loss(as_one(raw), y) if of_classes else blame(module, raw, y, ones, smoothing=0.0)
    module.train(was)
    if of_classes:
        return float(found), float((as_one(raw).argmax(dim=1) == y).float().mean())
    return float(found), None


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
