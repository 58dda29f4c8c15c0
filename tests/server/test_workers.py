"""Is what several take in what one would have, whichever of them gets what?"""

from __future__ import annotations

import errno
import shutil
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec
import paho.mqtt.client as mqtt
import pytest
import sqlalchemy as sa
from broker import Broker
from device_words import FLEET, NOW_MS, answers, birth, event, frames, heartbeat, image, message, uploads
from fleet_ca import FLEET as FARM
from fleet_ca import Client, SecureBroker, now_ms
from hypothesis import given, settings
from hypothesis import strategies as st
from paho.mqtt.enums import CallbackAPIVersion
from resending import WAIT_S, wait_for

from edge_agent.contract.wire import (
    UP,
    Death,
    Receipt,
    ServerState,
    StreamCounts,
    decode,
    down_topic,
    encode,
    server_state_topic,
    up_topic,
)
from server import child
from server.__main__ import main
from server.collect.collector import Collector
from server.collect.division import WHOLE, Shared, Slice
from server.collect.gateway import BrokerAddress, Voice
from server.collect.inbound import Message
from server.collect.ingest import Ingest, Taken
from server.collect.probe import shares
from server.config import Broker as BrokerSection
from server.config import Server, ServerConfig
from server.errors import ServerConfigError
from server.roles.devices import client_of
from server.roles.ingest import Addresses, Place, addresses_of, divide
from server.roles.workers import Workers
from server.store import arrivals, devices
from server.store.schema import event as event_table
from server.store.schema import part, sample, stretch
from server.store.store import Store


