"""Does what nobody may see stay on the device, and is nothing lost over it?"""

from __future__ import annotations

import threading
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_agent.choose.wanted import pick
from edge_agent.contract.errors import ConfigError
from edge_agent.contract.task import Box, Said, Value
from edge_agent.contract.types import Prediction, Sample, SampleId, Selection
from edge_agent.contract.wire import SampleHeader, decode_body
from edge_agent.send.outbox import Outbox
from edge_agent.send.privacy import BLANK, Privacy
from edge_agent.send.recent import Passing, Recent
from edge_agent.send.writer import Handover, Writer
from edge_agent.testing import check_transform

SELECTION = Selection(
    reason="informative", probability=0.5, utility=0.5, novelty=1.0, threshold=0.4, tokens=3.0, strategy="margin"
)
IMAGE = np.random.default_rng(0).integers(1, 255, (32, 24, 3)).astype(np.uint8)


def only_red(data: np.ndarray) -> np.ndarray:
    kept = data.copy()
    kept[..., 1:] = 0
    return kept


def writes(data: np.ndarray) -> np.ndarray:
    data[:] = 0
    return data


def cuts(data: np.ndarray) -> np.ndarray:
    return data[1:]


def raises(data: np.ndarray) -> np.ndarray:
    raise RuntimeError("no detector")


def nans(data: np.ndarray) -> np.ndarray:
    return np.where(data > 100, np.nan, data).astype(data.dtype)


def applied(*named: str, data: np.ndarray = IMAGE) -> np.ndarray:
    private = Privacy(named).apply(data)
    assert private.sound
    assert (private.transforms, private.data.dtype, private.data.shape) == (named, data.dtype, data.shape)
    return private.data


def test_crop_keeps_the_region_alone() -> None:
    found = applied("crop 4 6 10 12")
    np.testing.assert_array_equal(found[4:14, 6:18], IMAGE[4:14, 6:18])
    assert found.sum() == IMAGE[4:14, 6:18].sum()


def test_blur_leaves_no_detail_in_the_region_and_the_rest_as_it_is() -> None:
    found = applied("blur 8 4 16 16")
    inside = (slice(8, 24), slice(4, 20))
    assert (
        np.abs(np.diff(found[inside].astype(int), axis=0)).max() < 12 < np.diff(IMAGE[inside].astype(int), axis=0).max()
    )
    assert abs(found[inside].mean() - IMAGE[inside].mean()) < 3
    outside = np.ones(IMAGE.shape[:2], bool)
    outside[inside] = False
    np.testing.assert_array_equal(found[outside], IMAGE[outside])


@given(st.integers(4, 12), st.integers(4, 12), st.integers(0, 9))
def test_blur_is_the_mean_of_means(height: int, width: int, seed: int) -> None:
    data = np.random.default_rng(seed).normal(size=(height, width))
    reach, wanted = min(height, width) // 4, data
    for _ in range(2):  # once leaves edges that a second time takes
        around = [
            [wanted[max(0, y - reach) : y + reach + 1, max(0, x - reach) : x + reach + 1].mean() for x in range(width)]
            for y in range(height)
        ]
        wanted = np.array(around)
    np.testing.assert_allclose(applied(f"blur 0 0 {height} {width}", data=data), wanted, atol=1e-9)


@given(st.integers(1, 40), st.integers(1, 20), st.integers(1, 20), st.sampled_from(["uint8", "float32", "int16"]))
def test_downscale_gives_the_mean_of_every_square(factor: int, height: int, width: int, dtype: str) -> None:
    data = np.random.default_rng(height * width).integers(0, 200, (height, width)).astype(dtype)
    found = applied(f"downscale {factor}", data=data)
    for top in range(0, height, factor):
        for left in range(0, width, factor):
            square = (slice(top, top + factor), slice(left, left + factor))
            assert len(np.unique(found[square])) == 1
            assert abs(float(found[square].flat[0]) - data[square].mean()) <= (0.5 if dtype != "float32" else 1e-3)


def test_drop_channel_silences_one() -> None:
    sound = np.random.default_rng(0).normal(size=(100, 2)).astype(np.float32)
    found = applied("drop_channel 1", data=sound)
    assert (np.array_equal(found[:, 0], sound[:, 0]), np.abs(found[:, 1]).max()) == (True, 0.0)


def test_they_follow_upon_each_other_and_plug_ins_too() -> None:
    found = applied("downscale 4", "test_privacy:only_red")
    np.testing.assert_array_equal(found[..., 0], applied("downscale 4")[..., 0])
    assert found[..., 1:].sum() == 0


