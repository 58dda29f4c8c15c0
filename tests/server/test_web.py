"""Does whoever may not come in cost the service next to nothing, whatever he sends?"""

from __future__ import annotations

import contextlib
import http.client
import queue
import socket
import ssl
import time

import msgspec
import pytest
from fleet_ca import FLEET, FleetCA, now_ms

from edge_agent.contract.enrolment import ENROL, MESSAGE_MAX_BYTES, Enrol
from edge_agent.contract.keys import new_key, signing_request
from server.errors import ServerError, StoreError
from server.identity.door import ALL, OF_ONE_ADDRESS, Door
from server.identity.enrolment import Enrolment
from server.identity.handout import TO_ONE_ADDRESS, Handout
from server.identity.patience import REFUSALS
from server.identity.web import FILES, LIFE_S, Web, make_app
from server.store.store import Store


@pytest.fixture
def ca(tmp_path):
    return FleetCA(tmp_path / "ca")


@pytest.fixture
def make_web(tmp_path, ca):
    store = Store.open(tmp_path / "store")
    enrolment = Enrolment(store, ca.authority, fleet=FLEET, broker="", days=90.0)
    made = []

    def make_web(port: int, *, life_s: float = LIFE_S, **options) -> Web:
        app = make_app(enrolment, ca.authority, now_ms=lambda: 1, **options)
        cert_file = str(ca.credentials.cert_file)
        made.append(Web(app, listen="127.0.0.1", port=port, cert_file=cert_file, life_s=life_s))
        return made[-1]

    yield make_web
    for web in made:
        web.stop()
    store.close()


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return probe.getsockname()[1]


@pytest.fixture
def port(make_web):
    port = free_port()
    make_web(port).start()
    return port


def call(port, ca, method="GET", path="/ca.pem", body=b"", *, source="127.0.0.1", context=None):
    connection = http.client.HTTPSConnection(
        "127.0.0.1",
        port,
        context=context or ssl.create_default_context(cafile=ca.ca_file),
        timeout=10,
        source_address=(source, 0),
    )
    with contextlib.closing(connection):
        connection.request(method, path, body)
        answer = connection.getresponse()
        return answer.status, answer.read()


DEEP = b'{"x":' + b"[" * (MESSAGE_MAX_BYTES - 100)
P_256 = bytes.fromhex("06082a8648ce3d030107")  # as an object identifier


def unknown_curve() -> bytes:
    request = signing_request(new_key()).replace(P_256, P_256[:-1] + b"\x63")
    return msgspec.json.encode(Enrol(secret=bytes(32), request=request))


@pytest.mark.parametrize("body", [DEEP, unknown_curve(), b"x" * (MESSAGE_MAX_BYTES + 1)])
def test_whatever_is_refused_is_counted(port, ca, body, caplog):
    """What the service does not expect would be answered 500, with a page in the log, as often as a stranger likes."""
    said = [call(port, ca, "POST", ENROL, body)[0] for _ in range(REFUSALS + 1)]
    assert set(said[:-1]) <= {400, 403, 413}
    assert said[-1] == 429
    assert "Traceback" not in caplog.text


def test_who_says_nothing_takes_the_room_of_his_own_address_and_no_other(port, ca):
    with contextlib.ExitStack() as silent:
        for _ in range(OF_ONE_ADDRESS):
            silent.enter_context(socket.create_connection(("127.0.0.1", port), timeout=10))
        with pytest.raises(OSError, match=r"."):
            call(port, ca)
        assert call(port, ca, source="127.0.0.2") == (200, ca.authority.pem)
    assert eventually_let_in(port, ca)


def eventually_let_in(port, ca) -> bool:
    for _ in range(100):
        with contextlib.suppress(OSError):
            return call(port, ca)[0] == 200
    return False


