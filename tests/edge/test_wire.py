"""Does the wire carry every message unchanged, and answer anything else with MessageError and nothing else?"""

from __future__ import annotations

import typing
import zlib
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from edge_agent.contract import wire
from edge_agent.contract.artifact import sha256_hex
from edge_agent.contract.errors import MessageError
from edge_agent.contract.task import Applies, Box, Said, Value
from edge_agent.contract.types import Prediction, Sample, SampleId, Selection

JSON_KINDS = get_args(wire.JsonMessage)
FRAME_KINDS = (wire.SampleHeader, wire.BlockHeader)
ADDRESS = wire.Address("demo", "cam-1", "up", "sample")

names = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9_-]{0,62}", fullmatch=True)
numbers = st.integers(0, 10**18 - 1)
PLAIN = {
    int: st.integers(-(2**63), 2**63 - 1),
    float: st.floats(allow_nan=False, allow_infinity=False),
    str: st.text(st.characters(exclude_categories=["Cs"]), max_size=20),
    bool: st.booleans(),
    NoneType: st.none(),
}
selections = st.builds(
    Selection,
    reason=st.sampled_from(["informative", "explore", "random"]),
    probability=st.floats(0.0, 1.0, exclude_min=True),
    utility=PLAIN[float],
    novelty=PLAIN[float],
    threshold=PLAIN[float],
    tokens=PLAIN[float],
    strategy=PLAIN[str],
)
samples = st.builds(
    Sample,
    id=st.builds(SampleId, names, names, numbers, numbers),
    ref=st.text(max_size=300),  # surrogates as well: a file name that is not UTF-8
    captured_at_ms=numbers,
    data=hnp.arrays(st.sampled_from(wire.DTYPES), hnp.array_shapes(max_dims=4, max_side=6)),
    prediction=st.builds(Prediction, st.integers(0, 1000), st.floats(0, 1)),
    selection=selections,
    model_version=numbers,
    transforms=st.lists(st.text(max_size=120), max_size=16).map(tuple),
    said=st.deferred(lambda: values(Said | None)),
)


shares, indices = st.floats(0.0, 1.0), st.integers(0, 2**16 - 1)
BOUNDED = {
    Box: st.builds(
        Box, indices, st.floats(0.0, 0.5), st.floats(0.0, 0.5), st.floats(0.51, 1.0), st.floats(0.51, 1.0), shares
    ),
    Applies: st.builds(Applies, indices, shares),
    Value: st.builds(Value, indices, PLAIN[float], st.floats(0.0, allow_infinity=False)),
}


def values(hint: Any) -> st.SearchStrategy[Any]:
    """Any value of a type that the wire uses."""
    origin, arguments = get_origin(hint), get_args(hint)
    if hint in PLAIN:
        return PLAIN[hint]
    if hint in BOUNDED:
        return BOUNDED[hint]
    if origin is Annotated:
        return values(arguments[0])
    if origin is Literal:
        return st.sampled_from(arguments)
    if origin is tuple:
        return st.lists(values(arguments[0]), max_size=4).map(tuple)
    if origin is dict:
        return st.dictionaries(values(arguments[0]), values(arguments[1]), max_size=3)
    if origin in (UnionType, typing.Union):
        return st.one_of(*map(values, arguments))
    return st.builds(hint, **{name: values(inner) for name, inner in get_type_hints(hint).items()})


def sample(array: np.ndarray, **changes: Any) -> Sample:
    fields = {
        "id": SampleId("cam-1", "main", 7, 1204),
        "ref": "x",
        "captured_at_ms": 1,
        "data": array,
        "prediction": Prediction(2, 0.5),
        "selection": Selection(
            reason="informative", probability=0.5, utility=0.1, novelty=1, threshold=0.1, tokens=1, strategy="margin"
        ),
        "model_version": 7,
    }
    return Sample(**{**fields, **changes})


def header_of(array: np.ndarray, **changes: Any) -> wire.SampleHeader:
    return msgspec.structs.replace(wire.encode_sample(sample(array))[0], **changes)


