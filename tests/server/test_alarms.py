"""Are those who want to be told of alarms told, once, also of their end; and does nothing get lost on the way?"""

from __future__ import annotations

import json
import math
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import msgspec
import numpy as np
import pytest
import sqlalchemy as sa
from device_words import FLEET, NOW_MS, birth, event, heartbeat, message, uploads
from hypothesis import given
from hypothesis import strategies as st
from standardwebhooks.webhooks import Webhook as Verifier

from edge_agent.contract import settings
from edge_agent.contract.wire import Death, encode
from server import config
from server.__main__ import main
from server.collect.ingest import Ingest
from server.config import load_config
from server.errors import ServerConfigError
from server.govern.erase import erase
from server.govern.subject import Subject
from server.store import alarms, deliveries, events, identities, labels, runs
from server.store.alarms import Alarm, standing
from server.store.schema import delivery
from server.store.schema import event as event_table
from server.store.store import Store
from server.tell.alarms import NAMED, Alarms, Change, changes_of
from server.tell.alarms import message as body_of
from server.tell.receivers import listed
from server.tell.webhooks import TRIES, Receiver, Webhooks

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
SILENT_MS = 900_000


class Listener:
    """A real HTTP server that keeps what it is told, and answers as it is told to."""

    def __init__(self) -> None:
        self.taken: list[tuple[dict[str, str], bytes]] = []
        self.answers: list[int] = []  # of the next requests; then 204
        self.came = threading.Condition()
        listener = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                with listener.came:
                    status = listener.answers.pop(0) if listener.answers else 204
                    listener.taken.append(({key.lower(): value for key, value in self.headers.items()}, body))
                    self.send_response(status)
                    if status == 302:
                        self.send_header("Location", "/elsewhere")
                    self.send_header("Content-Length", "0")
                    self.end_headers()
                    listener.came.notify_all()

            def log_message(self, *_args: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}/winnow"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def types(self) -> list[str]:
        return [json.loads(body)["type"] for _, body in self.taken]


class Scene:
    """A server's store with devices, who is told, and a clock."""

    def __init__(self, folder, listener: Listener, **alarm_rules) -> None:
        (folder / "secret").write_text(SECRET + "\n")
        self.folder, self.listener, self.now_ms = folder, listener, NOW_MS
        self.store = Store.open(folder / "store")
        self.ingest = Ingest(self.store, fleet=FLEET, offline_after_s=90.0)
        self.rules = config.ServerConfig(
            server=config.Server(fleet=FLEET),
            alarms=config.Alarms(**alarm_rules),
            autonomy=config.Autonomy(dial="propose"),
            webhook=(config.Webhook(url=listener.url, secret_file=str(folder / "secret")),),
        )
        self.receiver = Receiver(self.rules.webhook[0])
        self.restart()

    def restart(self) -> None:
        self.alarms = Alarms(self.store, self.rules, now_ms=lambda: self.now_ms, wake=lambda: None)
        self.webhooks = Webhooks(
            self.store, self.rules.webhook, fleet=FLEET, now_ms=lambda: self.now_ms, rng=np.random.default_rng(0)
        )

    def pass_s(self, seconds: float) -> None:
        self.now_ms += math.ceil(seconds * 1000)

    def connects(self, name: str) -> None:
        self.ingest.take([message(name, "birth", encode(birth("a")), at_ms=self.now_ms)])

    def dies(self, name: str) -> None:
        self.ingest.take([message(name, "death", encode(Death(session="a")), at_ms=self.now_ms)])

    def look(self) -> list[str]:
        """What has changed: kind.state and subjects."""
        found = self.alarms.look()
        return [f"{one.type} {', '.join(alarm.subject for alarm in one.alarms)}" for one in found]

    def deliver(self) -> float:
        return self.webhooks.deliver(self.receiver)

    def waiting(self) -> int:
        with self.store.database.read() as connection:
            return deliveries.counts(connection).get((self.listener.url, "waiting"), 0)


@pytest.fixture
def listener():
    made = Listener()
    yield made
    made.stop()


@pytest.fixture
def scene(tmp_path, listener):
    made = Scene(tmp_path, listener, queue_empty_s=0.0)
    yield made
    made.store.close()


