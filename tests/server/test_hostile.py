"""A device that means harm: bounded memory, everything counted and set aside, and the others do not notice.

The corpus (nasty.py) goes through a real collector, broker and sandbox in a process of its own, whose memory is read
from /proc. The limits are of memory and of counts, never of time.
"""

import os
import resource
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import nasty
import numpy as np
import paho.mqtt.client as mqtt
import pytest
import sqlalchemy as sa
from broker import Broker
from catalogue import settings_of
from device_words import FLEET, frames, image, message, uploads
from paho.mqtt.enums import CallbackAPIVersion

from edge_agent.contract import images
from edge_agent.contract.errors import MessageError
from edge_agent.contract.wire import FRAME_MAX_BYTES, Receipt, decode, down_topic, up_topic
from server.collect.inbound import Bad, Picture, hear
from server.collect.ingest import Ingest
from server.errors import StoreError
from server.store import devices, heard, sandbox
from server.store.sandbox import Sandbox
from server.store.schema import part, quarantine
from server.store.schema import sample as sample_table
from server.store.store import Store

WAIT_S = 20.0
SERVER_GROWTH_BYTES = 100 << 20  # the largest sample may be 64 MB, and there may be a copy of it
DECODER_BYTES = 700 << 20  # of address space: what it starts with, and decoder.MEMORY_BYTES

SERVER = """
import sys
from pathlib import Path
from server import config
from server.collect.collector import Collector
from server.collect.gateway import BrokerAddress
from server.collect.ingest import Ingest
from server.store.store import Store
folder, port, fleet = Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
collector = Collector(
    Ingest(Store.open(folder, config.Store(url=sys.argv[4])), fleet=fleet, offline_after_s=90.0),
    BrokerAddress("127.0.0.1", port), fleet=fleet, now_ms=lambda: 1, commit_rows=20)
collector.start()
print(collector.wait_ready(20.0), flush=True)
sys.stdin.read()
collector.stop()
"""


def wait_for(condition):
    deadline = time.monotonic() + WAIT_S
    while not condition():
        assert time.monotonic() < deadline, "did not come about"
        time.sleep(0.02)


def peak_bytes(pid, what="VmHWM"):
    with open(f"/proc/{pid}/status") as file:
        return next(int(line.split()[1]) for line in file if line.startswith(what)) * 1024


@pytest.fixture
def broker(tmp_path):
    broker = Broker(tmp_path)
    broker.start()
    yield broker
    broker.kill()


@pytest.fixture
def server(tmp_path, broker):
    words = [sys.executable, "-c", SERVER, str(tmp_path / "store"), str(broker.port), FLEET]
    words.append(settings_of(tmp_path / "store").url)
    process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdout.readline().strip() == b"True"
    yield process
    process.communicate()


@pytest.fixture
def client(broker):
    """A client that may say anything, and the ids that were accepted."""
    accepted = []
    client = mqtt.Client(CallbackAPIVersion.VERSION2)
    client.max_inflight_messages_set(1000)
    client.on_message = lambda _client, _data, said: accepted.extend(decode(Receipt, said.payload).accepted)
    client.connect(broker.host, broker.port)
    client.subscribe(down_topic(FLEET, "+", "receipt"), 1)
    client.loop_start()
    yield client, accepted
    client.disconnect()
    client.loop_stop()


def test_the_whole_corpus_is_counted_and_set_aside_in_bounded_memory_and_others_do_not_notice(tmp_path, server, client):
    say, accepted = client
    warm = [("warm", seq) for seq in range(50)]
    for name, seq in warm:
        say.publish(up_topic(FLEET, name, "sample"), frames(name, seq)[0], 1)
    wait_for(lambda: len(accepted) == len(warm))
    before = peak_bytes(server.pid)
    corpus = nasty.everything()
    for number, bad in enumerate(corpus):
        say.publish(up_topic(FLEET, "bad", bad.kind), bad.payload, 1)
        say.publish(up_topic(FLEET, "good", "sample"), frames("good", number)[0], 1)
    wait_for(lambda: len(accepted) == len(warm) + len(corpus))
    store = Store.open(tmp_path / "store")
    wait_for(lambda: known(store)["bad"].messages_bad >= len(corpus))
    assert known(store)["bad"].messages_bad == len(corpus)
    assert known(store)["good"].messages_bad == 0
    assert peak_bytes(server.pid) - before < SERVER_GROWTH_BYTES
    with store.database.read() as connection:
        assert connection.execute(sa.select(sa.func.count()).where(sample_table.c.device == "bad")).scalar() == 0
        kept = connection.execute(sa.select(quarantine).where(quarantine.c.device == "bad")).all()
    assert len(kept) == heard.QUARANTINE_ROWS
    assert all(row.reason for row in kept)
    assert sum(len(row.payload) for row in kept) <= heard.QUARANTINE_ROWS * heard.QUARANTINE_PAYLOAD_BYTES
    store.close()


