"""Does a process without pages say how it is?"""

from __future__ import annotations

import json
import socket
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from contextlib import closing

import pytest

from server.apart import Apart
from server.config import ServerConfig
from server.errors import ServerConfigError
from server.roles.health import STILL_S, Health, told
from server.roles.tick import always
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


def test_what_hangs_as_it_begins_to_lead_is_overdue_each_time_and_never_by_what_was_before(tmp_path):
    apart = Apart(ServerConfig(), "train", now_ms=lambda: 0)
    now_s, said = [0.0], []
    health = Health("train", lambda: {"train": 1}, apart._looked_s, monotonic=lambda: now_s[0])

    def act(_store: Store, _acts: Callable[[], bool]) -> None:
        for now_s[0] in (time.monotonic(), time.monotonic() + STILL_S):
            said.append(health.said()["well"])

    with closing(Store.open(tmp_path)) as store:
        for _ in range(2):
            apart._watched(act)(store, always)
            now_s[0] += 10 * STILL_S  # another leads for long
            assert health.said()["well"]
    assert said == [True, False] * 2
