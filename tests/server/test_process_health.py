"""Does a process without pages say how it is?"""

from __future__ import annotations

import json
import socket
import urllib.error
import urllib.request

import pytest

from server.errors import ServerConfigError
from server.roles.health import STILL_S, Health, told


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
