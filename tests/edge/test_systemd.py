"""Does the service manager hear what it needs, and does an agent that is stuck fall silent?"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from test_agent import configure, here  # noqa: F401 - a fixture

from edge_agent.config import load_config
from edge_agent.contract.errors import EXIT_CONFIG, ConfigError
from edge_agent.contract.settings import read_secret
from edge_agent.pulse import Pulse
from edge_agent.systemd import Manager, Watchdog

WATCHDOG_S = 1.0


class Listener:
    """What systemd has: a datagram socket."""

    def __init__(self, path: Path) -> None:
        self.name = str(path)
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind("\0" + self.name[1:] if self.name.startswith("@") else self.name)

    def hear(self, within_s: float) -> str:
        self._socket.settimeout(within_s)
        try:
            return self._socket.recv(200).decode()
        except TimeoutError:
            return ""

    def close(self) -> None:
        self._socket.close()


@pytest.fixture
def listener(tmp_path: Path) -> Iterator[Listener]:
    listener = Listener(tmp_path / "notify")
    yield listener
    listener.close()


def start(config: Path, environment: dict[str, str]) -> subprocess.Popen[str]:
    folders = [str(Path(__file__).parent), *sys.path]
    return subprocess.Popen(
        [sys.executable, "-m", "edge_agent", "run", str(config)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(folders), **environment},
        stderr=subprocess.PIPE,
        text=True,
    )


def test_an_agent_pings_while_its_source_is_silent_and_not_while_it_is_stuck(here: Path, listener: Listener) -> None:  # noqa: F811
    hold = here / "hold"
    config = configure(here, kind="stuck:Stuck", path=hold)
    watched = {"NOTIFY_SOCKET": listener.name, "WATCHDOG_USEC": str(int(WATCHDOG_S * 1e6))}
    agent = start(config, watched)
    try:
        assert listener.hear(20.0) == "READY=1"
        for _ in range(8):  # two seconds of a source that has nothing to give, but says so
            assert listener.hear(WATCHDOG_S) == "WATCHDOG=1"
        hold.touch()
        silent_since_s = time.monotonic()
        while listener.hear(WATCHDOG_S):
            assert time.monotonic() - silent_since_s < 5 * WATCHDOG_S, "it is stuck, and says that it is alive"
        hold.unlink()
        assert listener.hear(5.0) == "WATCHDOG=1"
        hold.touch()
        time.sleep(0.2)
        agent.send_signal(signal.SIGABRT)  # as systemd does
        _, said = agent.communicate(timeout=10.0)
    finally:
        agent.kill()
    assert "the stream has not gone on" in said
    assert "stuck.py" in said  # where each thread stood


def test_a_watchdog_that_is_for_another_process_is_not_pinged(here: Path, listener: Listener) -> None:  # noqa: F811
    environment = {"WATCHDOG_USEC": "1000000", "WATCHDOG_PID": "1"}
    agent = start(configure(here), {"NOTIFY_SOCKET": listener.name, **environment})
    agent.communicate(timeout=30.0)
    assert agent.returncode == 0
    assert [listener.hear(0.1), listener.hear(0.1)] == ["READY=1", ""]


def test_an_agent_that_cannot_begin_never_says_that_it_is_ready(here: Path, listener: Listener) -> None:  # noqa: F811
    agent = start(configure(here, acquisition="margin", broker="nonsense"), {"NOTIFY_SOCKET": listener.name})
    agent.communicate(timeout=30.0)
    assert agent.returncode == EXIT_CONFIG
    assert listener.hear(0.1) == ""


def test_a_longer_wait_that_was_announced_is_no_standstill() -> None:
    now_s = 0.0
    pulse = Pulse(10.0, monotonic=lambda: now_s)
    pulse.beat(longer_s=60.0)
    now_s = 69.0
    assert pulse.overdue_s() < 0
    now_s = 71.0
    assert pulse.overdue_s() == pytest.approx(1.0)
    pulse.beat()
    assert pulse.overdue_s() == pytest.approx(-10.0)


def test_an_abstract_socket_is_reached_and_one_that_is_gone_hurts_nobody(tmp_path: Path) -> None:
    listener = Listener(Path(f"@winnow-test-{os.getpid()}"))
    watchdog = Watchdog(Manager(listener.name, watchdog_s=0.1), Pulse())
    watchdog.start()
    assert [listener.hear(2.0), listener.hear(2.0)] == ["READY=1", "WATCHDOG=1"]
    watchdog.stop()
    listener.close()
    Manager(str(tmp_path / "gone")).tell("READY=1")


# --- credentials ---


def test_a_credential_is_read_from_the_folder_that_systemd_names(here: Path, tmp_path: Path) -> None:  # noqa: F811
    (tmp_path / "broker.password").write_text("secret\n")
    path = configure(here, uplink='password_file = "credential:broker.password"')
    config = load_config(path, credentials=str(tmp_path))
    assert read_secret(config.uplink.password_file) == "secret"
    assert load_config(path).uplink.password_file == "credential:broker.password"  # nobody reads it


@pytest.mark.parametrize(
    ("value", "credentials", "words"),
    [
        ("credential:broker.password", "", r"hands over no credentials: .*LoadCredential=broker.password:FILE"),
        ("credential:../shadow", "/run", "expected credential:NAME"),
        ("credential:", "/run", "expected credential:NAME"),
    ],
)
def test_a_credential_that_cannot_be_is_refused(here: Path, value, credentials, words) -> None:  # noqa: F811
    with pytest.raises(ConfigError, match=words):
        load_config(configure(here, uplink=f'password_file = "{value}"'), credentials=credentials)
