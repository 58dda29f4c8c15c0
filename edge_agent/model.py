"""What does the model say of a sample?

An onnxruntime session over one artifact. Samples are copied into memory that is bound to the session once; what the
graph says of each stands in a row of its own. Scores are computed over these rows later, block by block, so nobody
waits for a single sample: a small model infers on several in one run, where each gets the same bits as alone.

    python -m edge_agent.model FOLDER VARIANT [PROVIDERS]     golden test of an artifact; exits 3 with a JSON line when
                                                             it fails. PROVIDERS: a Chain, as JSON
"""

from __future__ import annotations

import copy
import functools
import math
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from edge_agent.contract.artifact import Manifest, read_artifact
from edge_agent.contract.errors import ArtifactError, IncompatibleError
from edge_agent.contract.outputs import BOXES_OFF, looked_at, outputs_of
from edge_agent.providers import PROCESSOR, Chain, Name, executing
from edge_agent.runtime import ORT_ERRORS, open_session, refusing

EXIT_REFUSED = 3
BLOCK_BYTES = 16 << 20  # of samples held by a block whose length is not given: more is memory, and comes later;
# fewer rows share the cost of a pass, which finds its code and tables evicted by the model: 0.5 ms after a 0.4 ms one
BLOCK_ROWS = (8, 256)  # fewest and most rows then; by 256 a pass costs 2 us a sample, and more only comes later
SCORE_BYTES = 64  # that a pass touches for each class of a row, counted in for the same reason
FEW = 4096  # numbers, for a product that a library does not spread over threads
WARM_RUNS = 4  # the first runs allocate and choose kernels: 6 times slower than later ones
TOGETHER = 8  # samples to one run where it pays: 3 times faster at 20 us a sample; more hardly is, and leaves more over
SMALL_BYTES = 64 * 1024  # a larger sample comes with a slower model, and several of them leave the cache
FAST_S = 0.001  # a run that is longer gains nothing by company, and would keep the loop from its orders

Floats = NDArray[np.float32]
Step = tuple[NDArray[np.generic], "Callable[[], None] | None"]


