"""ONNX files that mean harm: refused by their bytes, or by the child process that tries them; with the reason."""

from __future__ import annotations

import sys
import time

import hypothesis.strategies as st
import msgspec
import numpy as np
import pytest
import quadrants
from hypothesis import given, settings

from edge_agent.contract.artifact import MODEL, InputSpec, OnnxFile, read_artifact, sha256_hex, write_artifact
from edge_agent.contract.errors import IncompatibleError
from edge_agent.contract.graph import DEPTH, check_graph
from edge_agent.runtime import open_session
from edge_agent.update.trial import run_check

MEMORY_BYTES = 2_000_000_000
HONEST = (quadrants.ARTIFACT / MODEL).read_bytes()


@pytest.fixture(scope="module")
def onnx():
    return pytest.importorskip("onnx")  # the agent's own environment has none


def graph(onnx, nodes, *, weights=(), opset=17, ir_version=8, more_opsets=(), shape=("n", 8, 8)):
    """x (n, 8, 8) uint8 -> logits (n, 4), embedding (n, 16) of zeros besides what `nodes` do."""
    helper, proto = onnx.helper, onnx.TensorProto
    made = helper.make_graph(
        nodes,
        "graph",
        [helper.make_tensor_value_info("input", proto.UINT8, list(shape))],
        [helper.make_tensor_value_info("logits", proto.FLOAT, ["n", 4])],
        list(weights),
    )
    opsets = [helper.make_opsetid("", opset), *(helper.make_opsetid(domain, 1) for domain in more_opsets)]
    return helper.make_model(made, opset_imports=opsets, ir_version=ir_version)


def dense(onnx, *, of="input", weights=None):
    """logits = flat(of) @ w"""
    node, array = onnx.helper.make_node, onnx.numpy_helper.from_array
    weights = np.zeros((64, 4), np.float32) if weights is None else weights
    nodes = [
        node("Cast", [of], ["as_float"], to=1),
        node("Flatten", ["as_float"], ["flat"]),
        node("MatMul", ["flat", "w"], ["logits"]),
    ]
    return nodes, [array(weights, "w")]


def artifact(folder, data, **changes):
    """An artifact whose manifest is true of these bytes but for what they do."""
    manifest, _ = read_artifact(quadrants.ARTIFACT)
    file = OnnxFile(sha256=sha256_hex(data), bytes=len(data))
    manifest = msgspec.structs.replace(manifest, files={"cpu-fp32": file}, embedding="", version=2, **changes)
    write_artifact(folder, manifest, data)
    return folder


def tried(folder, *, timeout_s=30.0, memory_bytes=MEMORY_BYTES):
    """As the agent does it."""
    argv = [sys.executable, "-m", "edge_agent.model", str(folder), "cpu-fp32"]
    run_check(argv, timeout_s=timeout_s, memory_bytes=memory_bytes)


def test_an_honest_graph_passes():
    check_graph(HONEST)


