"""Does a process without pages say how it is?"""

from __future__ import annotations

import json
import socket
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable

import pytest
from catalogue import settings_of

from server.apart import Act, Apart
from server.app import Server
from server.config import Server as ServerSettings
from server.config import ServerConfig
from server.errors import AwayError, DeposedError, ServerConfigError
from server.roles import health
from server.roles.election import Election
from server.roles.health import STILL_S, Health, Pulse, told
from server.roles.tick import Tick
from server.store.store import Store


@pytest.fixture
def at() -> str:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return f"127.0.0.1:{probe.getsockname()[1]}"


def read(at: str, path: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(f"http://{at}/{path}", timeout=10) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def test_who_leads_and_stands_still_is_not_well_and_who_stands_by_is(at):
    terms: dict[str, int] = {}
    now_s = [1000.0]
    health = Health("schedule", lambda: terms, lambda: 990.0, monotonic=lambda: now_s[0])
    with told(health, at):
        assert json.loads(read(at, "healthz")[1])["leads"] == {}
        terms["schedule"] = 7
        status, body = read(at, "healthz")
        assert (status, json.loads(body)) == (
            200,
            {"role": "schedule", "leads": {"schedule": 7}, "looked_s_ago": 10.0, "well": True},
        )
        figures = read(at, "metrics")[1]
        assert 'winnow_process{role="schedule"} 1.0' in figures
        assert 'winnow_leads_term{seat="schedule"} 7.0' in figures
        now_s[0] += STILL_S
        assert read(at, "healthz")[0] == 503
        terms.clear()
        assert read(at, "healthz")[0] == 200
        assert read(at, "else")[0] == 404


def test_nobody_is_told_where_nobody_asked_and_an_address_that_is_none_is_refused(at):
    with told(Health("ingest"), ""):
        pass
    for wrong in ("9101", "127.0.0.1:", "127.0.0.1:http"):
        with pytest.raises(ServerConfigError, match="expected HOST:PORT"), told(Health("ingest"), wrong):
            pass
    with told(Health("ingest"), at), pytest.raises(ServerConfigError, match="cannot listen"), told(Health("web"), at):
        pass


def test_what_hangs_as_it_begins_to_lead_is_overdue_each_time_and_never_by_what_was_before():
    now_s, said = [0.0], []
    pulse = Pulse(now_ms=lambda: 0, monotonic=lambda: now_s[0])
    health = Health("train", lambda: {"train": 1}, lambda: pulse.looked_s, monotonic=lambda: now_s[0])
    for _ in range(2):
        with pulse.leading():
            for wait_s in (0.0, STILL_S):
                now_s[0] += wait_s
                said.append((health.said()["well"], pulse.beats()))
        now_s[0] += 10 * STILL_S  # another leads for long
        assert (health.said()["well"], pulse.beats()) == (True, True)
    assert said == [(True, True), (False, False)] * 2


def test_many_steps_that_are_long_are_no_step_that_hangs():
    now_s, stopped, said = [0.0], threading.Event(), []
    pulse = Pulse(now_ms=lambda: 0, monotonic=lambda: now_s[0])

    def long(_now_ms: int) -> None:
        now_s[0] += 0.9 * STILL_S
        said.append(pulse.beats())

    def last(_now_ms: int) -> None:
        stopped.set()

    pulse.look([long, long, long, last], stopped)
    assert said == [True] * 3


class Hanging(Apart):
    """Whose first look does not end before it is told to; what it wrote then, or why not."""

    def __init__(self, config: ServerConfig, health: str = "") -> None:
        super().__init__(config, "train", now_ms=lambda: 0, health=health)
        self.led: list[int] = []
        self.hangs, self.go_on = threading.Event(), threading.Event()
        self.refused = ""
        self.thread = threading.Thread(target=self.run, daemon=True)
        self.thread.start()

    def _training(self) -> Act:
        def act(store: Store, acts: Callable[[], bool]) -> None:
            self.led.append(store.terms["train"])

            def step(_now_ms: int) -> None:
                if self.led != [1]:
                    return
                self.hangs.set()
                assert self.go_on.wait(30.0)
                try:
                    with store.database.write():
                        pass
                except DeposedError as error:
                    self.refused = str(error)

            self._look([step], acts)

        return act


def until(true: Callable[[], object]) -> None:
    end_s = time.monotonic() + 30.0
    while not true():
        assert time.monotonic() < end_s, "waited in vain"
        time.sleep(0.02)


@pytest.mark.catalogues
def test_a_leader_that_hangs_is_not_renewed_so_that_another_leads_and_it_says_that_it_hangs(
    tmp_path, monkeypatch, at, catalogue
):
    monkeypatch.setattr(health, "STILL_S", 1.5)
    config = ServerConfig(server=ServerSettings(data_dir=str(tmp_path), lease_s=1.2), store=settings_of(tmp_path))
    Store.open(tmp_path, config.store).close()
    first = Hanging(config, at)
    assert first.hangs.wait(30.0)
    second = Hanging(config)
    until(lambda: second.led)
    assert (first.led, second.led) == ([1], [2])
    status, said = read(at, "healthz")
    assert (status, json.loads(said)["leads"]) == (503, {})
    first.go_on.set()
    until(lambda: first.refused)
    assert "train: term 1 is over, 2 has begun" in first.refused
    until(lambda: read(at, "healthz")[0] == 200)  # it stands by
    for one in (second, first):
        one.stop()
        one.thread.join(30.0)
        assert not one.thread.is_alive()


def test_a_run_that_hangs_on_a_shared_catalogue_makes_room_too(tmp_path, monkeypatch, postgresql):
    monkeypatch.setattr(health, "STILL_S", 1.0)
    where = postgresql.of_folder(tmp_path)
    config = ServerConfig(server=ServerSettings(data_dir=str(tmp_path / "data"), lease_s=1.2), store=where)
    hangs, go_on = threading.Event(), threading.Event()

    class Stuck(Server):
        def _act(self, store: Store, *, acts: Callable[[], bool]) -> None:
            with self._pulse.leading():
                hangs.set()
                assert go_on.wait(30.0)
                assert not acts()
                self.stop()

    thread = threading.Thread(target=Stuck(config, tmp_path / "server.toml").run, daemon=True)
    thread.start()
    assert hangs.wait(30.0)
    store = Store.open(tmp_path / "beside", where)
    other = Election(store, "schedule", "train", lease_s=1.2)
    until(other.stand)
    assert set(other.terms.values()) == {2}
    go_on.set()
    thread.join(30.0)
    assert not thread.is_alive()
    store.close()
    postgresql.give_back(tmp_path.resolve())


def test_what_several_steps_complain_of_is_said_once_and_a_mistake_with_where_it_is(caplog):
    def away(_: int) -> None:
        raise AwayError("connection refused")

    def mistaken(_: int) -> None:
        raise ValueError("never so")

    tick = Tick([away, away, mistaken], now_ms=lambda: 0)
    tick.look()
    tick.look()
    said = [(one.getMessage().rpartition(": ")[2], bool(one.exc_info)) for one in caplog.records]
    assert said == [("connection refused", False), ("never so", True)]