# --- messages -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", JSON_KINDS)
@given(data=st.data())
def test_every_json_message_comes_back_as_it_went(kind: type, data: st.DataObject) -> None:
    message = data.draw(values(kind))
    assert wire.decode(kind, wire.encode(message)) == message


@pytest.mark.parametrize("kind", FRAME_KINDS)
@given(data=st.data(), body=st.binary(max_size=100))
def test_every_frame_comes_back_as_it_went(kind: type, data: st.DataObject, body: bytes) -> None:
    header = data.draw(values(kind))
    assert wire.decode_frame(kind, wire.encode_frame(header, body)) == (header, body)


@pytest.mark.parametrize("kind", JSON_KINDS)
@given(payload=st.binary(max_size=60))
def test_any_bytes_are_a_message_or_a_message_error(kind: type, payload: bytes) -> None:
    try:
        message = wire.decode(kind, payload)
    except MessageError:
        return
    assert isinstance(message, kind)


@pytest.mark.parametrize("kind", FRAME_KINDS)
@given(payload=st.binary(max_size=60))
def test_any_bytes_are_a_frame_or_a_message_error(kind: type, payload: bytes) -> None:
    for data in (payload, len(payload).to_bytes(2, "big") + payload):
        try:
            header, _ = wire.decode_frame(kind, data)
        except MessageError:
            continue
        assert isinstance(header, kind)


@given(data=st.data())
def test_a_damaged_frame_is_a_message_error_or_another_message(data: st.DataObject) -> None:
    frame = bytearray(wire.encode_frame(header_of(np.zeros(4, np.uint8)), b"body"))
    at = data.draw(st.integers(0, len(frame) - 1))
    frame[at] ^= data.draw(st.integers(1, 255))
    try:
        header, _ = wire.decode_frame(wire.SampleHeader, bytes(frame))
        wire.check_sample_header(header, ADDRESS)
    except MessageError:
        pass


@pytest.mark.parametrize("nested", [b"[", b'{"a":', b"\x91", b"\x81\xa1a"])
def test_deep_nesting_is_a_message_error(nested: bytes) -> None:
    with pytest.raises(MessageError):
        wire.decode(wire.Death, nested * 5000)
    with pytest.raises(MessageError):
        wire.decode_frame(wire.BlockHeader, (10_000).to_bytes(2, "big") + (nested * 10_000)[:10_000])


def test_unknown_fields_are_ignored_and_missing_ones_are_not() -> None:
    assert wire.decode(wire.Death, b'{"session":"s","later":[1]}') == wire.Death(session="s")
    with pytest.raises(MessageError, match="session"):
        wire.decode(wire.Death, b"{}")


def test_a_message_beyond_the_limit_is_refused_unread() -> None:
    with pytest.raises(MessageError, match="at most"):
        wire.decode(wire.Death, b" " * (wire.JSON_MAX_BYTES + 1))
    with pytest.raises(MessageError, match="announces"):
        wire.decode_frame(wire.BlockHeader, b"\xff\xff" + b" " * 0xFFFF)


# --- topics and ids -------------------------------------------------------------------------------------------------


@given(fleet=names, device=names, up=st.sampled_from(wire.UP), down=st.sampled_from(wire.DOWN))
def test_topics_come_back(fleet: str, device: str, up: wire.Up, down: wire.Down) -> None:
    assert wire.parse_topic(wire.up_topic(fleet, device, up)) == (fleet, device, "up", up)
    assert wire.parse_topic(wire.down_topic(fleet, device, down)) == (fleet, device, "down", down)


@given(
    st.one_of(
        st.text(max_size=80), st.lists(st.sampled_from(["winnow", "1", "a", "", "+", "up", "birth"])).map("/".join)
    )
)
def test_any_text_is_a_topic_or_a_message_error(topic: str) -> None:
    try:
        address = wire.parse_topic(topic)
    except MessageError:
        return
    assert topic == f"{wire.ROOT}/{address.fleet}/{address.device}/{address.direction}/{address.kind}"


@given(names, names, numbers, numbers)
def test_sample_ids_come_back(device: str, stream: str, boot: int, seq: int) -> None:
    sample_id = SampleId(device, stream, boot, seq)
    assert SampleId.parse(str(sample_id)) == sample_id


