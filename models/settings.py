"""What can be said of how a net learns?"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

LABEL_SMOOTHING = 0.05  # without it a small set ends in logits so large that margins tie; much more flattens them

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
    pieces: bool = False  # of several ranks each has a part of every weight (FSDP2), for nets too large for one GPU
