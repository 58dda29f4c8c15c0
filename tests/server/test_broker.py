import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from server.collect import broker as module
from server.collect.broker import HOST, BrokerChild, configuration, find_mosquitto
from server.collect.gateway import BrokerAddress
from server.errors import ServerConfigError, ServerError, StoreError


@pytest.fixture
def broker(tmp_path):
    broker = BrokerChild(tmp_path)
    broker.start()
    yield broker
    broker.stop()


def wait_for(condition, timeout_s=20.0):
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "did not come about"
        time.sleep(0.01)


def accepts(port):
    try:
        socket.create_connection((HOST, port), timeout=1).close()
    except OSError:
        return False
    return True


def runs(pid):
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


def test_it_accepts_connections_until_it_is_stopped(broker):
    assert accepts(broker.port)
    broker.stop()
    assert not accepts(broker.port)
    assert not runs(broker.pid)


def test_it_may_have_as_many_connections_as_the_system_lets_it(broker):
    lines = Path(f"/proc/{broker.pid}/limits").read_text().splitlines()
    (soft, hard) = next(line.split()[3:5] for line in lines if line.startswith("Max open files"))
    assert soft == hard


def test_a_killed_broker_is_started_again_on_the_same_port(broker):
    for _ in range(2):
        before = broker.pid
        os.kill(before, signal.SIGKILL)
        wait_for(lambda before=before: broker.pid != before and accepts(broker.port))


def test_strangers_do_not_fill_the_disk_with_its_log(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "LOG_LOOK_S", 0.05)
    monkeypatch.setattr(module, "LOG_MAX_BYTES", 10_000)
    own, log = BrokerChild(tmp_path / "broker"), tmp_path / "broker" / "broker.log"
    own.start()
    try:
        with open(log, "ab") as file:
            file.write(bytes(20_000))
        wait_for(lambda: log.stat().st_size < 10_000)
        assert runs(own.pid)
    finally:
        own.stop()


def test_the_port_is_remembered(tmp_path):
    ports = []
    for _ in range(2):
        broker = BrokerChild(tmp_path)
        broker.start()
        ports.append(broker.port)
        broker.stop()
    assert ports[0] == ports[1] == int((tmp_path / "broker.port").read_text())


def test_a_port_that_was_asked_for_is_used_and_not_remembered(tmp_path):
    with socket.create_server((HOST, 0)) as probe:
        port = probe.getsockname()[1]
    broker = BrokerChild(tmp_path, port=port)
    broker.start()
    assert accepts(port)
    assert not (tmp_path / "broker.port").exists()
    broker.stop()


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel's signal of a parent's death")
def test_it_dies_with_a_server_that_is_killed(tmp_path):
    code = (
        "import sys, time; from pathlib import Path; from server.collect.broker import BrokerChild\n"
        "broker = BrokerChild(Path(sys.argv[1])); broker.start(); print(broker.pid, broker.port, flush=True)\n"
        "time.sleep(60)"
    )
    server = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    pid, port = map(int, server.stdout.readline().split())
    assert runs(pid)
    server.kill()
    server.communicate()
    wait_for(lambda: not runs(pid))
    broker = BrokerChild(tmp_path)  # and the next server finds the port free
    broker.start()
    assert broker.port == port
    broker.stop()


def test_a_taken_port_is_an_error_that_says_so(tmp_path, broker):
    second = BrokerChild(tmp_path)
    with pytest.raises(ServerError, match=rf"{broker.port}: .*another winnow-server"):
        second.start()


def test_a_broker_that_does_not_start_is_quoted(tmp_path):
    fake = tmp_path / "mosquitto"
    fake.write_text(
        "#!/bin/sh\n[ $1 = -h ] && echo mosquitto version 2.0.18 && exit 3\necho no such option >&2; exit 1\n"
    )
    fake.chmod(0o755)
    with pytest.raises(ServerError, match="it says: no such option"):
        BrokerChild(tmp_path, binary=str(fake)).start()


@pytest.mark.parametrize(
    ("script", "expected"),
    [
        (None, "not found at .*apt install mosquitto"),
        ("echo mosquitto version 1.6.12", r"version 1\.6\.12, expected 2\.0 or newer: install it"),
        ("echo hello", "is not mosquitto, it says 'hello"),
    ],
)
def test_what_is_no_mosquitto_of_ours_is_refused_with_advice(tmp_path, script, expected):
    binary = tmp_path / "mosquitto"
    if script:
        binary.write_text(f"#!/bin/sh\n{script}\n")
        binary.chmod(0o755)
    with pytest.raises(ServerError, match=expected):
        find_mosquitto(str(binary))


def test_the_link_beside_the_python_that_runs_it_is_found(tmp_path, monkeypatch):
    """`make setup` unpacks a mosquitto where the system's is missing or too old."""
    (tmp_path / "old").mkdir()
    (tmp_path / "venv" / "bin").mkdir(parents=True)
    old = tmp_path / "old" / "mosquitto"
    old.write_text("#!/bin/sh\necho mosquitto version 1.6.12\n")
    link = tmp_path / "venv" / "bin" / "mosquitto"
    link.write_text(f'#!/bin/sh\nexec "{find_mosquitto().binary}" "$@"\n')
    for script in (old, link):
        script.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path / "old"))
    monkeypatch.setattr(sys, "prefix", str(tmp_path / "venv"))
    assert find_mosquitto().version >= (2, 0)
    broker = BrokerChild(tmp_path / "data", binary=str(link))
    broker.start()
    assert accepts(broker.port)
    broker.stop()
    assert not runs(broker.pid)


def test_a_folder_that_cannot_be_made_is_an_error(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(StoreError, match="file"):
        BrokerChild(tmp_path / "file" / "data").start()


def test_only_this_machine_can_reach_it():
    assert f"listener 1884 {HOST}\n" in configuration(1884, user="me")


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("mqtt://broker.lan", BrokerAddress("broker.lan", 1883, "me", "secret")),
        ("mqtt://10.0.0.7:1884", BrokerAddress("10.0.0.7", 1884, "me", "secret")),
    ],
)
def test_a_broker_by_url(url, expected):
    assert BrokerAddress.parse(url, username="me", password="secret") == expected


@pytest.mark.parametrize(
    ("url", "password", "warned"),
    [
        ("mqtt://broker.lan", "secret", True),
        ("mqtt://10.0.0.7", "secret", True),
        ("mqtt://broker.lan", "", False),
        ("mqtt://localhost", "secret", False),
        ("mqtt://[::1]:1883", "secret", False),
        ("mqtts://broker.lan", "secret", False),
    ],
)
def test_a_password_in_the_clear_is_said(url, password, warned, caplog):
    BrokerAddress.parse(url, username="me", password=password)
    assert ("in the clear" in caplog.text) == warned
    assert "secret" not in caplog.text


@pytest.mark.parametrize("url", ["mqtt://me:secret@h", "mqt://me:secret@h", "mqtt://me:secret@h:port", "me:secret@[h"])
def test_a_password_in_the_address_is_not_repeated(url):
    with pytest.raises(ServerConfigError, match="password_file") as error:
        BrokerAddress.parse(url)
    assert "secret" not in str(error.value)


@pytest.mark.parametrize("url", ["broker.lan", "http://broker.lan", "mqtt://", "mqtt://host:port", "mqtt://h/path"])
def test_a_url_that_is_none(url):
    with pytest.raises(ServerConfigError, match=r"\[broker\] url"):
        BrokerAddress.parse(url)
