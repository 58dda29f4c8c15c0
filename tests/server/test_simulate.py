"""Does a simulated fleet go through all its phases, and are its accounts right?"""

from __future__ import annotations

import hashlib
import os
import socket
import subprocess
import sys
import time
from contextlib import ExitStack, closing
from pathlib import Path

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from processes import wait_for

from edge_agent.contract.wire import (
    BLOCK_BYTES,
    Assignment,
    Birth,
    BlockHeader,
    Desired,
    Fetch,
    Heartbeat,
    Receipt,
    SampleHeader,
    ServerState,
    decode,
    decode_frame,
    encode,
    encode_frame,
    up_topic,
)
from server.__main__ import main
from server.collect.broker import HOST, BrokerChild
from server.collect.collector import Collector
from server.collect.gateway import BrokerAddress
from server.collect.inbound import Bad, Message, Said, Upload, hear
from server.collect.ingest import Ingest
from server.errors import ServerConfigError, StoreError
from server.simulate import artifact, day, growth, report
from server.simulate.device import Device, Habits
from server.simulate.host import own_store
from server.simulate.options import Options, Step, numbers, parse
from server.simulate.run import simulate
from server.simulate.shelf import Shelf
from server.simulate.tally import Tally, together
from server.simulate.words import Self

HABITS = Habits("test", heartbeat_s=30.0, body_bytes=300, retry_first_s=2.0, retry_max_s=300.0, trial_s=5.0)
NOW_MS = 1_790_000_000_000


class Played:
    """A device, a clock, and what was said."""

    def __init__(self) -> None:
        self.said: list[tuple[str, bytes]] = []
        self.now_s = 0.0
        self.tally = Tally()
        self.device = Device(
            Self("sim-1", "a", 1, 30.0),
            HABITS,
            version=1,
            sha256="0" * 64,
            shelf=Shelf(),
            tally=self.tally,
            rng=np.random.default_rng(0),
            publish=self._publish,
        )

    def _publish(self, kind, payload, qos):
        self.said.append((kind, payload))
        return lambda: True

    def connect(self) -> None:
        self.device.connected(self.now_s, NOW_MS)

    def step(self, seconds: float = 0.0) -> list[str]:
        """Let time pass; the kinds that were said."""
        before = len(self.said)
        self.now_s += seconds
        self.device.step(self.now_s, NOW_MS)
        return [kind for kind, _ in self.said[before:]]

    def hear(self, kind: str, payload: bytes, *, retained: bool = False) -> list[str]:
        before = len(self.said)
        self.device.heard(kind, payload, retained, self.now_s, NOW_MS)
        return [kind for kind, _ in self.said[before:]]

    def of(self, kind: str) -> list[bytes]:
        return [payload for said, payload in self.said if said == kind]

    def ids(self) -> list[str]:
        return [decode_frame(SampleHeader, payload)[0].id for payload in self.of("sample")]


@pytest.fixture
def played() -> Played:
    made = Played()
    made.connect()
    return made


# --- all of it ---


def test_two_hundred_devices_go_through_all_phases_and_nothing_is_lost(tmp_path: Path) -> None:
    options = Options(
        devices=(200,),
        processes=2,
        steps=parse("births,steady=0.7,pages=0.7,burst=2,rollout,restart=1,day=1.2"),
        folder=tmp_path,
        heartbeat_s=0.6,
        body_bytes=300,
        model_bytes=70_000,
        soak_s=0.0,
        burst_s=0.6,
        trial_s=0.3,
        retry_first_s=0.5,
        retry_max_s=2.0,
        samples_per_day=6,
        day_devices=0,
    )
    found = simulate(options, say=lambda _: None)
    (made,) = found.simulations
    assert [phase.name for phase in made.phases] == [step.name for step in options.steps]
    assert [phase for phase in made.phases if not phase.done] == []
    accounts, phases = made.accounts, {phase.name: phase for phase in made.phases}
    assert accounts.consistent
    assert accounts.put == accounts.answered == accounts.stored  # nothing lost, everything received once
    assert accounts.put >= 200 * (2 + 1) + 140 * 6  # burst and restart; a day of those that are on all of it
    assert phases["births"].connects == 200
    assert phases["burst"].samples == 400
    assert phases["restart"].drops == phases["restart"].connects == 200
    assert phases["rollout"].messages["event"] == 200  # each has committed the version
    assert phases["pages"].pages
    assert all(phase.pages_failed == 0 for phase in made.phases)
    for name in ("server_ms_per_heartbeat", "server_ms_per_birth", "connects_per_s", "rollout_s", "catalogue_bytes"):
        assert made.figures[name] > 0, name
    assert made.figures["receipt_p50_ms"] <= made.figures["receipt_p99_ms"]
    assert made.figures["server_rss_bytes"] > made.empty_server_rss_bytes > 0
    assert msgspec.json.decode(msgspec.json.encode(found), type=report.Report) == found
    assert any(line.startswith("200 devices") for line in report.lines(found))