@pytest.mark.parametrize(
    ("name", "match"),
    [
        ("blurr 1 2 3 4", "did you mean 'blur'"),
        ("blur 1 2 3", "expected `blur TOP LEFT HEIGHT WIDTH`"),
        ("downscale -2", "in whole numbers"),
        ("downscale 0", "expected 1 or more"),
        ("nowhere:at_all", "No module named 'nowhere'"),
        ("test_privacy:missing", "missing"),
        ("", "known: crop, blur, downscale, drop_channel"),
        ("x" * 200, "120 characters at most"),
    ],
)
def test_a_mistake_is_said(name: str, match: str) -> None:
    with pytest.raises(ConfigError, match=match):
        Privacy([name])


@pytest.mark.parametrize("name", ["crop 30 0 3 1", "drop_channel 3", "test_privacy:cuts", "test_privacy:raises"])
def test_what_cannot_deal_with_the_models_samples_is_said_before(name: str) -> None:
    with pytest.raises(ConfigError, match=r"on \(32, 24, 3\) uint8"):
        Privacy([name]).check((32, 24, 3), "uint8")


@pytest.mark.parametrize("name", ["raises", "cuts", "writes"])
def test_what_a_transform_fails_on_goes_blank_and_is_told_once(name: str) -> None:
    told: list[str] = []
    privacy = Privacy([f"test_privacy:{name}", "downscale 2"], report=told.append)
    before = IMAGE.copy()
    for _ in range(3):
        private = privacy.apply(IMAGE)
        assert (private.sound, private.transforms[-1], int(private.data.sum())) == (False, BLANK, 0)
    np.testing.assert_array_equal(IMAGE, before)
    assert len(told) == 1
    assert f"test_privacy:{name}" in told[0]


def test_what_is_no_number_does_not_leave() -> None:
    data = IMAGE.astype(np.float32)
    private = Privacy(["test_privacy:nans"]).apply(data)
    assert (private.sound, float(np.abs(private.data).sum())) == (False, 0.0)


# --- on the way out ---------------------------------------------------------------------------------------------------


@pytest.fixture
def outbox(tmp_path: Path) -> Outbox:
    return Outbox(tmp_path / "outbox.db", max_bytes=1 << 20, max_rows=100, min_free_disk_bytes=0)


def a_sample(seq: int, data: np.ndarray, transforms: tuple[str, ...] = ()) -> Sample:
    return Sample(SampleId("dev", "main", 1, seq), "", 0, data, Prediction(0, 0.5), SELECTION, 1, transforms)


def stored(outbox: Outbox, privacy: Privacy, *samples: Sample) -> list[tuple[SampleHeader, np.ndarray]]:
    stopping = threading.Event()
    writer = Writer(outbox, commit_rows=10, commit_ms=5.0, stored=lambda: None, stopping=stopping, privacy=privacy)
    writer.start()
    writer.hand_over(Handover(list(samples), {}))
    writer.stop()
    assert writer.lost == 0
    return [(row.header, decode_body(row.header, row.body)) for row in outbox.peek(10)]


def test_the_outbox_holds_nothing_but_what_may_leave(outbox: Outbox) -> None:
    privacy = Privacy(["crop 0 0 2 2"])
    ((header, data),) = stored(outbox, privacy, a_sample(1, IMAGE))
    assert header.transforms == ("crop 0 0 2 2",)
    np.testing.assert_array_equal(data, privacy.apply(IMAGE).data)


def test_what_comes_out_of_the_ring_is_transformed_once_or_anew_after_a_change(outbox: Outbox) -> None:
    privacy = Privacy(["blur 0 0 8 8"])
    once = privacy.apply(IMAGE).data
    found = stored(outbox, privacy, a_sample(1, once, ("blur 0 0 8 8",)), a_sample(2, once, ("downscale 1",)))
    np.testing.assert_array_equal(found[0][1], once)
    assert [header.transforms for header, _ in found] == [("blur 0 0 8 8",), ("downscale 1", "blur 0 0 8 8")]


def test_the_ring_holds_nothing_but_what_may_leave(tmp_path: Path) -> None:
    for number, (name, kept) in enumerate({"downscale 4": 1, "test_privacy:raises": 0}.items()):
        privacy, folder = Privacy([name]), tmp_path / str(number)
        recent = Recent(
            folder, max_bytes=1 << 20, bytes_per_day=1e15, min_free_disk_bytes=0, pick=pick, privacy=privacy
        )
        recent.start()
        recent.keep(Passing(SampleId("dev", "main", 1, 1), "", 0, IMAGE, Prediction(0, 0.5), 0.5, 1, None))
        recent.stop()
        found = list(recent._ring.records())
        assert len(found) == kept
        for record, place in found:
            assert record.transforms == (name,)
            np.testing.assert_array_equal(recent._ring.read(place)[1], privacy.apply(IMAGE).data)


