"""A real broker, a real store, and devices that send again until they are answered."""

import hashlib
import logging
import os
import signal
import subprocess
import sys
import threading

import msgspec
import numpy as np
import paho.mqtt.client as mqtt
import pytest
import sqlalchemy as sa
from catalogue import fill_disk, make_room, settings_of
from device_words import FLEET, NOW_MS, birth, frames, heartbeat, image, message, sample
from link import Link
from paho.mqtt.enums import CallbackAPIVersion
from resending import WAIT_S, Device, wait_for

from edge_agent.contract.images import KINDS, Codec
from edge_agent.contract.wire import (
    Death,
    Fetch,
    ServerState,
    decode,
    down_topic,
    encode,
    encode_sample,
    sample_frames,
    server_state_topic,
    up_topic,
)
from edge_agent.send.outbox import Outbox, Put
from edge_agent.send.uplink import Uplink
from server.collect.broker import HOST, BrokerChild
from server.collect.collector import Collector
from server.collect.gateway import BrokerAddress
from server.collect.ingest import Ingest
from server.collect.turns import Limit
from server.store import arrivals, devices
from server.store.samples import sample_array
from server.store.schema import part, quarantine
from server.store.schema import sample as sample_table
from server.store.store import Store


@pytest.fixture
def broker(tmp_path):
    broker = BrokerChild(tmp_path)
    broker.start()
    yield broker
    broker.stop()


@pytest.fixture
def store(tmp_path):
    store = Store.open(tmp_path / "store")
    yield store
    store.close()


@pytest.fixture
def device(broker):
    opened = []

    def make(name, count=0):
        opened.append(Device(name, broker.port, count))
        return opened[-1]

    yield make
    for each in opened:
        each.close()


@pytest.fixture
def collect(broker, store):
    opened = []

    def start(*, commit_rows=10, **options):
        ingest = Ingest(store, fleet=FLEET, offline_after_s=90.0)
        address = BrokerAddress(HOST, broker.port)
        clock = {"now_ms": lambda: NOW_MS}
        opened.append(Collector(ingest, address, fleet=FLEET, commit_rows=commit_rows, **clock, **options))
        opened[-1].start()
        assert opened[-1].wait_ready(WAIT_S)
        return opened[-1]

    yield start
    for collector in opened:
        collector.stop()


def stored(store):
    with store.database.read() as connection:
        return sorted(connection.execute(sa.select(sample_table.c.id)).scalars())


def known(store, name):
    with store.database.read() as connection:
        return next(found for found in devices.devices(connection) if found.name == name)


def expected(*counts):
    return sorted(f"{name}.main.1.{seq}" for name, count in counts for seq in range(count))


def test_samples_are_stored_then_receipted_then_told_of(collect, device, store):
    told = []
    collect(on_samples=told.append)
    senders = [device("cam-1", 30), device("cam-2", 20)]
    wait_for(lambda: not any(sender.waiting for sender in senders))
    assert stored(store) == expected(("cam-1", 30), ("cam-2", 20))
    assert sum(told) == 50
    for sender in senders:
        assert sorted(sender.told) == [("accepted", id_) for id_ in stored(store) if id_.startswith(sender.name)]


def test_the_rest_of_the_server_is_told_what_devices_say(collect, device, store):
    told = []

    def fetch_fails(name, fetch):
        told.append((name, fetch))
        raise RuntimeError("of another part")

    def born():
        with store.database.read() as connection:
            return arrivals.waiting(connection)

    collect(on_fetch=fetch_fails)
    cam = device("cam-1")
    cam.say("fetch", encode(Fetch(sha256="ab", blocks=(4,))))
    cam.say("birth", b"garbage")
    wait_for(lambda: len(told) == 1)
    cam.say("birth", encode(birth("s")))
    wait_for(lambda: born() == [arrivals.Arrival("cam-1", "s", NOW_MS)])
    assert told == [("cam-1", Fetch(sha256="ab", blocks=(4,)))]
    cam_1 = known(store, "cam-1")
    assert (cam_1.session, cam_1.messages_bad) == ("s", 1)


