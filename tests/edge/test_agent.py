"""Does the whole program do what its configuration says, and say what is wrong with it?"""

from __future__ import annotations

import gc
import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import numpy as np
import pytest
from broker import Broker
from quadrants import another, artifact, committee, images

from edge_agent.__main__ import main
from edge_agent.agent import Agent
from edge_agent.config import load_config
from edge_agent.contract.artifact import MANIFEST, MODEL, write_artifact
from edge_agent.contract.errors import EXIT_CONFIG, ConfigError
from edge_agent.contract.types import Reading
from edge_agent.contract.wire import (
    Budgets,
    Desired,
    Heartbeat,
    LinkState,
    ModelState,
    OutboxState,
    Pause,
    StreamCounts,
    decode_body,
)
from edge_agent.lock import only_one
from edge_agent.outgoing import PREDICTION
from edge_agent.send.outbox import Outbox
from edge_agent.send.ring import Ring
from edge_agent.source import Fit, Start
from edge_agent.status import Status, describe, read_status
from edge_agent.update import slots
from edge_agent.update.updater import Updater

ROWS = 500
TOML = """
[device]
name = "cam"
data_dir = "data"
[source]
kind = "{kind}"
path = "{path}"
stop_at_end = true
rate_per_s = {rate}
[model]
artifact = "{model}"
[uplink]
broker = "{broker}"
heartbeat_s = 1.0
{uplink}
[choose]
acquisition = "{acquisition}"
[log]
predictions = true
"""


@pytest.fixture
def here(tmp_path: Path) -> Path:
    artifact(tmp_path / "first")
    np.savez(tmp_path / "stream.npz", x=images(ROWS, seed=5)[0])
    return tmp_path


def configure(folder: Path, extra: str = "", **changes: object) -> Path:
    known = {
        "kind": "replay", "path": "stream.npz", "rate": 0.0, "model": "first", "broker": "", "acquisition": "margin",
        "uplink": "",
    }  # fmt: skip
    path = folder / "agent.toml"
    path.write_text(TOML.format(**(known | changes)) + extra)
    return path


def beat(folder: Path) -> Heartbeat:
    return msgspec.json.decode((folder / "data" / "status.json").read_bytes(), type=Heartbeat)


def predicted(folder: Path) -> list[int]:
    return np.fromfile(folder / "data" / "predictions.bin", PREDICTION)["seq"].tolist()


# --- run ---


@pytest.mark.parametrize("max_bytes", [1_000_000, 0])
def test_what_was_not_selected_is_remembered_for_a_while_unless_that_is_off(here: Path, max_bytes: int) -> None:
    extra = f"[recent]\nmax_bytes = {max_bytes}\nbytes_per_day = 1e12\n"
    (here / "data" / "recent").mkdir(parents=True)
    (here / "data" / "recent" / "000000000001.ring").write_bytes(b"of an earlier run")
    assert main(["run", str(configure(here, extra))]) == 0
    sizes = [path.stat().st_size for path in (here / "data" / "recent").iterdir()]
    assert (sum(sizes) > 1000) == bool(max_bytes)
    assert len(sizes) == (2 if max_bytes else 0)


def test_what_is_private_is_hidden_from_everybody_but_the_model(here: Path, tmp_path_factory) -> None:
    def kept(extra: str) -> tuple[dict[str, tuple], list[tuple]]:
        Agent(load_config(configure(here, extra + "[recent]\nbytes_per_day = 1e12\n"))).run()
        outbox = Outbox(here / "data" / "outbox.db", max_bytes=1 << 30, max_rows=10_000, min_free_disk_bytes=0)
        rows = outbox.peek(10_000)
        sent = {row.header.id.rpartition(".")[2]: (row.header, decode_body(row.header, row.body)) for row in rows}
        outbox.close()
        ring = Ring(here / "data" / "recent", max_bytes=32_000_000)
        passed = [(record, ring.read(place)[1]) for record, place in ring.records()]
        (here / "data").rename(tmp_path_factory.mktemp("away") / "data")
        return sent, passed

    plain, private = kept(""), kept('[privacy]\ntransforms = ["crop 0 0 4 8"]\n')
    assert plain[0].keys() == private[0].keys()
    for name, (header, data) in private[0].items():
        before, seen = plain[0][name]
        assert (header.selection, header.label, header.confidence) == (
            before.selection,
            before.label,
            before.confidence,
        )
        assert (before.transforms, header.transforms) == ((), ("crop 0 0 4 8",))
        np.testing.assert_array_equal(data, np.vstack((seen[:4], np.zeros_like(seen[4:]))))
    assert len(private[1]) > 10
    assert {record.transforms for record, _ in private[1]} == {("crop 0 0 4 8",)}
    assert not any(data[4:].any() for _, data in private[1])
    assert any(data[4:].any() for _, data in plain[1])


