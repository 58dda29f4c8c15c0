"""Who may see and do what, over HTTP: the real application, asked without a browser."""

from __future__ import annotations

import subprocess

import pytest
from browser import HASHED, PASSWORD, plant_devices
from device_words import FLEET, heartbeat, message, uploads
from fastapi.testclient import TestClient
from prometheus_client.parser import text_string_to_metric_families
from tool import tool

from edge_agent.contract.wire import encode
from server import config
from server.collect.ingest import Ingest
from server.errors import ServerConfigError, StoreError
from server.govern.erase import erase
from server.govern.subject import Subject
from server.roles.election import Election
from server.store import questions, trail, users
from server.store.lock import one_of_several, one_server
from server.store.questions import Queued
from server.store.store import Store
from server.web.access import COOKIE, CSRF_HEADER, digest, hash_password
from server.web.app import make_app

NOW_MS = 1_790_000_000_000


class Scene:
    def __init__(self, folder, **web) -> None:
        self.now_ms = NOW_MS
        self.store = Store.open(folder)
        settings = config.ServerConfig(web=config.Web(**web))
        self.app = make_app(self.store, settings, now_ms=lambda: self.now_ms)

    def add(self, name: str, role: users.Role, *, hashed: str = HASHED) -> None:
        with self.store.database.write() as connection:
            users.add(connection, name, role, password_hash=hashed, by="test", now_ms=self.now_ms)

    def client(self, **options) -> TestClient:
        return TestClient(self.app, follow_redirects=False, **options)

    def signed_in(self, name: str) -> TestClient:
        client = self.client()
        answer = client.post("/sign-in", data={"name": name, "password": PASSWORD, "next": "/fleet"})
        assert (answer.status_code, answer.headers["location"]) == (303, "/fleet")
        return client


@pytest.fixture
def scene(tmp_path):
    made = Scene(tmp_path)
    made.add("vera", "viewer")
    yield made
    made.store.close()


def csrf_of(client: TestClient) -> str:
    return client.get("/fleet").text.split('name="csrf" content="')[1].split('"')[0]


def test_whoever_has_not_signed_in_is_sent_to_do_so_and_programs_are_told(scene):
    client = scene.client()
    page = client.get("/fleet")
    assert (page.status_code, page.headers["location"]) == (303, "/sign-in?next=/fleet")
    page = client.get("/data?device=cam-1&label=a%26b")  # a search that was sent to somebody
    assert page.headers["location"] == "/sign-in?next=/data%3Fdevice%3Dcam-1%26label%3Da%2526b"
    answer = client.get("/api/v1/devices")
    assert (answer.status_code, answer.headers["www-authenticate"]) == (401, "Bearer")
    assert client.get("/live").status_code == 303
    page = client.post("/rollouts/1/halt", data={"reason": "it is too slow"})
    assert (page.status_code, page.headers["content-type"]) == (401, "text/html; charset=utf-8")
    assert "You are not signed in any more" in page.text


def test_without_a_user_the_page_says_how_to_make_one(tmp_path):
    scene = Scene(tmp_path)
    assert "winnow-server user add NAME --role admin server.toml" in scene.client().get("/sign-in").text
    scene.store.close()


def test_the_cookie_is_kept_from_scripts_and_other_sites(scene):
    answer = scene.client().post("/sign-in", data={"name": "vera", "password": PASSWORD})
    said = answer.headers["set-cookie"].lower()
    assert "httponly" in said
    assert "samesite=strict" in said


@pytest.mark.parametrize(("name", "password"), [("vera", "wrong"), ("nobody", PASSWORD), ("vera", "")])
def test_a_wrong_password_or_name_is_refused_alike(scene, name, password):
    answer = scene.client().post("/sign-in", data={"name": name, "password": password or " "})
    assert answer.status_code == 401
    assert "Name or password is wrong." in answer.text
    assert f'value="{name}"' in answer.text  # to be mended, not typed again


