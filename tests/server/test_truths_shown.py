"""Is a label that is more than a class shown, counted and forgotten wherever a class is, and does nothing trip?"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
import schemathesis
from api_scene import TRUTHS, Scene
from device_words import FLEET, message, sample
from fastapi.testclient import TestClient
from hypothesis import HealthCheck, given, settings

from edge_agent.contract.task import Box, Said, Task
from edge_agent.contract.wire import encode_sample, sample_frames
from server.__main__ import main
from server.collect.ingest import Ingest
from server.label.suspects import find
from server.store import labels, places, samples
from server.store.labels import Label
from server.store.places import Place
from server.store.store import Store
from server.store.wording import guess_of, taken_for
from server.web.api import sample_map
from server.web.app import API

TASKS: tuple[Task, ...] = ("detection", "multilabel", "regression")


@pytest.fixture(scope="module", params=TASKS)
def scene(request: Any, tmp_path_factory: Any) -> Iterator[Scene]:
    made = Scene(tmp_path_factory.mktemp(request.param) / "data", request.param)
    yield made
    made.close()


PAGES = (
    "/fleet", "/label", "/label/rounds", "/data", "/data/snapshots", "/data/snapshots/{snapshot_id}", "/governance",
    "/samples/{sample_id}", "/samples/{sample_id}/near",
    "/samples/{sample_id}/picture", "/devices/{name}", "/models", "/rollouts", "/metrics",
)  # fmt: skip


def addresses(scene: Scene) -> list[str]:
    """Every answer of the API and every page that can be looked at, of what is there."""
    asked = [path for path, ways in scene.app.openapi()["paths"].items() if "get" in ways]
    known = {key: scene.known(key, "") for key in ("name", "sample_id", "snapshot_id", "other_id")}
    wanted = [path for path in (*asked, *PAGES) if not {"{number}", "{word}"} & set(re.findall("{.*?}", path))]
    return [path.format(**known) for path in wanted if "live" not in path]


def test_every_page_and_every_answer_of_the_api_bears_it(scene: Scene) -> None:
    client = TestClient(scene.app, headers={"Authorization": "Bearer secret of admin"}, follow_redirects=False)
    paths = addresses(scene)
    assert len(paths) > 40
    for path in paths:
        answer = client.get(path)
        right = answer.status_code == 200 if not path.startswith(API) else answer.status_code < 500
        assert right, f"{path}: {answer.status_code}: {answer.text[:500]}"
        assert "more than a class" not in answer.text, path


def test_it_is_said_in_words(scene: Scene) -> None:
    words = {"detection": "cat, owl", "multilabel": "cat, owl", "regression": "cat 2"}[scene.task]
    client = scene.client("viewer")
    rows = {row["id"]: row for row in client.get("samples", params={"labelled": "yes"}).json()["samples"]}
    assert rows["cam-1.main.1.2"]["label"] == words
    assert rows["cam-1.main.1.2"]["truth"] is not None
    kind = {"detection": "boxes", "multilabel": "applies", "regression": "values"}[scene.task]
    assert rows["cam-1.main.1.2"]["truth"][kind][0][0] == "cat"
    named = client.get("samples", params={"label": "owl"}).json()["samples"]
    even = ["cam-1.main.1.2", "cam-1.main.1.4", "cam-1.main.1.6"]
    assert sorted(row["id"] for row in named) == (
        even if scene.task != "regression" else ["cam-1.main.1.1", "cam-1.main.1.3", "cam-1.main.1.5", "cam-1.main.1.7"]
    )
    classes = {one["name"]: one["labels"] for one in client.get("classes").json()["classes"]}
    assert classes["cat"] == (8 if scene.task == "regression" else 4)
    one = client.get(f"snapshots/{scene.snapshot}").json()
    assert one["by_class"]["cat"] == (8 if scene.task == "regression" else 4)
    assert one["whole"] is True


def test_the_guess_that_a_labeler_saw_is_all_that_the_model_said(scene: Scene) -> None:
    words = {"detection": "cat, fox", "multilabel": "cat", "regression": "cat 2.5"}[scene.task]
    seen: dict[str, Any] = {"guess": 3, "guess_by": "version 1", "shown": True}
    with scene.store.database.write() as connection:
        labels.add(connection, [Label("cam-2.main.1.1", labels.CANNOT_TELL, "ann", scene.now_ms, **seen)])
    answer = scene.client("viewer").get("samples/cam-2.main.1.1").json()["answers"][0]
    assert (answer["guess"], answer["shown"]) == (words, True)
    page = TestClient(scene.app, headers={"Authorization": "Bearer secret of viewer"}).get("/samples/cam-2.main.1.1")
    assert f"{words}, by version 1" in page.text


def test_the_map_colours_by_what_is_named_most(scene: Scene) -> None:
    with scene.store.database.write() as connection:
        places.put(connection, [places.Place(f"cam-1.main.1.{seq}", 1, 0.5, 0.5) for seq in (2, 3)])
    found = scene.client("viewer").get("samples/map").json()
    assert found["predicted"] == [0, 0]  # not what the device gave as one class beside it, which is 3
    assert found["labelled"] == [0, 0 if scene.task == "regression" else labels.NONE_OF_THESE]


@pytest.mark.hypothesis
def test_the_description_holds_for_answers_that_are_more(tmp_path: Path) -> None:
    made = Scene(tmp_path, "detection")
    schema = schemathesis.openapi.from_asgi("/api/openapi.json", made.app)
    for operation in ("/label/answers", "/samples/{sample_id}/gold"):
        found = schema.include(path=f"{API}{operation}").get_all_operations()
        one = next(iter(found)).ok()

        @settings(max_examples=4, deadline=None, suppress_health_check=list(HealthCheck))
        @given(case=one.as_strategy())
        def ask(case: Any) -> None:
            case.call_and_validate(headers={"Authorization": "Bearer secret of admin"})

        ask()
    made.close()


def test_every_command_bears_it_and_what_is_erased_is_gone(tmp_path: Path, capfd: Any) -> None:
    made = Scene(tmp_path / "data", "detection")
    snapshot = made.snapshot[:8]
    with made.store.database.write() as connection:
        again = labels.Label("cam-1.main.1.2", labels.VALUED, "bob", made.now_ms, truth=TRUTHS["detection"][1])
        labels.add(connection, [again])
    made.close()
    config = tmp_path / "server.toml"
    config.write_text(f'[server]\nfleet = "f"\ndata_dir = "{tmp_path / "data"}"\ntask = "detection"\n')

    def run(words: str, *more: str) -> str:
        assert main([*words.split(), *more, str(config)]) == 0, words
        return str(capfd.readouterr().out)

    for words in (
        "status", "accuracy", "drift", "labels", "label classes", "label quality", "label next --by cyd",
        "label suspects", "snapshot list", f"snapshot bias {snapshot}", f"snapshot diff {snapshot} {snapshot}",
    ):  # fmt: skip
        run(words)
    assert {"cat, owl", "cat, fox"} <= {said for row in json.loads(run("samples --json")) for said in row.values()}
    assert "ann: cat, owl" in run("lineage cam-1.main.1.4")
    assert json.loads(run("label gold list --json"))[0]["class"] == "cat"
    assert "cat 4, nothing 4, owl 3" in run(f"snapshot show {snapshot}")
    answer = json.dumps({"boxes": [["dog", 0, 0, 0.5, 0.5]]})
    assert "dog, by 1" in run("label answer cam-1.main.1.9", "", "--truth", answer, "--by", "cyd")
    run("label gold add cam-1.main.1.9", "", "--truth", '{"boxes": []}', "--by", "boss")
    assert "nothing" in run("samples --labelled --limit 1")
    assert main(["label", "answer", "cam-1.main.1.9", "", "--truth", "{", str(config)]) == 1
    assert "expected a JSON object" in capfd.readouterr().err
    run("govern export", str(tmp_path / "evidence"))
    run("erase --sample cam-1.main.1.2 --why asked")
    run("erase --labeler ann --why asked")
    found = json.loads(run(f"snapshot show {snapshot} --json"))
    assert "ann" not in found["by_labeler"]


def test_a_label_little_like_what_a_sure_model_said_is_suspected(tmp_path: Path) -> None:
    from device_words import FLEET, uploads

    from edge_agent.contract.task import Box, Said
    from server.collect.ingest import Ingest

    made = Scene(tmp_path, "detection")
    said = Said(boxes=(Box(0, 0.1, 0.1, 0.5, 0.5, 0.95),))
    sent = [one for seq in range(2) for one in uploads("cam-9", seq, said=said, confidence=0.9)]
    Ingest(made.store, fleet=FLEET, offline_after_s=90.0).take(sent)
    with made.store.database.write() as connection:
        same, other = [0, 0.12, 0.1, 0.5, 0.5, 1.0], [1, 0.6, 0.6, 0.9, 0.9, 1.0]
        labels.add(
            connection,
            [
                Label(f"cam-9.main.1.{seq}", labels.VALUED, "ann", made.now_ms, truth={"boxes": [box]})
                for seq, box in enumerate((same, other))
            ],
        )
    found = find(made.store)
    assert [one.sample_id for one in found.suspects] == ["cam-9.main.1.1"]
    assert (found.suspects[0].labelled, found.suspects[0].suggested) == ("dog", "cat")
    made.close()


def test_what_a_detector_finds_nothing_in_is_no_class(tmp_path: Path) -> None:
    """Its label is as large as its number of classes, and the schema may have one of that index."""
    store = Store.open(tmp_path)
    said = {0: Said(boxes=(Box(0, 0.1, 0.1, 0.5, 0.5, 0.9),)), 2: Said()}
    for label, answer in said.items():
        header, body = encode_sample(sample("cam-1", label))
        told = msgspec.structs.replace(header, label=label, said=answer)
        sent = [message("cam-1", "sample", frame) for frame in sample_frames(told, body)]
        Ingest(store, fleet=FLEET, offline_after_s=90.0).take(sent)
    ids = [f"cam-1.main.1.{label}" for label in said]
    with store.database.write() as connection:
        places.put(connection, [Place(one, 1, 0.5, 0.5) for one in ids])
        found, empty = samples.rows(connection, ids)
        assert [sample_map.taken_for(one) for one in places.every(connection)] == [0, -1]
    names = ("cat", "dog", "fox")
    assert (taken_for(found, names), guess_of(found, names)) == ("cat", "cat")
    assert (taken_for(empty, names), guess_of(empty, names)) == ("nothing", "")
    store.close()
