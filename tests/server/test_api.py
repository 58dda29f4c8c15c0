"""Does the API do what its description says, whatever it is asked?

schemathesis asks the real application, over a real store, what the description allows and what it does not: nothing may
fail inside, answer in another form than is described, or take what it says it refuses. `make fuzz` asks for longer.
"""

from __future__ import annotations

import pytest
import schemathesis
from api_scene import SAMPLES, Scene
from fastapi.testclient import TestClient
from hypothesis import HealthCheck, given, settings
from schemathesis import GenerationMode

from server.store import labels, trail
from server.store.consensus import GOLD
from server.store.labels import Label
from server.store.users import ROLES
from server.web.app import API
from server.web.openapi import TAGS


@pytest.fixture(scope="module")
def scene(tmp_path_factory):
    made = Scene(tmp_path_factory.mktemp("api"))
    yield made
    made.close()


@pytest.fixture(scope="module")
def untouched(tmp_path_factory):
    made = Scene(tmp_path_factory.mktemp("untouched"))
    yield made
    made.close()


def described(scene: Scene, mode: GenerationMode) -> schemathesis.BaseSchema:
    schema = schemathesis.openapi.from_asgi("/api/openapi.json", scene.app)
    if mode is GenerationMode.POSITIVE:

        @schema.hook
        def map_path_parameters(context, path_parameters):
            """Half of them of something that is there: what is drawn from the air is never found."""
            for key, value in (path_parameters or {}).items():
                if len(str(value)) % 2 and (known := scene.known(key, context.operation.path)) is not None:
                    path_parameters[key] = known
            return path_parameters

    return schema


@pytest.mark.hypothesis
@pytest.mark.parametrize("mode", list(GenerationMode))
@pytest.mark.parametrize("tag", TAGS)
def test_what_is_described_is_what_is_answered(scene, tag, mode):
    examples = settings().max_examples // 25  # of each operation: 4, and in `make fuzz` 40
    for found in described(scene, mode).include(tag=tag).get_all_operations():
        operation = found.ok()

        @settings(max_examples=examples, deadline=None, suppress_health_check=list(HealthCheck))
        @given(case=operation.as_strategy(generation_mode=mode))
        def ask(case):
            case.call_and_validate(headers={"Authorization": "Bearer secret of admin"})

        ask()
    assert scene.client("admin").get("me").status_code == 200  # else nothing was asked in earnest


def operations(scene: Scene) -> list[tuple[str, str, dict]]:
    found = scene.app.openapi()["paths"]
    return [(path.removeprefix(API), method, one) for path, way in found.items() for method, one in way.items()]


def test_what_takes_a_role_is_refused_to_the_one_below_before_anything_else_is_looked_at(untouched):
    scene = untouched
    for path, method, one in operations(scene):
        role = one["x-role"]
        filled = path.replace("{word}", "halt").replace("{number}", "1").replace("{name}", "cam-1")
        if role == ROLES[0]:
            answer = scene.client().request(method, filled)
            assert (answer.status_code, answer.headers["www-authenticate"]) == (401, "Bearer"), (method, path)
        else:
            answer = scene.client(ROLES[ROLES.index(role) - 1]).request(method, filled, json={})
            assert answer.status_code == 403, (method, path, answer.text)
            assert f"takes the role {role}" in answer.json()["detail"]
        assert answer.headers["content-type"] == "application/problem+json"


LABELLING = {"/label/next", "/label/answers", "/label/skip", "/label/undo", "/label/hint"}  # no decisions


def test_whatever_changes_something_says_why(scene):
    schemas = scene.app.openapi()["components"]["schemas"]
    for path, method, one in operations(scene):
        if method != "get" and path not in LABELLING:
            name = one["requestBody"]["content"]["application/json"]["schema"]["$ref"].rpartition("/")[2]
            assert "why" in schemas[name]["required"], (method, path)
            assert schemas[name]["additionalProperties"] is False, (method, path)


AGAIN = {"ids": ["cam-1.main.1.6"], "purpose": "second look"}
ORDERS = (  # role, method, path, what is ordered, what the trail says
    ("operator", "PATCH", "devices/cam-2", {"site": "barn", "ring": "canary"}, ("place", "device cam-2")),
    ("operator", "POST", "orders/place", {"devices": "cam-1,cam-2", "channel": "beta"}, ("place", "cam-1,cam-2")),
    ("admin", "POST", "devices/cam-2/revoke", {}, ("revoke", "device cam-2")),
    ("operator", "POST", "classes", {"name": "hen"}, ("add class", "class hen")),
    ("operator", "POST", "samples/cam-1.main.1.5/ask", {"labelers": 3}, ("ask again", "sample cam-1.main.1.5")),
    ("operator", "PUT", "samples/cam-1.main.1.5/gold", {"said": "owl"}, ("vouch", "sample cam-1.main.1.5")),
    ("operator", "POST", "samples/cam-1.main.1.5/gold/end", {}, ("doubt", "sample cam-1.main.1.5")),
    ("operator", "POST", "samples/ask", AGAIN, ("second look", "1 labels")),
    ("operator", "POST", "rollouts/1/pause", {}, ("pause", "rollout 1")),
    ("admin", "POST", "users", {"name": "eve", "password": "long enough to be one"}, ("user add", "user eve")),
    ("admin", "PATCH", "users/eve", {"role": "operator"}, ("user change", "user eve")),
    ("admin", "POST", "users/eve/tokens", {"name": "export", "days": 1.0}, ("token add", "token 5")),
    ("admin", "POST", "tokens/5/revoke", {}, ("token revoke", "token 5")),
    ("admin", "POST", "runs/1/override", {}, ("override", "run 1")),
)  # fmt: skip


