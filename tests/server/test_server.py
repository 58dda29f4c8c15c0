"""Does a whole server work, with its broker, and with devices that say and fetch what real ones would?"""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack, closing, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import quadrants
from catalogue import fill_disk, make_room, settings_of
from device_words import FLEET, frames
from fetching import Device

from edge_agent.contract import settings
from edge_agent.contract.errors import EXIT_CONFIG
from server import config
from server.__main__ import main
from server.roles.devices import BROKER_URL
from server.store import labels, rollouts, runs, training_orders
from server.store.store import Store
from server.teach.snapshot import freeze

ROOT = Path(__file__).resolve().parents[2]


class Done(NamedTuple):
    """How a command ended."""

    returncode: int
    stdout: str
    stderr: str


def call(*words: str) -> Done:
    """A short command, without the half second that a process of its own takes."""
    with redirect_stdout(io.StringIO()) as out, redirect_stderr(io.StringIO()) as err:
        code = main([*words])
    return Done(code, out.getvalue(), err.getvalue())


class Program:
    """`winnow-server`, as a user has it."""

    def __init__(self, folder: Path, store: config.Store | None = None, **sections: object) -> None:
        self.toml = folder / "server.toml"
        self.data = folder / "data"
        made = config.ServerConfig(
            server=config.Server(fleet=FLEET, data_dir="data"),
            broker=config.Broker(plain=True),
            rollout=config.Rollout(rings=("canary=cam-1", "all"), soak_s=0.5, timeout_s=60.0),
            web=config.Web(port=0),
            store=store or settings_of(self.data),
            **sections,
        )
        self.toml.write_text(settings.show(made), encoding="utf-8")
        self._process: subprocess.Popen[bytes] | None = None

    def call(self, *words: str) -> Done:
        return call(*words, str(self.toml))

    def start(self) -> str:
        (self.data / BROKER_URL).unlink(missing_ok=True)
        with open(self.toml.with_name("server.log"), "ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "server", "run", str(self.toml)], cwd=ROOT, stdout=log, stderr=log
            )
        until(lambda: (self.data / BROKER_URL).exists() or self._process.poll() is not None)
        return (self.data / BROKER_URL).read_text()

    def end(self, number: int = signal.SIGTERM, *, within_s: float = 5.0) -> int:
        assert self._process is not None
        self._process.send_signal(number)
        return self._process.wait(within_s)

    def kill(self) -> None:
        if self._process is not None and self._process.poll() is None:
            self.end(signal.SIGKILL)

    def said(self) -> str:
        return self.toml.with_name("server.log").read_text()


def until(true: Callable[[], object], within_s: float = 30.0) -> None:
    deadline = time.monotonic() + within_s
    while not true():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.05)


@pytest.fixture
def program(tmp_path):
    np.savez(tmp_path / "cam-1.npz", y=np.array([0, 1] * 10), names=np.array(["cat", "dog"]))
    made = Program(
        tmp_path,
        labeler=config.Labeler(kind="oracle", files=("cam-1.npz",)),
        teach=config.Teach(enabled=False),
    )
    yield made
    made.kill()


def test_a_model_goes_to_the_canary_then_to_all_over_the_broker(program, tmp_path):
    quadrants.artifact(tmp_path / "model", version=1)
    added = program.call("model", "add", str(tmp_path / "model"))
    assert "version 1" in added.stdout, added.stderr
    url = program.start()
    devices = [Device(name, url) for name in ("cam-1", "cam-2")]
    store = Store.open(program.data)

    def status() -> str:
        with store.database.read() as connection:
            current = rollouts.current(connection)
        return current.status if current else ""

    try:
        until(lambda: status() == "done")
        assert [device.model.version for device in devices] == [1, 1]
        with store.database.read() as connection:
            said = [step.text for step in rollouts.steps(connection, 1)]
        assert said[1] == "ring canary: version 1 to cam-1"
        assert said.index("ring canary is through: 1 running, 0 failed") < said.index("cam-2: through")
        assert all(f"rollout of version 1: {text}" in program.said() for text in said)

        for seq in range(4):  # samples come in, and the oracle answers
            for frame in frames("cam-1", seq, ref=f"cam-1:{seq}"):
                devices[0].say("sample", frame)
        until(lambda: sum(len(receipt.accepted) for receipt in devices[0].receipts) == 4)

        def counts() -> labels.Counts:
            with store.database.read() as connection:
                return labels.counts(connection)

        until(lambda: counts() == (4, 0, 0, 0, 0))
        view = json.loads(program.call("status", "--json").stdout)
        assert (view["running"], view["champion"], view["rollouts"][0]["status"]) == (True, 1, "done")
        assert (view["samples"], view["labels"]["labelled"]) == ({"informative": 4}, 4)
        rows = json.loads(program.call("devices", "--json").stdout)
        assert [(row["device"], row["version"], row["desired"], row["stored"]) for row in rows] == [
            ("cam-1", 1, 1, 4),
            ("cam-2", 1, 1, 0),
        ]
    finally:
        for device in devices:
            device.stop()
        store.close()
    assert program.end() == 0