def test_an_erased_device_is_named_no_more_and_nobody_is_told_that_it_is_back(scene):
    for name in ("cam-1", "cam-11"):
        scene.connects(name)
        scene.dies(name)
    scene.pass_s(2000)
    assert scene.look() == ["silent.raised device cam-1, device cam-11"]
    scene.connects("cam-1")
    assert scene.look() == ["silent.cleared device cam-1"]
    scene.dies("cam-1")
    scene.pass_s(2000)
    assert scene.look() == ["silent.raised device cam-1"]
    erased = erase(scene.store, Subject("device", ("cam-1",)), who="ada", why="asked", now_ms=scene.now_ms)
    assert (erased.counts["alarm"], erased.counts["delivery"]) == (1, 3)
    with scene.store.database.read() as connection:
        told = [json.loads(body) for body in connection.scalars(sa.select(delivery.c.body))]
        assert [one.subject for one in standing(connection)] == ["device cam-11"]
    (left,) = told  # the others told of nobody else
    assert (left["data"]["count"], [one["subject"] for one in left["data"]["alarms"]]) == (1, ["device cam-11"])
    assert scene.look() == []
    scene.connects("cam-1")
    scene.dies("cam-1")
    scene.pass_s(2000)
    assert scene.look() == ["silent.raised device cam-1"]  # it has spoken again


# --- what stands ---


def test_silence_is_told_once_and_so_is_the_return(scene):
    scene.connects("cam-1")
    scene.pass_s(2000)
    scene.connects("cam-2")
    scene.dies("cam-1")
    assert scene.look() == ["silent.raised device cam-1"]
    assert scene.look() == []
    scene.restart()  # before it has listened for as long, the server knows of no other, and forgets none
    assert scene.look() == []
    scene.connects("cam-1")
    assert scene.look() == ["silent.cleared device cam-1"]
    scene.deliver()
    assert scene.listener.types() == ["silent.raised", "silent.cleared"]
    assert [json.loads(body)["data"]["alarms"][0]["text"] for _, body in scene.listener.taken] == [
        "device cam-1 has fallen silent",
        "device cam-1 is back",
    ]


def test_a_server_that_was_away_takes_nobody_for_silent_that_it_could_not_hear(scene):
    scene.connects("cam-1")
    scene.pass_s(10_000)
    scene.restart()
    scene.ingest.sweep(scene.now_ms)
    assert scene.look() == []
    scene.pass_s(901)
    assert scene.look() == ["silent.raised device cam-1"]


def test_a_short_silence_and_a_revoked_device_are_no_alarm(scene):
    scene.connects("cam-1")
    scene.connects("cam-2")
    scene.pass_s(800)
    scene.dies("cam-1")
    assert scene.look() == []
    with scene.store.database.write() as connection:
        identities.revoke(connection, "cam-1", why="", samples_left_out=False, now_ms=NOW_MS)
    scene.pass_s(1000)
    assert scene.look() == []


def test_many_at_once_are_one_message(scene):
    for number in range(NAMED + 20):
        scene.connects(f"cam-{number:03}")
    scene.pass_s(1000)
    scene.ingest.sweep(scene.now_ms)
    assert len(scene.look()) == 1
    scene.deliver()
    data = json.loads(scene.listener.taken[0][1])["data"]
    assert (data["count"], len(data["alarms"])) == (NAMED + 20, NAMED)


def test_drift_that_a_device_tells_stands_for_a_day(scene):
    scene.connects("cam-1")
    scene.ingest.take([message("cam-1", "heartbeat", encode(heartbeat("a")), at_ms=scene.now_ms)])
    said = msgspec.structs.replace(event(1), model_version=heartbeat("a").model.version)
    scene.ingest.take([message("cam-1", "event", encode(said), at_ms=scene.now_ms)])
    assert scene.look() == ["drift.raised device cam-1"]
    scene.pass_s(86_401)
    scene.connects("cam-1")
    assert scene.look() == ["drift.cleared device cam-1"]


