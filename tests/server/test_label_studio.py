"""Do questions reach Label Studio, and its annotations us, each once?

Against a real HTTP server that speaks what was captured from Label Studio 1.23.2: its paths, pages, filters and forms.
"""

from __future__ import annotations

import base64
import io
import json
import threading
import urllib.parse
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import numpy as np
import pytest
import sqlalchemy as sa
from device_words import FLEET, NOW_MS, image, uploads
from PIL import Image

from server.collect.ingest import Ingest
from server.errors import LabelError
from server.label import label_studio
from server.label.label_studio import PAGE, POLL_S, LabelStudio
from server.label.labeler import CANNOT_TELL, NONE_OF_THESE, Given
from server.label.labelling import Labelling
from server.label.queue import Rules
from server.label.studio_form import Interface, answer
from server.store import labels
from server.store.schema import label
from server.store.store import Store
from server.testing import check_labeler, question

TOKEN = "0123456789abcdef0123456789abcdef01234567"
JWT = "head.body.signature"
INTERFACE = {
    "cls": {
        "type": "Choices",
        "to_name": ["img"],
        "inputs": [{"type": "Image", "valueType": None, "value": "image"}],
        "labels": ["cat", "dog", "Cannot tell", "None of these"],
    }
}


class Studio(ThreadingHTTPServer):
    """One project in memory. `age` makes times grow; `expire` ends the short-lived tokens."""

    def __init__(self) -> None:
        self.tasks: dict[int, dict[str, Any]] = {}
        self.interface: dict[str, Any] = INTERFACE
        self.access, self.refreshed, self.calls = "first", 0, []
        self.fail = 0
        self._age = self._annotations = 0
        super().__init__(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server_address[1]}"

    def now(self) -> str:
        self._age += 1
        return f"2026-11-23T{self._age // 3600:02d}:{self._age // 60 % 60:02d}:{self._age % 60:02d}.000000Z"

    def add(self, tasks: list[dict[str, Any]]) -> list[int]:
        numbers = []
        for task in tasks:
            number = len(self.tasks) + 1
            self.tasks[number] = task | {"id": number, "annotations": [], "updated_at": self.now()}
            numbers.append(number)
        return numbers

    def annotate(
        self, uid: str, choice: str | None, *, by: Any = 1, cancelled: bool = False, lead_time: float = 1.7
    ) -> int:
        task = next(one for one in self.tasks.values() if one["data"]["sample_uid"] == uid)
        self._annotations += 1
        value = {"choices": [choice]}
        result = (
            [{"id": "x", "from_name": "cls", "to_name": "img", "type": "choices", "value": value}] if choice else []
        )
        at = task["updated_at"] = self.now()
        task["annotations"].append(
            {
                "id": self._annotations,
                "completed_by": by,
                "result": result,
                "was_cancelled": cancelled,
                "ground_truth": False,
                "created_at": at,
                "updated_at": at,
                "lead_time": lead_time,
            }
        )
        return self._annotations

    def delete(self, number: int) -> None:
        for task in self.tasks.values():
            left = [one for one in task["annotations"] if one["id"] != number]
            if len(left) < len(task["annotations"]):
                task["annotations"], task["updated_at"] = left, self.now()

    def change(self, number: int, choice: str) -> None:
        for task in self.tasks.values():
            for one in task["annotations"]:
                if one["id"] == number:
                    one["result"][0]["value"]["choices"] = [choice]
                    one["updated_at"] = task["updated_at"] = self.now()