def test_boxes_are_cropped_with_what_they_show() -> None:
    """IMAGE is 32 high and 24 wide; what is kept: rows 8 to 24, columns 6 to 18."""
    inside, across = Box(1, 0.375, 0.375, 0.5, 0.5, 0.75), Box(0, 0.0, 0.0, 0.5, 0.5, 0.5)
    outside, beside = Box(0, 0.875, 0.1, 1.0, 0.2, 0.9), Box(0, 0.0, 0.375, 0.25, 0.5, 0.9)
    said = Said(boxes=(inside, across, outside, beside))
    cropped = Privacy(("crop 8 6 16 12",)).apply(IMAGE, said=said)
    assert cropped.said == Said(boxes=(inside, Box(0, 0.25, 0.25, 0.5, 0.5, 0.5)))
    again = Privacy(("crop 8 6 16 12",)).apply(cropped.data, before=cropped.transforms, said=cropped.said)
    assert again.said == cropped.said
    assert Privacy(("blur 0 0 9 9", "downscale 2", f"{__name__}:only_red")).apply(IMAGE, said=said).said == said
    assert Privacy(("crop 8 6 16 12", f"{__name__}:raises")).apply(IMAGE, said=said).said is None
    numbers = Said(values=(Value(0, 1.5),))
    assert Privacy(("crop 8 6 16 12",)).apply(IMAGE, said=numbers).said == numbers


def test_boxes_go_the_same_way_into_outbox_and_ring(outbox: Outbox, tmp_path: Path) -> None:
    privacy, said = Privacy(("crop 0 0 16 24",)), Said(boxes=(Box(0, 0.5, 0.25, 0.75, 1.0, 0.5),))
    cut = Said(boxes=(Box(0, 0.5, 0.25, 0.75, 0.5, 0.5),))
    ((header, _),) = stored(outbox, privacy, a_sample(1, IMAGE)._replace(said=said))
    assert header.said == cut
    recent = Recent(
        tmp_path / "ring", max_bytes=1 << 20, bytes_per_day=1e15, min_free_disk_bytes=0, pick=pick, privacy=privacy
    )
    recent.start()
    recent.keep(Passing(SampleId("dev", "main", 1, 1), "", 0, IMAGE, Prediction(0, 0.5), 0.5, 1, None, said))
    recent.stop()
    ((record, _),) = recent._ring.records()
    assert record.said == cut


def test_the_loop_does_not_wait_for_it(outbox: Outbox) -> None:
    held, going = threading.Event(), threading.Event()

    def slow(data: np.ndarray) -> np.ndarray:
        going.set()
        held.wait(10.0)
        return data

    privacy = Privacy(["downscale 1"])
    privacy._steps = [("slow", slow)]
    writer = Writer(
        outbox, commit_rows=10, commit_ms=1.0, stored=lambda: None, stopping=threading.Event(), privacy=privacy
    )
    writer.start()
    writer.hand_over(Handover([a_sample(1, IMAGE)], {}))
    assert going.wait(10.0)
    began = time.monotonic()
    for seq in range(2, 20):
        writer.hand_over(Handover([a_sample(seq, IMAGE)], {}))
    waited_s = time.monotonic() - began
    held.set()
    writer.stop()
    assert waited_s < 5.0
    assert outbox.status().rows == 19


# --- the contract test ------------------------------------------------------------------------------------------------


@settings(deadline=None)
@given(
    st.sampled_from(["crop 1 2 3 4", "blur 0 0 5 5", "downscale 3", "drop_channel 0"]),
    st.sampled_from(["uint8", "float32"]),
)
def test_built_in_ones_keep_the_contract(name: str, dtype: str) -> None:
    check_transform(Privacy([name])._steps[0][1], shape=(12, 10, 2), dtype=dtype)


def test_plug_ins_are_held_to_it() -> None:
    check_transform(only_red, shape=(8, 8, 3), dtype="uint8")
    count = iter(range(100))
    for wrong, match in (
        (writes, "it writes into its input"),
        (cuts, "expected the same, or no model can learn"),
        (raises, "it raised RuntimeError"),
        (lambda data: data.astype(np.float64), "became float64"),
        (lambda data: np.full_like(data, next(count)), "another one when asked again"),
    ):
        with pytest.raises(AssertionError, match=match):
            check_transform(wrong, shape=(8, 8, 3), dtype="uint8")
    with pytest.raises(AssertionError, match="NaN or inf"):
        check_transform(lambda data: np.full_like(data, np.nan), shape=(8, 8), dtype="float32")