def test_the_verdict_of_the_fleet_stands_until_another_is_told(scene):
    scene.connects("cam-1")
    scene.ingest.take([message("cam-1", "heartbeat", encode(heartbeat("a")), at_ms=scene.now_ms)])
    version = heartbeat("a").model.version

    def verdict(text: str) -> None:
        with scene.store.database.write() as connection:
            detail = {"verdict": text}
            events.say(connection, "drift", f"it says {text}", version=version, detail=detail, now_ms=scene.now_ms)

    verdict("device; none; cam-1")
    assert scene.look() == [f"drift.raised version {version}, event 1"]
    verdict("fleet; covariate shift; ")
    assert scene.look() == [
        f"drift.cleared version {version}, event 1",
        f"drift.raised version {version}, event 2",
    ]
    verdict("nobody; none; ")
    assert scene.look() == [f"drift.cleared version {version}, event 2"]


def test_a_halted_rollout_stands_until_the_next_and_a_version_waits_for_its_word(scene):
    with scene.store.database.write() as connection:
        for number in (1, 2):
            connection.exec_driver_sql(
                "INSERT INTO version (number, name, parent, snapshot_id, manifest_sha256, manifest_bytes, "
                f"created_at_ms, weights_sha256, metrics) VALUES ({number}, 'a', 0, '{number}', '', 0, 0, '', '{{}}')"
            )
            if number == 1:
                connection.exec_driver_sql(
                    "INSERT INTO rollout (version, previous, plan, state, status, started_at_ms, channel) "
                    """VALUES (1, 0, '{}', '{"reason": "2 of 5 failed"}', 'halted', 0, 'stable')"""
                )
    assert scene.look() == ["halted.raised rollout 1", "proposed.raised version 2, channel stable"]
    with scene.store.database.write() as connection:
        connection.exec_driver_sql(
            "INSERT INTO rollout (version, previous, plan, state, status, started_at_ms, channel) "
            """VALUES (2, 0, '{}', '{"asks": "early"}', 'running', 0, 'stable')"""
        )
    assert scene.look() == [
        "halted.cleared rollout 1",
        "proposed.cleared version 2, channel stable",
        "proposed.raised rollout 2",
    ]


def test_a_round_that_is_proposed_waits_until_one_begins(scene):
    with scene.store.database.write() as connection:
        events.say(connection, "proposal", "a round of training is due", version=1, detail={}, now_ms=NOW_MS)
    assert scene.look() == ["proposed.raised round"]
    with scene.store.database.write() as connection:
        connection.exec_driver_sql(
            "INSERT INTO snapshot (id, created_at_ms, classes, train_count, holdout_count, device_label_count) "
            "VALUES ('s', 0, '[]', 0, 0, 0)"
        )
        runs.insert(connection, snapshot_id="s", champion=0, recipe="small", report={}, now_ms=NOW_MS + 1)
    assert scene.look() == ["proposed.cleared round"]


def test_the_queue_is_full_above_its_limit_and_empty_when_nothing_comes(tmp_path, listener):
    scene = Scene(tmp_path, listener, queue_full=10, queue_empty_s=60.0)
    assert scene.look() == []  # nothing ever came
    scene.ingest.take([one for seq in range(11) for one in uploads("cam-1", seq)])
    assert scene.look() == ["queue_full.raised labels"]

    def forget(count: int) -> None:
        with scene.store.database.write() as connection:
            connection.exec_driver_sql(f"DELETE FROM sample WHERE id IN (SELECT id FROM sample LIMIT {count})")

    forget(1)
    assert scene.look() == []  # ten are no reason to call it over, nine are
    forget(1)
    assert scene.look() == ["queue_full.cleared labels"]
    scene.store.close()


def test_the_queue_is_empty_when_all_is_labelled_and_no_more_comes(tmp_path, listener):
    scene = Scene(tmp_path, listener, queue_empty_s=60.0)
    scene.ingest.take(uploads("cam-1", 1))
    with scene.store.database.write() as connection:
        labels.ensure_names(connection, ["a", "b"])
        labels.add(connection, [labels.Label("cam-1.main.1.1", 0, "anna", NOW_MS)])
    assert scene.look() == []
    scene.pass_s(61)
    assert scene.look() == ["queue_empty.raised labels"]
    scene.ingest.take(uploads("cam-1", 2))
    assert scene.look() == ["queue_empty.cleared labels"]
    scene.store.close()


