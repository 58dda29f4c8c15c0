"""When do receipts empty the outbox? In groups, while more of them may come; at once when none can."""

import numpy as np
import pytest
from sending import a_put

from edge_agent.contract.wire import Receipt
from edge_agent.send.allowance import Allowance
from edge_agent.send.outbox import Outbox
from edge_agent.send.sender import SETTLE_S, Sender
from edge_agent.send.window import Window

NOW_S = 0.0


@pytest.fixture
def outbox(tmp_path):
    outbox = Outbox(tmp_path / "outbox.db", max_bytes=10**6, max_rows=100, min_free_disk_bytes=0)
    yield outbox
    outbox.close()


def sent(outbox: Outbox, count: int) -> Sender:
    outbox.put([a_put(seq) for seq in range(count)])
    window = Window(32, max_bytes=10**6, first_s=10.0, max_s=60.0, uniform=np.random.default_rng(0).random)
    sender = Sender(outbox, window, Allowance(), topic="t")
    while sender.send(lambda _frame: lambda: True, lambda: NOW_S) == 0.0:
        continue
    return sender


def test_a_receipt_waits_for_others_while_samples_are_on_their_way(outbox):
    sender = sent(outbox, 2)
    sender.receipt(Receipt(accepted=("dev.main.1.0",)), NOW_S)
    assert sender.settle(NOW_S) == SETTLE_S
    assert outbox.status().rows == 2
    sender.settle(NOW_S + SETTLE_S)
    assert outbox.status().rows == 1


def test_the_last_receipt_waits_for_nothing(outbox):
    sender = sent(outbox, 2)
    sender.receipt(Receipt(accepted=("dev.main.1.0",)), NOW_S)
    sender.receipt(Receipt(accepted=("dev.main.1.1",)), NOW_S)
    sender.settle(NOW_S)
    assert outbox.status().rows == 0