def test_devices_are_told_what_is_published(collect, device):
    collector = collect()
    cam = device("cam-1")
    collector.publish(down_topic(FLEET, "cam-1", "desired"), b"retained", retain=True)
    wait_for(lambda: (down_topic(FLEET, "cam-1", "desired"), b"retained") in cam.heard)


def test_the_server_says_whether_it_is_there(collect, broker):
    said = []
    listener = mqtt.Client(CallbackAPIVersion.VERSION2)
    listener.on_message = lambda _client, _data, message: said.append(decode(ServerState, message.payload).online)
    listener.connect(HOST, broker.port)
    listener.subscribe(server_state_topic(FLEET), 1)
    listener.loop_start()
    collector = collect()
    wait_for(lambda: said == [True])
    collector.stop()
    wait_for(lambda: said == [True, False])
    listener.disconnect()
    listener.loop_stop()


def test_after_the_broker_was_killed_everything_goes_on(collect, device, broker, store):
    collect()
    cam = device("cam-1", 20)
    wait_for(lambda: not cam.waiting)
    os.kill(broker.pid, signal.SIGKILL)
    cam.waiting |= {f"cam-1.main.1.{seq}": frames("cam-1", seq) for seq in range(20, 50)}
    wait_for(lambda: not cam.waiting)
    assert stored(store) == expected(("cam-1", 50))
    assert sorted(id_ for _, id_ in cam.told) == stored(store)


def test_a_device_whose_wire_breaks_and_whose_server_goes_has_each_sample_stored_once(collect, broker, store, tmp_path):
    """The real outbox and uplink against the real collector; small samples, and large ones in parts."""
    samples = [sample("cam-1", seq) for seq in range(60)]
    samples += [sample("cam-1", seq, data=image(seq, (3, 300, 301))) for seq in range(60, 64)]
    outbox = Outbox(tmp_path / "outbox.db", max_bytes=1 << 30, max_rows=10_000, min_free_disk_bytes=0)
    outbox.put([Put(*encode_sample(one)) for one in samples])
    link = Link(broker.port)
    uplink = an_uplink(link, outbox)
    collector = collect(commit_rows=7)
    uplink.start()
    for left in (55, 40, 25, 10):
        wait_for(lambda left=left: outbox.status().rows <= left)
        link.cut()
        link.mend()
        if left == 40:
            collector.stop()
            collect(commit_rows=5)
    wait_for(lambda: outbox.status().rows == 0)
    uplink.stop()
    assert stored(store) == expected(("cam-1", 64))
    assert (outbox.status().acked_total, outbox.status().parked) == (64, 0)
    with store.database.read() as connection:
        assert [known.messages_bad for known in devices.devices(connection)] == [0]
        for row in connection.execute(sa.select(sample_table)).all():
            np.testing.assert_array_equal(sample_array(store, row), samples[row.seq].data)
    outbox.close()
    link.close()


def test_a_server_whose_wire_breaks_in_mid_message_reads_on_where_the_next_begins(broker, device, store):
    """What was read ahead of a connection that is gone must not be taken for the next one's."""
    link = Link(broker.port)
    ingest = Ingest(store, fleet=FLEET, offline_after_s=90.0)
    address = BrokerAddress(HOST, link.port)
    collector = Collector(ingest, address, fleet=FLEET, now_ms=lambda: NOW_MS, commit_rows=10)
    collector.start()
    assert collector.wait_ready(WAIT_S)
    cam = device("cam-1")
    cam.waiting |= {f"cam-1.main.1.{n}": frames("cam-1", n, data=image(n, (3, 20 + 9 * n, 100))) for n in range(40)}
    for left in (30, 15, 3):
        wait_for(lambda left=left: len(cam.waiting) <= left)
        link.cut()
        link.mend()
    wait_for(lambda: not cam.waiting)
    collector.stop()
    link.close()
    assert stored(store) == expected(("cam-1", 40))
    assert known(store, "cam-1").messages_bad == 0


