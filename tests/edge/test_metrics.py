"""What an agent serves to a monitoring program, over real HTTP."""

from __future__ import annotations

import socket
import threading
import urllib.error
import urllib.request
from pathlib import Path

import pytest
from test_agent import configure, here  # noqa: F401 - a fixture

from edge_agent import metrics
from edge_agent.__main__ import main
from edge_agent.agent import Agent
from edge_agent.config import load_config, parse_listen
from edge_agent.contract.errors import ConfigError
from edge_agent.contract.wire import Heartbeat, ModelState, OutboxState, StreamCounts


def a_beat(**changes: object) -> Heartbeat:
    values = {
        "session": "s", "boot": 1, "at_ms": 0, "uptime_s": 1234567.25,
        "model": ModelState(version=3, sha256="", slot="steady"),
        "counts": StreamCounts(read=10**9, scored=9, invalid=1, selected={'a "quoted"\n\\reason': 2}),
        "outbox": OutboxState(rows=4, bytes=5), "samples_per_s": 1.0,
    }  # fmt: skip
    return Heartbeat(**(values | changes))


def figures(text: str) -> dict[str, str]:
    return dict(line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))


def get(port: int, path: str = "/metrics", *, host: str = "127.0.0.1") -> str:
    with urllib.request.urlopen(f"http://{host}:{port}{path}", timeout=10) as answer:
        assert answer.headers["Content-Type"] == metrics.CONTENT_TYPE
        return answer.read().decode()


def test_figures_are_written_whole_and_names_escaped() -> None:
    found = figures(metrics.text(a_beat()))
    assert found["winnow_agent_samples_read_total"] == "1000000000"
    assert found["winnow_agent_uptime_seconds"] == "1234567.25"
    assert found[r'winnow_agent_samples_selected_total{reason="a \"quoted\"\n\\reason"}'] == "2"
    assert "winnow_agent_temperature_celsius" not in found
    assert not [name for name in found if "link" in name or "drift" in name]


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_it_listens_where_it_is_told_and_asks_no_name_server(host: str, monkeypatch) -> None:
    if host == "::1" and not has_ipv6():
        pytest.skip("this machine has no IPv6")
    monkeypatch.setattr(socket, "getfqdn", lambda *_: pytest.fail("a name server was asked"))
    served = metrics.Metrics(host, 0, a_beat)
    try:
        assert "winnow_agent_model_version" in get(served.port, host=f"[{host}]" if ":" in host else host)
    finally:
        served.stop()


def has_ipv6() -> bool:
    try:
        with socket.socket(socket.AF_INET6) as made:
            made.bind(("::1", 0))
    except OSError:
        return False
    return True


def test_a_running_agent_serves_what_it_does_and_stops_with_it(here: Path, monkeypatch) -> None:  # noqa: F811
    served, taken = [], threading.Event()

    class Seen(metrics.Metrics):
        def __init__(self, host, port, beat) -> None:
            super().__init__(host, port, beat)
            served.append(self.port)

        def stop(self) -> None:  # the source has ended: all is still there
            served.append(get(self.port))
            with pytest.raises(urllib.error.HTTPError, match="404"):
                get(self.port, "/")
            super().stop()
            taken.set()

    monkeypatch.setattr(metrics, "Metrics", Seen)
    Agent(load_config(configure(here, '[metrics]\nlisten = "127.0.0.1:0"\n'))).run()
    assert taken.is_set()
    found = figures(served[1])
    assert found["winnow_agent_samples_read_total"] == "500"
    assert found["winnow_agent_model_version"] == "1"
    assert float(found["winnow_agent_resident_memory_bytes"]) > 1e6
    with pytest.raises(OSError):
        get(served[0])


def test_a_port_that_is_taken_is_told_and_stops_nothing(here: Path, caplog) -> None:  # noqa: F811
    other = metrics.Metrics("127.0.0.1", 0, a_beat)
    assert main(["run", str(configure(here, f'[metrics]\nlisten = "127.0.0.1:{other.port}"\n'))]) == 0
    other.stop()
    assert "Address already in use: nothing is served" in caplog.text


@pytest.mark.parametrize("text", ["9464", "127.0.0.1:", ":9464", "127.0.0.1:http", "127.0.0.1:70000"])
def test_an_address_that_is_none_is_said(text: str) -> None:
    with pytest.raises(ConfigError, match="expected an address and a port"):
        parse_listen(text)
