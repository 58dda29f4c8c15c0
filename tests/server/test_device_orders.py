"""What operators tell devices: who is meant, what is published, who may, and what is kept of it."""

from __future__ import annotations

import json
import re

import msgspec
import pytest
from device_words import FLEET, NOW_MS, birth, heartbeat, message
from fastapi.testclient import TestClient

from edge_agent.contract.wire import Budgets, Desired, LinkState, Pause, decode, encode, parse_topic
from server import config
from server.__main__ import main
from server.collect.ingest import Ingest
from server.errors import OrderError, RolloutError, StoreError
from server.govern.erase import erase
from server.govern.subject import Subject
from server.release import orders, places
from server.release.fleet import Fleet
from server.release.orders import Budget
from server.store import device_orders, heard, identities, rollouts, trail, users, whereabouts
from server.store.store import Store
from server.web.access import digest
from server.web.app import make_app

NAMES = ("cam-1", "cam-2", "cam-3")


class Scene:
    """Three devices, two of them at the site `north`, and what is published to them."""

    def __init__(self, folder) -> None:
        self.store = Store.open(folder)
        self.ingest = Ingest(self.store, fleet=FLEET, offline_after_s=90.0)
        self.sent: dict[str, Desired] = {}
        self.now_ms = NOW_MS
        for name in NAMES:
            self.ingest.take([message(name, "birth", encode(birth("a")))])
        for name in NAMES[:2]:
            places.put(self.store, [name], site="north", now_ms=NOW_MS)
        places.put(self.store, ["cam-3"], ring="canary", now_ms=NOW_MS)
        self.restart()

    def restart(self) -> None:
        self.fleet = Fleet(self.store, fleet=FLEET, rules=config.Rollout(), publish=self._publish)

    def _publish(self, topic, payload, *, qos, retain) -> None:
        assert (qos, retain) == (1, True)
        self.sent[parse_topic(topic).device] = decode(Desired, payload)

    def tick(self) -> dict[str, Desired]:
        self.sent.clear()
        self.now_ms += 1000
        self.fleet.tick(self.now_ms)
        return dict(self.sent)

    def says(self, name: str, **changes) -> None:
        said = msgspec.structs.replace(heartbeat("a"), **changes)
        self.ingest.take([message(name, "heartbeat", encode(said))])

    def trail(self) -> list[tuple]:
        with self.store.database.read() as connection:
            return [(one.what, one.subject, one.who, one.why) for one in trail.entries(connection)][3:]

    def concerned(self, whom: str) -> list[str]:
        with self.store.database.read() as connection:
            return orders.concerned(connection, whom)


@pytest.fixture
def scene(tmp_path):
    made = Scene(tmp_path / "store")
    yield made
    made.store.close()


def test_a_pause_reaches_those_that_are_meant_and_goes_with_a_resume(scene):
    scene.tick()
    assert orders.pause(scene.store, "site:north", why="moving", who="anna", now_ms=NOW_MS) == ["cam-1", "cam-2"]
    sent = scene.tick()
    assert {name: one.pause for name, one in sent.items()} == dict.fromkeys(
        ("cam-1", "cam-2"), Pause(by="anna", at_ms=NOW_MS, why="moving")
    )
    assert scene.tick() == {}
    assert orders.resume(scene.store, "cam-2", why="moved", who="ben", now_ms=NOW_MS + 5) == ["cam-2"]
    sent = scene.tick()
    assert [(name, one.pause, one.revision) for name, one in sent.items()] == [("cam-2", None, 2)]
    assert orders.resume(scene.store, "all", why="", who="ben", now_ms=NOW_MS + 9) == ["cam-1"]
    assert [one.device for one in orders.listed(scene.store)] == []
    assert scene.trail() == [
        ("pause", "site:north", "anna", "moving"),
        ("resume", "device cam-2", "ben", "moved"),
        ("resume", "device cam-1", "ben", ""),
    ]


def test_an_order_outlives_a_restart_and_a_server_that_was_killed_before_it_told(scene):
    orders.pause(scene.store, "cam-1", why="", now_ms=NOW_MS)
    scene.restart()
    assert scene.tick()["cam-1"].pause is not None
    scene.restart()  # what was published may be lost with the broker
    assert scene.tick()["cam-1"].pause is not None