def an_uplink(link, outbox):
    return Uplink(
        host=link.host, port=link.port, tls=None, username="", password="", fleet=FLEET, device="cam-1", session="s",
        outbox=outbox, window=16, retry_first_s=0.1, retry_max_s=0.4, keepalive_s=5, heartbeat_s=0.2,
        birth=lambda: birth("s"), heartbeat=lambda: heartbeat("s"), on_desired=lambda _: None,
        on_block=lambda *_: None, uniform=np.random.default_rng(0).random,
    )  # fmt: skip


SERVER = """
import itertools, os, signal, sys, time
from pathlib import Path
from server import config
from server.collect.collector import Collector
from server.collect.gateway import BrokerAddress
from server.collect.ingest import Ingest
from server.store.store import Store
folder, port, fleet, groups = Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3], int(sys.argv[4])
count = itertools.count(1)
def die(_):  # stored, and the receipts perhaps not sent yet
    if next(count) == groups:
        os.kill(os.getpid(), signal.SIGKILL)
ingest = Ingest(Store.open(folder, config.Store(url=sys.argv[5])), fleet=fleet, offline_after_s=90.0)
address = BrokerAddress("127.0.0.1", port)
Collector(ingest, address, fleet=fleet, now_ms=lambda: 1, commit_rows=7, on_samples=die).start()
time.sleep(120)
"""


def test_a_server_killed_in_mid_stream_loses_and_doubles_nothing(tmp_path, device, broker):
    senders = [device("cam-1", 60), device("cam-2", 60)]
    folder = tmp_path / "store"

    def serve(groups):
        words = (str(folder), str(broker.port), FLEET, str(groups), settings_of(folder).url)
        return subprocess.Popen([sys.executable, "-c", SERVER, *words])

    for groups in (1, 2, 3):
        assert serve(groups).wait(WAIT_S) == -signal.SIGKILL
    assert any(sender.waiting for sender in senders)
    server = serve(0)
    wait_for(lambda: not any(sender.waiting for sender in senders))
    server.kill()
    server.wait()
    store = Store.open(folder)
    assert stored(store) == expected(("cam-1", 60), ("cam-2", 60))
    for id_ in stored(store):
        with store.database.read() as connection:
            name = connection.execute(sa.select(sample_table.c.body_sha256).where(sample_table.c.id == id_)).scalar()
        store.blobs.get(name)
    store.close()


def break_store(store, how):
    with store.database.write() as connection:
        connection.exec_driver_sql(how)


@pytest.mark.of_a_file
def test_one_message_that_cannot_be_taken_does_not_stop_the_others(collect, device, store, caplog):
    """As if a rule of ours were wrong: the catalogue itself refuses one sample."""
    break_store(
        store,
        "CREATE TRIGGER broken BEFORE INSERT ON sample WHEN NEW.seq = 3 BEGIN SELECT RAISE(ABORT, 'injected'); END",
    )
    collect()
    cam = device("cam-1", 10)
    wait_for(lambda: list(cam.waiting) == ["cam-1.main.1.3"])
    assert "a message could not be taken" in caplog.text
    wait_for(lambda: known(store, "cam-1").messages_bad)
    with store.database.read() as connection:
        (reason, *_) = connection.scalars(sa.select(quarantine.c.reason))
    assert "could not be taken: IntegrityError: " in reason
    assert "injected" in reason
    break_store(store, "DROP TRIGGER broken")
    wait_for(lambda: not cam.waiting)
    assert stored(store) == expected(("cam-1", 10))


def test_while_nothing_can_be_stored_nothing_is_receipted(collect, device, store, caplog):
    caplog.set_level(logging.WARNING)
    collect()
    with store.database.write() as connection:
        fill_disk(connection, "sample")
    cam = device("cam-1", 5)
    wait_for(lambda: "nothing can be stored" in caplog.text)
    assert len(cam.waiting) == 5
    assert cam.told == []
    with store.database.write() as connection:
        make_room(connection, "sample")
    wait_for(lambda: not cam.waiting)
    assert caplog.text.count("nothing can be stored") == caplog.text.count("storing again") == 1
    assert stored(store) == expected(("cam-1", 5))