class Model:
    """One loaded version and the ring its samples go through.

    logits: (rows, C) float32, or (rows, T, C) of a graph with T heads; of a detector (rows, A, C). embedding: (rows, D)
    float32, or None. further: what the task reads beside, or None: boxes (rows, A, 4), log variances as the logits.
    steps: for each row, the array (*shape) to copy its sample into, and the call that then infers on it, and on those
    before that had none. They write to memory of the model, and are not to outlive it.
    together: samples to one run: TOGETHER for a small fast graph that gives each the same bits in any company, else 1.
    """

    def __init__(
        self,
        folder: Path,
        *,
        variant: str = "cpu-int8",
        threads: int = 1,
        block: int = 0,
        together: int = TOGETHER,
        chain: Chain = PROCESSOR,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        """Read, check and load an artifact; ArtifactError says why it cannot be used.

        A `block` of 0 goes by size. `together`: at most so many samples to one run. `chain`: what it is to run on.
        """
        self.manifest, data = read_artifact(folder, variant=variant)
        self.grew_bytes = 0  # what loading it added to the process, as whoever loads it finds; 0: not known
        self.sha256 = self.manifest.variant(variant).sha256
        self._session = open_session(data, threads=threads, chain=chain)
        self.provider: Name = executing(self._session, chain)
        spec = self.manifest.input
        self.shape, self.dtype = tuple(spec.shape), np.dtype(spec.dtype)
        self._gives = outputs_of(self.manifest, {output.name: output.shape for output in self._session.get_outputs()})
        self._block = block
        self.rows = block or self._rows_by_size(BLOCK_BYTES)
        together = together if self._sample_bytes() <= SMALL_BYTES and together <= self.rows else 1
        # Whole numbers are always sound: few places, always in the cache, do for all. Floats are looked at by blocks.
        self._lay(self.rows if self.dtype.kind == "f" else together)
        pays = self._warm(clock) < FAST_S and together > 1
        self.together = together if pays and self._is_alike(together) else 1
        self.steps = tuple(self._step(row) for row in range(self.rows))

    def twin(self) -> Model:
        """The same version over a ring of its own, half as long, in which every sample keeps its place; one by one."""
        twin = copy.copy(self)
        twin.together, twin.rows = 1, self._block or self._rows_by_size(BLOCK_BYTES // 2)
        twin._lay(twin.rows)
        twin.steps = tuple(twin._step(row) for row in range(twin.rows))
        return twin

    def _lay(self, places: int) -> None:
        """Out the ring, with so many places for samples."""
        self._inputs: NDArray[np.generic] = np.zeros((places, *self.shape), self.dtype)
        self.logits = self._ring(self._gives.logits)
        self.embedding = self._ring_of_embedding()
        self.further = self._ring(self._gives.further_shape) if self._gives.further else None
        with refusing(f"version {self.version}: cannot bind its input and outputs"):
            self._alone: dict[int, Callable[[], None]] = {0: self._bind(0)}  # runs of single rows, as they are needed

    @property
    def version(self) -> int:
        """The number of the artifact."""
        return self.manifest.version

    def run(self, row: int, sample: NDArray[np.generic]) -> None:
        """Infer on (*shape); results stand in that row of `logits` and `embedding`."""
        self._place(row)[...] = sample
        self._run_of(row)()

    def infer(self, row: int) -> None:
        """Infer on the sample that stands in the place of that row, alone: for what no step has inferred on."""
        self._run_of(row)()

    def broken(self, count: int) -> NDArray[np.bool_] | None:
        """(count,) which of the first samples have NaN or inf, though logits may be finite; None when none has."""
        if self.dtype.kind != "f":
            return None
        inputs = self._inputs[:count].reshape(count, -1)
        with np.errstate(over="ignore", invalid="ignore"):
            sums = inputs.sum(axis=1, dtype=np.promote_types(self.dtype, np.float32))
        if np.isfinite(sums).all():
            return None
        broken: NDArray[np.bool_] = ~np.isfinite(inputs).all(axis=1)  # a sum may also overflow
        return broken

    def is_sound(self, row: int) -> bool:
        """Whether the sample in the place of that row is of finite numbers."""
        if self.dtype.kind != "f":
            return True
        place = self._inputs[row % len(self._inputs)]
        if place.size <= FEW and math.isfinite(np.vdot(place, place)):  # a fifth of what it takes to look at each
            return True
        return bool(np.isfinite(place).all())

    def predict(self, batch: NDArray[np.generic]) -> NDArray[np.float32]:
        """Logits (N, C), or (N, T, C), of (N, *shape), outside the ring."""
        feed = {self.manifest.input.name: np.ascontiguousarray(batch, self.dtype)}
        logits: NDArray[np.float32] = self._session.run([self.manifest.logits], feed)[0]
        return logits

    def check_golden(self) -> None:
        """IncompatibleError unless the golden inputs give the golden outputs on this machine."""
        golden, name = self.manifest.golden, self._gives.further
        inputs, logits, further = golden.inputs.array(), golden.logits.array(), None
        if self.further is not None:
            if name not in golden.outputs:
                raise IncompatibleError(f"version {self.version}: its golden inputs say nothing of output {name!r}")
            further = golden.outputs[name].array()
        for row, sample in enumerate(inputs):
            self.run(0, sample)
            self._hold(self.logits[0], logits[row], golden.tolerance, f"golden input {row}")
            if self.further is None or further is None:
                continue
            rows: Any = slice(None)
            tolerance = golden.tolerance
            if self.manifest.task == "detection":
                rows, tolerance = looked_at(self.manifest, logits[row]), min(tolerance, BOXES_OFF)
            self._hold(self.further[0][rows], further[row][rows], tolerance, f"golden input {row} in {name!r}")

    def _hold(self, found: Floats, expected: NDArray[Any], tolerance: float, what: str) -> None:
        difference = float(np.abs(found - expected).max())
        if not difference <= tolerance:  # also when it is NaN
            raise IncompatibleError(
                f"version {self.version}: {what} is off by {difference:.4g}, at most {tolerance:.4g} expected"
            )

    def _rows_by_size(self, block_bytes: int) -> int:
        fewest, most = BLOCK_ROWS
        row_bytes = self._sample_bytes() + SCORE_BYTES * int(np.prod(self._gives.logits))
        return min(max(block_bytes // row_bytes, fewest), most)

    def _sample_bytes(self) -> int:
        return int(np.prod(self.shape)) * self.dtype.itemsize

    def _ring(self, shape: tuple[int, ...]) -> Floats:
        return np.zeros((self.rows, *shape), np.float32)

    def _ring_of_embedding(self) -> NDArray[np.float32] | None:
        name = self.manifest.embedding
        if not name:
            return None
        found = [output for output in self._session.get_outputs() if output.name == name]
        if not found or len(found[0].shape) != 2 or not isinstance(found[0].shape[1], int):
            raise IncompatibleError(f"version {self.version}: output {name!r} is not (N, D) with a fixed D")
        width, reference = found[0].shape[1], self.manifest.reference
        shapes = (reference.embedding_mean.shape, reference.embedding_sd.shape, reference.class_centres.shape)
        fitting = ((width,), (width,), (len(self.manifest.outcomes), width))
        if shapes != fitting:
            raise IncompatibleError(
                f"version {self.version}: its reference is of {shapes} (mean, sd, class centres), expected {fitting}"
            )
        return self._ring((width,))

    # --- steps ---

    def _place(self, row: int) -> NDArray[np.generic]:
        place = row % len(self._inputs)
        return self._inputs[place : place + 1].reshape(self.shape)

    def _step(self, row: int) -> Step:
        if self.together == 1:
            return self._place(row), self._run_of(row)
        first, position = row - row % self.together, row % self.together
        return self._place(row), self._bind(first, self.together) if position == self.together - 1 else None

    def _run_of(self, row: int) -> Callable[[], None]:
        run = self._alone.get(row)
        if run is None:
            run = self._alone[row] = self._bind(row)
        return run

    def _bind(self, row: int, count: int = 1) -> Callable[[], None]:
        """A run over `count` rows from `row` on."""
        binding = self._session.io_binding()
        place = row % len(self._inputs)
        source = self._inputs[place : place + count]
        binding.bind_input(self.manifest.input.name, "cpu", 0, self.dtype.type, source.shape, source.ctypes.data)
        for output, ring in self._rings():
            if ring is not None:
                target = ring[row : row + count]
                binding.bind_output(output, "cpu", 0, np.float32, target.shape, target.ctypes.data)
        return functools.partial(self._session.run_with_iobinding, binding)

    def _warm(self, clock: Callable[[], float]) -> float:
        """Seconds of the fastest of the first runs."""
        took = []
        with refusing(f"version {self.version} does not run"):
            for _ in range(WARM_RUNS):
                began = clock()
                self.run(0, np.zeros(self.shape, self.dtype))
                took.append(clock() - began)
        return min(took)

    def _is_alike(self, count: int) -> bool:
        """Whether golden inputs in one run give, at every place among others, the bits that they give alone.

        Else decisions would depend on company: dynamic quantisation, for one, takes its scale from the whole batch.
        """
        samples = self.manifest.golden.inputs.array()
        if all(np.array_equal(one, samples[0]) for one in samples[1:]):  # the same in company of itself says nothing
            return False
        rings = [ring for _, ring in self._rings() if ring is not None]
        try:
            samples = samples[: 2 * count - 1]
            alone = [np.empty((len(samples), *ring.shape[1:]), np.float32) for ring in rings]
            for row, sample in enumerate(samples):
                self.run(0, sample)
                for ring, said in zip(rings, alone, strict=True):
                    said[row] = ring[0]
            run = self._bind(0, count)
            for shift in range(count):
                chosen = (np.arange(count) + shift) % len(samples)
                self._inputs[:count] = samples[chosen]
                run()
                if not all(np.array_equal(ring[:count], said[chosen]) for ring, said in zip(rings, alone, strict=True)):
                    return False
        except ORT_ERRORS:  # the graph takes one sample at a time
            return False
        return True

    def _rings(self) -> tuple[tuple[str, Floats | None], ...]:
        """Each output that is read, and where its rows stand."""
        about = self.manifest
        return (about.logits, self.logits), (about.embedding, self.embedding), (self._gives.further, self.further)


def misfit(manifest: Manifest, data: NDArray[np.generic]) -> str:
    """Both shapes, when a sample does not fit the model's input; else nothing."""
    spec = manifest.input
    if tuple(data.shape) == tuple(spec.shape) and data.dtype == spec.dtype:
        return ""
    return (
        f"the source gives {tuple(data.shape)} {data.dtype}, "
        f"model version {manifest.version} takes {tuple(spec.shape)} {spec.dtype}"
    )


def main(argv: list[str]) -> int:
    """Golden test in a process of its own, so that a model that kills its process kills nothing else."""
    folder, variant, *rest = argv
    chain = msgspec.json.decode(rest[0], type=Chain) if rest else PROCESSOR
    try:
        Model(Path(folder), variant=variant, block=1, chain=chain).check_golden()
    except ArtifactError as error:
        line = msgspec.json.encode({"error": type(error).__name__, "message": str(error)}).decode()
        sys.stdout.write(line + "\n")
        return EXIT_REFUSED
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
