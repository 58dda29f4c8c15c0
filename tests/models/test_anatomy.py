"""Is what is said of a model what is in it?"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from msgspec import structs
from onnx import TensorProto, helper, numpy_helper
from quadrants import artifact
from scenes import detector

from edge_agent.contract.artifact import Tensor
from edge_agent.contract.errors import IncompatibleError
from models.anatomy import anatomy
from models.quantize import to_int8
from server.__main__ import main

KERAS = Path(__file__).parent / "exports" / "keras-plain.onnx"


def small(*, opset: int = 17, ir_version: int = 8, domain: str = "") -> bytes:
    weights = [numpy_helper.from_array(np.ones((4, 3), np.float32), "w")]
    node = helper.make_node("MatMul", ["x", "w"], ["y"], name="head", domain=domain)
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", size]) for name, size in (("x", 4), ("y", 3)))
    graph = helper.make_graph([node], "g", [x], [y], weights)
    sets = [helper.make_opsetid("", opset), *([helper.make_opsetid(domain, 1)] if domain else [])]
    return helper.make_model(graph, opset_imports=sets, ir_version=ir_version).SerializeToString()


def test_a_file_of_keras_is_laid_open() -> None:
    found = anatomy(KERAS.read_bytes())
    assert [(port.name, port.dtype, port.shape[1:]) for port in found.inputs] == [("x", "float", (16, 16, 3))]
    assert found.operators["Conv"] == 3
    assert found.embedding.endswith("Mean_Squeeze__27:0")
    assert "the last layer, MatMul" in found.why
    assert found.runtime == "1.20"
    assert found.parameters == sum(int(np.prod(t.dims)) for t in onnx.load(KERAS).graph.initializer)
    assert found.layers[0].bytes >= found.layers[1].bytes >= found.layers[-1].bytes


@pytest.mark.parametrize(
    ("opset", "ir_version", "runtime"),
    [
        (17, 8, "1.20"),
        (21, 10, "1.20"),
        (22, 10, "1.21"),
        (17, 11, "1.23"),
        (23, 10, "1.23"),
        (24, 8, "1.24"),
        (17, 13, "1.24"),
        (27, 14, ""),
    ],
)
def test_who_can_load_it(opset: int, ir_version: int, runtime: str) -> None:
    assert anatomy(small(opset=opset, ir_version=ir_version)).runtime == runtime


def test_what_is_of_8_bits_is_told_and_what_others_do_with_it() -> None:
    found = anatomy(to_int8(small(), np.random.default_rng(0).normal(size=(64, 4)).astype(np.float32), logits="y"))
    assert 0.5 < found.int8_share < 1.0
    assert any("TensorRT wants signed" in caveat for caveat in found.caveats)
    assert anatomy(small()).int8_share == 0.0
    assert any("agents refuse them" in caveat for caveat in anatomy(small(domain="my.own")).caveats)
    assert any("batch axis is free" in caveat for caveat in anatomy(small()).caveats)


def test_what_is_no_model_is_refused() -> None:
    for data in (b"nothing", b""):
        with pytest.raises(IncompatibleError, match="not an ONNX model"):
            anatomy(data)


def test_the_command_says_it_of_a_file_a_folder_and_a_version(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def said(*words: str) -> str:
        assert main(["model", "inspect", *words]) == 0
        return capsys.readouterr().out

    artifact(tmp_path / "first", notes=("of a test",))
    (tmp_path / "server.toml").write_text('[server]\nfleet = "test"\n[broker]\nplain = true\n')
    assert main(["model", "add", str(tmp_path / "first"), str(tmp_path / "server.toml")]) == 0
    capsys.readouterr()
    assert "opset      17, IR 8: onnxruntime 1.20 and newer load it" in said(str(KERAS))
    for what in ([str(tmp_path / "first")], ["1", str(tmp_path / "server.toml")]):
        lines = said(*what)
        assert "passed here" in lines
        assert "note       of a test" in lines
        found = json.loads(said(*what, "--json"))
        assert found["manifest"]["version"] == 1
        assert sum(found["model"]["operators"].values()) > 2
    assert main(["model", "inspect", "9", str(tmp_path / "server.toml")]) == 1
    assert "version 9 is not in the registry" in capsys.readouterr().err
    assert main(["model", "inspect", str(tmp_path / "nowhere")]) == 1
    assert "expected an artifact folder, ONNX file or number" in capsys.readouterr().err


@pytest.mark.parametrize(("shift", "said"), [(0.0, "passed here"), (0.06, "FAILED here")])
def test_boxes_that_are_not_those_of_the_manifest_are_told(
    shift: float, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = detector(tmp_path / "right").golden
    boxes = Tensor.of(made.outputs["boxes"].array() + np.float32(shift))
    detector(tmp_path / "net", golden=structs.replace(made, outputs={"boxes": boxes}, tolerance=0.1))
    assert main(["model", "inspect", str(tmp_path / "net")]) == 0
    assert said in capsys.readouterr().out
    assert main(["model", "inspect", str(tmp_path / "net"), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)["manifest"]["golden"]
    assert (found["passed"], found["off_by"]["logits"]) == (not shift, 0.0)
    assert found["off_by"]["boxes"] == pytest.approx(shift, abs=1e-6)