@given(
    st.one_of(st.text(max_size=40), st.from_regex(r"[a-z]{1,2}\.[a-z]{1,2}\.[0-9]{1,20}\.[0-9]{1,20}", fullmatch=True))
)
def test_an_id_has_one_spelling(text: str) -> None:
    try:
        sample_id = SampleId.parse(text)
    except MessageError:
        return
    assert str(sample_id) == text
    assert max(sample_id.boot, sample_id.seq) < 2**63


@pytest.mark.parametrize(
    "text", ["a.b.01.2", "a.b.1.²", "a.b.1.-2", "a.b.1", "a.b.1.2\n", "a/b.c.1.2", "a.b.1." + "9" * 19]
)
def test_what_is_no_id(text: str) -> None:
    with pytest.raises(MessageError, match="sample id"):
        SampleId.parse(text)


# --- samples --------------------------------------------------------------------------------------------------------


@given(samples)
def test_a_sample_comes_back_as_it_went(sent: Sample) -> None:
    header, body = wire.encode_sample(sent)
    frames = [wire.decode_frame(wire.SampleHeader, frame) for frame in wire.sample_frames(header, body)]
    (got, _), address = frames[0], wire.Address("demo", sent.id.device, "up", "sample")
    assert wire.check_sample_header(got, address) == sent.id
    array = wire.decode_body(got, b"".join(part for _, part in frames))
    assert (array.dtype, array.shape, array.tobytes()) == (sent.data.dtype, sent.data.shape, sent.data.tobytes())
    assert (got.selection, got.label, got.confidence) == (sent.selection, *sent.prediction)
    assert (got.transforms, got.said) == (sent.transforms, sent.said)