def test_it_goes_on_after_a_kill_and_marks_the_round_that_died_with_it(program, tmp_path):
    program.start()
    store = Store.open(program.data)
    snapshot = freeze(store, now_ms=1)
    with store.database.write() as connection:
        runs.insert(connection, snapshot_id=snapshot.id, champion=0, recipe="", report={}, now_ms=1)
    program.end(signal.SIGKILL)
    url = program.start()
    assert url == f"mqtt://127.0.0.1:{(program.data / 'broker' / 'broker.port').read_text().strip()}"

    def errors() -> list[str | None]:
        with store.database.read() as connection:
            return [run.error for run in runs.in_state(connection, "failed")]

    until(lambda: errors() == [runs.INTERRUPTED])
    command = [sys.executable, "-m", "server", "run", str(program.toml)]
    second = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert (second.returncode, "another winnow-server works here" in second.stderr) == (1, True)
    store.close()
    assert program.end(signal.SIGINT) == 0


def test_a_round_at_work_ends_with_the_server(tmp_path):
    program = Program(tmp_path)
    program.call("data", "import", str(_labelled(tmp_path)), "--split", "train")
    program.call("data", "import", str(_labelled(tmp_path, "held", seed=1)), "--split", "holdout")
    training = subprocess.Popen(
        [sys.executable, "-m", "server", "train", str(program.toml)], cwd=ROOT, stderr=subprocess.DEVNULL
    )
    until(lambda: _running(training.pid))
    (child,) = _running(training.pid)
    os.kill(child, signal.SIGSTOP)  # by itself it would never end now
    training.kill()
    training.wait()
    until(lambda: _is_gone(child))


def test_what_was_ordered_waits_for_another_where_several_work_on_a_catalogue(tmp_path, postgresql):
    kept = postgresql.of_folder(tmp_path / "data")
    program = Program(tmp_path, kept, teach=config.Teach(epochs=500))
    program.call("data", "import", str(_labelled(tmp_path)), "--split", "train")
    program.call("data", "import", str(_labelled(tmp_path, "held", seed=1)), "--split", "holdout")
    with closing(Store.open(program.data, kept)) as store, ExitStack() as stack:
        stack.callback(program.kill)
        with store.database.write() as connection:
            order = training_orders.add(connection, who="ada", why="", now_ms=1)

        def waiting() -> training_orders.Order | None:
            with store.database.read() as connection:
                return training_orders.waiting(connection)

        program.start()
        until(lambda: waiting() is None)
        assert program.end(within_s=30.0) == 0, program.said()
        said = waiting()
        assert said is not None
        assert said.id == order
        with store.database.read() as connection:
            assert [run.error for run in runs.in_state(connection, "failed")] == [runs.INTERRUPTED]
    postgresql.give_back((tmp_path / "data").resolve())


def _labelled(folder: Path, name: str = "first", *, seed: int = 0) -> Path:
    x, y = quadrants.images(60, seed=seed)
    np.savez(folder / f"{name}.npz", x=x, y=y)
    return folder / f"{name}.npz"


