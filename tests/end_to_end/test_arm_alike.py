"""Does a board install and compute what this machine does? Under emulation; nothing here goes by a clock, or is beside
anything that does.
"""

from __future__ import annotations

import subprocess
from pathlib import Path

import arm
import numpy as np
import predict
import pytest
from emulated import on_every_board, python
from step import StepFailed

from edge_agent.contract.artifact import write_artifact
from models import data
from models.package import package
from models.train import fit
from models.trainer import settings_of

pytestmark = pytest.mark.timeout(900)


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


@on_every_board
def test_predictions_are_the_same(board: str, int8: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    x = data.load_fashion(data.default_cache())[1].x[:100]
    np.save(tmp_path / "x.npy", x)
    words = [python(board, monkeypatch), Path(predict.__file__), int8, tmp_path / "x.npy", tmp_path / "said.npy"]
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