def test_one_that_is_told_to_end_leaves_nothing(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "server", "simulate", "--devices", "1", "--scenario", "births,steady=600"]
    said = tmp_path / "said"
    with open(said, "wb") as output:
        played = subprocess.Popen(command, stderr=output, env={**os.environ, "TMPDIR": str(tmp_path)})
    wait_for("births", lambda: "births heard 1" in said.read_text())
    (folder,) = tmp_path.glob("winnow-simulate-*")
    played.terminate()
    assert played.wait(30.0) == 130
    assert not folder.exists()


def test_a_server_that_runs_takes_what_is_played_a_second_time_for_new(tmp_path: Path) -> None:
    options = Options(
        devices=(3,), steps=parse("births,burst=2"), fleet="test", burst_s=0.2, body_bytes=100, day_devices=0
    )
    with ExitStack() as stack:
        broker = BrokerChild(tmp_path)
        broker.start()
        stack.callback(broker.stop)
        store = stack.enter_context(own_store(tmp_path / "store"))
        ingest = Ingest(store, fleet="test", offline_after_s=90.0)
        address = BrokerAddress(HOST, broker.port)
        clock = {"now_ms": lambda: time.time_ns() // 1_000_000}
        collector = Collector(ingest, address, fleet="test", commit_rows=10, **clock)
        collector.start()
        stack.callback(collector.stop)
        assert collector.wait_ready(10.0)
        for _ in range(2):
            (made,) = simulate(options._replace(broker=f"mqtt://{HOST}:{broker.port}"), say=lambda _: None).simulations
            assert (made.accounts.answered, made.accounts.duplicates) == (6, 0)


def test_a_day_of_a_device_leaves_rows_in_every_table_it_should(tmp_path: Path) -> None:
    found = day.play(tmp_path, Options(day_devices=2, heartbeat_s=900.0, samples_per_day=12, body_bytes=100))
    assert (found["sample"].rows, found["beat"].rows, found["span"].rows) == (12, 96, 24)
    assert all(table.bytes >= 0 for table in found.values())


# --- one device ---


def test_all_it_says_is_what_the_server_reads(played: Played) -> None:
    played.device.select(3)
    played.step()
    heard = [hear(Message(up_topic("test", "sim-1", kind), said, NOW_MS), fleet="test") for kind, said in played.said]
    assert [item for item in heard if isinstance(item, Bad)] == []
    assert {type(item) for item in heard} == {Said, Upload}
    (birth,), (beat,) = played.of("birth"), played.of("heartbeat")
    assert decode(Birth, birth).outbox.put_total == 0
    assert decode(Heartbeat, beat).outbox.put_total == decode(Heartbeat, beat).outbox.rows == 3
    counts = decode(Heartbeat, beat).counts
    assert sum(counts.utility_histogram) == sum(counts.classes) == counts.scored


def test_a_heartbeat_comes_on_connect_and_every_so_often(played: Played) -> None:
    assert played.step() == ["heartbeat"]
    assert played.step(29.0) == []
    assert played.step(1.0) == ["heartbeat"]


def test_a_sample_leaves_by_its_receipt_and_is_sent_again_otherwise(played: Played) -> None:
    played.device.select(2)
    played.step()
    first, second = played.ids()
    sent = played.of("sample")
    played.hear("receipt", encode(Receipt(accepted=(first,))))
    assert played.device.outstanding == 1
    assert "sample" in played.step(1000.0)
    assert played.ids() == [first, second, second]
    assert decode_frame(SampleHeader, played.of("sample")[-1])[0].body_sha256 in str(
        decode_frame(SampleHeader, sent[1])
    )
    played.hear("receipt", encode(Receipt(duplicate=(second,))))
    played.hear("receipt", encode(Receipt(accepted=(second,))))  # of the first sending, late
    assert (played.device.outstanding, played.tally.answered, played.tally.duplicates) == (0, 2, 1)


def test_no_more_are_on_their_way_than_the_window_holds(played: Played) -> None:
    played.device.select(100)
    played.step()
    assert len(played.ids()) == 32
    played.hear("receipt", encode(Receipt(accepted=tuple(played.ids()[:10]))))
    played.step()
    assert len(played.ids()) == 42


def test_without_a_connection_nothing_is_said_and_afterwards_all_is(played: Played) -> None:
    played.device.select(1)
    played.step()
    played.device.lost()
    played.device.select(1)
    assert played.step(1000.0) == []
    played.connect()
    played.step()
    assert [id_.rpartition(".")[2] for id_ in played.ids()] == ["0", "0", "1"]


def test_a_server_that_comes_back_hears_birth_and_samples_again(played: Played) -> None:
    played.device.select(1)
    played.step()
    played.hear("state", encode(ServerState(online=False, at_ms=0)))
    played.device.select(1)
    assert played.step(20.0) == []  # the server is away: samples wait
    assert played.hear("state", encode(ServerState(online=True, at_ms=0)), retained=True) == []
    assert played.hear("state", encode(ServerState(online=True, at_ms=0))) == ["birth"]
    assert played.step() == ["sample", "sample"]


def test_a_version_is_fetched_block_by_block_and_committed(played: Played, tmp_path: Path) -> None:
    sha256 = artifact.write(tmp_path, 2, size_bytes=70_000, rng=np.random.default_rng(0))
    files = {hashlib.sha256(data).hexdigest(): data for data in (path.read_bytes() for path in tmp_path.iterdir())}
    (manifest,) = files.keys() - {sha256}
    wanted = Assignment(version=2, manifest_sha256=manifest, manifest_bytes=len(files[manifest]))
    played.hear("desired", encode(Desired(revision=1, model=wanted)))
    for _ in range(2):
        played.step(1.0)
        asked = decode(Fetch, played.of("fetch")[-1])
        data = files[asked.sha256]
        for index in asked.blocks:
            played.hear("block", block(asked.sha256, index, data))
    assert (len(played.of("fetch")), played.device.version) == (2, 2)
    played.step(20.0)
    assert len(played.of("event")) == played.tally.commits == 1
    assert decode(Heartbeat, played.of("heartbeat")[-1]).model.slot == "steady"


def block(sha256: str, index: int, data: bytes) -> bytes:
    header = BlockHeader(sha256=sha256, index=index, total_bytes=len(data))
    return encode_frame(header, data[index * BLOCK_BYTES : (index + 1) * BLOCK_BYTES])


def test_rubbish_is_counted(played: Played) -> None:
    played.hear("receipt", b"{")
    assert played.tally.bad == 1


def test_a_file_with_another_hash_is_not_taken() -> None:
    shelf = Shelf()
    assert shelf.put(BlockHeader(sha256="0" * 64, index=0, total_bytes=3), b"abc")
    assert not shelf.put(BlockHeader(sha256="0" * 64, index=0, total_bytes=3), b"abd")
    with pytest.raises(StoreError, match="another hash"):
        shelf.whole("0" * 64)


# --- rules ---


@given(
    exponent=st.floats(-1.0, 2.0),
    factor=st.floats(1e-6, 1e6),
    sizes=st.lists(st.integers(1, 100_000), min_size=3, max_size=8, unique=True),
)
def test_an_exponent_is_found_again(exponent: float, factor: float, sizes: list[int]) -> None:
    found = growth.fit(sizes, [factor * n**exponent for n in sizes])
    assert found is not None
    assert found.exponent == pytest.approx(exponent, abs=1e-3)
    assert found.low <= found.exponent <= found.high


def test_of_two_points_nothing_is_said() -> None:
    assert growth.fit([1, 2], [1.0, 2.0]) is None
    assert growth.fit([1, 2, 3], [0.0, 1.0, 2.0]) is None
    assert growth.fit([2, 2, 2], [1.0, 1.0, 2.0]) is None


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9), st.floats(0.0, 1.0)), max_size=4))
def test_tallies_add_up(parts: list[tuple[int, int, float]]) -> None:
    tallies = [Tally(put=put, answered=n, waits_s=[s], late_s=s, running={n: 1}) for put, n, s in parts]
    found = together(tallies)
    assert found.put == sum(put for put, _, _ in parts)
    assert sum(found.running.values()) == len(found.waits_s) == len(parts)
    assert found.late_s == max((s for _, _, s in parts), default=0.0)