def test_guessing_is_stopped_after_ten_tries_and_starts_again_after_a_minute(scene):
    client = scene.client()
    for _ in range(10):
        assert client.post("/sign-in", data={"name": "vera", "password": "x"}).status_code == 401
    assert client.post("/sign-in", data={"name": "vera", "password": PASSWORD}).status_code == 429
    scene.now_ms += 60_000
    assert client.post("/sign-in", data={"name": "vera", "password": PASSWORD}).status_code == 303


@pytest.mark.parametrize("way", ["//evil.example", "https://evil.example", "/\\evil.example"])
def test_signing_in_leads_nowhere_else(scene, way):
    answer = scene.client().post("/sign-in", data={"name": "vera", "password": PASSWORD, "next": way})
    assert answer.headers["location"] == "/"


def test_a_session_ends_by_time_by_signing_out_and_when_the_user_is_changed(scene):
    client = scene.signed_in("vera")
    scene.now_ms += 12 * 3_600_000
    assert client.get("/fleet").status_code == 303
    client = scene.signed_in("vera")
    assert client.post("/sign-out").status_code == 403  # another site could have asked for it
    assert client.get("/fleet").status_code == 200
    cookie = client.cookies[COOKIE]
    assert client.post("/sign-out", data={"csrf": csrf_of(client)}).status_code == 303
    assert scene.client(cookies={COOKIE: cookie}).get("/fleet").status_code == 303
    client = scene.signed_in("vera")
    with scene.store.database.write() as connection:
        users.change(connection, "vera", disabled=True, by="test", why="left", now_ms=NOW_MS)
    assert client.get("/fleet").status_code == 303
    assert scene.client().post("/sign-in", data={"name": "vera", "password": PASSWORD}).status_code == 401


def test_blanks_are_no_reason(scene):
    plant_devices(scene.store, 1, now_ms=NOW_MS)
    scene.add("otto", "operator")
    client = scene.signed_in("otto")
    csrf = csrf_of(client)
    page = client.post("/devices/cam-00000/place", data={"csrf": csrf, "channel": "beta", "why": "  "})
    assert (page.status_code, "why: " in page.text) == (422, True)
    said = {"devices": "cam-00000", "why": " \t"}
    assert client.post("/api/v1/orders/pause", json=said, headers={CSRF_HEADER: csrf}).status_code == 422


def test_a_program_needs_no_cookie_and_no_csrf_and_its_token_can_be_revoked(scene):
    with scene.store.database.write() as connection:
        number = users.add_token(
            connection, "vera", "export", secret_sha256=digest("s3cret"), expires_at_ms=None, by="ada", now_ms=NOW_MS
        )
    client = scene.client(headers={"Authorization": "Bearer s3cret"})
    assert client.get("/api/v1/devices").json() == {"total": 0, "states": {}, "rows": []}
    assert scene.client(headers={"Authorization": "Bearer other"}).get("/api/v1/devices").status_code == 401
    with scene.store.database.write() as connection:
        users.revoke_token(connection, number, by="ada", why="lost", now_ms=NOW_MS)
        with pytest.raises(StoreError, match="there is none that is good"):
            users.revoke_token(connection, number, by="ada", why="lost", now_ms=NOW_MS)
    assert client.get("/api/v1/devices").status_code == 401
    with scene.store.database.read() as connection:
        assert [entry.what for entry in trail.entries(connection)] == ["user add", "token add", "token revoke"]


def test_a_token_that_has_run_out_is_good_no_more(scene):
    with scene.store.database.write() as connection:
        users.add_token(
            connection, "vera", "x", secret_sha256=digest("s"), expires_at_ms=NOW_MS + 1000, by="ada", now_ms=NOW_MS
        )
    client = scene.client(headers={"Authorization": "Bearer s"})
    assert client.get("/api/v1/devices").status_code == 200
    scene.now_ms += 1000
    assert client.get("/api/v1/devices").status_code == 401


