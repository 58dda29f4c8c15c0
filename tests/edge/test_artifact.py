"""Does an artifact come back as it was written, and is anything else refused?"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from edge_agent.contract import artifact
from edge_agent.contract.artifact import Manifest, OnnxFile, Tensor
from edge_agent.contract.errors import ArtifactError, IntegrityError

ONNX = b"not really a graph: the contract does not look inside"


def manifest(**changes: Any) -> Manifest:
    tensor = Tensor.of(np.arange(4, dtype=np.float32))
    made = Manifest(
        name="fashion",
        version=7,
        files={"cpu-int8": OnnxFile(sha256=artifact.sha256_hex(ONNX), bytes=len(ONNX))},
        input=artifact.InputSpec(name="x", shape=(4,), dtype="float32"),
        classes=("boot", "bag"),
        golden=artifact.Golden(inputs=tensor, logits=tensor, tolerance=0.5),
        reference=artifact.Reference(
            embedding_mean=tensor,
            embedding_sd=tensor,
            class_centres=tensor,
            class_share=(0.5, 0.5),
            confidence_mean=0.9,
            utility_quantiles=(0.0, 1.0),
            samples=100,
        ),
        metrics={"b": 0.5, "a": 0.25},
    )
    return msgspec.structs.replace(made, **changes)


@given(
    hnp.arrays(
        hnp.integer_dtypes() | hnp.floating_dtypes() | hnp.boolean_dtypes(),
        hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=5),
    )
)
def test_a_tensor_comes_back_as_it_went(array: np.ndarray) -> None:
    back = Tensor.of(array).array()
    assert (back.dtype, back.shape, back.tobytes()) == (array.dtype, array.shape, array.tobytes())


@given(
    dtype=st.sampled_from(["float32", "uint8", "object", "S0", "V0", "f4,(", "(2,", "no", "", "f4,i4", "datetime64"]),
    shape=st.lists(st.integers(-3, 5) | st.integers(2**31, 2**65), max_size=4).map(tuple),
    data=st.text(max_size=40) | st.just(Tensor.of(np.zeros(6, np.float32)).data),
)
def test_any_tensor_is_an_array_or_an_artifact_error(dtype: str, shape: tuple[int, ...], data: str) -> None:
    try:
        array = Tensor(dtype=dtype, shape=shape, data=data).array()
    except ArtifactError:
        return
    assert array.shape == shape


def test_a_tensor_inflates_no_further_than_its_shape() -> None:
    bomb = Tensor.of(np.zeros(10_000_000, np.uint8))
    with pytest.raises(ArtifactError, match="manifest tensor"):
        msgspec.structs.replace(bomb, shape=(10,)).array()


def test_a_manifest_comes_back_and_has_one_spelling() -> None:
    made = manifest()
    data = artifact.encode_manifest(made)
    assert artifact.decode_manifest(data) == made
    turned = msgspec.structs.replace(made, metrics=dict(reversed(made.metrics.items())))
    assert artifact.encode_manifest(turned) == data == artifact.encode_manifest(artifact.decode_manifest(data))


@given(st.binary(max_size=60))
def test_any_bytes_are_a_manifest_or_an_artifact_error(data: bytes) -> None:
    with pytest.raises(ArtifactError, match="here"):
        artifact.decode_manifest(data, where="here")


def test_a_manifest_of_a_later_format_is_refused_and_later_fields_are_not() -> None:
    table = msgspec.json.decode(artifact.encode_manifest(manifest()))
    assert artifact.decode_manifest(msgspec.json.encode({**table, "later": 1})) == manifest()
    with pytest.raises(ArtifactError, match="format 2"):
        artifact.decode_manifest(msgspec.json.encode({**table, "format": 2}))


def test_a_manifest_too_large_is_refused_unread() -> None:
    with pytest.raises(ArtifactError, match="at most"):
        artifact.decode_manifest(b" " * (artifact.MANIFEST_MAX_BYTES + 1))


def test_the_variant_is_the_wanted_one_or_one_that_runs_on_a_processor() -> None:
    file = manifest().files["cpu-int8"]
    other = OnnxFile(sha256="0", bytes=1)
    assert manifest(files={"cpu-int8": file, "trt-int8": other}).variant("trt-int8") is other
    assert manifest(files={"cpu-fp32": file}).variant("cpu-int8") is file
    with pytest.raises(ArtifactError, match="trt-int8"):
        manifest(files={"trt-int8": other}).variant("cpu-int8")


def test_a_folder_comes_back_as_it_was_written(tmp_path: Path) -> None:
    artifact.write_artifact(tmp_path / "7", manifest(), ONNX)
    assert artifact.read_artifact(tmp_path / "7") == (manifest(), ONNX)
    assert sorted(path.name for path in (tmp_path / "7").iterdir()) == [artifact.MANIFEST, artifact.MODEL]


@pytest.mark.parametrize("wrong", [ONNX[:-1], ONNX + b"\0", b"N" + ONNX[1:], b""])
def test_other_bytes_are_refused(tmp_path: Path, wrong: bytes) -> None:
    artifact.write_artifact(tmp_path, manifest(), wrong)
    with pytest.raises(IntegrityError, match=r"model\.onnx: .* expected"):
        artifact.read_artifact(tmp_path)


@pytest.mark.parametrize("gone", [artifact.MANIFEST, artifact.MODEL])
def test_a_folder_that_lacks_a_file_says_what_was_expected(tmp_path: Path, gone: str) -> None:
    artifact.write_artifact(tmp_path, manifest(), ONNX)
    (tmp_path / gone).unlink()
    with pytest.raises(ArtifactError, match=r"expected an artifact folder with manifest\.json and model\.onnx"):
        artifact.read_artifact(tmp_path)


def test_what_a_folder_says_of_itself_is_read_without_its_model(tmp_path: Path) -> None:
    artifact.write_artifact(tmp_path, manifest(), ONNX)
    (tmp_path / artifact.MODEL).unlink()
    assert artifact.read_manifest(tmp_path) == manifest()
    (tmp_path / artifact.MANIFEST).unlink()
    with pytest.raises(ArtifactError, match="expected an artifact folder with"):
        artifact.read_manifest(tmp_path)


def test_a_write_replaces_the_file_in_one_step(tmp_path: Path) -> None:
    path = tmp_path / "state"
    artifact.write_durably(path, b"one")
    with open(path, "rb") as before:
        artifact.write_durably(path, b"two, longer")
        assert before.read() == b"one"  # who has it open keeps the old file whole
    assert path.read_bytes() == b"two, longer"
    assert [file.name for file in tmp_path.iterdir()] == ["state"]


def test_a_write_that_fails_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "state"
    artifact.write_durably(path, b"one")
    (tmp_path / "state.new").mkdir()
    with pytest.raises(IsADirectoryError):
        artifact.write_durably(path, b"two")
    assert path.read_bytes() == b"one"
