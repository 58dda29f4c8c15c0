"""Is nothing left on the device of what it was told to forget?"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from edge_agent.choose.wanted import pick
from edge_agent.contract.types import Prediction, Sample, SampleId, Selection
from edge_agent.contract.wire import Purge, Purged, Receipt
from edge_agent.send.allowance import Allowance
from edge_agent.send.outbox import Outbox
from edge_agent.send.purging import Purging
from edge_agent.send.recent import Passing, Recent
from edge_agent.send.sender import Sender
from edge_agent.send.window import Window
from edge_agent.send.writer import Handover, Writer

SELECTION = Selection(
    reason="informative", probability=0.5, floor=0.01, utility=0.5, novelty=1.0, threshold=0.5, tokens=9.0, strategy="m"
)
BOOT = 7


def data(seq: int) -> np.ndarray:
    return np.random.default_rng(seq).integers(0, 256, (64, 64), np.uint8)


def mark(seq: int) -> bytes:
    return data(seq).tobytes()[2000:2032]


def a_sample(seq: int, boot: int = BOOT) -> Sample:
    return Sample(SampleId("cam-1", "main", boot, seq), "", 5, data(seq), Prediction(1, 0.5), SELECTION, 1)


class Device:
    """An outbox, a ring and a writer, as an agent has them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.done = 0
        self.outbox = Outbox(folder / "outbox.db", max_bytes=10**7, max_rows=1000, min_free_disk_bytes=0)
        self.recent = Recent(folder / "recent", max_bytes=10**7, bytes_per_day=1e15, min_free_disk_bytes=0, pick=pick)
        self.purging = Purging(self.outbox, self.recent, boot=BOOT, logs=[folder / "predictions.bin"], done=self._count)
        self.writer = Writer(
            self.outbox, commit_rows=10, commit_ms=1, stored=lambda: None, stopping=threading.Event(),
            predictions=folder / "predictions.bin", purging=self.purging,
        )  # fmt: skip
        self.recent.start()
        self.writer.start()

    def _count(self) -> None:
        self.done += 1

    def put(self, *numbers: int, boot: int = BOOT) -> None:
        self.writer.hand_over(Handover([a_sample(seq, boot) for seq in numbers], {}, b"log"))

    def passes(self, seq: int) -> None:
        id_ = SampleId("cam-1", "main", BOOT, seq)
        self.recent.keep(Passing(id_, "", 5, data(seq), Prediction(1, 0.5), 0.5, 1, None))

    def told(self, *purges: Purge) -> None:
        self.writer.hand_over(Handover([], {}, purges=self.purging.new(purges)))

    def settle(self) -> None:
        self.writer.stop()

    def holding(self, what: bytes) -> list[str]:
        return [path.name for path in self.folder.rglob("*") if path.is_file() and what in path.read_bytes()]


@pytest.fixture
def device(tmp_path: Path) -> Iterator[Device]:
    made = Device(tmp_path)
    yield made
    made.writer.stop()
    made.recent.stop()
    made.outbox.close()


def test_all_that_the_device_has_goes_without_a_trace(device: Device) -> None:
    device.put(*range(8))
    device.put(8, 9)
    device.passes(50)
    device.told(Purge(id=3))
    device.settle()
    assert [device.holding(mark(seq)) for seq in (*range(10), 50)] == [[]] * 11
    assert not (device.folder / "predictions.bin").exists()
    status = device.outbox.status()
    assert (status.rows, status.evicted, status.put_total) == (0, {"erased": 10}, 10)
    assert status.purged == Purged(id=3, boot=BOOT, seq=9, samples=10)
    assert device.done == 1


def test_what_was_delivered_before_is_not_left_in_free_pages_either(device: Device) -> None:
    device.put(*range(8))
    device.writer.stop()
    device.outbox.ack([str(a_sample(seq).id) for seq in range(8)])
    assert device.holding(mark(3)) == ["outbox.db-wal"] or device.holding(mark(3))
    device.purging.obey(Purge(id=1))
    assert [device.holding(mark(seq)) for seq in range(8)] == [[]] * 8


def test_of_named_samples_only_those_go_parked_or_waiting(device: Device) -> None:
    device.put(*range(4))
    device.writer.stop()
    device.outbox.park("cam-1.main.7.1", "because")
    device.purging.obey(Purge(id=1, samples=("cam-1.main.7.1", "cam-1.main.7.2", "cam-1.main.7.9")))
    assert [bool(device.holding(mark(seq))) for seq in range(4)] == [True, False, False, True]
    status = device.outbox.status()
    assert (status.rows, status.parked, status.evicted) == (2, 0, {"erased": 2})


def test_a_damaged_file_that_was_set_aside_goes_too(device: Device) -> None:
    aside = device.folder / "outbox.corrupt-5.db"
    aside.write_bytes(mark(1))
    device.purging.obey(Purge(id=1))
    assert not aside.exists()


def test_an_order_is_obeyed_once_and_the_next_run_knows(device: Device) -> None:
    device.told(Purge(id=2), Purge(id=1))
    device.told(Purge(id=1), Purge(id=2))
    device.put(5)
    device.settle()
    assert device.done == 2
    assert device.outbox.status().rows == 1
    device.outbox.close()
    device.outbox = Outbox(device.folder / "outbox.db", max_bytes=10**7, max_rows=1000, min_free_disk_bytes=0)
    again = Purging(device.outbox, None, boot=BOOT + 1, logs=(), done=lambda: None)
    assert again.new([Purge(id=1), Purge(id=2)]) == ()
    assert again.new([Purge(id=3)]) == (Purge(id=3),)


def test_a_sample_of_the_ring_does_not_move_the_line_back(device: Device) -> None:
    device.put(30)
    device.put(4)
    device.told(Purge(id=1))
    device.settle()
    assert device.outbox.status().purged == Purged(id=1, boot=BOOT, seq=30, samples=2)


def test_what_the_server_calls_erased_is_not_kept_parked(device: Device) -> None:
    device.put(1, 2)
    device.writer.stop()
    rng = np.random.default_rng(0)
    sender = Sender(
        device.outbox, Window(8, max_bytes=10**6, first_s=1, max_s=2, uniform=rng.random), Allowance(), topic="t"
    )
    sender.receipt(
        Receipt(refused={"cam-1.main.7.1": "erased", "cam-1.main.7.2": "x"}, erased=("cam-1.main.7.1",)), 0.0
    )
    sender.settle(0.0, at_once=True)
    assert device.outbox.parked() == [("cam-1.main.7.2", "x")]
    assert device.outbox.status().evicted == {"erased": 1}
    assert device.holding(mark(1)) == []