def test_behind_a_proxy_any_web_server_takes_what_another_has_shown(tmp_path):
    proxy = {"user_header": "X-Forwarded-User", "proxies": ("10.0.0.1",)}
    one, other = Scene(tmp_path, **proxy), Scene(tmp_path, **proxy)
    one.add("ada", "labeler")
    shown, asked = (scene.client(client=("10.0.0.1", 1), headers={"X-Forwarded-User": "ada"}) for scene in (one, other))
    assert asked.post("/api/v1/label/hint", headers={CSRF_HEADER: "made up"}).status_code == 403
    assert asked.post("/api/v1/label/hint", headers={CSRF_HEADER: csrf_of(shown)}).status_code == 200
    one.store.close()
    other.store.close()


@pytest.mark.of_a_file  # of a folder of its own: who holds it, leads
def test_whether_it_is_well_and_somebody_leads_is_told_without_a_sign_in(scene):
    client = scene.client()
    assert client.get("/healthz").json() == {"role": "web", "led": {"schedule": False, "train": False}}
    with one_of_several(scene.store.folder):
        assert Election(scene.store, "train", lease_s=60.0).stand()
        assert client.get("/healthz").json()["led"] == {"schedule": False, "train": True}
    with one_server(scene.store.folder):  # all parts in one
        assert client.get("/healthz").json()["led"] == {"schedule": True, "train": True}
    assert client.get("/healthz").json()["led"] == {"schedule": False, "train": False}  # whoever led was killed


@pytest.mark.of_a_file  # which a folder takes the place of
def test_while_the_catalogue_is_away_everybody_is_told_to_come_again_and_strangers_no_more(scene, caplog):
    client, path = scene.signed_in("vera"), scene.store.folder / "catalogue.db"
    scene.store.database.engine.dispose()
    path.rename(path.with_suffix(".away"))
    path.mkdir()
    page, program, figures = (client.get(of) for of in ("/fleet", "/api/v1/status", "/metrics"))
    assert [answer.status_code for answer in (page, program, figures)] == [503, 503, 503]
    assert "try again in a moment" in page.text
    assert "try again in a moment" in figures.json()["detail"] == program.json()["detail"]
    assert not any("catalogue.db" in answer.text for answer in (page, program, figures))
    assert "catalogue.db" in caplog.text
    path.rmdir()
    path.with_suffix(".away").rename(path)
    assert client.get("/fleet").status_code == 200


def test_a_header_names_who_comes_only_from_the_proxy(tmp_path):
    scene = Scene(tmp_path, user_header="X-Forwarded-User", proxies=("10.0.0.1",))
    scene.add("vera", "viewer")
    named = {"X-Forwarded-User": "vera"}
    assert scene.client(client=("10.0.0.1", 1), headers=named).get("/fleet").status_code == 200
    assert scene.client(client=("10.0.0.2", 1), headers=named).get("/fleet").status_code == 303
    stranger = {"X-Forwarded-User": "mallory"}
    assert scene.client(client=("10.0.0.1", 1), headers=stranger).get("/fleet").status_code == 303
    scene.store.close()


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("/devices/cam-1/place", {"channel": "beta"}),
        ("/devices/cam-1/uploads", {"word": "pause"}),
        ("/devices/cam-1/budget", {"labels_per_day": "20"}),
        ("/samples/cam-1.main.1.0/more", {"device": "cam-1"}),
        ("/rollouts", {"version": "1"}),
        ("/rollouts/1/halt", {}),
    ],
)
def test_nothing_is_ordered_from_a_page_without_a_reason(scene, path, said):
    scene.add("olga", "operator")
    client = scene.signed_in("olga")
    for why in ({}, {"why": "", "reason": ""}):
        answer = client.post(path, data={"csrf": csrf_of(client), **said, **why})
        assert answer.status_code == 422, answer.text
        assert "why" in answer.text or "reason" in answer.text
    with scene.store.database.read() as connection:
        assert {entry.what for entry in trail.entries(connection)} == {"user add"}


