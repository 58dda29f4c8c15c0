"""What does the model say of a sample?

An onnxruntime session over one artifact. Samples are copied into the rows of a ring whose memory is bound to the
session once, and run one by one, so that a slow stream is not delayed by a batch and a fast one costs no allocation.
Scores are computed over the ring later, block by block.

    python -m edge_agent.model FOLDER VARIANT     golden test of an artifact; exits 3 with a JSON line when it fails
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray
from onnxruntime.capi import onnxruntime_pybind11_state as ort_state

from edge_agent.contract.artifact import Manifest, read_artifact
from edge_agent.contract.errors import ArtifactError, IncompatibleError

EXIT_REFUSED = 3
ORT_ERRORS: tuple[type[Exception], ...] = (
    RuntimeError,
    ValueError,
    *(kind for kind in vars(ort_state).values() if isinstance(kind, type) and issubclass(kind, Exception)),
)  # they have no root of their own
BLOCK_BYTES = 1 << 20  # of a ring whose length is not given: more leaves the processor's cache
BLOCK_ROWS = (8, 128)  # fewest and most rows then; more rows share the cost of a pass, and it is shared enough by 128
WARM_RUNS = 4  # the first runs allocate and choose kernels: 6 times slower than later ones


class Model:
    """One loaded version and the ring its samples go through.

    inputs: (block, *shape) of the input's dtype. logits: (block, C) float32. embedding: (block, D) float32, or None.
    runs: for each row, a call that infers on it (`run` without its own cost).
    """

    def __init__(self, folder: Path, *, variant: str = "cpu-int8", threads: int = 1, block: int = 0) -> None:
        """Read, check and load an artifact; ArtifactError says why it cannot be used. A `block` of 0 goes by size."""
        self.manifest, data = read_artifact(folder, variant=variant)
        self.sha256 = self.manifest.variant(variant).sha256
        self._session = open_session(data, threads=threads)
        spec = self.manifest.input
        self.shape, self.dtype = tuple(spec.shape), np.dtype(spec.dtype)
        block = block or self._block_by_size()
        self.inputs: NDArray[np.generic] = np.zeros((block, *self.shape), self.dtype)
        self.logits = np.zeros((block, len(self.manifest.classes)), np.float32)
        self.embedding = self._ring_of_embedding(block)
        bindings = [self._bind(row) for row in range(block)]
        self.runs = [functools.partial(self._session.run_with_iobinding, binding) for binding in bindings]
        with _refusing(f"version {self.version} does not run"):
            for _ in range(WARM_RUNS):
                self.run(0)

    @property
    def version(self) -> int:
        """The number of the artifact."""
        return self.manifest.version

    def run(self, row: int) -> None:
        """Infer on `inputs[row]`; results stand in the same row of `logits` and `embedding`."""
        self.runs[row]()

    def predict(self, batch: NDArray[np.generic]) -> NDArray[np.float32]:
        """Logits (N, C) of (N, *shape), outside the ring."""
        feed = {self.manifest.input.name: np.ascontiguousarray(batch, self.dtype)}
        logits: NDArray[np.float32] = self._session.run([self.manifest.logits], feed)[0]
        return logits

    def check_golden(self) -> None:
        """IncompatibleError unless the golden inputs give the golden logits on this machine."""
        golden = self.manifest.golden
        inputs, expected = golden.inputs.array(), golden.logits.array()
        for row, sample in enumerate(inputs):
            self.inputs[0] = sample
            self.run(0)
            difference = float(np.abs(self.logits[0] - expected[row]).max())
            if not difference <= golden.tolerance:  # also when it is NaN
                raise IncompatibleError(
                    f"version {self.version}: golden input {row} is off by {difference:.4g}, "
                    f"at most {golden.tolerance:.4g} expected"
                )

    def _block_by_size(self) -> int:
        fewest, most = BLOCK_ROWS
        return min(max(BLOCK_BYTES // max(1, int(np.prod(self.shape)) * self.dtype.itemsize), fewest), most)

    def _ring_of_embedding(self, block: int) -> NDArray[np.float32] | None:
        name = self.manifest.embedding
        if not name:
            return None
        found = [output for output in self._session.get_outputs() if output.name == name]
        if not found or len(found[0].shape) != 2 or not isinstance(found[0].shape[1], int):
            raise IncompatibleError(f"version {self.version}: output {name!r} is not (N, D) with a fixed D")
        return np.zeros((block, found[0].shape[1]), np.float32)

    def _bind(self, row: int) -> ort.IOBinding:
        binding = self._session.io_binding()
        name = self.manifest.input.name
        source = self.inputs[row : row + 1]
        with _refusing(f"version {self.version}: cannot bind its input and outputs"):
            binding.bind_input(name, "cpu", 0, self.dtype.type, source.shape, source.ctypes.data)
            for output, ring in ((self.manifest.logits, self.logits), (self.manifest.embedding, self.embedding)):
                if ring is not None:
                    target = ring[row : row + 1]
                    binding.bind_output(output, "cpu", 0, np.float32, target.shape, target.ctypes.data)
        return binding


def open_session(data: bytes, *, threads: int = 1) -> ort.InferenceSession:
    """A session that does not spin (57 % of a core wasted at 50 Hz otherwise); IncompatibleError when it cannot be."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    with _refusing(f"onnxruntime {ort.__version__} cannot load it"):
        return ort.InferenceSession(data, options, providers=["CPUExecutionProvider"])


@contextmanager
def _refusing(what: str) -> Iterator[None]:
    """Turn onnxruntime's errors into IncompatibleError; of their pages of text the first line says it."""
    try:
        yield
    except ORT_ERRORS as error:
        raise IncompatibleError(f"{what}: {str(error).strip().splitlines()[0][:300]}") from error


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
    folder, variant = argv
    try:
        Model(Path(folder), variant=variant, block=1).check_golden()
    except ArtifactError as error:
        line = msgspec.json.encode({"error": type(error).__name__, "message": str(error)}).decode()
        sys.stdout.write(line + "\n")
        return EXIT_REFUSED
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
