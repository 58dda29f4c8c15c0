"""Is what the loop hands over kept, and what becomes of it when the disk fails?"""

from __future__ import annotations

import sqlite3
import threading
from pathlib import Path

import numpy as np
import pytest

from edge_agent.contract.types import Prediction, Sample, SampleId, Selection
from edge_agent.send.outbox import Outbox
from edge_agent.send.writer import AHEAD, Handover, Writer


@pytest.fixture
def outbox(tmp_path: Path) -> Outbox:
    return Outbox(tmp_path / "outbox.db", max_bytes=1 << 20, max_rows=10_000, min_free_disk_bytes=0)


def a_writer(outbox: Outbox, stopping: threading.Event | None = None, predictions: Path | None = None) -> Writer:
    stopping = stopping or threading.Event()
    return Writer(
        outbox, commit_rows=10, commit_ms=5.0, stored=lambda: None, stopping=stopping, predictions=predictions
    )


def a_handover(seq: int) -> Handover:
    selection = Selection(
        reason="informative", probability=0.5, utility=0.5, novelty=1.0, threshold=0.4, tokens=3.0, strategy="margin"
    )
    sample = Sample(
        id=SampleId("dev", "main", 1, seq),
        ref="",
        captured_at_ms=0,
        data=np.full((2, 2), seq % 256, np.uint8),
        prediction=Prediction(0, 0.5),
        selection=selection,
        model_version=1,
    )
    return Handover([sample], {"cursor": b"%d" % seq}, b"%d;" % seq)


def break_file(path: Path) -> None:
    with sqlite3.connect(path) as db:
        db.execute("alter table counter rename to hidden")


def mend_file(path: Path) -> None:
    with sqlite3.connect(path) as db:
        db.execute("alter table hidden rename to counter")


def test_samples_state_and_predictions_are_kept_in_order(outbox: Outbox, tmp_path: Path) -> None:
    writer = a_writer(outbox, predictions=tmp_path / "log")
    writer.start()
    for seq in range(25):
        writer.hand_over(a_handover(seq))
    writer.stop()
    assert (outbox.status().rows, outbox.state("cursor"), writer.lost) == (25, b"24", 0)
    assert (tmp_path / "log").read_bytes() == b"".join(b"%d;" % seq for seq in range(25))


def test_a_log_that_cannot_be_written_holds_up_nothing(outbox: Outbox, tmp_path: Path) -> None:
    writer = a_writer(outbox, predictions=tmp_path / "nowhere" / "log")
    writer.start()
    for seq in range(25):
        writer.hand_over(a_handover(seq))
    writer.stop()
    assert (outbox.status().rows, writer.lost) == (25, 0)


def test_a_disk_that_recovers_has_lost_nothing(
    outbox: Outbox, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    break_file(tmp_path / "outbox.db")
    writer = a_writer(outbox)
    writer.start()
    writer.hand_over(a_handover(0))
    while "trying again" not in caplog.text:
        threading.Event().wait(0.01)
    mend_file(tmp_path / "outbox.db")
    writer.stop()
    assert (outbox.status().rows, outbox.state("cursor"), writer.lost) == (1, b"0", 0)


def test_at_a_stop_a_disk_that_fails_is_given_up_and_what_is_lost_is_counted(outbox: Outbox, tmp_path: Path) -> None:
    break_file(tmp_path / "outbox.db")
    stopping = threading.Event()
    writer = a_writer(outbox, stopping)
    for seq in range(AHEAD):
        writer.hand_over(a_handover(seq))
    stopping.set()
    writer.hand_over(a_handover(AHEAD))  # no room for it, and no waiting
    writer.start()
    writer.stop()
    assert writer.lost == AHEAD + 1
    assert outbox.state("cursor") is None  # so that the next start begins before them


def test_the_prediction_log_leaves_free_what_is_to_be_free(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    free = [100]
    outbox = Outbox(
        tmp_path / "outbox.db", max_bytes=1 << 20, max_rows=9, min_free_disk_bytes=50, free_disk_bytes=lambda: free[0]
    )
    writer = a_writer(outbox)
    for free[0], records in ((100, b"1"), (49, b"2"), (49, b"3"), (50, b"4")):
        writer._append(tmp_path / "predictions.bin", records)
    assert (tmp_path / "predictions.bin").read_bytes() == b"14"
    assert caplog.text.count("less of the disk is free") == 1


def test_the_prediction_log_is_bounded(outbox: Outbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edge_agent.send.writer.PREDICTIONS_BYTES", 10)
    writer = a_writer(outbox, predictions=tmp_path / "predictions.bin")
    for records in (b"1234", b"5678", b"abcd", b"efgh", b"ijkl"):
        writer._append(tmp_path / "predictions.bin", records)
    assert (tmp_path / "predictions.bin").read_bytes() == b"ijkl"
    assert (tmp_path / "predictions.before.bin").read_bytes() == b"abcdefgh"