def test_every_order_is_done_and_kept_with_who_and_why(tmp_path):
    scene = Scene(tmp_path)
    for role, method, path, wanted, (what, subject) in ORDERS:
        answer = scene.client(role).request(method, path, json=wanted | {"why": f"because of {path}"})
        assert answer.status_code in (200, 201), (path, answer.text)
        with scene.store.database.read() as connection:
            last = trail.entries(connection, limit=1)[0]
        assert (last.what, last.subject, last.who, last.why) == (what, subject, role, f"because of {path}")
    client = scene.client("admin")
    device = client.get("devices/cam-2").json()
    assert (device["site"], device["ring"], device["revoked"]) == ("barn", "canary", True)
    assert client.get("users/eve/tokens").json()["tokens"][0]["revoked_at_ms"] == scene.now_ms
    said = client.get("samples/cam-1.main.1.5").json()
    assert (said["label"], [one["said"] for one in said["answers"]]) == ("owl", ["dog", "owl"])
    scene.close()


def test_who_is_measured_by_gold_is_not_told_which_it_is(tmp_path):
    scene = Scene(tmp_path)
    with scene.store.database.write() as connection:
        labels.add(connection, [Label("cam-1.main.1.0", 0, "labeler", scene.now_ms, purpose=GOLD)])
    told = {}
    for role in ROLES:
        client = scene.client(role)
        done = {one["what"] for one in client.get("trail").json()["entries"]}
        answers = client.get("samples/cam-1.main.1.0").json()["answers"]
        pages = TestClient(scene.app, headers=client.headers)
        page = pages.get("/samples/cam-1.main.1.0").text
        csv, governance = pages.get("/governance/trail.csv").text, pages.get("/governance").text
        seen = ("vouch" in done, GOLD in {one["purpose"] for one in answers}, GOLD in page, "vouch" in page)
        told[role] = (*seen, "vouch" in csv, "vouch" in governance)
    assert told == {
        "viewer": (False,) * 6, "labeler": (False,) * 6, "operator": (True,) * 6, "admin": (True,) * 6,
    }  # fmt: skip
    scene.close()


def test_a_token_made_by_the_api_is_good_for_what_its_user_may(untouched):
    scene = untouched
    admin = scene.client("admin")
    made = admin.post("users/viewer/tokens", json={"name": "x", "why": "for a test"}).json()
    client = scene.client(token=made["secret"])
    assert client.get("me").json() == {"name": "viewer", "role": "viewer", "way": "token"}
    assert client.get("users").status_code == 403


def test_an_admin_does_not_shut_himself_out(untouched):
    scene = untouched
    for change in ({"disabled": True}, {"role": "viewer"}):
        answer = scene.client("admin").patch("users/admin", json=change | {"why": "a slip"})
        assert answer.status_code == 409
    assert scene.client("admin").get("me").json()["role"] == "admin"


@pytest.mark.parametrize(
    ("path", "wanted", "key", "id_of", "whole"),
    [
        ("samples", {}, "samples", "id", 2 * SAMPLES),
        ("samples", {"device": "cam-1", "labelled": "yes"}, "samples", "id", 8),
        ("samples", {"device": "cam-1", "labelled": "no"}, "samples", "id", SAMPLES - 8),
        ("samples", {"reason": "random"}, "samples", "id", 0),
        ("devices/cam-1/events", {}, "events", "id", 3),
        ("versions", {}, "versions", "number", 1),
        ("rollouts", {}, "rollouts", "rollout", 1),
        ("trail", {"subject": "user viewer"}, "entries", "id", 1),
    ],
)
def test_pages_follow_each_other_and_miss_nothing(untouched, path, wanted, key, id_of, whole):
    client, seen, after = untouched.client("viewer"), [], {}
    while after is not None:
        page = client.get(path, params={"limit": 2} | wanted | after).json()
        assert len(page[key]) <= 2
        seen += [one[id_of] for one in page[key]]
        after = {"after": page["next"]} if page["next"] else None
    assert len(seen) == len(set(seen)) == whole


def test_what_is_not_there_is_a_problem_and_what_is_not_allowed_says_what_is(untouched):
    scene = untouched
    missing = scene.client("viewer").get("nothing")
    assert missing.json() == {"type": "about:blank", "title": "Not Found", "status": 404, "detail": "Not Found"}
    wrong = scene.client("viewer").delete("devices")
    assert (wrong.status_code, wrong.headers["allow"]) == (405, "GET")
    assert wrong.headers["content-type"] == "application/problem+json"
    slip = scene.client("operator").patch("devices/cam-1", json={"sight": "barn", "why": "x"})
    assert (slip.status_code, slip.json()["detail"]) == (422, "sight: Extra inputs are not permitted")
    typo = scene.client("viewer").get("samples?labeled=true")
    assert typo.status_code == 422
    assert typo.json()["detail"].startswith("labeled: there is no such parameter (did you mean 'labelled'?); known: ")
    assert TestClient(scene.app).get("/nothing").headers["content-type"].startswith("text/html")


def test_the_key_of_a_question_can_be_sent_back_however_long_names_are(untouched):
    sample_id = "c" * 190
    given = {"sample_id": sample_id, "said": "cat", "key": f"{sample_id}:{'ann' * 33}:{untouched.now_ms}"}
    answer = untouched.client("labeler").post("label/answers", json={"answers": [given]})
    assert "no such sample" in answer.json()["outcomes"][0]["error"]