def test_the_death_of_a_device_is_told_by_the_broker(collect, device, broker, store):
    collect()
    cam = mqtt.Client(CallbackAPIVersion.VERSION2, client_id="cam-9")
    cam.will_set(up_topic(FLEET, "cam-9", "death"), encode(Death(session="s")), 1)
    cam.connect(HOST, broker.port)
    cam.loop_start()
    cam.publish(up_topic(FLEET, "cam-9", "birth"), encode(birth("s")), 1).wait_for_publish(WAIT_S)

    def online():
        with store.database.read() as connection:
            return [known.online for known in devices.devices(connection)]

    wait_for(lambda: online() == [True])
    cam.socket().shutdown(2)  # no goodbye
    cam.loop_stop()
    wait_for(lambda: online() == [False])


def test_a_full_backlog_holds_the_broker_back_and_loses_nothing(collect, device, store):
    """Room for four messages or so: were they left instead, they would count as throttled."""
    slow = threading.Event()
    collect(commit_rows=2, on_samples=lambda _: slow.wait(0.01), backlog_bytes=20_000, device_share=1.0)
    cam = device("cam-1", 120)
    wait_for(lambda: not cam.waiting)
    assert stored(store) == expected(("cam-1", 120))
    assert known(store, "cam-1").throttled == 0


def test_a_device_over_its_share_is_left_counted_and_loses_nothing(collect, device, store):
    slow = threading.Event()
    collect(commit_rows=2, on_samples=lambda _: slow.wait(0.01), backlog_bytes=100_000, device_share=0.2)
    flood, calm = device("flood", 40), device("calm")
    for seq in range(3):  # each once: what is sent again while nobody answers would fill a share, too
        (frame,) = frames("calm", seq)
        calm.say("sample", frame)
    wait_for(lambda: not flood.waiting and len(calm.told) == 3)
    assert stored(store) == expected(("calm", 3), ("flood", 40))
    wait_for(lambda: known(store, "flood").throttled)
    assert known(store, "calm").throttled == 0


def test_a_device_at_its_limit_is_taken_in_later(collect, device, store):
    collect(limit=Limit(messages_per_s=20.0))  # 200 are saved up for a burst
    cam = device("cam-1", 210)
    wait_for(lambda: not cam.waiting)
    assert stored(store) == expected(("cam-1", 210))


# --- images ---


def picture(name, seq, kind="png", **changes):
    pixels = np.broadcast_to(np.arange(64, dtype=np.uint8)[:, None, None] * 3, (64, 64, 3)).copy()
    pixels[0, 0] = seq
    header, body = encode_sample(sample(name, seq, data=pixels), codec=Codec(kind, 90))
    assert header.encoding == kind
    return sample_frames(msgspec.structs.replace(header, **changes), body), pixels


@pytest.mark.parametrize("kind", KINDS)
def test_images_are_stored_as_they_came_and_read_as_arrays(collect, device, store, kind):
    collect()
    cam = device("cam-1")
    cam.waiting |= {f"cam-1.main.1.{seq}": picture("cam-1", seq, kind)[0] for seq in range(5)}
    wait_for(lambda: not cam.waiting)
    assert sorted(cam.told) == [("accepted", f"cam-1.main.1.{seq}") for seq in range(5)]
    with store.database.read() as connection:
        rows = connection.execute(sa.select(sample_table)).all()
    for row in rows:
        assert row.encoding == kind
        array, (_, pixels) = sample_array(store, row), picture("cam-1", row.seq, kind)
        assert np.abs(array.astype(int) - pixels).mean() <= (0 if kind == "png" else 3)