def test_run_to_the_end_of_the_source(here: Path) -> None:
    agent = Agent(load_config(configure(here)))
    agent.run()
    said = beat(here)
    assert (said.counts.read, said.counts.scored, said.counts.invalid) == (ROWS, ROWS, 0)
    assert said.outbox.put_total == said.outbox.rows == sum(said.counts.selected.values()) > 0
    assert (said.model.version, said.model.slot) == (1, "steady")
    assert predicted(here) == list(range(ROWS))
    assert agent.writer.lost == 0


def test_a_second_run_goes_on_where_the_first_has_ended(here: Path) -> None:
    toml = configure(here)
    Agent(load_config(toml)).run()
    first = beat(here)
    Agent(load_config(toml)).run()
    again = beat(here)
    assert again.boot > first.boot
    # From the last commit on: nothing is selected of what was decided before.
    assert again.counts.read < ROWS
    assert again.outbox.put_total == first.outbox.put_total


def test_the_configured_model_matters_only_where_there_is_nothing_else(here: Path) -> None:
    toml = configure(here)
    Agent(load_config(toml)).run()
    (here / "first" / MODEL).unlink()
    Agent(load_config(toml)).run()
    assert beat(here).model.version == 1


def test_another_model_under_the_same_number_is_not_taken_and_that_is_said(
    here: Path, caplog: pytest.LogCaptureFixture
) -> None:
    toml = configure(here)
    Agent(load_config(toml)).run()
    Agent(load_config(toml)).run()
    assert "give it a higher number" not in caplog.text
    artifact(here / "first", temperature=2.0)
    Agent(load_config(toml)).run()
    assert "another version 1 is here already: give it a higher number" in caplog.text


def test_samples_that_are_not_finite_are_counted_and_skipped(here: Path) -> None:
    from edge_agent.contract.artifact import InputSpec, read_artifact

    manifest, onnx = float_model(here / "float")
    write_artifact(here / "float", manifest, onnx)
    assert read_artifact(here / "float")[0].input == InputSpec(name="x", shape=(4,), dtype="float32", unit="")
    x = np.random.default_rng(0).normal(size=(ROWS, 4)).astype(np.float32)
    x[::10, 1] = np.nan
    x[5::50, 0] = np.inf
    np.savez(here / "stream.npz", x=x)
    Agent(load_config(configure(here, "[budget]\nlabel_share = 1.0\ndepth_labels = 1000\n", model="float"))).run()
    said = beat(here)
    broken = int((~np.isfinite(x).all(axis=1)).sum())
    assert (said.counts.read, said.counts.invalid) == (ROWS, broken)
    with sqlite3.connect(here / "data" / "outbox.db") as db:
        sent = [seq for (seq,) in db.execute("select seq from sample")]
    assert sent
    assert np.isfinite(x[sent]).all()


def float_model(folder: Path) -> tuple:
    """Four numbers to two classes: x @ w."""
    onnx = pytest.importorskip("onnx")
    bring = pytest.importorskip("models.bring")
    helper, rng = onnx.helper, np.random.default_rng(1)
    w = onnx.numpy_helper.from_array(rng.normal(size=(4, 2)).astype(np.float32), "w")
    b = onnx.numpy_helper.from_array(np.zeros(2, np.float32), "b")
    graph = helper.make_graph(
        [helper.make_node("Gemm", ["x", "w", "b"], ["y"])],
        "net",
        [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, ["n", 4])],
        [helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, ["n", 2])],
        [w, b],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    x = rng.normal(size=(64, 4)).astype(np.float32)
    about = bring.About(name="net", names=("a", "b"), version=1)
    made = bring.bring(model.SerializeToString(), about, data=x, precision="float").packaged
    return made.manifest, made.onnx