def known(store):
    with store.database.read() as connection:
        return {found.name: found for found in devices.devices(connection)}


@pytest.mark.parametrize("bad", nasty.everything(), ids=lambda bad: bad.name)
def test_each_of_the_corpus_is_refused(bad, decoder):
    heard = hear(message("bad", bad.kind, bad.payload), fleet=FLEET)
    if isinstance(heard, Picture):
        with pytest.raises(MessageError) as refused:
            decoder.decode(heard.body, heard.header.encoding, heard.header.shape)
        assert "died" not in str(refused.value)
    else:
        assert isinstance(heard, Bad)
        assert heard.reason


# --- packets ---


def test_a_packet_too_large_costs_its_sender_the_connection_and_nobody_else(tmp_path):
    """The broker of our own has the limit; see `configuration` in server/collect/broker.py."""
    from server.collect.broker import HOST, BrokerChild

    own = BrokerChild(tmp_path)
    own.start()
    heard, ended = [], threading.Event()
    listener, sender = (mqtt.Client(CallbackAPIVersion.VERSION2) for _ in range(2))
    listener.on_message = lambda _client, _data, said: heard.append(len(said.payload))
    sender.on_disconnect = lambda *_: ended.set()
    for each in (listener, sender):
        each.connect(HOST, own.port)
        each.loop_start()
    listener.subscribe(f"winnow/1/{FLEET}/+/up/+", 1)
    time.sleep(0.1)
    topic = up_topic(FLEET, "bad", "sample")
    sender.publish(topic, bytes(FRAME_MAX_BYTES), 1).wait_for_publish(WAIT_S)
    sender.publish(topic, bytes(4 * FRAME_MAX_BYTES), 1)
    assert ended.wait(WAIT_S)
    listener.publish(topic, b"x", 1).wait_for_publish(WAIT_S)
    wait_for(lambda: heard and heard[-1] == 1)
    assert heard == [FRAME_MAX_BYTES, 1]
    for each in (listener, sender):
        each.disconnect()
        each.loop_stop()
    own.stop()


def test_a_frame_too_large_for_the_wire_is_bad_whatever_the_broker_let_pass():
    payload = frames("bad", 1)[0] + bytes(FRAME_MAX_BYTES)
    heard = hear(message("bad", "sample", payload), fleet=FLEET)
    assert isinstance(heard, Bad)
    assert "at most" in heard.reason


# --- what one device says of another's ---


def test_a_bad_message_that_names_another_devices_sample_does_not_touch_its_parts(tmp_path):
    store = Store.open(tmp_path)
    ingest = Ingest(store, fleet=FLEET, offline_after_s=90.0)
    whole = uploads("good", 1, data=image(0, (3, 300, 301)))
    ingest.take(whole[:2])
    taken = ingest.take([message("bad", "sample", frames("good", 1)[0])])
    assert taken.receipts[0][0] == "bad"
    with store.database.read() as connection:
        assert connection.execute(sa.select(sa.func.count()).select_from(part)).scalar() == 2
    assert ingest.take(whole[2:]).receipts == [("good", Receipt(accepted=("good.main.1.1",)))]
    store.close()


# --- the sandbox ---


@pytest.fixture(scope="module")
def decoder():
    found = Sandbox()
    yield found
    found.close()


PIXELS = np.broadcast_to(np.arange(64, dtype=np.uint8)[:, None, None], (64, 64, 3)).copy()
GOOD = images.encode_image(PIXELS, images.Codec("png", 90))


def test_the_decoder_may_open_nothing_write_nothing_and_take_no_more_memory_than_stated(decoder):
    decoder.decode(GOOD, "png", PIXELS.shape)
    limits = {
        name: resource.prlimit(decoder.pid, getattr(resource, name))
        for name in ("RLIMIT_NOFILE", "RLIMIT_FSIZE", "RLIMIT_AS", "RLIMIT_CORE", "RLIMIT_NPROC")
    }
    assert limits["RLIMIT_NOFILE"] == (3, 3)
    assert limits["RLIMIT_FSIZE"] == limits["RLIMIT_CORE"] == limits["RLIMIT_NPROC"] == (0, 0)
    assert limits["RLIMIT_AS"][1] < DECODER_BYTES
    assert len(list(Path(f"/proc/{decoder.pid}/fd").iterdir())) == 3


def test_the_largest_image_fits_into_the_decoder_and_its_memory_is_bounded(decoder):
    shape = (4096, 5461, 3)
    body = images.encode_image(np.zeros(shape, np.uint8), images.Codec("png", 90))
    assert len(body) < 100_000
    assert decoder.decode(body, "png", shape).shape == shape
    assert peak_bytes(decoder.pid, "VmPeak") < DECODER_BYTES