def test_a_budget_takes_the_place_of_the_one_before(scene):
    orders.set_budget(scene.store, "cam-1", Budget(0.02, 200.0), why="", now_ms=NOW_MS)
    sent = scene.tick()["cam-1"]
    assert (sent.label_share, sent.labels_per_day, sent.bytes_per_day) == (0.02, 200.0, None)
    orders.set_budget(scene.store, "cam-1", Budget(bytes_per_day=0.0), why="", now_ms=NOW_MS)
    sent = scene.tick()["cam-1"]
    assert (sent.label_share, sent.labels_per_day, sent.bytes_per_day) == (None, None, 0.0)
    orders.set_budget(scene.store, "cam-1", orders.OWN, why="", now_ms=NOW_MS)
    assert scene.tick()["cam-1"].bytes_per_day is None
    with pytest.raises(OrderError, match="no budget was ordered of cam-1"):
        orders.set_budget(scene.store, "cam-1", orders.OWN, why="", now_ms=NOW_MS)


def test_what_the_device_says_back_tells_whether_it_obeys(scene):
    orders.pause(scene.store, "cam-1", why="", now_ms=NOW_MS)
    orders.set_budget(scene.store, "cam-1", Budget(labels_per_day=200.0), why="", now_ms=NOW_MS)

    def obeyed() -> dict[str, bool | None]:
        return {one.word: one.obeyed for one in orders.listed(scene.store, "cam-1")}

    scene.says("cam-1")
    assert obeyed() == {"budget": None, "pause": None}
    own = Budgets(label_share=0.05)
    scene.says("cam-1", link=LinkState(sent_bytes=0, received_bytes=0, paused_ms=NOW_MS - 1), budgets=own)
    assert obeyed() == {"budget": False, "pause": False}
    said = msgspec.structs.replace(own, labels_per_day=200.0)
    scene.says("cam-1", link=LinkState(sent_bytes=0, received_bytes=0, paused_ms=NOW_MS), budgets=said)
    assert obeyed() == {"budget": True, "pause": True}
    scene.says("cam-1", budgets=msgspec.structs.replace(said, complaint="never pays for a sample"))
    assert obeyed()["budget"] is not True


def test_what_an_order_would_come_to_is_said_before(scene):
    orders.pause(scene.store, "cam-2", why="", now_ms=NOW_MS)
    with scene.store.database.write() as connection:
        identities.revoke(connection, "cam-1", why="", samples_left_out=False, now_ms=NOW_MS)
    found = orders.meant(scene.store, "all")
    assert (found.devices, found.revoked, found.paused, found.budgeted) == (["cam-2", "cam-3"], ["cam-1"], 1, 0)
    assert (found.sites, found.rings, found.online) == ({"north": 1, "": 1}, {"": 1, "canary": 1}, 2)
    assert orders.meant(scene.store, ["cam-3", "gone"]).devices == ["cam-3"]
    assert (orders.meant(scene.store, ["cam-3", "gone"]).unknown, found.unknown) == (["gone"], [])
    for whom, why in (([], "nothing fits"), (["cam-1"], "revoked"), ("cam-1", "revoked"), ("cam-9", "never been seen")):
        with pytest.raises(OrderError, match=why):
            orders.meant(scene.store, whom)


def test_many_are_placed_or_none(scene):
    with pytest.raises(StoreError, match="'cam-7' has never been seen"):
        places.put(scene.store, ["cam-1", "cam-7"], channel="beta", now_ms=NOW_MS)
    with pytest.raises(RolloutError, match="expected a channel, a ring or a site"):
        places.put(scene.store, ["cam-1"], now_ms=NOW_MS)
    with pytest.raises(RolloutError, match="expected letters, digits"):
        places.put(scene.store, ["cam-1", "cam-2"], ring="a/b", now_ms=NOW_MS)
    with scene.store.database.read() as connection:
        assert {one.channel for one in whereabouts.every(connection)} == {"stable"}
    names = [f"unit-{n}" for n in range(1200)]  # more than go into one statement
    with scene.store.database.write() as connection:
        heard.record_seen(connection, dict.fromkeys(names, NOW_MS))
    places.put(scene.store, names, channel="beta", why="tried", who="anna", now_ms=NOW_MS)
    with scene.store.database.read() as connection:
        assert {one.name for one in whereabouts.every(connection) if one.channel == "beta"} == {*names}
    assert scene.trail() == [("place", "unit-0, unit-1, unit-2 and 1197 more", "anna", "tried")]


def test_who_is_meant(scene):
    assert scene.concerned("all") == ["cam-1", "cam-2", "cam-3"]
    assert scene.concerned("cam-3, cam-1,cam-3") == ["cam-3", "cam-1"]
    assert scene.concerned("ring:canary") == ["cam-3"]
    with scene.store.database.write() as connection:
        identities.revoke(connection, "cam-1", why="", samples_left_out=False, now_ms=NOW_MS)
    assert scene.concerned("site:north") == ["cam-2"]