def _running(pid: int) -> list[int]:
    """Trainings that a process has started."""
    if not Path("/proc").exists():
        pytest.skip("needs /proc")
    listed = [path.read_text().split() for path in Path(f"/proc/{pid}/task").glob("*/children")]
    children = [int(child) for one in listed for child in one]
    return [
        child
        for child in children
        if b"\0-m\0server.teach.run\0" in (line := Path(f"/proc/{child}/cmdline").read_bytes()) and b"prctl" not in line
    ]


def _is_gone(pid: int) -> bool:
    try:
        return ") Z " in Path(f"/proc/{pid}/stat").read_text()
    except FileNotFoundError:
        return True


# --- the command line ---


def test_mistakes_are_one_line_and_say_what_to_do(tmp_path, nothing_yet):
    nothing_yet(tmp_path / "data")
    program = Program(tmp_path)
    nothing = program.call("status")
    assert nothing.returncode == 1
    assert nothing.stderr.startswith("winnow-server: ")
    assert "no data yet: start `winnow-server run`" in nothing.stderr

    bad = tmp_path / "bad.toml"
    bad.write_text("[server]\nflet = 'x'\n")
    for word in ("run", "check", "status", "devices", "models"):
        done = call(word, str(bad))
        assert done.returncode == EXIT_CONFIG
        assert "did you mean 'fleet'?" in done.stderr
        assert len(done.stderr.splitlines()) == 1

    missing = program.call("model", "add", str(tmp_path / "nowhere"))
    assert missing.returncode == 1
    assert "expected an artifact folder" in missing.stderr
    assert "Traceback" not in missing.stderr


def test_check_says_what_is_in_force(program, tmp_path):
    done = program.call("check")
    assert done.returncode == 0
    assert "# labeler: oracle, 1 files" in done.stdout
    assert "soak_s = 0.5" in done.stdout
    (tmp_path / "cam-1.npz").unlink()
    broken = program.call("check")
    assert (broken.returncode, "cam-1.npz" in broken.stderr) == (EXIT_CONFIG, True)


def test_a_wrapped_model_can_be_added_and_is_shown(program, tmp_path):
    x, y = quadrants.images(80)
    np.savez(tmp_path / "some.npz", x=x, y=y, names=np.array(["0", "1", "2", "3"]))
    out = tmp_path / "wrapped"
    onnx = str(quadrants.ARTIFACT / "model.onnx")
    words = ["model", "import", onnx, "--labels", "0,1,2,3", "--data", str(tmp_path / "some.npz"), "--out", str(out)]
    wrapped = call(*words)
    assert wrapped.returncode == 0, wrapped.stderr
    assert "version 1" in wrapped.stdout
    assert "version 1" in program.call("model", "add", str(out)).stdout
    (row,) = json.loads(program.call("models", "--json").stdout)
    assert (row["version"], row["rollout"], row["name"]) == (1, "waiting", "model")
    assert row["accuracy"] == pytest.approx(row["metrics"]["accuracy"])
    table = program.call("models").stdout
    assert "version" in table.splitlines()[0]
    assert "\x1b" not in table
    words[4] = "0,1,2"
    unknown = call(*words)
    assert (unknown.returncode, "none of --labels" in unknown.stderr) == (1, True)


def test_a_model_whose_reference_fails_is_out_all_the_same(program, tmp_path):
    x, y = quadrants.images(80)
    np.savez(tmp_path / "held.npz", x=x, y=y, names=np.array(["cat", "dog", "emu", "fox"]))
    quadrants.artifact(tmp_path / "model", version=1, classes=("cat", "dog", "emu", "fox"))
    assert program.call("data", "import", str(tmp_path / "held.npz"), "--split", "holdout").returncode == 0
    store = Store.open(program.data)
    with store.database.write() as connection:
        fill_disk(connection, "reference")
    store.close()
    added = program.call("model", "add", str(tmp_path / "model"))
    assert (added.returncode, "version 1" in added.stdout) == (0, True), added.stderr
    assert "no reference could be made of it" in added.stdout
    store = Store.open(program.data)
    with store.database.write() as connection:  # the database is another test's next
        make_room(connection, "reference")
    store.close()


def test_looking_is_light():
    code = (
        "import sys, server.__main__, server.status\n"
        "print(*[name for name in ('torch', 'onnx', 'onnxruntime', 'paho', 'models') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.strip()) == (0, ""), done.stderr