class Handler(BaseHTTPRequestHandler):
    server: Studio

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        self._answer(b"")

    def do_POST(self) -> None:
        self._answer(self.rfile.read(int(self.headers["Content-Length"])))

    def _answer(self, body: bytes) -> None:
        parts = urllib.parse.urlsplit(self.path)
        query = dict(urllib.parse.parse_qsl(parts.query))
        self.server.calls.append((self.command, parts.path))
        if self.server.fail:
            self.server.fail -= 1
            return self._send(500, {"detail": "out of order"})
        if parts.path == "/api/token/refresh":
            assert json.loads(body) == {"refresh": JWT}
            self.server.refreshed += 1
            return self._send(200, {"access": self.server.access})
        if self.headers["Authorization"] not in (f"Token {TOKEN}", f"Bearer {self.server.access}"):
            return self._send(401, {"detail": "Invalid token."})
        if parts.path == "/api/projects/3":
            return self._send(200, {"id": 3, "parsed_label_config": self.server.interface})
        if parts.path == "/api/projects/3/import":
            numbers = self.server.add(json.loads(body))
            return self._send(201, {"task_count": len(numbers), "annotation_count": 0, "task_ids": numbers})
        if parts.path == "/api/tasks" and query["project"] == "3" and query["fields"] == "all":
            return self._tasks(query)
        return self._send(404, {"detail": "Not found."})

    def _tasks(self, query: dict[str, str]) -> None:
        asked = json.loads(query["query"])
        (item,) = asked["filters"]["items"]
        assert (item["filter"], item["operator"], item["type"]) == ("filter:tasks:updated_at", "greater", "Datetime")
        assert asked["ordering"] == ["tasks:updated_at"]
        found = [task for task in self.server.tasks.values() if task["updated_at"] > item["value"]]
        found.sort(key=lambda task: task["updated_at"])
        start = (int(query["page"]) - 1) * int(query["page_size"])
        page = found[start : start + int(query["page_size"])]
        if start and not page:
            return self._send(404, {"detail": "Invalid page."})
        return self._send(200, {"tasks": page, "total": len(found), "total_annotations": 0, "total_predictions": 0})

    def _send(self, status: int, body: object) -> None:
        data = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


@pytest.fixture
def studio():
    server = Studio()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def store(tmp_path):
    store = Store.open(tmp_path / "store")
    ingest = Ingest(store, fleet=FLEET, offline_after_s=90.0)
    ingest.take([message for seq in range(5) for message in uploads("cam-1", seq)])
    with store.database.write() as connection:
        labels.ensure_names(connection, ["cat", "owl", "rat", "dog"])  # the device's guess is class 3
    yield store
    store.close()


class Clock:
    s = 100.0

    def __call__(self) -> float:
        return self.s


def labelling(store, studio, clock, token: str = TOKEN) -> Labelling:
    client = LabelStudio(studio.url, token, 3, now_s=clock)
    return Labelling(store, client, name=label_studio.KIND, batch=3, now_ms=lambda: NOW_MS, rules=Rules())


def run(asked: Labelling) -> None:
    while asked.step():
        pass


def later(clock) -> None:
    clock.s += POLL_S + 1


def given(store) -> list[tuple[str, int, str, float]]:
    with store.database.read() as connection:
        rows = connection.execute(sa.select(label).order_by(label.c.id))
        return [(row.sample_id, row.class_index, row.labeler, row.seconds) for row in rows]


def given_by(client: LabelStudio) -> list[str]:
    return [one.id for one in client.answered() if isinstance(one, Given)]


def name(seq: int) -> str:
    return f"cam-1.main.1.{seq}"


