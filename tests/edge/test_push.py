"""Does another program get a prediction for each sample that it sends, and a reason where it gets none?"""

from __future__ import annotations

import http.client
import io
import json
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from edge_agent.contract.errors import ConfigError, SourceError
from edge_agent.contract.types import Prediction, Reading
from edge_agent.source import Answering, Counts, Fit, Start
from edge_agent.source import options as told
from edge_agent.source.kinds import open_source
from edge_agent.source.push import Push
from edge_agent.testing import check_source

FIT = Fit((8, 8), "uint8")
WAIT_S = 10.0


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def make(counts: Counts | None = None, *, fit: Fit = FIT, keep: str = "auto", room: int = 0, **changes: object) -> Push:
    push = told.Push(**{"listen": f"127.0.0.1:{free_port()}", **changes})
    return open_source(told.Source(kind="push", push=push, keep=keep, room=room), fit=fit, counts=counts)


class Answers(threading.Thread):
    """The loop: says of every sample what its first value is. `pause` keeps it from going on."""

    def __init__(self, push: Push) -> None:
        super().__init__(daemon=True)
        self.push, self.go, self.stopping = push, threading.Event(), threading.Event()
        self.seen: list[Reading] = []
        self.go.set()
        self.readings = push.readings(Start(40))
        next(self.readings)  # listens
        self.start()

    def run(self) -> None:
        while not self.stopping.is_set():
            self.go.wait(0.01)
            if self.go.is_set() and (reading := next(self.readings)) is not None:
                self.seen.append(reading)
                said = Prediction(int(reading.data.ravel()[0]), 0.5)
                self.push.answer(reading, said, 7, f"class {said.label}")
        self.readings.close()

    def close(self) -> None:
        self.stopping.set()
        self.join(WAIT_S)


class UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: str) -> None:
        super().__init__("localhost", timeout=WAIT_S)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(WAIT_S)
        self.sock.connect(self._path)


def connect(push: Push) -> http.client.HTTPConnection:
    at = push._at
    return UnixConnection(at) if isinstance(at, str) else http.client.HTTPConnection(*at, timeout=WAIT_S)


def until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + WAIT_S
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.002)


def post(link: http.client.HTTPConnection, body: bytes, kind: str = "", path: str = "/v1/samples", **headers: str):
    link.request("POST", path, body, {**({"Content-Type": kind} if kind else {}), **headers})
    answer = link.getresponse()
    return answer.status, json.loads(answer.read())


@pytest.fixture
def running() -> Iterator[Answers]:
    answers = Answers(make())
    yield answers
    answers.close()


def npy(array: np.ndarray) -> bytes:
    out = io.BytesIO()
    np.save(out, array)
    return out.getvalue()


X = np.full((8, 8), 3, np.uint8)


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (X.tobytes(), ""),
        (X.tobytes(), "application/octet-stream"),
        (npy(X), "application/x-npy"),
        (json.dumps(X.tolist()).encode(), "application/json; charset=utf-8"),
    ],
)
def test_a_sample_gets_its_prediction(running: Answers, body: bytes, kind: str) -> None:
    status, said = post(connect(running.push), body, kind, **{"X-Ref": "line 4"})
    assert (status, said) == (200, {"seq": 40, "label": 3, "name": "class 3", "confidence": 0.5, "version": 7})
    assert running.seen[0].ref == "line 4"
    assert (running.seen[0].data == X).all()
    assert running.seen[0].data.dtype == np.uint8


@pytest.mark.parametrize("kind", ["jpeg", "png", "webp", "bmp"])
def test_an_image_is_brought_to_the_models_size(running: Answers, kind: str) -> None:
    image = pytest.importorskip("PIL.Image")
    out = io.BytesIO()
    image.fromarray(np.full((40, 30, 3), 200, np.uint8)).save(out, kind)
    assert post(connect(running.push), out.getvalue(), f"image/{kind}")[0] == 200
    assert abs(running.seen[0].data.astype(int) - 200).max() <= 3


def test_one_connection_carries_many_samples_and_says_what_the_model_takes(running: Answers) -> None:
    link = connect(running.push)
    for number in range(20):
        status, said = post(link, np.full((8, 8), number, np.uint8).tobytes())
        assert (status, said["seq"], said["label"]) == (200, 40 + number, number)
    link.request("GET", "/v1/input")
    assert json.loads(link.getresponse().read()) == {"shape": [8, 8], "dtype": "uint8"}


@pytest.mark.parametrize(
    ("body", "kind", "status", "why"),
    [
        (b"short", "", 400, r"5 bytes, the model takes 64: (8, 8) uint8"),
        (npy(np.zeros((4, 4), np.uint8)), "application/x-npy", 400, "an array (4, 4) uint8, the model takes (8, 8)"),
        (npy(X.astype(np.float32)), "application/x-npy", 400, "an array (8, 8) float32, the model takes"),
        (npy(np.array([{}], object)), "application/x-npy", 400, "not an .npy"),
        (b"\x93NUMPY", "application/x-npy", 400, "not an .npy"),
        (b"[[1, 2]]", "application/json", 400, "an array (1, 2) float64, the model takes (8, 8)"),
        (json.dumps([[0.5] * 8] * 8).encode(), "application/json", 400, "the model takes (8, 8) uint8"),
        (json.dumps([[256] * 8] * 8).encode(), "application/json", 400, "the model takes (8, 8) uint8"),
        (b"{", "application/json", 400, "not a nested list"),
        (b"no jpeg", "image/jpeg", 400, "cannot identify image"),
        (b"x", "text/plain", 415, "text/plain: expected"),
    ],
)
def test_what_is_no_sample_is_refused_with_its_reason_and_counted(
    running: Answers, body: bytes, kind: str, status: int, why: str
) -> None:
    link = connect(running.push)
    found = post(link, body, kind)
    assert found[0] == status
    assert why in found[1]["error"]
    assert running.push._counts.unreadable == 1
    assert post(link, X.tobytes())[0] == 200, "the connection goes on"