class Flaky:
    """A plug-in that fails in the middle of a block, once, with an error of its own."""

    failed = False

    def __init__(self, *, path: Path, fit: Fit, rate_per_s: float) -> None:
        self.x = np.load(path)["x"]

    def readings(self, start: Start) -> Iterator[Reading | None]:
        for seq in range(start.seq, len(self.x)):
            if seq == 37 and not Flaky.failed:
                Flaky.failed = True
                raise ZeroDivisionError("the sensor is upside down")
            yield Reading(self.x[seq], seq)


def test_a_source_that_fails_is_opened_again_and_repeats_nothing(here: Path) -> None:
    Flaky.failed = False
    Agent(load_config(configure(here, kind=f"{__name__}:Flaky"))).run()
    assert Flaky.failed
    assert beat(here).counts.read == ROWS
    assert predicted(here) == list(range(ROWS))


def test_what_the_server_said_is_in_force_again_at_the_next_start(here: Path) -> None:
    toml = configure(here)
    for start in range(2):
        agent = Agent(load_config(toml))
        if start == 0:
            agent._on_desired(Desired(revision=7, label_share=0.2, labels_per_day=100.0, strategy="vessal"))
            agent._on_desired(Desired(revision=6, label_share=0.9))  # overtaken
        orders = agent.standing.over(None)
        rules = orders.rules
        assert (rules.label_share, rules.labels_per_day, orders.strategy) == (0.2, 100.0, "vessal")
        agent.run()
        assert agent.outbox is not None
    assert beat(here).outbox.put_total <= 11  # a tenth of a day's at once, whatever the restarts, and what time earned


def test_a_pause_is_in_force_again_at_the_next_start(here: Path, broker: Broker) -> None:
    toml = configure(here, broker=f"mqtt://{broker.host}:{broker.port}")
    agent = Agent(load_config(toml))
    agent._on_desired(Desired(revision=7, pause=Pause(by="anna", at_ms=1234), labels_per_day=100.0))
    agent.run()
    assert beat(here).budgets == Budgets(label_share=0.05, labels_per_day=100.0)
    said = describe(read_status(here / "data"))
    assert "labels at once; 5.0% of the stream, 100 labels a day" in said
    again = Agent(load_config(toml))
    assert again.uplink.link.paused_ms == 1234
    again._on_desired(Desired(revision=8))
    assert again.uplink.link.paused_ms == 0
    again.outbox.close()


def test_state_that_cannot_be_read_is_told_and_stops_nothing(here: Path, caplog: pytest.LogCaptureFixture) -> None:
    toml = configure(here)
    Agent(load_config(toml)).run()
    with sqlite3.connect(here / "data" / "outbox.db") as db:
        db.execute("update state set value = ?", (b"\xc1 nonsense",))
    agent = Agent(load_config(toml))
    agent.run()
    assert beat(here).counts.read == ROWS
    for key in ("cursor", "selector", "drift", "wanted"):
        assert f"saved {key} cannot be read, it begins afresh" in caplog.text


def test_an_acquisition_function_that_it_does_not_have_is_told_and_stops_nothing(here: Path) -> None:
    agent = Agent(load_config(configure(here)))
    agent._on_desired(Desired(revision=1, model=None, acquisition="marginn", label_share=0.5))
    agent.run()
    said = beat(here)
    assert said.counts.read == ROWS
    assert sum(said.counts.selected.values()) > 0.2 * ROWS  # the rest of the order counts


def test_a_disk_that_fails_does_not_hold_up_the_end(here: Path) -> None:
    agent = Agent(load_config(configure(here)))
    hindrance = sqlite3.connect(here / "data" / "outbox.db", isolation_level=None)
    hindrance.execute("drop table counter")
    try:
        agent.run()
    finally:
        hindrance.close()
    said = beat(here)
    assert said.counts.read == ROWS
    assert agent.writer.lost == sum(said.counts.selected.values()) > 0
    assert said.outbox.put_total == 0