def test_a_phase_that_is_not_done_has_no_figures() -> None:
    def figures(*, done: bool, steady: bool) -> dict[str, float]:
        named = ("births", "burst", "rollout", "restart")
        phases = [report.Phase(name=name, wall_s=2.0, done=done, samples=8, server_cpu_s=1.0) for name in named]
        if steady:
            phases.append(report.Phase(name="steady", wall_s=4.0, messages={"heartbeat": 9}, server_cpu_s=0.4))
        accounts = report.Accounts(put=8, answered=8, waiting=0, refused=0, duplicates=0, stored=8, bad=0)
        return report.figures(
            report.Simulation(devices=1, processes=1, heartbeat_s=1.0, body_bytes=1, phases=phases, accounts=accounts)
        )

    of_those = {"connects_per_s", "samples_per_s", "rollout_s", "restart_s", "server_ms_per_sample"}
    whole = figures(done=True, steady=True)
    assert whole.keys() >= of_those
    assert whole["server_ms_per_sample"] == pytest.approx(100.0)  # 1 s less 2 s at a tenth of a core, by 8
    assert figures(done=True, steady=False).keys() & of_those == of_those - {"server_ms_per_sample"}
    assert not figures(done=False, steady=True).keys() & of_those


def test_what_cannot_be_is_said() -> None:
    assert numbers("100,1_000") == (100, 1000)
    assert parse("steady=5, day") == (Step("steady", 5.0), Step("day", 120.0))
    for text in ("", "0", "ten", "1,,2", "5,5"):
        with pytest.raises(ServerConfigError, match="--devices"):
            numbers(text)
    for text in ("stedy", "steady=x", "steady=-1", "steady=nan", "steady=inf", "", " , "):
        with pytest.raises(ServerConfigError, match="--scenario.*steady"):
            parse(text)