@pytest.mark.parametrize("location", ["weights.bin", "../../etc/passwd", "/etc/passwd", "*/_ORT_MEM_ADDR_/*"])
def test_weights_in_another_file_are_refused(onnx, tmp_path, monkeypatch, location):
    """onnxruntime itself would take `weights.bin` out of the working folder of the agent."""
    nodes, weights = dense(onnx)
    tensor = weights[0]
    data = tensor.raw_data
    tensor.ClearField("raw_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    for key, value in (("location", location), ("length", str(len(data)))):
        entry = tensor.external_data.add()
        entry.key, entry.value = key, value
    hostile = graph(onnx, nodes, weights=weights).SerializeToString()
    with pytest.raises(IncompatibleError, match="tensor 'w' is kept in another file"):
        check_graph(hostile)
    (tmp_path / "weights.bin").write_bytes(data)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(IncompatibleError, match="kept in another file"):
        open_session(hostile)
    with pytest.raises(IncompatibleError, match="^tensor 'w' is kept in another file"):
        tried(artifact(tmp_path / "artifact", hostile))


def test_weights_in_another_file_are_found_wherever_they_hide(onnx):
    """In a constant, in the branch of a branch, in a function, in a sparse tensor, in training information."""
    helper, proto = onnx.helper, onnx.TensorProto
    tensor = proto(dims=[4], data_type=1, name="hidden", data_location=proto.EXTERNAL)
    constant = helper.make_node("Constant", [], ["c"], value=tensor)
    branch = helper.make_graph([constant], "b", [], [helper.make_tensor_value_info("c", 1, [4])])
    inner = helper.make_node("If", ["yes"], ["c"], then_branch=branch, else_branch=branch)
    outer = helper.make_graph([inner], "b", [], [helper.make_tensor_value_info("c", 1, [4])])
    plain = graph(onnx, dense(onnx)[0], weights=dense(onnx)[1])
    places = []
    for nodes in ([constant], [helper.make_node("If", ["yes"], ["c"], then_branch=outer, else_branch=outer)]):
        places.append(graph(onnx, [*dense(onnx)[0], *nodes], weights=dense(onnx)[1]))
    function = onnx.ModelProto.FromString(plain.SerializeToString())
    function.functions.append(helper.make_function("", "f", [], ["c"], [constant], [helper.make_opsetid("", 17)]))
    sparse = onnx.ModelProto.FromString(plain.SerializeToString())
    sparse.graph.sparse_initializer.append(onnx.SparseTensorProto(values=tensor, dims=[4]))
    trained = onnx.ModelProto.FromString(plain.SerializeToString())
    trained.training_info.append(onnx.TrainingInfoProto(initialization=branch))
    listed = helper.make_node("Sum", ["as_float"], ["s"], of=[tensor])
    scattered = onnx.SparseTensorProto(values=tensor, indices=proto(dims=[4], data_type=7), dims=[4])
    one, many = helper.make_node("Constant", [], ["c"]), helper.make_node("Constant", [], ["c"])
    one.attribute.append(onnx.AttributeProto(name="sparse_value", type=11, sparse_tensor=scattered))
    many.attribute.append(onnx.AttributeProto(name="sparse_value", type=12, sparse_tensors=[scattered]))
    several = helper.make_node("If", ["yes"], ["c"])
    several.attribute.append(onnx.AttributeProto(name="branches", type=10, graphs=[branch]))
    for node in (listed, one, many, several):
        places.append(graph(onnx, [*dense(onnx)[0], node], weights=dense(onnx)[1]))
    default = onnx.ModelProto.FromString(plain.SerializeToString())
    default.functions.append(onnx.FunctionProto(name="f", attribute_proto=[helper.make_attribute("value", tensor)]))
    noted = onnx.ModelProto.FromString(plain.SerializeToString())  # said by its entries alone
    noted.graph.initializer.append(proto(dims=[4], data_type=1, name="hidden"))
    noted.graph.initializer[-1].external_data.add(key="location", value="weights.bin")
    for model in (*places, function, sparse, trained, default, noted):
        with pytest.raises(IncompatibleError, match="tensor 'hidden' is kept in another file"):
            check_graph(model.SerializeToString())


@pytest.mark.parametrize("domain", ["evil.corp", "ai.onnx.contrib"])
def test_custom_operators_are_refused(onnx, tmp_path, domain):
    node = onnx.helper.make_node("Evil", ["input"], ["logits"], domain=domain)
    hostile = graph(onnx, [node], more_opsets=[domain]).SerializeToString()
    with pytest.raises(IncompatibleError, match=f"custom operators of '{domain}'"):
        tried(artifact(tmp_path, hostile))


def test_custom_operators_are_found_wherever_they_hide(onnx):
    """Of a node that no set is named for, of a function, of the sets that a function names."""
    helper = onnx.helper
    node = graph(onnx, [helper.make_node("Evil", ["input"], ["logits"], domain="evil.corp")])
    plain = graph(onnx, dense(onnx)[0], weights=dense(onnx)[1]).SerializeToString()
    function, named, inside = (onnx.ModelProto.FromString(plain) for _ in range(3))
    function.functions.append(onnx.FunctionProto(name="f", domain="evil.corp"))
    named.functions.append(onnx.FunctionProto(name="f", opset_import=[helper.make_opsetid("evil.corp", 1)]))
    inside.functions.append(onnx.FunctionProto(name="f", node=[helper.make_node("Evil", [], [], domain="evil.corp")]))
    for model in (node, function, named, inside):
        with pytest.raises(IncompatibleError, match="custom operators of 'evil.corp'"):
            check_graph(model.SerializeToString())


def test_onnxruntimes_own_format_is_refused():
    with pytest.raises(IncompatibleError, match="ORT format"):
        check_graph(bytes(4) + b"ORTM" + bytes(90))


def test_an_unknown_operator_is_refused(onnx, tmp_path):
    node = onnx.helper.make_node("DoEvil", ["input"], ["logits"])
    with pytest.raises(IncompatibleError, match="^onnxruntime .* cannot load it: .*DoEvil"):
        tried(artifact(tmp_path, graph(onnx, [node]).SerializeToString()))


@pytest.mark.parametrize("dims", [[10**10, 4], [2**62, 2**62], [-1, 4], [-1, 0], [10**6, 10**6]])
def test_an_initialiser_that_claims_more_than_the_file_holds_is_refused(onnx, dims):
    nodes, _ = dense(onnx)
    giant = onnx.TensorProto(dims=dims, data_type=1, name="w", raw_data=b"\0" * 16)
    with pytest.raises(IncompatibleError, match="tensor 'w' claims .* elements: more than a file of"):
        check_graph(graph(onnx, nodes, weights=[giant]).SerializeToString())


def test_a_graph_that_wants_all_memory_ends_in_the_child(onnx, tmp_path):
    """A few bytes of file, 400 GB at run time."""
    node = onnx.helper.make_node
    shape = onnx.numpy_helper.from_array(np.array([10**11], np.int64), "shape")
    nodes, weights = dense(onnx)
    more = [
        node("ConstantOfShape", ["shape"], ["vast"]),
        node("ReduceSum", ["vast"], ["sum"], keepdims=0),
        node("Cast", ["sum"], ["one"], to=1),
        node("Add", ["zero", "one"], ["logits"]),
    ]
    nodes[-1].output[0] = "zero"
    hostile = graph(onnx, [*nodes, *more], weights=[*weights, shape]).SerializeToString()
    began = time.monotonic()
    with pytest.raises(
        IncompatibleError, match="^version 2 does not run: .*ConstantOfShape.*Failed to allocate memory"
    ):
        tried(artifact(tmp_path, hostile))
    assert time.monotonic() - began < 30


def test_a_loop_without_end_ends_with_its_child(onnx, tmp_path):
    helper, proto = onnx.helper, onnx.TensorProto
    boolean = helper.make_tensor_value_info
    body = helper.make_graph(
        [
            helper.make_node("Identity", ["go"], ["go_on"]),
            helper.make_node("Identity", ["state"], ["state_on"]),
        ],
        "body",
        [boolean("turn", proto.INT64, []), boolean("go", proto.BOOL, []), boolean("state", proto.FLOAT, ["n", 4])],
        [boolean("go_on", proto.BOOL, []), boolean("state_on", proto.FLOAT, ["n", 4])],
    )
    nodes, weights = dense(onnx)
    nodes[-1].output[0] = "zero"
    loop = helper.make_node("Loop", ["turns", "yes", "zero"], ["logits"], body=body)
    array = onnx.numpy_helper.from_array
    weights += [array(np.array(2**62, np.int64), "turns"), array(np.array(True), "yes")]
    hostile = graph(onnx, [*nodes, loop], weights=weights).SerializeToString()
    with pytest.raises(IncompatibleError, match="did not end within 3 s|killed by SIGXCPU"):
        tried(artifact(tmp_path, hostile), timeout_s=3.0)


@pytest.mark.parametrize(("opset", "ir_version"), [(99, 8), (17, 99)])
def test_an_opset_or_format_of_the_future_is_refused(onnx, tmp_path, opset, ir_version):
    nodes, weights = dense(onnx)
    future = graph(onnx, nodes, weights=weights, opset=opset, ir_version=ir_version).SerializeToString()
    with pytest.raises(IncompatibleError, match="cannot load it"):
        tried(artifact(tmp_path, future))


def test_shapes_other_than_the_manifest_says_are_refused(onnx, tmp_path):
    nodes, weights = dense(onnx)
    square = graph(onnx, nodes, weights=weights, shape=("n", 9, 9)).SerializeToString()
    with pytest.raises(IncompatibleError, match="cannot load it: .*Incompatible dimensions"):
        tried(artifact(tmp_path / "input", square))
    nodes, weights = dense(onnx, weights=np.zeros((64, 5), np.float32))
    wide = graph(onnx, nodes, weights=weights).SerializeToString()
    with pytest.raises(IncompatibleError, match="^version 2 does not run: .* MatMul"):
        tried(artifact(tmp_path / "output", wide))
    nodes, weights = dense(onnx)
    good = graph(onnx, nodes, weights=weights).SerializeToString()
    with pytest.raises(IncompatibleError, match="golden input 0 is off by"):
        tried(artifact(tmp_path / "golden", good))
    spec = InputSpec(name="other", shape=(8, 8), dtype="uint8")
    with pytest.raises(IncompatibleError, match="cannot bind"):
        tried(artifact(tmp_path / "name", good, input=spec))


def test_what_is_no_onnx_file_is_refused(tmp_path):
    for data in (b"", b"PK\x03\x04 a zip", HONEST[:-1], b"\x08\x00\x00\x00ORTM" + bytes(64)):
        with pytest.raises(IncompatibleError):
            open_session(data)


def test_messages_within_messages_end_somewhere():
    data = b""
    for _ in range(DEPTH):  # graph > node > attribute > graph > ...
        for field in (6, 5, 1):
            data = bytes([field << 3 | 2]) + varint(len(data)) + data
    with pytest.raises(IncompatibleError, match="nests more than"):
        check_graph(b"\x3a" + varint(len(data)) + data)


def varint(value):
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes((*out, value))


@given(st.binary(max_size=400))
def test_any_bytes_are_read_or_refused(data):
    try:
        check_graph(data)
    except IncompatibleError as error:
        assert str(error)


@settings(max_examples=300)
@given(st.data())
def test_a_damaged_file_is_read_or_refused(data):
    damaged = bytearray(HONEST)
    for _ in range(data.draw(st.integers(1, 4))):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    try:
        check_graph(bytes(damaged))
    except IncompatibleError as error:
        assert str(error)
