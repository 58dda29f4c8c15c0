"""What does the agent cost over a bare onnxruntime loop?

Both run over the same samples in processes of their own, one thread, as fast as they can: `winnow-agent run` with its
outbox, and `for sample in x: session.run(...)`. Each is run with many samples and with few; the difference of the two
times is what the samples took, start and stop of the process taken out.

    python -m server.demo.overhead MODEL.onnx DATA.npz       the bare loop
"""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edge_agent.config import AgentConfig, Budget, Device, Log, Source
from edge_agent.config import Model as ModelSection
from edge_agent.contract import settings
from edge_agent.contract.artifact import MODEL
from server.child import end, spawn
from server.demo.stage import Advance
from server.errors import ServerError

FEW = 200
MOST = 200_000  # samples of a run, however fast the model
LIMIT_S = 120.0


def measure(
    folder: Path,
    artifact: Path,
    x: NDArray[np.generic],
    *,
    bare_s: float,
    repeats: int,
    label_share: float,
    advance: Advance,
) -> float | None:
    """Agent samples/s over bare samples/s: of each, the quickest of runs in turn. ServerError when one fails.

    What else the machine does only adds to a run. The bare loop runs about `bare_s`: much less, and the start of a
    process drowns what the samples take. None where the machine is too busy to tell many samples from few.
    """
    folder.mkdir(parents=True, exist_ok=True)
    many = FEW + samples_for(bare_s, artifact / MODEL, x)
    for name, count in (("few", FEW), ("many", many)):
        np.savez(folder / f"{name}.npz", x=x[np.arange(count) % len(x)])
    agent_s: dict[str, list[float]] = {"few": [], "many": []}
    alone_s: dict[str, list[float]] = {"few": [], "many": []}
    for turn in range(repeats):
        advance(turn / repeats)
        for name in ("few", "many"):
            agent_s[name].append(_agent(folder, artifact, name, f"{name}-{turn}", label_share))
            alone_s[name].append(_bare(folder, artifact / MODEL, name))
    took, bare = (min(runs["many"]) - min(runs["few"]) for runs in (agent_s, alone_s))
    return bare / took if took > 0.0 and bare > 0.0 else None


def _agent(folder: Path, artifact: Path, recording: str, name: str, label_share: float) -> float:
    config = AgentConfig(
        device=Device(name="overhead", data_dir=str(folder / name)),
        source=Source(kind="replay", path=str(folder / f"{recording}.npz"), stop_at_end=True),
        model=ModelSection(artifact=str(artifact)),
        budget=Budget(label_share=label_share),
        log=Log(level="warning"),
    )
    toml = folder / f"{name}.toml"
    toml.write_text(settings.show(config), encoding="utf-8")
    return _seconds([sys.executable, "-m", "edge_agent", "run", str(toml)], folder)


def _bare(folder: Path, model: Path, recording: str) -> float:
    return _seconds([sys.executable, "-m", __name__, str(model), str(folder / f"{recording}.npz")], folder)


def _seconds(argv: list[str], folder: Path) -> float:
    with open(folder / "overhead.log", "ab") as log:
        begun = time.perf_counter()
        child = spawn(argv, output=log, environment={"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"})
        try:
            code = child.wait(LIMIT_S)
        except subprocess.TimeoutExpired as error:
            raise ServerError(f"{' '.join(argv)} did not end within {LIMIT_S:.0f} s") from error
        finally:
            end([child], within_s=1.0)
    if code:
        raise ServerError(f"{' '.join(argv)} ended with {code}: see {folder / 'overhead.log'}")
    return time.perf_counter() - begun


def samples_for(bare_s: float, model: Path, x: NDArray[np.generic]) -> int:
    """How many samples the bare loop takes in about so long."""
    took_s = []
    for count in (FEW, 5 * FEW):  # their difference leaves the start out
        begun = time.perf_counter()
        run_bare(model, x[np.arange(count) % len(x)])
        took_s.append(time.perf_counter() - begun)
    per_sample_s = max(1e-6, (took_s[1] - took_s[0]) / (4 * FEW))
    return max(FEW, min(MOST, int(bare_s / per_sample_s)))


def bare_loop(model: Path, recording: Path) -> None:
    """Over the samples of a recording."""
    with np.load(recording) as archive:
        run_bare(model, archive["x"])


def run_bare(model: Path, x: NDArray[np.generic]) -> None:
    """What anybody would write."""
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    names = [output.name for output in session.get_outputs()]
    for row in range(len(x)):
        session.run(names, {name: x[row : row + 1]})


if __name__ == "__main__":
    bare_loop(Path(sys.argv[1]), Path(sys.argv[2]))