# --- stop ---


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stop_ends_it_within_five_seconds_though_the_broker_is_down(here: Path, number: int, broker: Broker) -> None:
    address = f"mqtt://{broker.host}:{broker.port}"
    broker.kill()
    toml = configure(here, rate=100.0, broker=address)
    argv = [sys.executable, "-m", "edge_agent", "run", str(toml)]
    with subprocess.Popen(argv, stderr=subprocess.PIPE, text=True) as agent:
        try:
            wait_for(lambda: (here / "data" / "predictions.bin").exists() and beat(here).outbox.rows > 0)
            asked = time.monotonic()
            agent.send_signal(number)
            _, said = agent.communicate(timeout=10)
        finally:
            agent.kill()
    assert (agent.returncode, time.monotonic() - asked < 5) == (0, True), said
    assert said.count("trying again until it is back") == 1
    assert beat(here).outbox.rows == sum(beat(here).counts.selected.values()) > 0


def wait_for(true: object, *, within_s: float = 30.0) -> None:
    deadline = time.monotonic() + within_s
    while time.monotonic() < deadline:
        try:
            if true():
                return
        except OSError:
            pass
        time.sleep(0.05)
    raise AssertionError("it did not come")


# --- what is wrong with it ---


@pytest.mark.parametrize("command", ["run", "check"])
@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"model": "nowhere"}, "nowhere: No such file or directory: expected an artifact folder"),
        ({"model": ""}, "no model: set [model] artifact"),
        ({"kind": "repaly"}, "did you mean 'replay'?"),
        ({"path": "wide.npz"}, "the source gives (9, 9) uint8, model version 1 takes (8, 8) uint8"),
        ({"acquisition": "marginn"}, "did you mean 'margin'?"),
        ({"broker": "mqt://x"}, "did you mean 'mqtt'?"),
    ],
)
def test_what_the_operator_has_to_mend(
    here: Path, command: str, change: dict, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    np.savez(here / "wide.npz", x=np.zeros((3, 9, 9), np.uint8))
    assert main([command, str(configure(here, **change))]) == EXIT_CONFIG
    assert said in capsys.readouterr().err
    assert gc.isenabled()  # who called goes on, and would keep all its garbage


@pytest.mark.parametrize(
    ("extra", "said"),
    [
        ("[uplnk]\n", "unknown key uplnk (did you mean 'uplink'?)"),
        ("[budget]\nlabel_shar = 0.1\n", "unknown key [budget] label_shar (did you mean 'label_share'?)"),
        ("[budget]\nlabel_share = 'much'\n", "budget.label_share: Expected `float`, got `str`"),
        ("[budget]\nbytes_per_day = 10.0\n", "raise the limit"),
    ],
)
def test_check_finds_what_the_file_says_wrongly(
    here: Path, extra: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["check", str(configure(here, extra))]) == EXIT_CONFIG
    assert said in capsys.readouterr().err


@pytest.mark.parametrize(
    ("uplink", "said"),
    [
        ('quiet_hours = ["22-6"]', "[uplink] quiet_hours: got '22-6', expected times of the day"),
        ("bytes_per_s = 10", "[uplink] bytes_per_s = 10: expected 0 (no limit), or 1000 at least"),
        ("bytes_per_day = inf", "[uplink] bytes_per_day = inf: expected 0 (no limit), or 100000 at least"),
        ("bytes_a_day = 10", "unknown key [uplink] bytes_a_day (did you mean 'bytes_per_day'?)"),
    ],
)
def test_check_finds_what_the_link_cannot_be_told(
    here: Path, uplink: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["check", str(configure(here, uplink=uplink))]) == EXIT_CONFIG
    assert said in capsys.readouterr().err


def test_a_password_in_the_clear_is_said(
    here: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    (here / "password").write_text("secret")
    for broker, said in (("mqtt://192.0.2.1", True), ("mqtt://127.0.0.1:9", False)):
        toml = configure(here, broker=broker, uplink='username = "cam"\npassword_file = "password"')
        assert main(["check", str(toml)]) == 0
        assert ("in the clear" in capsys.readouterr().out) == said
        caplog.clear()
        Agent(load_config(toml)).outbox.close()
        assert ("in the clear" in caplog.text) == said
        assert "secret" not in caplog.text


def test_check_says_what_is_in_force(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", str(configure(here))]) == 0
    said = capsys.readouterr().out
    assert "golden test passed" in said
    assert "a sample fits" in said
    assert 'name = "cam"' in said
    assert not (here / "data").exists()  # a look changes nothing


def test_a_flipped_byte_is_refused(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = here / "first" / MODEL
    data = bytearray(model.read_bytes())
    data[len(data) // 2] ^= 1
    model.write_bytes(data)
    assert main(["check", str(configure(here))]) == EXIT_CONFIG
    assert "sha256" in capsys.readouterr().err


def test_two_agents_cannot_work_in_one_folder(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with only_one(here / "data"):
        assert main(["run", str(configure(here))]) == 1
    assert "another winnow-agent works here" in capsys.readouterr().err


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_cannot_be_written_is_said(here: Path) -> None:
    here.chmod(0o500)
    try:
        with pytest.raises(ConfigError, match="expected a folder to write to"), only_one(here / "data"):
            pass
    finally:
        here.chmod(0o700)


# --- status ---


def test_status_of_an_agent_that_never_ran(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["status", str(configure(here))]) == EXIT_CONFIG
    assert "has the agent run with this configuration?" in capsys.readouterr().err


def test_status_of_one_that_runs_and_of_one_that_has_stopped(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    toml = str(configure(here))
    Agent(load_config(Path(toml))).run()
    assert main(["status", toml]) == 0
    assert "not running since 0 s" in capsys.readouterr().out
    with only_one(here / "data"):
        assert main(["status", toml]) == 0
    said = capsys.readouterr().out
    assert "running, boot" in said
    assert f"{ROWS} read, 0 invalid" in said
    assert main(["status", "--json", toml]) == 0
    assert json.loads(capsys.readouterr().out)["counts"]["read"] == ROWS


def test_status_says_what_the_link_carried_why_samples_wait_and_what_was_refused() -> None:
    outbox = OutboxState(rows=3, bytes=10, parked=1, refusals={"cam.main.1.7": "shape (3,)"})
    link = LinkState(sent_bytes=2_500_000, received_bytes=100_000, day_tokens=1234.5, held="metered")
    model = ModelState(version=1, sha256="", slot="steady")
    counts = StreamCounts(read=0, scored=0, invalid=0, selected={})
    beat = Heartbeat(
        session="s", boot=1, at_ms=0, uptime_s=1, model=model, counts=counts, outbox=outbox, samples_per_s=0, link=link
    )
    said = describe(Status("", beat, 0.0, running=True)).splitlines()
    assert (
        "link       2.5 MB sent, 0.1 MB received, 1234 bytes of the day at once; samples wait: the link is metered"
        in said
    )
    assert "parked     cam.main.1.7: shape (3,)" in said
    older = msgspec.structs.replace(beat, link=None)
    assert "link" not in describe(Status("", older, 0.0, running=True))


def test_what_is_left_of_the_day_is_kept_from_one_start_to_the_next(here: Path, broker: Broker) -> None:
    url = f"mqtt://{broker.host}:{broker.port}"
    toml = configure(here, uplink="bytes_per_day = 1_000_000", broker=url, path="gone.npz")  # nothing to select
    left = []
    for _ in range(2):
        agent = Agent(load_config(toml))
        left.append(agent.uplink.link.day_tokens)
        threading.Timer(
            0.1, lambda agent=agent: (agent.uplink._allowance.received(40_000, time.monotonic()), agent.stop())
        ).start()
        agent.run()
    assert left[0] == pytest.approx(90_000, abs=10_001)
    assert 40_000 <= left[1] <= 60_000


def test_the_first_word_to_the_server_says_which_version_runs(
    here: Path, broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    agent = Agent(load_config(configure(here, broker=f"mqtt://{broker.host}:{broker.port}")))
    start, said = agent.uplink.start, []

    def begin(after: threading.Event | None) -> None:
        said.extend([agent.account.birth().model.version, agent.account.heartbeat().model.version])
        start()
        agent.stop()

    monkeypatch.setattr(agent.uplink, "start", begin)
    agent.run()
    assert said == [1, 1]


def test_status_says_where_a_trial_is(here: Path) -> None:
    Agent(load_config(configure(here))).run()
    status = read_status(here / "data")
    for changes, said in (
        (
            {"slot": "staged", "trying": 2, "tried": 40, "tried_share": 0.2},
            "version 1, staged, version 2 in its shadow for 40 samples (20%)",
        ),
        (
            {"slot": "trial", "trying": 1, "tried": 7, "tried_share": 0.035},
            "version 1, trial, on probation for 7 samples (4%)",
        ),
        ({}, "version 1, steady\n"),
    ):
        model = msgspec.structs.replace(status.heartbeat.model, **changes)
        beat = msgspec.structs.replace(status.heartbeat, model=model)
        assert said in describe(status._replace(heartbeat=beat))


def test_a_source_that_is_not_there_is_tried_again_until_a_stop(here: Path) -> None:
    agent = Agent(load_config(configure(here, path="later.npz")))
    thread = threading.Thread(target=agent.run)
    thread.start()
    try:
        wait_for(lambda: agent.account.loop is not None)
        (here / "stream.npz").rename(here / "later.npz")
        thread.join(20)
    finally:
        agent.stop()
        thread.join(20)
    assert beat(here).counts.read == ROWS


def test_source_errors_are_said_by_check(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", str(configure(here, path="later.npz"))]) == 1
    assert "expected an .npz with an array x (N, ...)" in capsys.readouterr().err


# --- a new model ---


def test_a_staged_model_is_tried_and_committed_without_a_server(here: Path) -> None:
    np.savez(here / "stream.npz", x=images(60_000, seed=5)[0])
    another(here / "second", version=2)
    stage(here, "second", 2, over="first")
    extra = "[update]\nshadow_samples = 100\nshadow_share = 0.5\nprobation_samples = 100\nprobation_s = 0.2\n"
    agent = Agent(load_config(configure(here, extra, rate=2000.0)))
    thread = threading.Thread(target=agent.run)
    thread.start()
    try:
        wait_for(lambda: agent.updater.slot_state() == slots.Steady(committed=2))
        read = agent.account.loop.record.counts().read
        wait_for(lambda: agent.account.loop.record.counts().read > read)
    finally:
        agent.stop()
        thread.join(20)
    said = beat(here)
    assert (said.model.version, said.model.slot, said.model.trying) == (2, "steady", 0)
    assert predicted(here) == list(range(said.counts.read))  # none missed
    assert said.counts.invalid == 0


def test_what_a_model_could_not_be_told_is_in_force_with_one_that_can(here: Path) -> None:
    np.savez(here / "stream.npz", x=images(60_000, seed=5)[0])
    committee(here / "second", version=2)
    stage(here, "second", 2, over="first")
    extra = "[update]\nshadow_samples = 100\nshadow_share = 0.5\nprobation_samples = 100\nprobation_s = 0.2\n"
    agent = Agent(load_config(configure(here, extra, rate=2000.0)))
    agent.standing.take(
        Desired(revision=1, acquisition="bald"), keep=lambda _saved: None
    )  # of the model it says nothing
    thread = threading.Thread(target=agent.run)
    thread.start()
    try:
        wait_for(lambda: agent.account.loop is not None and "several heads" in agent.standing.budgets().complaint)
        wait_for(lambda: agent.updater.slot_state() == slots.Steady(committed=2))
        wait_for(lambda: not agent.standing.budgets().complaint)  # nobody said anything new meanwhile
    finally:
        agent.stop()
        thread.join(20)
    assert beat(here).budgets.complaint == ""


def test_a_new_artifact_that_finds_no_room_stops_nothing_that_runs(
    here: Path, caplog: pytest.LogCaptureFixture
) -> None:
    Agent(load_config(configure(here))).run()
    another(here / "second", version=2)
    shutil.rmtree(incoming := here / "data" / "models" / "incoming")
    incoming.write_text("in the way")
    Agent(load_config(configure(here, model="second"))).run()
    assert beat(here).model.version == 1
    assert "going on with version 1" in caplog.text


# --- a model that kills the agent ---


def kills_on_five_classes(logits: np.ndarray) -> np.ndarray:
    """A plug-in under which a model of five classes takes the process with it, as a crash in native code would."""
    if logits.shape[1] == 5:
        os.kill(os.getpid(), signal.SIGKILL)
    return np.zeros(len(logits), np.float32)


def stage(here: Path, name: str, version: int, *, over: str = "") -> None:
    """The artifact is on the device, and passed its golden test; another one may be committed."""
    updater = Updater(
        here / "data" / "models", variant="cpu-int8", check=lambda _: None, needs=None, max_starts=3, keep_versions=3,
        request=lambda _: False, report=lambda *_: None,
    )  # fmt: skip
    if over:
        updater.install_first(here / over)
    manifest, onnx = (here / name / MANIFEST).read_bytes(), (here / name / MODEL).read_bytes()
    updater.stage(updater.shelf.unpack(updater.shelf.arrival(version), manifest, onnx), version)


def write_five_classes(folder: Path) -> None:
    onnx = pytest.importorskip("onnx")
    bring = pytest.importorskip("models.bring")
    helper, rng = onnx.helper, np.random.default_rng(1)
    w = onnx.numpy_helper.from_array(rng.normal(size=(64, 5)).astype(np.float32), "w")
    b = onnx.numpy_helper.from_array(np.zeros(5, np.float32), "b")
    graph = helper.make_graph(
        [
            helper.make_node("Cast", ["x"], ["f"], to=onnx.TensorProto.FLOAT),
            helper.make_node("Flatten", ["f"], ["flat"]),
            helper.make_node("Gemm", ["flat", "w", "b"], ["y"]),
        ],
        "net",
        [helper.make_tensor_value_info("x", onnx.TensorProto.UINT8, ["n", 8, 8])],
        [helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, ["n", 5])],
        [w, b],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    about = bring.About(name="net", names=tuple("abcde"), version=2)
    made = bring.bring(model.SerializeToString(), about, data=images(64)[0], precision="float").packaged
    write_artifact(folder, made.manifest, made.onnx)


def test_a_model_that_kills_the_agent_is_reverted_whoever_starts_it_again(here: Path) -> None:
    """As systemd does with Restart=always, or a person by hand: again and again, until it stays."""
    np.savez(here / "stream.npz", x=images(20_000, seed=5)[0])
    write_five_classes(here / "second")
    stage(here, "second", 2, over="first")
    extra = "[update]\nshadow_samples = 0\nmax_starts = 3\n"
    toml = configure(here, extra, rate=400.0, acquisition="test_agent:kills_on_five_classes")
    argv = [sys.executable, "-m", "edge_agent", "run", str(toml)]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *sys.path])}
    killed = 0
    for _ in range(8):
        agent = subprocess.Popen(argv, stderr=subprocess.PIPE, text=True, env=environment)
        try:
            wait_for(lambda agent=agent: agent.poll() is not None or gone_back(here), within_s=60.0)
            if agent.poll() is None:
                break
            assert agent.returncode == -signal.SIGKILL, agent.stderr.read() if agent.stderr else ""
            killed += 1
        finally:
            agent.terminate()
            agent.communicate(timeout=20)
    assert killed == 1 + 3  # the start in which it took over, and as many as are allowed
    said = beat(here).model
    assert (said.version, said.slot) == (1, "steady")
    assert "started more than 3 times within its trial" in said.refused[2]


def gone_back(here: Path) -> bool:
    state = slots.decode((here / "data" / "models" / "slots.json").read_bytes())
    return (
        isinstance(state, slots.Steady) and (here / "data" / "status.json").exists() and 2 in beat(here).model.refused
    )


def test_an_agent_is_healthy_while_it_runs_and_speaks(here: Path, capsys) -> None:
    path = configure(here, rate=50.0)
    agent = Agent(load_config(path))
    running = threading.Thread(target=agent.run)
    with only_one(here / "data"):
        running.start()
        while not (here / "data" / "status.json").exists():
            time.sleep(0.02)
        assert main(["status", "--healthy", str(path)]) == 0
        os.utime(here / "data" / "status.json", (1e9, 1e9))
        assert read_status(here / "data").healthy is False
        agent.stop()
        running.join()
    assert main(["status", "--healthy", str(path)]) == 1
    assert main(["status", str(path)]) == 0
    assert "not running" in capsys.readouterr().out