@pytest.mark.parametrize("arguments", [["--json", "{folder}/none/fleet.json"], ["--folder", "{folder}/played"]])
def test_what_could_not_be_kept_is_said_before_anything_is_played(
    arguments: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "played" / "day").mkdir(parents=True)
    said = [argument.format(folder=tmp_path) for argument in arguments]
    with closing(socket.create_server(("127.0.0.1", 0))) as nobody:  # where no phase would ever end
        broker = f"mqtt://127.0.0.1:{nobody.getsockname()[1]}"
        assert main(["simulate", "--devices", "1", "--broker", broker, *said]) != 0
    assert arguments[0] in capsys.readouterr().err


def test_a_broker_that_is_not_there_is_said_at_once(capsys: pytest.CaptureFixture[str]) -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as gone:
        port = gone.getsockname()[1]
    assert main(["simulate", "--devices", "1", "--broker", f"mqtt://127.0.0.1:{port}"]) == 1
    assert f"--broker: 127.0.0.1:{port}: Connection refused" in capsys.readouterr().err


def test_memory_of_devices_is_what_a_server_without_any_does_not_take() -> None:
    def simulation(devices: int, rss_bytes: int) -> report.Simulation:
        accounts = report.Accounts(put=0, answered=0, waiting=0, refused=0, duplicates=0, stored=0, bad=0)
        made = report.Simulation(
            devices=devices,
            processes=1,
            heartbeat_s=1.0,
            body_bytes=1,
            phases=[report.Phase(name="births", server_rss_bytes=rss_bytes)],
            accounts=accounts,
            empty_server_rss_bytes=190_000_000,
        )
        made.figures = report.figures(made)
        return made

    few, many = simulation(10, 190_200_000), simulation(110, 192_200_000)
    for simulations in ([few], [few, many]):
        found = report.Report(machine={}, simulations=simulations)
        assert report.per_thousand(found) == {"server, MB of memory": "20"}
    lines = report.lines(report.Report(machine={}, simulations=[few], device_day_bytes=1e6))
    assert "  GB of disk a day, before anything is rolled up  1" in lines