def test_monitoring_reads_the_fleet_in_words_of_its_own(scene):
    plant_devices(scene.store, 100, now_ms=NOW_MS)
    answer = scene.signed_in("vera").get("/metrics")
    families = {one.name: one for one in text_string_to_metric_families(answer.text)}
    states = {one.labels["state"]: one.value for one in families["winnow_devices"].samples}
    assert sum(states.values()) == 100
    assert (states["online"], states["offline"]) == (81, 10)
    assert families["winnow_messages_bad"].type == "counter"
    assert families["winnow_champion_version"].samples[0].value == 0
    assert scene.client().get("/metrics").status_code == 303


def test_monitoring_is_happy_with_the_names(scene):
    text = scene.signed_in("vera").get("/metrics").content
    done = subprocess.run([tool("promtool"), "check", "metrics"], input=text, capture_output=True, check=False)
    assert (done.returncode, done.stdout + done.stderr) == (0, b"")


def test_nothing_inline_nothing_from_elsewhere(scene):
    answer = scene.signed_in("vera").get("/fleet")
    assert "default-src 'self'" in answer.headers["content-security-policy"]
    assert answer.headers["cache-control"] == "no-store"
    assert "http://" not in answer.text
    assert "https://" not in answer.text


def test_passwords_go_over_no_network_in_the_clear(tmp_path):
    toml = tmp_path / "server.toml"
    toml.write_text('[web]\nlisten = "0.0.0.0"\n')
    with pytest.raises(ServerConfigError, match="passwords would go over the network in the clear"):
        config.load_config(toml)
    toml.write_text('[web]\nlisten = "0.0.0.0"\ncert_file = "web.pem"\n')
    assert config.load_config(toml).web.cert_file == str(tmp_path / "web.pem")


def test_a_password_is_kept_so_that_trying_many_takes_long(scene):
    kept = hash_password(PASSWORD)
    assert kept.startswith("$argon2id$v=19$m=65536,t=3,p=4$")  # RFC 9106, where memory is short
    scene.add("lea", "labeler", hashed=kept)
    scene.signed_in("lea")
    wrong = {"name": "lea", "password": PASSWORD.upper()}
    assert scene.client().post("/sign-in", data=wrong).status_code == 401


def test_a_short_password_is_refused():
    with pytest.raises(ValueError, match="got 3 characters, expected 10 or more"):
        hash_password("abc")


def test_what_was_erased_is_shown_no_more_and_whoever_was_forgotten_is_signed_out(scene):
    ingest = Ingest(scene.store, fleet=FLEET, offline_after_s=90.0)
    ingest.take([*uploads("cam-1", 1), *uploads("cam-1", 2), message("cam-1", "heartbeat", encode(heartbeat("s")))])
    with scene.store.database.write() as connection:
        questions.put(connection, [Queued(f"cam-1.main.1.{seq}", "first", NOW_MS) for seq in (1, 2)])
    scene.add("lea", "labeler")
    lea, vera = scene.signed_in("lea"), scene.signed_in("vera")
    held = lea.post("/api/v1/label/next?count=2", headers={CSRF_HEADER: csrf_of(lea)}).json()["questions"]
    first, second = (f"/samples/{one['sample_id']}/picture" for one in held)
    seen = vera.get(first)
    assert (seen.status_code, seen.headers["cache-control"]) == (200, "private, max-age=600")
    erase(scene.store, Subject("sample", (held[0]["sample_id"],)), who="ada", why="x", now_ms=scene.now_ms)
    assert (vera.get(first).status_code, vera.get(second).status_code) == (404, 200)
    said = lea.post(
        "/api/v1/label/answers",
        json={"answers": [{"sample_id": held[0]["sample_id"], "said": "cannot tell", "key": held[0]["key"]}]},
        headers={CSRF_HEADER: csrf_of(lea)},
    ).json()
    assert "no such sample" in said["outcomes"][0]["error"]
    erase(scene.store, Subject("device", ("cam-1",)), who="ada", why="x", now_ms=scene.now_ms)
    assert vera.get(second).status_code == 404
    assert vera.get("/api/v1/devices/cam-1/history").json()["at"] == []
    erase(scene.store, Subject("labeler", ("lea",)), who="ada", why="x", now_ms=scene.now_ms)
    assert lea.get("/fleet").status_code == 303
    assert vera.get("/fleet").status_code == 200