def test_other_paths_and_larger_bodies_are_refused(running: Answers) -> None:
    assert post(connect(running.push), X.tobytes(), path="/v1/other")[0] == 404
    link = connect(running.push)
    link.putrequest("POST", "/v1/samples")
    link.putheader("Content-Length", "99999999999")
    link.endheaders()
    answer = link.getresponse()
    assert (answer.status, answer.getheader("Connection")) == (413, "close")
    link = connect(running.push)
    link.putrequest("POST", "/v1/samples")
    link.endheaders()
    assert link.getresponse().status == 411


def test_a_socket_of_the_file_system_is_its_owners_and_goes_with_the_agent(tmp_path: Path) -> None:
    path = tmp_path / "push.sock"
    for _ in range(2):  # one that is left behind is no obstacle
        answers = Answers(make(listen=f"unix:{path}"))
        assert path.stat().st_mode & 0o777 == 0o700
        assert post(connect(answers.push), X.tobytes())[0] == 200
        answers.close()
        assert not path.exists()
        with socket.socket(socket.AF_UNIX) as left:
            left.bind(str(path))


def test_a_file_where_the_socket_should_be_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "notes").write_text("mine")
    with pytest.raises(SourceError, match="notes: Address already in use"):
        next(make(listen=f"unix:{tmp_path / 'notes'}").readings(Start()))
    assert (tmp_path / "notes").read_text() == "mine"


def test_a_sender_that_goes_before_its_answer_makes_no_noise(running: Answers, capfd: pytest.CaptureFixture) -> None:
    running.go.clear()
    time.sleep(0.15)  # the loop is busy
    link = connect(running.push)
    link.request("POST", "/v1/samples", X.tobytes())
    until(lambda: len(running.push._feed._items) == 1)
    link.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # gone at once, by a reset
    link.sock.close()
    running.go.set()
    until(lambda: len(running.seen) == 1 and not [one for one in threading.enumerate() if "request" in one.name])
    assert capfd.readouterr().err == ""


def test_a_token_is_asked_for_where_one_is_set(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("s3cret\n")
    answers = Answers(make(token_file=str(tmp_path / "token")))
    link = connect(answers.push)
    for headers, status in (
        ({}, 401),
        ({"Authorization": "Bearer no"}, 401),
        ({"Authorization": "Bearer s3cret"}, 200),
    ):
        assert post(link, X.tobytes(), **headers)[0] == status
    link.request("GET", "/v1/input")
    assert link.getresponse().status == 401
    answers.close()


def test_a_page_in_a_browser_may_not_send(running: Answers) -> None:
    assert post(connect(running.push), X.tobytes(), Origin="http://elsewhere")[0] == 403
    assert running.seen == []


def test_a_token_that_is_empty_is_none(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("\n")
    with pytest.raises(ConfigError, match="empty: expected a secret"):
        make(listen="0.0.0.0:8765", token_file=str(tmp_path / "token"))


@pytest.mark.parametrize(
    ("listen", "why"),
    [("0.0.0.0:8765", "others can reach it: set token_file"), ("8765", "expected an address"), ("x:y", "expected")],
)
def test_where_others_could_reach_it_a_token_is_needed(listen: str, why: str) -> None:
    with pytest.raises(ConfigError, match=why):
        make(listen=listen)


def test_an_address_that_is_taken_is_a_source_error() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(SourceError, match="in use"):
            next(make(listen=f"127.0.0.1:{taken.getsockname()[1]}").readings(Start()))


def test_a_sample_that_a_newer_one_took_the_place_of_is_answered_so() -> None:
    counts = Counts()
    answers = Answers(make(counts, keep="newest"))
    answers.go.clear()
    time.sleep(0.15)  # the loop is busy
    found: dict[int, tuple[int, dict]] = {}

    def send(number: int) -> None:
        found[number] = post(connect(answers.push), np.full((8, 8), number, np.uint8).tobytes())

    threads = []
    for number in range(3):
        threads.append(threading.Thread(target=send, args=(number,)))
        threads[-1].start()
        time.sleep(0.1)
    answers.go.set()
    for thread in threads:
        thread.join(WAIT_S)
    assert [found[number][0] for number in range(3)] == [503, 503, 200]
    assert found[0][1]["error"].startswith("skipped")
    assert counts.skipped == 2
    answers.close()


def test_a_sender_does_not_wait_for_ever_nor_for_an_agent_that_stops() -> None:
    answers = Answers(make(timeout_s=0.2, room=1))
    answers.go.clear()
    time.sleep(0.15)
    assert post(connect(answers.push), X.tobytes()) == (503, {"error": "the model was not free within 0.2 s"})
    answers.close()
    answers = Answers(make())
    answers.go.clear()
    time.sleep(0.15)
    found: list[tuple[int, dict]] = []
    sender = threading.Thread(target=lambda: found.append(post(connect(answers.push), X.tobytes())))
    sender.start()
    time.sleep(0.2)
    answers.close()
    sender.join(WAIT_S)
    assert found == [(503, {"error": "the agent stops"})]


def test_push_keeps_the_contract_of_a_source() -> None:
    def once() -> Push:
        push = make(timeout_s=0.05)

        def send() -> None:
            for number in range(10):
                try:
                    post(connect(push), np.full((8, 8), number, np.uint8).tobytes())
                except OSError:
                    return

        threading.Timer(0.1, send).start()
        return push

    check_source(once, live=True, readings=4)
    assert isinstance(once(), Answering)