def test_questions_become_tasks_with_their_picture_and_the_guess(store, studio):
    run(labelling(store, studio, Clock()))
    assert {task["data"]["sample_uid"] for task in studio.tasks.values()} == {name(seq) for seq in range(5)}
    task = next(task for task in studio.tasks.values() if task["data"]["sample_uid"] == name(0))
    assert task["data"]["device_id"] == "cam-1"
    (prediction,) = task["predictions"]
    assert (prediction["score"], prediction["result"][0]["value"]) == (0.5, {"choices": ["dog"]})
    assert (prediction["result"][0]["from_name"], prediction["result"][0]["to_name"]) == ("cls", "img")
    kind, _, data = task["data"]["image"].partition(",")
    assert kind == "data:image/png;base64"
    pixels = np.asarray(Image.open(io.BytesIO(base64.b64decode(data))))
    np.testing.assert_array_equal(pixels[:: len(pixels) // 6, :: len(pixels) // 6], image(0))


def test_annotations_come_back_once_with_who_and_how_long(store, studio):
    clock = Clock()
    asked = labelling(store, studio, clock)
    run(asked)
    studio.annotate(name(0), "cat", by=7, lead_time=2.5)
    studio.annotate(name(1), "dog", by={"id": 8, "email": "ann@example.org"})
    studio.annotate(name(2), None)
    studio.annotate(name(3), "None of these")
    studio.annotate(name(4), "cat", cancelled=True)
    assert asked.collect() == 0  # not so soon
    later(clock)
    asked.collect()
    for _ in range(2):
        later(clock)
        asked.collect()
    assert given(store) == [
        (name(0), 0, "label_studio:7", 2.5),
        (name(1), 3, "label_studio:ann@example.org", 1.7),
        (name(2), labels.CANNOT_TELL, "label_studio:1", 1.7),
        (name(3), labels.NONE_OF_THESE, "label_studio:1", 1.7),
    ]
    with store.database.read() as connection:
        assert labels.counts(connection).waiting == 1


def test_a_changed_annotation_is_a_new_answer_of_the_same_labeler(store, studio):
    clock = Clock()
    asked = labelling(store, studio, clock)
    run(asked)
    number = studio.annotate(name(0), "cat")
    later(clock)
    asked.collect()
    studio.change(number, "dog")
    later(clock)
    asked.collect()
    with store.database.read() as connection:
        assert [(one, k) for one, k, _ in connection.execute(labels.in_force())] == [(name(0), 3)]
    assert len(given(store)) == 2


def test_what_is_deleted_there_counts_no_more_and_waits_again(store, studio):
    clock = Clock()
    asked = labelling(store, studio, clock)
    run(asked)
    number, other = studio.annotate(name(0), "cat", by=7), studio.annotate(name(0), "dog", by=8)
    studio.annotate(name(1), "dog")
    later(clock)
    asked.collect()
    studio.delete(other)
    later(clock)
    asked.collect()
    with store.database.read() as connection:
        assert {one: k for one, k, _ in connection.execute(labels.in_force())} == {name(0): 0, name(1): 3}
    studio.delete(number)
    run(labelling(store, studio, clock))  # made anew: what was deleted while it was away is seen as well
    with store.database.read() as connection:
        assert {one: k for one, k, _ in connection.execute(labels.in_force())} == {name(1): 3}
        assert labels.counts(connection).waiting == 4
    assert len(studio.tasks) == 5


def test_boxes_go_there_and_come_back(store, studio):
    image_ = [{"type": "Image", "valueType": None, "value": "image"}]
    studio.interface = {
        "box": {"type": "RectangleLabels", "to_name": ["img"], "inputs": image_, "labels": ["cat", "dog"]}
    }
    clock = Clock()
    client = LabelStudio(studio.url, TOKEN, 3, now_s=clock, task="detection")
    rules = Rules(task="detection")
    asked = Labelling(store, client, name=label_studio.KIND, batch=3, now_ms=lambda: NOW_MS, rules=rules)
    run(asked)
    studio.annotate(name(0), None)
    task = next(task for task in studio.tasks.values() if task["data"]["sample_uid"] == name(0))
    value = {"x": 10.0, "y": 20.0, "width": 30.0, "height": 25.0, "rotation": 0, "rectanglelabels": ["cat"]}
    drawn = {"id": "b", "from_name": "box", "to_name": "img", "type": "rectanglelabels", "value": value}
    task["annotations"][0]["result"] = [drawn]
    later(clock)
    assert asked.collect() == 1
    with store.database.read() as connection:
        assert labels.standing(connection, name(0)).truth == {"boxes": [[0, 0.1, 0.2, 0.4, 0.45, 1.0]]}


def test_a_hint_has_it_look_at_once(store, studio):
    asked = labelling(store, studio, Clock())
    run(asked)
    studio.annotate(name(0), "cat")
    assert asked.collect() == 0
    asked.hint()
    assert asked.collect() == 1


def test_after_a_restart_nothing_is_asked_or_counted_twice(store, studio):
    clock = Clock()
    run(labelling(store, studio, clock))
    studio.annotate(name(0), "cat")
    with store.database.write() as connection:  # as if it had been killed before it kept what it asked
        connection.exec_driver_sql("DELETE FROM lease")
        connection.exec_driver_sql("DELETE FROM question")
    run(labelling(store, studio, clock))
    run(labelling(store, studio, clock))
    assert len(studio.tasks) == 5
    assert len(given(store)) == 1


def test_what_could_not_be_kept_is_given_again(store, studio):
    clock = Clock()
    client = LabelStudio(studio.url, TOKEN, 3, now_s=clock)
    client.label([question(name(0), image(0)), question(name(1), image(1))])
    for seq in (0, 1):
        studio.annotate(name(seq), "cat")
    answers = client.answered()
    first = next(answers)
    answers.close()  # the disk was full
    assert given_by(client) == [first.id, name(1)]
    assert list(client.answered()) == []
    client.hint()  # a webhook
    assert set(given_by(client)) <= {name(1)}


def test_more_tasks_than_a_page_holds(studio):
    client = LabelStudio(studio.url, TOKEN, 3, now_s=Clock())
    names = [f"a.b.1.{i}" for i in range(2 * PAGE + 5)]
    client.label([question(one, np.zeros((2, 2), np.uint8)) for one in names])
    for one in names:
        studio.annotate(one, "cat")
    assert given_by(client) == names


def test_a_personal_token_is_exchanged_and_exchanged_again(store, studio):
    clock = Clock()
    asked = labelling(store, studio, clock, token=JWT)
    run(asked)
    studio.access = "second"
    studio.annotate(name(0), "cat")
    later(clock)
    assert asked.collect() == 1
    assert studio.refreshed == 2


def test_it_keeps_the_contract_of_a_labeler(studio):
    questions = [question(f"a.b.1.{i}", np.zeros((4, 4), np.uint8)) for i in range(5)]
    check_labeler(lambda: LabelStudio(studio.url, TOKEN, 3, now_s=Clock()), questions)
    assert len(studio.tasks) == 5
    studio.annotate("a.b.1.2", "cat")
    check_labeler(lambda: LabelStudio(studio.url, TOKEN, 3, now_s=Clock()), questions)


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda studio: setattr(studio, "fail", 9), "500 .*: .*out of order"),
        (lambda studio: setattr(studio, "interface", {}), "expected a <Choices> over an <Image>"),
        (lambda studio: setattr(studio, "access", TOKEN), None),
    ],
)
def test_what_is_wrong_is_said(studio, spoil, said):
    spoil(studio)
    client = LabelStudio(studio.url, TOKEN, 3, now_s=Clock())
    if said is None:
        client = LabelStudio(studio.url, "wrong", 3, now_s=Clock())
        said = "401 .*Invalid token"
    with pytest.raises(LabelError, match=said):
        client.label([question("a.b.1.1", image(0))])


def test_nobody_at_home_loses_nothing(store):
    client = LabelStudio("http://127.0.0.1:9", TOKEN, 3)
    asked = Labelling(store, client, name="label_studio", batch=3, now_ms=lambda: NOW_MS)
    with pytest.raises(LabelError, match=r"is it running, and \[label_studio\] url right"):
        asked.step()
    with store.database.read() as connection:
        assert labels.counts(connection).waiting == 5
    with pytest.raises(LabelError, match="expected http://host:port"):
        LabelStudio("ftp://x", TOKEN, 3)


FORM = Interface("cls", "img", "image", ("cat", "dog"))


def test_words_that_are_no_class():
    assert answer([{"value": {"choices": ["Cannot tell"]}}], FORM).said == CANNOT_TELL
    assert answer([{"value": {"choices": ["none of these"]}}], FORM).said == NONE_OF_THESE