alarm_sets = st.dictionaries(
    st.tuples(st.sampled_from(["silent", "drift", "halted"]), st.sampled_from("abcdef")), st.just(0), max_size=12
).map(lambda keys: {key: Alarm(key[0], key[1], "text", 0) for key in keys})


@given(alarm_sets, alarm_sets)
def test_what_is_told_takes_the_one_to_the_other(before, now):
    known = set(before)
    for one in changes_of(before, now):
        for alarm in one.alarms:
            assert (alarm.key in known) == (one.state == "cleared")
            known ^= {alarm.key}
    assert known == set(now)


# --- how it is told ---


def test_a_message_is_signed_as_the_standard_says(scene):
    scene.now_ms = time.time_ns() // 1_000_000  # the verifier refuses old ones
    scene.connects("cam-1")
    scene.pass_s(0)
    one = Alarm("silent", "device cam-1", "device cam-1 has fallen silent", scene.now_ms)
    with scene.store.database.write() as connection:
        body = body_of(Change("silent", "raised", [one]), fleet=FLEET, now_ms=scene.now_ms)
        deliveries.put(connection, scene.listener.url, "silent.raised", body, now_ms=scene.now_ms)
    scene.deliver()
    headers, body = scene.listener.taken[0]
    said = Verifier(SECRET).verify(body, headers)
    assert (said["type"], said["data"]["fleet"]) == ("silent.raised", FLEET)
    with pytest.raises(Exception, match="No matching signature"):
        Verifier(SECRET).verify(body.replace(b"cam-1", b"cam-2"), headers)


def test_what_is_not_taken_is_tried_again_later_and_under_the_same_id(scene):
    scene.listener.answers = [500, 302]
    scene.connects("cam-1")
    scene.pass_s(1000)
    scene.dies("cam-1")
    scene.look()
    wait_s = scene.deliver()
    assert 5.0 <= wait_s <= 10.0
    assert scene.deliver() > 0
    assert len(scene.listener.taken) == 1  # not before its time
    scene.pass_s(wait_s)
    scene.pass_s(scene.deliver())
    scene.restart()  # what waits is in the store
    scene.deliver()
    assert len(scene.listener.taken) == 3
    assert len({headers["webhook-id"] for headers, _ in scene.listener.taken}) == 1
    assert scene.waiting() == 0
    assert all(headers["webhook-signature"] for headers, _ in scene.listener.taken)


def test_what_nobody_ever_takes_is_given_up_and_that_is_said(scene, caplog):
    scene.listener.answers = [503] * TRIES
    with scene.store.database.write() as connection:
        deliveries.put(connection, scene.listener.url, "silent.raised", "{}", now_ms=NOW_MS)
    for _ in range(TRIES):
        scene.pass_s(scene.deliver())
    assert len(scene.listener.taken) == TRIES
    (row,) = listed(scene.store, scene.rules.webhook)
    assert (row["waiting"], row["dead"], row["error"]) == (0, 1, "503 Service Unavailable")
    with scene.store.database.read() as connection:
        said = connection.execute(event_table.select().where(event_table.c.kind == "webhook")).one()
    assert f"was given up after {TRIES} tries: 503" in said.text


def test_a_receiver_that_is_away_is_asked_once_a_round_and_loses_nothing(scene):
    url = scene.listener.url
    scene.listener.stop()
    with scene.store.database.write() as connection:
        for _ in range(3):
            deliveries.put(connection, url, "silent.raised", "{}", now_ms=NOW_MS)
    assert scene.deliver() > 0
    with scene.store.database.read() as connection:
        tries = [one.tries for one in deliveries.due(connection, url, now_ms=NOW_MS + 10**9, limit=9)]
    assert tries == [1, 0, 0]


def test_a_full_queue_gives_up_its_oldest_and_counts_them(scene, monkeypatch):
    monkeypatch.setattr(deliveries, "WAITING_MAX", 2)
    with scene.store.database.write() as connection:
        given_up = [deliveries.put(connection, "http://a", "x", str(n), now_ms=NOW_MS) for n in range(4)]
        left = [one.body for one in deliveries.due(connection, "http://a", now_ms=NOW_MS, limit=9)]
    assert ([len(one) for one in given_up], left) == ([0, 0, 1, 1], ["2", "3"])


