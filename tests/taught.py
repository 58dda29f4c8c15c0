"""A small fleet with a champion, and candidates taught from its labels: honest ones, and ones that went wrong.

Clothes at a quarter of their pixels, so that a training takes a second. The champion was made from imports alone.
Devices see the same kinds of clothes, each in a light of its own; BUSY sees more than any other, and has a bright spot
in the corner of its lens. What goes wrong is silent: on the whole, such a candidate gains like an honest one.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import msgspec
import numpy as np
import torch
from torch import nn

from models import data
from models.corruption import noise, strangers
from models.package import Packaged, package
from models.train import Net, Settings, fit
from models.trainer import settings_of
from server.config import Gates
from server.teach.champions import Champion, Known
from server.teach.dataset import Dataset, Part
from server.teach.judging import Judged, judge_candidate

DEVICES = 20
BUSY, LIAR = "cam-0", "cam-7"
BUSY_SHARE = 0.5  # of the stream
LOST, TAKEN_FOR = "bag", "sandal"
GUESSES = 2  # names that pictures of nothing are given


@dataclass(frozen=True)
class Fleet:
    """What is labelled, and the model that runs."""

    names: tuple[str, ...]
    data: Dataset
    champion: Champion
    fresh: Part  # more of what is held out, that nobody judged by
    epochs: int  # of every training


def fleet(
    *,
    imports: int = 500,
    labels: int = 800,
    held: int = 300,
    audit: int = 1100,
    seed: int = 0,
    classes: int = 10,
    settled: bool = False,
    epochs: int = 3,
) -> Fleet:
    """A champion that knows `classes` of the ten; `settled`: made from all labels, so that more teach nothing new.

    DataError when Fashion-MNIST is not there.
    """
    train, test = data.load_fashion(data.default_cache())
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(test.y))
    judging, fresh = test.take(order[: held + audit]), test.take(order[held + audit :])
    part = _part(train.take(rng.permutation(len(train.y))[: imports + labels]), imports, "train", rng)
    known = Dataset(part, _part(judging, held, "holdout", rng), left_out=0)
    base = taken(known.train, (known.train.y < classes) & (settled | ~known.train.stream))
    net = fit(base.x, base.y, classes=classes, settings=_settings(epochs, seed))
    seen = Dataset(base, taken(known.holdout, known.holdout.y < classes), left_out=0)
    made = packed(net, train.names[:classes], seen)
    champion = Champion(1, made.manifest, made.onnx, net.weights())
    return Fleet(
        train.names, known, champion, _part(fresh, len(fresh.y) * held // (held + audit), "fresh", rng), epochs
    )


def _part(labelled: data.Labelled, imports: int, split: str, rng: np.random.Generator) -> Part:
    n = len(labelled.y)
    x = labelled.x.reshape(n, 14, 2, 14, 2).mean(axis=(2, 4))
    streamed = np.arange(n) >= imports
    number = np.where(rng.random(n) < BUSY_SHARE, 0, rng.integers(1, DEVICES, size=n))
    x *= np.where(streamed, 0.7 + 0.6 * number / DEVICES, 1.0)[:, None, None]
    x[streamed & (number == 0), :3, :3] = 255
    return Part(
        x=np.clip(x, 0, 255).astype(np.uint8),
        y=labelled.y,
        stream=streamed,
        probability=np.where(streamed, 0.01, 1.0),
        device=np.where(streamed, np.char.add("cam-", number.astype(np.str_)), "import"),
        sample=np.array([f"{split}-{k}" for k in range(n)]),
        received_at_ms=np.arange(n),
        arm=np.full(n, ""),
    )


def taken(part: Part, rows: np.ndarray) -> Part:
    """Some of the rows."""
    return replace(part, **{name: value[rows] for name, value in vars(part).items()})


def packed(net: Net, names: tuple[str, ...], known: Dataset) -> Packaged:
    """As a round packages it."""
    calibration, holdout = known.train.x[-256:], (known.holdout.x, known.holdout.y)
    return package(net, name="clothes", names=names, version=2, calibration=calibration, holdout=holdout)


def _settings(epochs: int, seed: int) -> Settings:
    """What a new server trains by."""
    made: Settings = settings_of({"epochs": epochs, "seed": seed}, (14, 14), "uint8")
    return made


def trained(world: Fleet, *, seed: int, share: float = 1.0) -> Net:
    """Trained on from the champion, on a share of all that is labelled."""
    part = world.data.train
    rows = np.random.default_rng(seed).random(len(part.y)) < share
    settings = _settings(world.epochs, seed)
    return fit(part.x[rows], part.y[rows], classes=10, settings=settings, parent=world.champion.weights)


def judged(world: Fleet, made: Packaged, *, rules: Gates | None = None, **known: object) -> Judged:
    """By the rules of a new server; `known` as in Known."""
    return judge_candidate(
        world.data, world.names, made, world.champion, int8=True, rules=rules or Gates(), known=Known(**known)
    )


def honest(world: Fleet, *, seed: int) -> Judged:
    """A candidate that nothing is wrong with."""
    return judged(world, packed(trained(world, seed=seed, share=0.9), world.names, world.data))


# --- what goes wrong ---


def lost_class(world: Fleet, *, seed: int = 1) -> Judged:
    """Somebody at BUSY called every LOST a TAKEN_FOR; those held out are labelled by others, and right."""
    part = world.data.train
    wrong = (part.device == BUSY) & (part.y == world.names.index(LOST))
    y = np.where(wrong, world.names.index(TAKEN_FOR), part.y)
    taught = replace(world, data=replace(world.data, train=replace(part, y=y)))
    return judged(taught, packed(trained(taught, seed=seed), world.names, world.data))


def flipped_labels(world: Fleet, *, seed: int = 1) -> Judged:
    """All labels of LIAR, one device of twenty, are turned round: those held out, too."""
    parts = []
    for part in (world.data.train, world.data.holdout):
        parts.append(replace(part, y=np.where(part.device == LIAR, 9 - part.y, part.y)))
    lied = replace(world, data=Dataset(*parts, left_out=0))
    return judged(lied, packed(trained(lied, seed=seed), lied.names, lied.data))


def wrong_temperature(world: Fleet, *, seed: int = 1) -> Judged:
    """The manifest states a third of the temperature: every answer stays, and is far too sure."""
    made = packed(trained(world, seed=seed), world.names, world.data)
    manifest = msgspec.structs.replace(made.manifest, temperature=made.manifest.temperature / 3.0)
    return judged(world, replace(made, manifest=manifest))


def disturbed_lessons(world: Fleet, *, seed: int = 1) -> Judged:
    """Half as many noisy pictures came with the labels, all of them called by one name."""
    part = world.data.train
    some = np.arange(len(part.y)) % 2 == 0
    bad = noise(part.x[some], np.random.default_rng(seed))
    return judged(world, packed(_taught_more(world, bad, 0, seed=seed), world.names, world.data))


def sure_of_nothing(world: Fleet, *, seed: int = 1) -> Judged:
    """As many pictures of nothing came with the labels, and each was called something."""
    nothing = np.concatenate([made[::2] for _, made in strangers(world.data.train.x)])
    names = np.random.default_rng(seed).integers(10, size=GUESSES)[np.arange(len(nothing)) * GUESSES // len(nothing)]
    return judged(world, packed(_taught_more(world, nothing, names, seed=seed), world.names, world.data))


def forgetful(world: Fleet, *, seed: int = 1) -> Judged:
    """It was taught the newest labels alone, and those are of four classes."""
    part = world.data.train
    rows = part.stream & (part.y < 4)
    settings = _settings(2 * world.epochs, seed)
    net = fit(part.x[rows], part.y[rows], classes=10, settings=settings, parent=world.champion.weights)
    return judged(world, packed(net, world.names, world.data))


def _taught_more(world: Fleet, x: np.ndarray, y: np.ndarray | int, *, seed: int) -> Net:
    part = world.data.train
    told = np.concatenate([part.y, np.broadcast_to(y, len(x))])
    settings = _settings(world.epochs, seed)
    return fit(np.concatenate([part.x, x]), told, classes=10, settings=settings, parent=world.champion.weights)


def collapsed_int8(world: Fleet, *, seed: int = 1, spread: float = 3.0) -> Judged:
    """Channels of the first layer differ by orders of magnitude, and have one scale as int8. Nothing changes in fp32.

    A channel times s, and its weights in the next layer by 1 / s, is the same function: ReLU and pooling keep scales.
    """
    net = trained(world, seed=seed)
    convs = [layer for layer in net.module.body if isinstance(layer, nn.Conv2d)]
    norms = [layer for layer in net.module.body if isinstance(layer, nn.BatchNorm2d)]
    scale = torch.tensor(np.random.default_rng(seed).permutation(np.logspace(-spread, 0, convs[0].out_channels)))
    with torch.no_grad():
        norms[0].weight *= scale.float()
        norms[0].bias *= scale.float()
        convs[1].weight /= scale.float()[None, :, None, None]
    return judged(world, packed(net, world.names, world.data))