@pytest.mark.parametrize(
    "pixels", [nasty.BOMB, nasty.zlib.compress(bytes(193))], ids=["60 MB behind the last row", "one row only"]
)
def test_what_pillow_forgives_is_still_read_no_further_than_its_rows(pixels):
    found = Sandbox()
    found.decode(GOOD, "png", PIXELS.shape)
    before = peak_bytes(found.pid)
    assert not found.decode(nasty.png(64, 64, pixels), "png", PIXELS.shape).any()
    assert peak_bytes(found.pid) - before < 5 << 20
    found.close()


def test_a_decoder_that_was_killed_is_replaced(decoder):
    decoder.decode(GOOD, "png", PIXELS.shape)
    os.kill(decoder.pid, signal.SIGKILL)
    np.testing.assert_array_equal(decoder.decode(GOOD, "png", PIXELS.shape), PIXELS)


def test_an_image_that_takes_too_long_is_refused_and_the_next_decoded(decoder):
    decoder.decode(GOOD, "png", PIXELS.shape)
    slow = Sandbox(answer_s=2.0)
    slow.decode(GOOD, "png", PIXELS.shape)
    os.kill(slow.pid, signal.SIGSTOP)
    first = slow.pid
    with pytest.raises(MessageError, match="not decoded within 2 s"):
        slow.decode(GOOD, "png", PIXELS.shape)
    np.testing.assert_array_equal(slow.decode(GOOD, "png", PIXELS.shape), PIXELS)
    assert slow.pid != first
    slow.close()


def test_a_decoder_that_dies_of_an_image_every_time_means_that_the_image_is_bad(decoder, monkeypatch):
    """As a hole in a decoder would show: it asks for more memory than it may have, or jumps to nowhere."""
    monkeypatch.setattr(Sandbox, "_ask", lambda *_: None)
    with pytest.raises(MessageError, match="died of it"):
        decoder.decode(GOOD, "png", PIXELS.shape)


LIAR = "import sys; sys.stdout.buffer.write(b'\\n' + {!r}); sys.stdout.flush(); sys.stdin.read()"


@pytest.mark.parametrize(
    "answer",
    [
        b"\0" + (64 * 64 * 3 + 1).to_bytes(4, "big"),
        b"\0" + (2**32 - 1).to_bytes(4, "big"),
        b"\1" + (2**32 - 1).to_bytes(4, "big"),
        b"\7" + (12).to_bytes(4, "big") + bytes(12),
        b"\0",
    ],
    ids=["too long", "endless", "an endless reason", "unknown", "broken off"],
)
def test_a_decoder_that_was_taken_over_is_believed_nothing_but_bytes_of_the_right_length(monkeypatch, answer):
    monkeypatch.setattr(sandbox, "COMMAND", [sys.executable, "-c", LIAR.format(answer)])
    found = Sandbox(answer_s=2.0)
    with pytest.raises(MessageError):
        found.decode(GOOD, "png", PIXELS.shape)
    found.close()


FORKER = """
import os, sys, time
sys.stdout.buffer.write(b"\\n"); sys.stdout.flush(); sys.stdin.buffer.read(4)
if not os.fork():
    open({!r}, "w").write(str(os.getpid())); time.sleep(600)
"""


def test_what_a_decoder_leaves_behind_holds_nobody_up_and_ends_with_it(monkeypatch, tmp_path):
    """Its child has the other ends of the pipes: who waits for them to close waits for it."""
    monkeypatch.setattr(sandbox, "COMMAND", [sys.executable, "-c", FORKER.format(str(tmp_path / "pid"))])
    found = Sandbox(answer_s=2.0)
    with pytest.raises(MessageError, match="not decoded within 2 s"):
        found.decode(GOOD, "png", PIXELS.shape)
    left = int((tmp_path / "pid").read_text())
    wait_for(lambda: not Path(f"/proc/{left}").exists() or "zombie" in Path(f"/proc/{left}/status").read_text())
    found.close()


def test_where_no_decoder_starts_nothing_is_called_bad(monkeypatch):
    monkeypatch.setattr(sandbox, "COMMAND", [sys.executable, "-c", "raise SystemExit('no Pillow here')"])
    with pytest.raises(StoreError, match="no Pillow here"):
        Sandbox().decode(GOOD, "png", PIXELS.shape)


def test_the_decoder_ends_with_whoever_started_it():
    code = (
        "import os, sys; from server.store.sandbox import Sandbox; s = Sandbox(); "
        f"s.decode({GOOD!r}, 'png', (64, 64, 3)); print(s.pid, flush=True); os.kill(os.getpid(), 9)"
    )
    done = subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, check=False)
    wait_for(lambda: not Path(f"/proc/{int(done.stdout)}").exists())


def test_a_closed_sandbox_starts_nothing():
    found = Sandbox()
    found.close()
    with pytest.raises(StoreError, match="stopping"):
        found.decode(GOOD, "png", PIXELS.shape)
