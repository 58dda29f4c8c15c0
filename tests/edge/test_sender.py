"""Does each answer of the server get into the outbox, whatever the disk does meanwhile?"""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from sending import a_put, ids

from edge_agent.contract.wire import Receipt
from edge_agent.send.allowance import Allowance
from edge_agent.send.outbox import Outbox
from edge_agent.send.sender import SETTLE_AGAIN_S, SETTLE_S, Sender
from edge_agent.send.window import Window

NAMES = [f"dev.main.1.{seq}" for seq in range(4)]
LONG = "no: " + "x" * 20_000  # does not fit into the page of its row


@pytest.fixture
def outbox(tmp_path: Path) -> Iterator[Outbox]:
    made = Outbox(tmp_path / "outbox.db", max_bytes=1 << 30, max_rows=100, min_free_disk_bytes=0)
    made.put([a_put(seq) for seq in range(4)])
    yield made
    made.close()


@pytest.fixture
def sender(outbox: Outbox) -> Sender:
    window = Window(32, max_bytes=1 << 20, first_s=2.0, max_s=60.0, uniform=np.random.default_rng(0).random)
    return Sender(outbox, window, Allowance(), topic="t")


def sent(sender: Sender) -> int:
    """How many messages go now."""
    frames: list[bytes] = []

    def publish(frame: bytes):
        frames.append(frame)
        return lambda: True

    while sender.send(publish, lambda: 0.0) == 0.0:
        pass
    return len(frames)


def pages(outbox: Outbox, most: int) -> None:
    """How large SQLite may make the file; at its size of now, it is as on a full disk."""
    outbox._db.execute(f"PRAGMA max_page_count = {most}").fetchall()


def test_answers_are_noted_together_a_little_later(outbox: Outbox, sender: Sender) -> None:
    assert sent(sender) == 4
    sender.receipt(Receipt(accepted=(NAMES[0],), duplicate=(NAMES[1],), refused={NAMES[2]: "no"}), 10.0)
    assert sender.settle(10.0) == pytest.approx(SETTLE_S)
    assert (ids(outbox.peek(9)), outbox.parked()) == (NAMES, [])
    sender.settle(10.0 + SETTLE_S)
    assert (ids(outbox.peek(9)), outbox.parked()) == (NAMES[3:], [(NAMES[2], "no")])
    assert outbox.status().acked_total == 2


def test_a_refusal_that_finds_no_room_waits_is_not_sent_and_is_noted_when_there_is(
    outbox: Outbox, sender: Sender, caplog: pytest.LogCaptureFixture
) -> None:
    assert sent(sender) == 4
    pages(outbox, 1)  # SQLite takes that for the size of now
    sender.receipt(Receipt(accepted=(NAMES[0],), refused={NAMES[1]: LONG}), 10.0)
    assert sender.settle(10.0, at_once=True) == SETTLE_AGAIN_S
    assert (ids(outbox.peek(9)), outbox.parked()) == (NAMES[1:], [])
    sender.receipt(Receipt(refused={NAMES[2]: "no"}), 10.0)
    sender.settle(10.2, at_once=True)  # a connection that ends
    assert sender.settle(10.7) == pytest.approx(SETTLE_AGAIN_S - 0.5)  # not with each receipt that comes
    sender.begin()
    assert sent(sender) == 1  # none of the three that are answered
    pages(outbox, 1 << 20)
    assert sender.settle(10.2 + SETTLE_AGAIN_S) == math.inf
    assert outbox.parked() == [(NAMES[1], LONG), (NAMES[2], "no")]
    assert sum("cannot be noted" in record.message for record in caplog.records) == 1


def test_a_refusal_does_not_undo_an_acceptance(outbox: Outbox, sender: Sender) -> None:
    sender.receipt(Receipt(refused={NAMES[0]: "no"}), 10.0)
    sender.receipt(Receipt(accepted=(NAMES[0],)), 10.0)
    sender.settle(10.0, at_once=True)
    assert (outbox.status().acked_total, outbox.parked()) == (1, [])
