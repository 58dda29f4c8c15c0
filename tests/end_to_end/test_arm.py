"""Does the agent do on aarch64 what it does here? Under emulation of a Raspberry Pi 4, whose processor has no dot
products, and of a 5: its real dependencies for aarch64, a real broker outside, a real server.
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import arm
import numpy as np
import predict
import pytest
from processes import Programs, query
from quadrants import another, artifact, images, overflowing
from step import StepFailed
from world import AGENT, SHARE, Served, expected

from edge_agent.contract.artifact import write_artifact
from models import data
from models.package import package
from models.train import fit
from models.trainer import settings_of

ROOT = Path(__file__).parent.parent.parent
pytestmark = pytest.mark.timeout(900)
LONG_S = 240.0  # an emulated start takes 10 s of a processor that others may want
ROWS = 60_000  # more than is played
AS_HERE = 60  # selected samples, at least, that are held against what this machine selects
RINGS = """
[rollout]
soak_s = 0.5
"""


@pytest.fixture(params=sorted(arm.BOARDS))
def python(request: pytest.FixtureRequest) -> Path:
    """A Python that runs as on that board."""
    found = arm.python_of(request.param)
    if found is None:
        pytest.skip("no emulated board is prepared: `make test-arm` does it, on a Debian-family system")
    return found


@pytest.fixture(scope="module")
def int8(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A convolutional network for clothes, quantised, as a round ships it."""
    train, _ = data.load_fashion(data.default_cache())
    x, y = train.x[:2_000], train.y[:2_000]
    net = fit(x, y, classes=10, settings=settings_of({"epochs": 2}, x.shape[1:], str(x.dtype)))
    made = package(net, name="clothes", names=train.names, version=1, calibration=x[:200], holdout=(x[:300], y[:300]))
    folder: Path = tmp_path_factory.mktemp("int8")
    write_artifact(folder, made.manifest, made.onnx)
    return folder


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> None:
    """Our code is what the emulated Python imports, and one thread is all that it has."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("OPENBLAS_NUM_THREADS", "1")


@pytest.mark.usefixtures("here")
def test_predictions_are_the_same(python: Path, int8: Path, tmp_path: Path) -> None:
    x = data.load_fashion(data.default_cache())[1].x[:100]
    np.save(tmp_path / "x.npy", x)
    words = [python, Path(predict.__file__), int8, tmp_path / "x.npy", tmp_path / "said.npy"]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.stdout.split() == ["aarch64"], done.stderr
    there, here = np.load(tmp_path / "said.npy"), predict.said(int8, x)
    np.testing.assert_allclose(there, here, atol=1e-4)
    assert (there[:, :10].argmax(axis=1) == here[:, :10].argmax(axis=1)).all()


@pytest.mark.parametrize("python", arm.PYTHONS)
def test_every_dependency_has_a_wheel_that_is_listed(python: str) -> None:
    try:
        found = arm.resolved(python)
    except StepFailed as error:
        if "connection" in str(error).lower():
            pytest.skip(f"no package index within reach: {error}")
        raise
    assert {"numpy", "onnxruntime", "paho-mqtt", "msgspec", "cryptography"} <= set(found)
    assert {"pillow", "opencv-python-headless", "pyserial"} <= set(found)
    assert all(file.endswith(("aarch64.whl", "any.whl")) for file in found.values())
    lines = [line for line in arm.WHEELS.read_text().splitlines() if line.startswith("|")]
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines]
    column = rows[0].index(f"Python {python}")
    listed = {row[0].partition(",")[0]: row[column] for row in rows[2:] if row[column] != "not needed"}
    said = {name: arm.brief(file) for name, file in found.items()}
    assert said == listed, "python3 scripts/arm.py --wheels writes the list"


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, here: None) -> Iterator[Served]:
    """A server that knows the agent's model."""
    monkeypatch.chdir(tmp_path)
    artifact(tmp_path / "first")
    with Programs() as programs:
        yield Served(tmp_path, programs, settings=RINGS, before=[("model", "add", str(tmp_path / "first"))])


def test_an_agent_selects_as_here_sends_and_changes_its_model(python: Path, world: Served) -> None:
    np.savez(world.folder / "pi.npz", x=images(ROWS, seed=5)[0])
    settings = AGENT.format(name="pi", rate=100, share=SHARE, broker=world.broker_url, updates="true")
    # A bad model is to run, and be reverted; and emulated times say nothing.
    settings = settings.replace("shadow_samples = 20", "shadow_samples = 0\nmax_latency_ratio = 1000.0")
    world.start_agent("pi", settings, python=str(python))
    wait = world.programs.wait_for
    path = world.folder / "pi" / "status.json"

    def runs(version: int) -> bool:
        model = world.beat("pi").model if path.exists() else None
        return model is not None and (model.version, model.slot) == (version, "steady")

    def told(kind: str, version: int) -> bool:
        sql = f"select text from event where device = 'pi' and kind = '{kind}' and model_version = {version}"
        return bool(query(world.catalogue, sql))

    wait("the first model runs", lambda: runs(1), within_s=LONG_S)
    by_the_first = "select seq from sample where device = 'pi' and model_version = 1 order by seq"
    wait("it sends", lambda: len(query(world.catalogue, by_the_first)) >= AS_HERE, within_s=LONG_S)
    another(world.folder / "second", version=2)
    world.command("model", "add", str(world.folder / "second"))
    wait("a good model is committed", lambda: runs(2) and told("commit", 2), within_s=LONG_S)
    overflowing(world.folder / "third", version=3)
    world.command("model", "add", str(world.folder / "third"))
    wait("a bad one is reverted", lambda: told("revert", 3) and runs(2), within_s=LONG_S)
    selected = world.beat("pi").outbox.put_total
    count = "select count(*) from sample where device = 'pi'"
    wait("what was selected is stored", lambda: query(world.catalogue, count)[0][0] >= selected > 0, within_s=LONG_S)
    found = [seq for (seq,) in query(world.catalogue, by_the_first)]
    assert found == [seq for seq in expected("pi", ROWS, 5) if seq <= found[-1]]
