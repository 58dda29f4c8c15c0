from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import graphs
import msgspec
import numpy as np
import pytest
from quadrants import ARTIFACT, artifact, images

from edge_agent.contract.artifact import (
    MODEL,
    Golden,
    InputSpec,
    Tensor,
    decode_manifest,
    read_artifact,
    write_artifact,
)
from edge_agent.contract.errors import ArtifactError, IncompatibleError, IntegrityError
from edge_agent.model import EXIT_REFUSED, Model, misfit


def test_rows_of_the_ring_give_what_a_batch_gives() -> None:
    x, y = images(64)
    model = Model(ARTIFACT, block=8)
    batch = model.predict(x)
    for start in range(0, 64, 8):
        for row in range(8):
            model.run(row, x[start + row])
        np.testing.assert_allclose(model.logits, batch[start : start + 8], rtol=1e-5)
    assert (batch.argmax(axis=1) == y).mean() > 0.7
    assert model.embedding is not None
    assert model.embedding.shape == (8, 12)


def test_the_golden_artifact_passes_its_golden_test() -> None:
    Model(ARTIFACT).check_golden()


def test_a_model_that_gives_other_logits_is_refused(tmp_path: Path) -> None:
    golden = decode_manifest((ARTIFACT / "manifest.json").read_bytes()).golden
    off = golden.logits.array() + 0.1
    artifact(tmp_path, golden=Golden(inputs=golden.inputs, logits=Tensor.of(off), tolerance=0.01))
    with pytest.raises(IncompatibleError, match="golden input 0 is off by 0.1"):
        Model(tmp_path).check_golden()


def test_a_flipped_byte_is_refused(tmp_path: Path) -> None:
    artifact(tmp_path)
    data = bytearray((tmp_path / MODEL).read_bytes())
    data[1000] ^= 1
    (tmp_path / MODEL).write_bytes(data)
    with pytest.raises(IntegrityError, match="sha256"):
        Model(tmp_path)


def test_what_is_no_artifact_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="expected an artifact folder"):
        Model(tmp_path)


@pytest.mark.parametrize(
    "changes",
    [
        {"embedding": "nowhere"},
        {"logits": "nowhere"},
        {"input": InputSpec(name="input", shape=(9, 9), dtype="uint8")},
        {"input": InputSpec(name="other", shape=(8, 8), dtype="uint8")},
        {"input": InputSpec(name="input", shape=(8, 8), dtype="float32")},
        {"classes": ("a", "b")},
    ],
)
def test_a_manifest_that_lies_about_the_graph_is_refused(tmp_path: Path, changes: dict[str, object]) -> None:
    artifact(tmp_path, **changes)
    with pytest.raises(IncompatibleError):
        Model(tmp_path).check_golden()


def test_bytes_that_are_no_graph_are_refused(tmp_path: Path) -> None:
    manifest = artifact(tmp_path)
    from edge_agent.contract.artifact import OnnxFile, sha256_hex, write_artifact

    rubbish = b"rubbish" * 100
    file = OnnxFile(sha256=sha256_hex(rubbish), bytes=len(rubbish))
    write_artifact(tmp_path, msgspec.structs.replace(manifest, files={"cpu-fp32": file}), rubbish)
    with pytest.raises(IncompatibleError, match="cannot be read"):
        Model(tmp_path)


def test_the_checker_program_speaks_json_and_exits_3(tmp_path: Path) -> None:
    run = [sys.executable, "-m", "edge_agent.model"]
    assert subprocess.run([*run, str(ARTIFACT), "cpu-int8"], capture_output=True).returncode == 0
    refused = subprocess.run([*run, str(tmp_path), "cpu-int8"], capture_output=True)
    assert refused.returncode == EXIT_REFUSED
    assert msgspec.json.decode(refused.stdout)["error"] == "ArtifactError"


def test_misfit_says_both_shapes() -> None:
    manifest = Model(ARTIFACT).manifest
    assert misfit(manifest, np.zeros((8, 8), np.uint8)) == ""
    text = misfit(manifest, np.zeros((3, 32, 32), np.float32))
    assert "(3, 32, 32) float32" in text
    assert "(8, 8) uint8" in text


def weights() -> dict[str, np.ndarray]:
    return {"w": np.random.default_rng(1).normal(size=(graphs.WIDTH, 3)).astype(np.float32)}


LINEAR: list[graphs.Node] = [("MatMul", ["x", "w"], ["logits"], {})]
COMPANY: list[graphs.Node] = [  # what a sample gets depends on the others, as with dynamic quantisation
    ("ReduceMax", ["x"], ["most"], {"axes": [0, 1], "keepdims": 1}),
    ("Div", ["x", "most"], ["scaled"], {}),
    ("MatMul", ["scaled", "w"], ["logits"], {}),
]


@pytest.mark.parametrize(
    ("nodes", "batch", "run_s", "together"),
    [(LINEAR, "n", 1e-5, 8), (LINEAR, 1, 1e-5, 1), (COMPANY, "n", 1e-5, 1), (LINEAR, "n", 0.1, 1)],
    ids=["alike", "one at a time", "depends on company", "slow"],
)
def test_samples_are_inferred_together_only_where_it_makes_no_difference(
    tmp_path: Path, nodes: list[graphs.Node], batch: str | int, run_s: float, together: int
) -> None:
    graphs.artifact(tmp_path, nodes, weights(), outputs={"logits": [batch, 3]}, classes=3, batch=batch)
    ticks = iter(range(1000))
    model = Model(tmp_path, clock=lambda: next(ticks) * run_s)
    assert model.together == together
    model.check_golden()


def test_samples_inferred_together_have_the_same_bits_as_alone() -> None:
    x, _ = images(24)
    alone, company = Model(ARTIFACT, block=24, together=1), Model(ARTIFACT, block=24, clock=lambda: 0.0)
    assert (alone.together, company.together) == (1, 8)
    for model in (alone, company):
        for row in range(20):  # the last four wait for company that does not come
            place, infer = model.steps[row]
            place[...] = x[row]
            if infer is not None:
                infer()
        for row in range(20 - 20 % model.together, 20):
            model.infer(row)
    assert np.array_equal(alone.logits[:20], company.logits[:20])
    assert np.array_equal(alone.embedding[:20], company.embedding[:20])


def test_float_inputs_that_are_not_finite_are_told(tmp_path: Path) -> None:
    graphs.artifact(tmp_path, LINEAR, weights(), outputs={"logits": ["n", 3]}, classes=3)
    model = Model(tmp_path)
    x = np.ones((4, graphs.WIDTH), np.float32)
    x[1, 2], x[2] = np.nan, 3e38  # whose sum overflows
    for row in range(4):
        model.run(row, x[row])
    assert model.broken(4).tolist() == [False, True, False, False]
    assert model.broken(1) is None
    assert Model(ARTIFACT).broken(4) is None


def test_a_reference_of_another_graph_is_refused(tmp_path: Path) -> None:
    manifest, onnx = read_artifact(ARTIFACT)
    other = msgspec.structs.replace(manifest.reference, class_centres=Tensor.of(np.zeros((1, 2), np.float32)))
    write_artifact(tmp_path, msgspec.structs.replace(manifest, reference=other), onnx)
    with pytest.raises(IncompatibleError, match="its reference is of"):
        Model(tmp_path)