def test_only_what_is_wanted_is_told_and_a_receiver_that_went_is_given_up(scene):
    hook = msgspec.structs.replace(scene.rules.webhook[0], events=("halted",))
    scene.rules = msgspec.structs.replace(scene.rules, webhook=(hook,))
    scene.restart()
    scene.connects("cam-1")
    scene.pass_s(1000)
    scene.dies("cam-1")
    assert scene.look() == ["silent.raised device cam-1"]
    assert scene.waiting() == 0
    with scene.store.database.write() as connection:
        deliveries.put(connection, "http://gone.example", "x", "{}", now_ms=NOW_MS)
        assert deliveries.abandon(connection, [scene.listener.url], now_ms=NOW_MS) == 1
        assert deliveries.counts(connection)["http://gone.example", "dead"] == 1


def test_threads_deliver_what_comes_and_stop(scene):
    scene.webhooks.start()
    with scene.store.database.write() as connection:
        deliveries.put(connection, scene.listener.url, "silent.raised", "{}", now_ms=NOW_MS)
        deliveries.put(connection, scene.listener.url, "silent.cleared", "{}", now_ms=NOW_MS)
    scene.webhooks.wake()
    with scene.listener.came:
        assert scene.listener.came.wait_for(lambda: len(scene.listener.taken) == 2, timeout=30)
    scene.webhooks.stop(timeout_s=10)


# --- configured and looked at ---

TOML = """
[server]
data_dir = "store"
[[webhook]]
url = "{url}"
events = ["silent"]
secret_file = "secret"
[[webhook]]
url = "{url}/2"
"""


def test_the_command_line_tests_and_lists(scene, capsys):
    toml = scene.folder / "server.toml"
    toml.write_text(TOML.format(url=scene.listener.url))
    loaded = load_config(toml)
    assert [hook.events for hook in loaded.webhook] == [("silent",), config.Webhook().events]
    assert settings.parse(settings.show(loaded), config.ServerConfig, where="shown") == loaded
    scene.listener.answers = [200, 404]
    assert main(["webhook", "test", str(toml)]) == 1
    said = capsys.readouterr()
    assert "taken: 200" in said.out
    assert "not taken: 404" in said.out
    assert scene.listener.types() == ["test", "test"]
    assert main(["webhook", "list", "--json", str(toml)]) == 0
    assert [row["waiting"] for row in json.loads(capsys.readouterr().out)] == [0, 0]
    assert main(["webhook", "list", str(toml)]) == 0
    with scene.store.database.write() as connection:
        alarms.change(connection, raised=[Alarm("halted", "rollout 1", "why", NOW_MS)], cleared=[])
    capsys.readouterr()
    assert main(["alarms", "--json", str(toml)]) == 0
    assert json.loads(capsys.readouterr().out)[0]["subject"] == "rollout 1"
    assert main(["alarms", str(toml)]) == 0
    assert main(["check", str(toml)]) in (0, 1, 78)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('[[webhook]]\nurl = "ftp://x"', "expected https://host/path"),
        ('[[webhook]]\nurll = "http://x"', r"unknown key \[webhook\] urll \(did you mean 'url'\?\)"),
        ('[[webhook]]\nurl = "http://x"\nevents = ["silence"]', "Invalid enum value 'silence'"),
        ('[[webhook]]\nurl = "http://x"\n[[webhook]]\nurl = "http://x"', "is there twice"),
    ],
)
def test_what_cannot_be_is_said(tmp_path, text, said):
    (tmp_path / "server.toml").write_text(text)
    with pytest.raises(ServerConfigError, match=said):
        load_config(tmp_path / "server.toml")


@pytest.mark.parametrize(("secret", "said"), [("", "is empty"), ("whsec_$$", "no base64")])
def test_a_secret_that_is_none_is_said(tmp_path, secret, said):
    (tmp_path / "secret").write_text(secret)
    with pytest.raises(ServerConfigError, match=said):
        Receiver(config.Webhook(url="http://x", secret_file=str(tmp_path / "secret")))