@pytest.mark.parametrize("size", [1, wire.BODY_MAX_BYTES - 1, wire.BODY_MAX_BYTES, wire.BODY_MAX_BYTES + 1, 300_000])
def test_a_large_sample_goes_in_parts_that_a_broker_takes(size: int) -> None:
    array = np.random.default_rng(0).integers(0, 256, size, dtype=np.uint8)  # does not compress
    header, body = wire.encode_sample(sample(array))
    frames = wire.sample_frames(header, body)
    assert all(len(frame) <= 128 * 1024 for frame in frames)
    got = [wire.decode_frame(wire.SampleHeader, frame) for frame in frames]
    assert [(h.part, h.parts) for h, _ in got] == [(i, len(frames)) for i in range(len(frames))]
    for h, _ in got:
        wire.check_sample_header(h, ADDRESS)
    np.testing.assert_array_equal(wire.decode_body(got[0][0], b"".join(part for _, part in got)), array)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"id": "cam-2.main.7.1204"}, "topic of device"),
        ({"id": "rubbish"}, "sample id"),
        ({"dtype": "object"}, "dtype"),
        ({"dtype": ">f4"}, "dtype"),
        ({"shape": (0, 4)}, "shape"),
        ({"shape": (-1, -16)}, "shape"),
        ({"shape": (2**40, 2**40)}, "shape"),
        ({"shape": (1,) * 7}, "shape"),
        ({"part": 1}, "part"),
        ({"part": -1}, "part"),
        ({"parts": 2}, "part"),
        ({"body_bytes": 0}, "part"),
        ({"body_bytes": wire.SAMPLE_MAX_BYTES + 1}, "part"),
        ({"confidence": float("nan")}, "not finite"),
    ],
)
def test_a_header_beyond_the_limits_is_refused(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(MessageError, match=said):
        wire.check_sample_header(header_of(np.zeros((4, 4), np.uint8), **changes), ADDRESS)


@given(st.integers(1, 1_500_000), st.integers(2 * wire.PART_MIN_BYTES, wire.BODY_MAX_BYTES))
def test_a_body_is_cut_into_parts_that_fit_and_are_accepted(size: int, part_bytes: int) -> None:
    body = np.random.default_rng(size).bytes(size)
    header = header_of(np.zeros((4, 4), np.uint8), body_bytes=size, encoding="raw")
    parts = [wire.decode_frame(wire.SampleHeader, f) for f in wire.sample_frames(header, body, part_bytes=part_bytes)]
    for said, part in parts:
        wire.check_sample_header(said, ADDRESS)
        assert 0 < len(part) <= part_bytes
        assert said.parts == len(parts)
        start = said.part * wire.part_size(size, said.parts)
        assert part == body[start : start + wire.part_size(size, said.parts)]
    assert b"".join(part for _, part in parts) == body
    assert len(parts) <= -(-size // part_bytes) + 1


def test_parts_of_full_size_are_cut_as_ever() -> None:
    """Agents in the field cut at BODY_MAX_BYTES, and the last part is shorter."""
    body = bytes(2 * wire.BODY_MAX_BYTES + 5)
    header = header_of(np.zeros((4, 4), np.uint8), body_bytes=len(body))
    sizes = [len(wire.decode_frame(wire.SampleHeader, frame)[1]) for frame in wire.sample_frames(header, body)]
    assert sizes == [wire.BODY_MAX_BYTES, wire.BODY_MAX_BYTES, 5]


@pytest.mark.parametrize("name", ["probability", "utility", "novelty", "threshold", "tokens"])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_selection_without_numbers_is_refused(name: str, value: float) -> None:
    header = header_of(np.zeros(4, np.uint8))
    selection = msgspec.structs.replace(header.selection, **{name: value})
    with pytest.raises(MessageError):
        wire.check_sample_header(msgspec.structs.replace(header, selection=selection), ADDRESS)


@given(st.integers(0, 63), st.integers(1, 255))
def test_a_damaged_body_is_refused(at: int, flip: int) -> None:
    header, body = wire.encode_sample(sample(np.random.default_rng(0).integers(0, 256, 64, dtype=np.uint8)))
    damaged = bytearray(body)
    damaged[at] ^= flip
    for wrong in (bytes(damaged), body[:-1], body + b"\0", b""):
        with pytest.raises(MessageError, match="does not match"):
            wire.decode_body(header, wrong)


@pytest.mark.parametrize(
    "body", [zlib.compress(bytes(200_000_000), 9), zlib.compress(bytes(15)), zlib.compress(b""), b"no zlib"]
)
def test_a_body_that_inflates_to_another_size_is_refused(body: bytes) -> None:
    header = header_of(np.zeros((4, 4), np.uint8), encoding="zlib", body_bytes=len(body), body_sha256=sha256_hex(body))
    with pytest.raises(MessageError):
        wire.decode_body(header, body)


def test_a_bomb_is_inflated_no_further_than_its_shape() -> None:
    import tracemalloc

    body = zlib.compress(bytes(200_000_000), 9)
    header = header_of(np.zeros(16, np.uint8), encoding="zlib", body_bytes=len(body), body_sha256=sha256_hex(body))
    tracemalloc.start()
    try:
        with pytest.raises(MessageError):
            wire.decode_body(header, body)
        assert tracemalloc.get_traced_memory()[1] < 5_000_000
    finally:
        tracemalloc.stop()


def test_the_largest_order_fits_a_message() -> None:
    number, name = 10**17, "n" * 63
    sample_id = f"{name}.{name}.{number}.{number}"
    sha256, most = "0" * 64, 2**31
    parcel = wire.Parcel(file_sha256=sha256, packing="bsdiff4", sha256=sha256, bytes=most, base_sha256=sha256)
    request = wire.Request(id=most, version=most, sketch=(-0.123456,) * 24, similar=0.9, count=1000, until_ms=2**53)
    model = wire.Assignment(
        version=most,
        manifest_sha256=sha256,
        manifest_bytes=most,
        trust_sha256=sha256,
        trust_bytes=most,
        url="https://" + "h" * 200,
        parcels=(parcel,) * wire.PARCELS_MAX,
    )
    order = wire.Desired(
        revision=most,
        model=model,
        requests=(request,) * wire.REQUESTS_MAX,
        purges=(wire.Purge(id=most, samples=(sample_id,) * wire.PURGE_SAMPLES_MAX),) * wire.PURGES_MAX,
    )
    assert wire.decode(wire.Desired, wire.encode(order)) == order