@pytest.fixture(scope="module")
def empty(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder: Path = tmp_path_factory.mktemp("empty")
    Store.open(folder).close()
    return folder


class Crew:
    """Several workers, each with connections of its own to one store."""

    def __init__(self, empty: Path, folder: Path, count: int) -> None:
        shutil.copytree(empty, folder, dirs_exist_ok=True)
        self.stores = [Store.open(folder) for _ in range(count)]
        self.workers = [Ingest(store, fleet=FLEET, offline_after_s=90.0) for store in self.stores]

    def rows(self, what: sa.Select) -> Sequence:
        with self.stores[0].database.read() as connection:
            return connection.execute(what).all()

    def device(self, name: str = "cam-1") -> devices.Device:
        with self.stores[0].database.read() as connection:
            return devices.find(connection, name)

    def close(self) -> None:
        for store in self.stores:
            store.close()


@pytest.fixture
def crew(tmp_path: Path, empty: Path) -> Iterator[Crew]:
    made = Crew(empty, tmp_path, 2)
    yield made
    made.close()


# --- one store, several workers ---


def words(name: str) -> list[Message]:
    """A small sample and a large one, a birth, an event, and what heartbeats count."""
    large = uploads(name, 2, data=image(2, (3, 300, 301)))
    assert len(large) > 2
    said = [message(name, "birth", encode(birth("a")), at_ms=NOW_MS + 1)]
    said += [message(name, "event", encode(event(1)), at_ms=NOW_MS + 3)]
    said += [message(name, "heartbeat", counted(step), at_ms=NOW_MS + 10 * step) for step in (1, 2, 3)]
    return [*uploads(name, 1), *large, *said]


def counted(step: int) -> bytes:
    counts = StreamCounts(stream="main", read=100 * step, scored=100 * step, invalid=0, selected={}, through_seq=step)
    return encode(msgspec.structs.replace(heartbeat("a", uptime_s=float(step)), counts=counts))


def remembered(crew: Crew) -> dict[str, object]:
    """What does not depend on the order in which messages came."""
    scored = sa.select(stretch.c.device, sa.func.sum(stretch.c.scored)).group_by(stretch.c.device)
    with crew.stores[0].database.read() as connection:
        known, arrived = devices.devices(connection), arrivals.waiting(connection)
    return {
        "samples": sorted(map(tuple, crew.rows(sa.select(sample.c.id, sample.c.body_sha256)))),
        "parts": crew.rows(sa.select(part.c.sample_id)),
        "events": sorted(map(tuple, crew.rows(sa.select(event_table.c.device, event_table.c.n)))),
        "scored": sorted(map(tuple, crew.rows(scored))),
        "known": [(one.name, one.session, one.heartbeat and one.heartbeat.uptime_s) for one in known],
        "arrived": [(one.device, one.session) for one in arrived],
    }


@pytest.mark.catalogues
@settings(max_examples=3)
@given(data=st.data())
def test_whoever_takes_what_in_whatever_order_the_store_holds_the_same(
    empty: Path, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    sent = [said for name in ("cam-1", "cam-2") for said in words(name)]
    one, three = (Crew(empty, tmp_path_factory.mktemp("crew"), count) for count in (1, 3))
    one.workers[0].take(sent)
    mixed = data.draw(st.permutations(sent * 2))
    told: list[str] = []
    while mixed:
        size, worker = data.draw(st.integers(1, 9)), data.draw(st.sampled_from(three.workers))
        told += [id_ for _, receipt in worker.take(mixed[:size]).receipts for id_ in receipt.accepted]
        mixed = mixed[size:]
    assert sorted(told) == [f"{name}.main.1.{seq}" for name in ("cam-1", "cam-2") for seq in (1, 2)]
    assert remembered(three) == remembered(one)
    one.close()
    three.close()


@pytest.mark.catalogues
def test_of_two_that_take_the_same_at_once_one_accepts_each_sample(crew: Crew) -> None:
    """Re-sent samples, and every part of large ones, at two workers in the same moment, again and again."""
    for seq in range(0, 40, 4):
        batch = [said for one in range(seq, seq + 3) for said in uploads("cam-1", one)]
        batch += uploads("cam-1", seq + 3, data=image(seq, (3, 200, 200)))
        told = at_once(crew, batch)
        words = [answers(taken.receipts) for taken in told]
        assert words[0].keys() == words[1].keys() == {f"cam-1.main.1.{one}" for one in range(seq, seq + 4)}
        for id_ in words[0]:
            assert sorted(said[id_] for said in words) == ["accepted", "duplicate"]
    assert len(crew.rows(sa.select(sample.c.id))) == 40


@pytest.mark.catalogues
def test_two_that_each_get_some_parts_at_once_make_the_sample_whole(crew: Crew) -> None:
    for seq in range(15):
        pieces = uploads("cam-1", seq, data=image(seq, (3, 200, 200)))
        told = at_once(crew, pieces[::2], pieces[1::2])
        assert [id_ for taken in told for _, receipt in taken.receipts for id_ in receipt.accepted] == [
            f"cam-1.main.1.{seq}"
        ]
    assert crew.rows(sa.select(part.c.sample_id)) == []


@pytest.mark.catalogues
def test_two_that_count_the_same_heartbeats_at_once_count_them_once(crew: Crew) -> None:
    for step in range(1, 15):
        at_once(crew, [message("cam-1", "heartbeat", counted(step)), message("cam-1", "event", encode(event(step)))])
    assert crew.rows(sa.select(sa.func.sum(stretch.c.scored)))[0][0] == 1400
    assert len(crew.rows(sa.select(event_table.c.id))) == 14


def at_once(crew: Crew, *batches: Sequence[Message]) -> list[Taken]:
    """Each worker takes its batch, or all the same one, in the same moment."""
    told: dict[int, Taken] = {}
    ready = threading.Barrier(2)

    def take(number: int) -> None:
        ready.wait()
        told[number] = crew.workers[number].take(batches[number % len(batches)])

    threads = [threading.Thread(target=take, args=(number,)) for number in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return [told[0], told[1]]


@pytest.mark.catalogues
def test_what_comes_late_by_a_slower_worker_does_not_undo_what_is_known(crew: Crew) -> None:
    quick, slow = crew.workers
    quick.take([message("cam-1", "birth", encode(birth("a")), at_ms=NOW_MS + 20)])
    slow.take([message("cam-1", "death", encode(Death(session="a")), at_ms=NOW_MS + 10)])
    assert crew.device().online  # it was heard after it died
    quick.take([message("cam-1", "heartbeat", encode(heartbeat("a", uptime_s=60.0)))])
    slow.take([message("cam-1", "heartbeat", encode(heartbeat("a", uptime_s=30.0)))])
    slow.take([message("cam-1", "death", encode(Death(session="a")), at_ms=NOW_MS + 30)])
    found = crew.device()
    assert found.heartbeat is not None
    assert (found.heartbeat.uptime_s, found.online) == (60.0, False)


# --- who takes what ---


def test_slices_take_every_device_once() -> None:
    for of in (1, 2, 3, 7):
        slices = [Slice(number, of) for number in range(1, of + 1)]
        takers = [[one.number for one in slices if one.takes(f"cam-{n}")] for n in range(700)]
        assert all(len(found) == 1 for found in takers)
        shares_of = Counter(number for (number,) in takers)
        assert all(700 / of / 2 < shares_of[number] < 700 / of * 2 for number in range(1, of + 1))


def test_without_fetches_what_is_left_is_listened_to_by_kind() -> None:
    kinds = [kind for kind in UP if kind != "fetch"]
    assert Shared("g").filters("farm", kinds) == [f"$share/g/winnow/1/farm/+/up/{kind}" for kind in kinds]


def test_a_broker_that_shares_is_believed_and_one_that_only_says_so_is_not(tmp_path: Path) -> None:
    rules = tmp_path / "acl"
    rules.write_text("topic read nothing\n")  # a subscription is acknowledged, and nothing ever comes
    for options, proven in (("", True), (f"acl_file {rules}\n", False)):
        folder = tmp_path / str(proven)
        folder.mkdir()
        broker = Broker(folder, options=options)
        broker.start()
        address = BrokerAddress(broker.host, broker.port)
        assert shares(address, address, fleet=FLEET, wait_s=WAIT_S if proven else 0.5) is proven
        broker.kill()
    assert not shares(address, address, fleet=FLEET)  # nobody is there


def test_who_is_started_before_the_broker_ever_ran_is_to_be_started_again(tmp_path: Path, capsys) -> None:
    config = tmp_path / "server.toml"
    config.write_text('[server]\ndata_dir = "data"\n[broker]\nplain = true\n')
    assert main(["ingest", str(config)]) == 1  # 78 would have systemd leave it
    assert "which has not run here: start it, or name a broker" in capsys.readouterr().err


def test_a_group_needs_a_broker_that_shares_and_numbered_workers_do_not() -> None:
    nowhere = Addresses(*[BrokerAddress("127.0.0.1", 1)] * 2)
    config = ServerConfig(server=Server(fleet=FLEET))
    assert divide(config, Place(2, 3), nowhere) == Slice(2, 3)
    assert divide(config, Place(1, 1), nowhere) == WHOLE
    with pytest.raises(ServerConfigError, match="--worker K/N"):
        divide(config, Place(group="g"), nowhere)
    for wrong in ("3", "0/3", "4/3", "a/b", "2/3/4", ""):
        with pytest.raises(ServerConfigError, match="second of three"):
            Place.parse(wrong)


def test_a_worker_has_a_name_of_its_own_at_a_broker_that_knows_its_clients(tmp_path: Path) -> None:
    """Two at once, each trying the broker beside its own connection, and neither ends another's."""
    broker = SecureBroker(tmp_path, workers=[client_of(1), client_of(2)])
    broker.start()
    config = ServerConfig(
        server=Server(data_dir=str(tmp_path), fleet=FARM),
        broker=BrokerSection(
            url=f"mqtts://localhost:{broker.port}",
            ca_file=str(broker.ca.ca_file),
            cert_file=str(broker.ca.credentials.cert_file),
        ),
    )
    store = Store.open(tmp_path / "store")
    collectors = []
    for number in (1, 2):
        place = Place(number, 2)
        addresses = addresses_of(config, place, now_ms=now_ms())
        division = divide(config, place, addresses)
        assert isinstance(division, Shared)
        ingest = Ingest(store, fleet=FARM, offline_after_s=90.0)
        options = {"division": division, "voice": "worker", "now_ms": now_ms, "commit_rows": 10}
        collectors.append(Collector(ingest, addresses.own, fleet=FARM, **options))
        collectors[-1].start()
        assert collectors[-1].wait_ready(WAIT_S)
    cam = Client(broker, broker.ca.identify("cam-1"))
    cam.subscribe(down_topic(FARM, "cam-1", "receipt"))
    for seq in range(8):
        cam.publish(up_topic(FARM, "cam-1", "sample"), frames("cam-1", seq)[0])
    wait_for(lambda: sum(len(decode(Receipt, said).accepted) for _, said, _ in cam.messages) == 8)
    cam.close()
    for collector in collectors:
        collector.stop()
    store.close()
    broker.stop()


@pytest.mark.parametrize("voice", ["worker", "server"])
def test_a_worker_contradicts_who_says_that_nobody_is_there(tmp_path: Path, voice: Voice) -> None:
    broker = Broker(tmp_path)
    broker.start()
    said: list[bool] = []
    other = mqtt.Client(CallbackAPIVersion.VERSION2)
    other.on_message = lambda _client, _data, heard: said.append(decode(ServerState, heard.payload).online)
    other.connect(broker.host, broker.port)
    other.subscribe(server_state_topic(FLEET), 1)
    other.loop_start()
    store = Store.open(tmp_path / "store")
    ingest = Ingest(store, fleet=FLEET, offline_after_s=90.0)
    address = BrokerAddress(broker.host, broker.port)
    worker = Collector(ingest, address, fleet=FLEET, now_ms=now_ms, commit_rows=10, voice=voice)
    worker.start()
    assert worker.wait_ready(WAIT_S)
    hello = [True] if voice == "server" else []
    wait_for(lambda: said == hello)
    # As the broker says the will of a server that died a while ago.
    other.publish(server_state_topic(FLEET), encode(ServerState(online=False, at_ms=1)), 1, retain=True)
    wait_for(lambda: said == [*hello, False, True])
    worker.stop()
    goodbye = [False] if voice == "server" else []  # a worker goes without a word: others may be there
    wait_for(lambda: said == [*hello, False, True, *goodbye])
    other.disconnect()
    other.loop_stop()
    store.close()
    broker.kill()
    assert said == [*hello, False, True, *goodbye]


def test_a_worker_that_cannot_be_started_is_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    starts: list[int] = []

    def spawn(_command: list[str], **options: object) -> subprocess.Popen[bytes]:
        starts.append(1)
        if len(starts) < 3:
            raise OSError(errno.EAGAIN, "no more processes")
        return child.spawn([sys.executable, "-c", "import time; time.sleep(600)"], **options)  # type: ignore[arg-type]

    monkeypatch.setattr("server.roles.workers.spawn", spawn)
    workers = Workers(tmp_path / "server.toml", 1, ended=said.append)
    workers.start()
    wait_for(lambda: len(starts) == 3)
    workers.stop()
    why = f"worker 1 of 1 could not be started: [Errno {errno.EAGAIN}] no more processes: starting it again in"
    assert said == [f"{why} 0.4 s", f"{why} 0.8 s"]