def test_the_door_is_full_for_all_at_last_and_opens_again():
    with contextlib.ExitStack() as opened, Door.at("127.0.0.1", 0) as door:
        door.setblocking(False)

        def come(number: int):
            source = (f"127.0.1.{1 + number // OF_ONE_ADDRESS}", 0)
            return opened.enter_context(socket.create_connection(door.getsockname(), source_address=source))

        inside = []
        for number in range(ALL):
            come(number)
            inside.append(opened.enter_context(door.accept()[0]))
        late = come(ALL)
        with pytest.raises(BlockingIOError):
            door.accept()
        assert late.recv(1) == b""
        inside[0].close()
        inside[0].close()  # counted once
        come(0)
        opened.enter_context(door.accept()[0])
        come(0)
        with pytest.raises(BlockingIOError):
            door.accept()


@pytest.mark.parametrize(("ciphers", "let_in"), [("ECDHE+AESGCM", True), ("ECDHE-ECDSA-AES128-SHA", False)])
def test_old_ciphers_are_not_spoken(port, ca, ciphers, let_in):
    context = ssl.create_default_context(cafile=ca.ca_file)
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers(ciphers)
    if let_in:
        assert call(port, ca, context=context)[0] == 200
    else:
        with pytest.raises(ssl.SSLError):
            call(port, ca, context=context)


def test_a_port_that_is_taken_is_said(port, make_web):
    with pytest.raises(ServerError, match=r"HTTPS cannot listen at 127\.0\.0\.1:\d+: Address already in use"):
        make_web(port).start()


def test_names_of_any_length_can_be_certified(tmp_path):
    ca = FleetCA(tmp_path / "long", fleet="f" * 63)
    host = ".".join(["a" * 60] * 3)
    made = ca.authority.issue_broker(ca.authority._key.public_key(), host=host, now_ms=now_ms(), days=1)
    assert made.name == "winnow.broker"


FILE = bytes(64 << 20)  # more than a connection holds that nobody reads from


def give(sha256, _asked):
    if sha256 == "damaged":
        raise StoreError("it is damaged")
    return (200, {}, memoryview(FILE)) if sha256 == "there" else None


@contextlib.contextmanager
def asking(port, ca, sha256):
    context = ssl.create_default_context(cafile=ca.ca_file)
    connection = http.client.HTTPSConnection("127.0.0.1", port, context=context, timeout=20)
    with contextlib.closing(connection):
        connection.request("GET", f"{FILES}/{sha256}")
        yield connection


def test_who_takes_a_file_is_not_cut_off_and_who_lets_it_wait_is(make_web, ca):
    port = free_port()
    make_web(port, life_s=1.0, handout=Handout(give)).start()
    with asking(port, ca, "there") as slow, asking(port, ca, "there") as idle:
        answer, left_alone = slow.getresponse(), idle.getresponse()
        taken = 0
        while more := answer.read(len(FILE) // 16):
            taken += len(more)
            time.sleep(0.15)
        assert taken == len(FILE)
        with pytest.raises((http.client.IncompleteRead, OSError)):
            left_alone.read()


def test_files_go_at_the_given_pace_and_leave_room_for_others(make_web, ca):
    port, waiting = free_port(), queue.Queue()
    make_web(port, handout=Handout(give, turn=lambda size, go: waiting.put((size, go)) is None)).start()
    with contextlib.ExitStack() as stack:
        first = stack.enter_context(asking(port, ca, "there"))
        size, go = waiting.get(timeout=10)
        for _ in range(TO_ONE_ADDRESS - 1):
            stack.enter_context(asking(port, ca, "there"))
            waiting.get(timeout=10)
        assert call(port, ca, path=f"{FILES}/there")[0] == 503
        assert call(port, ca)[0] == 200  # who renews is let in
        assert waiting.empty()
        go()
        assert len(first.getresponse().read(size)) == size
        assert waiting.get(timeout=10)[0] == size
    with asking(port, ca, "there"):  # they left, and made room
        waiting.get(timeout=10)


def test_a_file_that_cannot_be_read_is_no_page_of_log(make_web, ca, caplog):
    port = free_port()
    make_web(port, handout=Handout(give)).start()
    assert call(port, ca, path=f"{FILES}/damaged")[0] == 503
    assert "it is damaged" in caplog.text
    assert "Traceback" not in caplog.text
