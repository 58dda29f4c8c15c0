"""Are samples looked through over HTTP by who may, and is nonsense told from a search?"""

from __future__ import annotations

import json

import pytest
from device_words import FLEET, NOW_MS, uploads
from fastapi.testclient import TestClient

from server import config
from server.collect.ingest import Ingest
from server.store import labels, questions, users
from server.store.labels import Label
from server.store.store import Store
from server.web.access import digest
from server.web.app import make_app

URL = "/api/v1/samples"


@pytest.fixture
def store(tmp_path):
    """Five samples of cam-1, two of them labelled."""
    store = Store.open(tmp_path)
    ingest = Ingest(store, fleet=FLEET, offline_after_s=90.0)
    ingest.take([one for seq in range(5) for one in uploads("cam-1", seq)])
    with store.database.write() as connection:
        labels.ensure_names(connection, ["coat", "boot", "bag", "shirt"])
        labels.add(connection, [Label("cam-1.main.1.1", 3, "ann", 1), Label("cam-1.main.1.2", 0, "ann", 2)])
    yield store
    store.close()


@pytest.fixture
def client(store):
    """Somebody with a token, by role: `client("viewer")`."""
    app = make_app(store, config.ServerConfig(), now_ms=lambda: NOW_MS)

    def of(role: users.Role) -> TestClient:
        with store.database.write() as connection:
            users.add(connection, role, role, password_hash="", by="test", now_ms=NOW_MS)
            secret, until = digest(role), NOW_MS + 1
            users.add_token(
                connection, role, "test", secret_sha256=secret, expires_at_ms=until, by="test", now_ms=NOW_MS
            )
        return TestClient(app, headers={"Authorization": f"Bearer {role}"})

    return of


def test_pages_follow_each_other(client):
    viewer, found, after = client("viewer"), [], ""
    while after is not None:
        page = viewer.get(URL, params={"limit": 2, "after": after}).json()
        found += page["samples"]
        after = page["next"]
    assert [row["id"] for row in found] == [f"cam-1.main.1.{seq}" for seq in range(4, -1, -1)]
    assert [row["agrees"] for row in found] == [None, None, False, True, None]
    assert {row["predicted"] for row in found} == {"shirt"}


@pytest.mark.parametrize(
    ("wrong", "status", "said"),
    [
        ({"label": "caot"}, 409, "did you mean 'coat'"),
        ({"after": "nonsense"}, 422, "expected what the page before said"),
        ({"after": json.dumps([1, {}])}, 422, "expected what the page before said"),
        ({"after": json.dumps([2**70, "a"])}, 422, "expected what the page before said"),
        ({"after": json.dumps([1, "a", 3])}, 422, "got 3 values, expected 2"),
        ({"utility_min": "nan"}, 422, "utility_min"),
        ({"version": -1}, 422, "version"),
        ({"used": "twice"}, 422, "used"),
        ({"ids": ",".join(map(str, range(201)))}, 422, "ids: got 201, expected 200 at most"),
    ],
)
def test_nonsense_is_refused_and_says_what_was_expected(client, wrong, status, said):
    answer = client("viewer").get(URL, params=wrong)
    assert answer.status_code == status
    assert said in answer.json()["detail"]


def test_who_only_looks_or_labels_cannot_have_others_asked(client, store):
    order = {"ids": ["cam-1.main.1.1", "cam-1.main.1.4", "cam-1.main.1.77"], "purpose": "label", "why": "a test"}
    for role in ("viewer", "labeler"):
        assert client(role).post(f"{URL}/ask", json=order).status_code == 403
    operator = client("operator")
    assert operator.post(f"{URL}/ask", json=order).json() == {"asked": 1, "left": 2}
    assert operator.post(f"{URL}/ask", json=order | {"why": ""}).status_code == 422
    again = operator.post(f"{URL}/ask", json=order | {"purpose": "second look"})
    assert again.json() == {"asked": 1, "left": 2}
    with store.database.read() as connection:
        assert questions.count(connection) == {"first": 1, "second look": 1}


def test_without_a_version_there_is_no_map_and_nothing_is_begun(client, store):
    found = client("viewer").get(f"{URL}/map").json()
    assert (found["state"], found["ids"]) == ("none", [])
    assert "No version is published yet" in found["why"]


def test_a_chart_of_what_is_not_here_is_not_found(client):
    assert client("viewer").get(f"{URL}/cam-9.main.1.1/series").status_code == 404