def test_a_ring_is_also_who_was_drawn_into_it(scene):
    with scene.store.database.write() as connection:
        connection.exec_driver_sql(
            "INSERT INTO version (number, name, parent, snapshot_id, manifest_sha256, manifest_bytes, created_at_ms, "
            "weights_sha256, metrics) VALUES (1, 'a', 0, '', '', 0, 0, '', '{}')"
        )
        state = {"members": {"cam-2": {"ring": "canary"}, "cam-3": {"ring": "all"}, "gone": {"ring": "canary"}}}
        rollouts.insert(connection, number=1, previous=0, plan={}, state=state, now_ms=NOW_MS)
    assert scene.concerned("ring:canary") == ["cam-2", "cam-3"]  # where an operator put it counts


@pytest.mark.parametrize(
    ("whom", "said"),
    [
        ("cam-11", "device 'cam-11' has never been seen (did you mean 'cam-1'?); expected names"),
        ("", "no device is named: expected names such as cam-1,cam-2, or site:NAME"),
        ("site:nort", "no device is at site 'nort' (did you mean 'north'?)"),
        ("site:", "no device is at site ''"),
        ("ring:early", "no device is in ring 'early'"),
        ("channel:beta", "expected names such as"),
    ],
)
def test_whom_nobody_is_is_said(scene, whom, said):
    with pytest.raises(OrderError, match=re.escape(said)):
        scene.concerned(whom)


@pytest.mark.parametrize("wrong", [Budget(label_share=1.5), Budget(bytes_per_day=float("inf")), Budget(0.1, -1.0)])
def test_a_budget_that_cannot_be_is_refused(scene, wrong):
    with pytest.raises(OrderError, match="expected 0 or more"):
        orders.set_budget(scene.store, "all", wrong, why="", now_ms=NOW_MS)
    assert scene.tick() == {}


def test_an_erased_device_stays_paused(scene):
    orders.pause(scene.store, "cam-1", why="", now_ms=NOW_MS)
    erase(scene.store, Subject("device", ("cam-1",)), why="asked", who="ada", now_ms=NOW_MS)
    with scene.store.database.read() as connection:
        assert "pause" in device_orders.standing(connection)["cam-1"]


def test_operators_may_and_viewers_may_only_look(scene):
    app = make_app(scene.store, config.ServerConfig(), now_ms=lambda: NOW_MS)
    clients = {}
    with scene.store.database.write() as connection:
        for role in ("viewer", "operator"):
            users.add(connection, role, role, password_hash="", by="test", now_ms=NOW_MS)
            users.add_token(
                connection, role, "x", secret_sha256=digest(role), expires_at_ms=None, by="test", now_ms=NOW_MS
            )
            clients[role] = TestClient(app, headers={"Authorization": f"Bearer {role}"})
    for word in ("pause", "budget", "resume"):
        body = {"devices": "site:north", "why": "moving"} | ({"labels_per_day": 100} if word == "budget" else {})
        assert clients["viewer"].post(f"/api/v1/orders/{word}", json=body).status_code == 403
        answer = clients["operator"].post(f"/api/v1/orders/{word}", json=body)
        assert answer.json() == {"devices": ["cam-1", "cam-2"]}
    listed = clients["viewer"].get("/api/v1/orders", params={"device": "cam-2"}).json()["orders"]
    assert [(one["word"], one["said"], one["who"]) for one in listed] == [
        ("budget", {"labels_per_day": 100.0}, "operator")
    ]
    refused = clients["operator"].post("/api/v1/orders/pause", json={"devices": "cam-9", "why": "a test"})
    assert (refused.status_code, refused.json()["detail"][:28]) == (409, "device 'cam-9' has never bee")


def test_the_command_line_says_what_was_done(scene, tmp_path, capsys):
    toml = tmp_path / "server.toml"
    toml.write_text('[server]\ndata_dir = "store"\n')
    assert main(["device", "pause", "all", "--why", "moving", "--by", "anna", str(toml)]) == 0
    assert main(["device", "budget", "cam-1", "--labels-per-day", "50", str(toml)]) == 0
    said = capsys.readouterr().out
    assert "uploads paused: cam-1, cam-2, cam-3" in said
    assert "label_share as its file says, labels_per_day 50" in said
    assert main(["device", "orders", "--json", str(toml)]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert [(row["device"], row["word"], row["who"]) for row in rows][:1] == [("cam-1", "budget", trail.person())]
    assert len(rows) == 4
    assert main(["device", "resume", "cam-9", str(toml)]) == 1
    assert main(["device", "orders", str(toml)]) == 0
