"""On what does a model run: the processor, or what the board has beside it?

`[model] providers` names execution providers of onnxruntime, best first. What this build of onnxruntime lacks is passed
over. What it has is tried with all that come after it, because a provider leaves to them the nodes that it cannot take;
one that does not start, or gives other answers than the golden ones, is passed over too. The processor is always last,
and every provider that was passed over is named, with the reason.

A provider that failed with a model is not tried with it again: the reason stands in a file beside the engines that
TensorRT built, in a folder to each model (by the hash of its file), until onnxruntime is another, a week has passed (a
driver may have been mended meanwhile), or somebody deletes it.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple

import msgspec

if TYPE_CHECKING:
    import onnxruntime as ort

Name = Literal["tensorrt", "cuda", "openvino", "xnnpack", "acl", "cpu"]
Precision = Literal["fp32", "fp16", "int8"]
Options = dict[str, str]

CPU: Name = "cpu"
KNOWN: dict[Name, str] = {
    "tensorrt": "TensorrtExecutionProvider",
    "cuda": "CUDAExecutionProvider",
    "openvino": "OpenVINOExecutionProvider",
    "xnnpack": "XnnpackExecutionProvider",
    "acl": "ACLExecutionProvider",
    "cpu": "CPUExecutionProvider",
}
TELL = "session.record_ep_graph_assignment_info"  # key of a session's configuration; older builds pass it over
ON_A_GPU = frozenset({"tensorrt", "cuda"})
REASON_CHARS = 300
AGAIN_S = 7 * 86_400.0  # until one that failed is tried again: sooner, and a board builds engines in vain more often


class Chain(msgspec.Struct, frozen=True):
    """What one session is made with: providers, best first, each with its options."""

    names: tuple[Name, ...] = (CPU,)
    options: tuple[Options, ...] = ({},)
    own_threads: bool = False  # the first brings threads of its own, and onnxruntime's would only contend with them

    @property
    def on_a_gpu(self) -> bool:
        """Whether it reserves addresses by the gigabyte, which no limit of address space may hold against it."""
        return bool(ON_A_GPU & set(self.names))

    def for_onnxruntime(self) -> list[tuple[str, Options]]:
        """As InferenceSession takes them."""
        return [(KNOWN[name], options) for name, options in zip(self.names, self.options, strict=True)]


PROCESSOR = Chain()


class Tried(NamedTuple):
    """A chain to try, or why its first is not worth it."""

    chain: Chain | None
    why_not: str = ""


class Providers:
    """What is wanted, and what is known of it."""

    def __init__(
        self,
        names: tuple[Name, ...] = (CPU,),
        *,
        engines: Path | None = None,
        precision: Precision = "fp32",
        threads: int = 1,
        wall_s: Callable[[], float] = time.time,
    ) -> None:
        """`engines`: where to keep what TensorRT builds, and what failed; None: nothing is kept."""
        self.names: tuple[Name, ...] = (*(name for name in dict.fromkeys(names) if name != CPU), CPU)
        self._engines = engines
        self._precision = precision
        self._threads = threads
        self._wall_s = wall_s

    def tries(self, sha256: str) -> Iterator[Tried]:
        """Chains for a model, best first; the processor alone is last."""
        import onnxruntime as ort  # configuration is read without it

        there = set(ort.get_available_providers())
        for at, name in enumerate(self.names):
            if KNOWN[name] not in there:
                yield Tried(None, f"{name}: not in this build of onnxruntime {ort.__version__}")
            elif why := self._failed_before(name, sha256):
                yield Tried(None, f"{name}: {why}")
            else:
                names = tuple(
                    other
                    for other in self.names[at:]
                    if KNOWN[other] in there and not self._failed_before(other, sha256)
                )
                self._make_room(names, sha256)
                options = tuple(self._options(other, sha256) for other in names)
                yield Tried(Chain(names, options, own_threads=name == "xnnpack"))

    def failed(self, name: Name, sha256: str, why: str) -> None:
        """Note that a provider is no good for a model."""
        if self._engines is not None and name != CPU:
            note = self._note(name, sha256)
            with contextlib.suppress(OSError):  # a full disk stops nothing: it is tried again
                note.parent.mkdir(parents=True, exist_ok=True)
                note.write_text(why[:REASON_CHARS], encoding="utf-8")

    def used(self, sha256: str, name: Name = CPU) -> None:
        """A model runs, on a provider: what is kept for it is the newest, and that this one ever failed is past."""
        if self._engines is not None and (self._engines / sha256).is_dir():
            with contextlib.suppress(OSError):
                self._note(name, sha256).unlink(missing_ok=True)
                os.utime(self._engines / sha256)

    def sweep(self, keep: int) -> None:
        """Delete what is kept for models, but for those that were used last."""
        if self._engines is not None and self._engines.is_dir():
            folders = sorted(self._engines.iterdir(), key=lambda folder: folder.stat().st_mtime, reverse=True)
            for folder in folders[keep:]:
                import shutil

                shutil.rmtree(folder, ignore_errors=True)

    def _make_room(self, names: tuple[Name, ...], sha256: str) -> None:
        """TensorRT makes a folder for its engines, but none above it."""
        if self._engines is not None and "tensorrt" in names:
            with contextlib.suppress(OSError):
                (self._engines / sha256).mkdir(parents=True, exist_ok=True)

    def _failed_before(self, name: Name, sha256: str) -> str:
        if self._engines is None:
            return ""
        note = self._note(name, sha256)
        try:
            age_s = self._wall_s() - note.stat().st_mtime
            # A board without a clock of its own may have written it in another year.
            return note.read_text(encoding="utf-8", errors="replace") if abs(age_s) < AGAIN_S else ""
        except OSError:
            return ""

    def _note(self, name: Name, sha256: str) -> Path:
        import onnxruntime as ort

        assert self._engines is not None  # noqa: S101 - its callers have looked
        return self._engines / sha256 / f"{name}-{ort.__version__}.failed"

    def _options(self, name: Name, sha256: str) -> Options:
        """Option names: onnxruntime.ai/docs/execution-providers, a page to each."""
        if name == "tensorrt":
            return self._of_tensorrt(sha256)
        if name == "cuda":
            # Found by rule instead of by timing, and without TF32: the same sample gives the same bits after a restart.
            return {"cudnn_conv_algo_search": "HEURISTIC", "use_tf32": "0"}
        if name == "xnnpack":
            return {"intra_op_num_threads": str(self._threads)}
        return {}

    def _of_tensorrt(self, sha256: str) -> Options:
        options = {
            "trt_fp16_enable": str(self._precision == "fp16"),
            "trt_int8_enable": str(self._precision == "int8"),
        }
        if self._engines is not None:
            folder = str(self._engines / sha256)
            options |= {
                "trt_engine_cache_enable": "True",  # building one takes minutes on a board
                "trt_engine_cache_path": folder,
                "trt_timing_cache_enable": "True",
                "trt_timing_cache_path": folder,
            }
        return options


def executing(session: ort.InferenceSession, chain: Chain) -> Name:
    """Which provider has most of the graph, where this build tells; else the first that the session has."""
    short = {full: name for name, full in KNOWN.items()}
    ask = getattr(session, "get_provider_graph_assignment_info", None)  # it came with 1.24
    nodes: dict[str, int] = {}
    for part in ask() if ask is not None and chain != PROCESSOR else ():
        nodes[part.ep_name] = nodes.get(part.ep_name, 0) + len(part.get_nodes())
    most = max(nodes, key=lambda full: nodes[full]) if nodes else session.get_providers()[0]
    return short.get(most, CPU)