def test_what_is_no_image_is_refused_and_holds_nobody_up(collect, device, store):
    collect()
    cam, other = device("cam-1"), device("cam-2", 20)
    body = b"\x89PNG\r\n\x1a\n" + bytes(500)
    changes = {"body_bytes": len(body), "body_sha256": hashlib.sha256(body).hexdigest(), "encoding": "png"}
    changes["shape"] = (64, 64, 3)
    header = msgspec.structs.replace(encode_sample(sample("cam-1", 7))[0], **changes)
    for frame in (*sample_frames(header, body), *picture("cam-1", 8)[0]):  # each once
        cam.say("sample", frame)
    wait_for(lambda: len(cam.told) == 2 and not other.waiting)
    assert sorted(cam.told) == [("accepted", "cam-1.main.1.8"), ("refused", "cam-1.main.1.7")]
    assert known(store, "cam-1").messages_bad == 1
    with store.database.read() as connection:
        (bad,) = connection.execute(sa.select(quarantine.c.reason)).scalars()
    assert bad.startswith("sample cam-1.main.1.7: png: ")


def test_an_image_in_parts_is_put_together_and_its_parts_go(collect, device, store):
    noise = np.random.default_rng(0).integers(0, 256, (300, 300, 3), np.uint8) // 2
    header, body = encode_sample(sample("cam-1", 1, data=noise), codec=Codec("png", 90))
    in_parts = sample_frames(header, body)
    assert (header.encoding, len(in_parts) > 1) == ("png", True)
    collect()
    cam = device("cam-1")
    cam.waiting["cam-1.main.1.1"] = in_parts
    wait_for(lambda: not cam.waiting)
    with store.database.read() as connection:
        (row,) = connection.execute(sa.select(sample_table)).all()
        assert connection.execute(sa.select(sa.func.count()).select_from(part)).scalar() == 0
    np.testing.assert_array_equal(sample_array(store, row), noise)


def test_while_the_bucket_is_away_receipts_are_late_and_nothing_is_lost(broker, device, tmp_path, s3, caplog):
    """A real S3, killed in mid-stream."""
    caplog.set_level(logging.WARNING)
    store = Store.open(tmp_path / "data", s3.settings("collected"))
    told = threading.Event()
    collector = Collector(
        Ingest(store, fleet=FLEET, offline_after_s=90.0), BrokerAddress(HOST, broker.port), fleet=FLEET,
        now_ms=lambda: NOW_MS, commit_rows=20, on_samples=lambda _: told.set(),
    )  # fmt: skip
    collector.start()
    assert collector.wait_ready(WAIT_S)
    cam, other = device("cam-1", 100), device("cam-2", 100)
    assert told.wait(WAIT_S)
    s3.kill()
    for sender in (cam, other):  # the first may all be there by now
        sender.waiting |= {f"{sender.name}.main.1.{seq}": frames(sender.name, seq) for seq in range(100, 200)}
    wait_for(lambda: "nothing can be stored, devices keep what they have: s3://fleet/collected" in caplog.text)
    wait_for(lambda: len(cam.waiting) + len(other.waiting) == 400 - len(stored(store)))  # receipts are on their way
    assert 0 < len(stored(store)) <= 200
    s3.start()
    wait_for(lambda: not cam.waiting and not other.waiting)
    collector.stop()
    assert stored(store) == expected(("cam-1", 200), ("cam-2", 200))
    assert sorted(id_ for _, id_ in {*cam.told, *other.told}) == stored(store)
    with store.database.read() as connection:
        rows = connection.execute(sa.select(sample_table)).all()
    assert set(store.blobs.names()) == {row.body_sha256 for row in rows}
    for row in rows[::50]:
        assert sample_array(store, row).shape == tuple(row.shape)
    store.close()


def test_who_fell_silent_while_the_server_was_away_is_one_line_of_the_log(collect, store, caplog):
    Ingest(store, fleet=FLEET, offline_after_s=90.0).take(
        [message(f"cam-{number:02}", "birth", encode(birth("a")), at_ms=NOW_MS - 600_000) for number in range(25)]
    )
    collect()
    wait_for(lambda: "fell silent" in caplog.text)
    (line,) = [line for line in caplog.messages if "fell silent" in line]
    assert line == f"25 fell silent: {', '.join(f'cam-{number:02}' for number in range(10))} ..."
