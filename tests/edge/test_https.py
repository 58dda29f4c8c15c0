"""Blocks by HTTPS: a real server with a real certificate, and everything that may be wrong with one."""

from __future__ import annotations

import datetime
import http.server
import ipaddress
import ssl
import threading
from collections.abc import Iterator

import msgspec
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from test_updater import Device, Server

from edge_agent.contract.artifact import sha256_hex
from edge_agent.contract.wire import BLOCK_BYTES, Fetch
from edge_agent.update.https import LONGEST_S, REST_S, Https
from edge_agent.update.slots import Staged
from server.release.files import part

DATA = bytes(range(256)) * 1000  # 3.9 blocks
SHA256 = sha256_hex(DATA)


def certificate(folder):
    """Key and certificate of 127.0.0.1 in one file, signed by itself."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "files")])
    now = datetime.datetime.now(datetime.timezone.utc)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    file = folder / "files.pem"
    file.write_bytes(pem + made.public_bytes(serialization.Encoding.PEM))
    return file


class Files:
    """An HTTPS server of files by hash; its faults are switches."""

    def __init__(self, pem):
        self.files, self.asked, self.connections = {SHA256: DATA}, [], 0
        self.ranges, self.cuts, self.spoils, self.moves = True, False, False, 0
        files = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def setup(self):
                super().setup()
                files.connections += 1

            def do_GET(self):
                files.asked.append((self.path, self.headers.get("Range")))
                data = files.files.get(self.path.rpartition("/")[2])
                if data is None:
                    self.send_error(404)
                    return
                found = part(data, self.headers.get("Range") if files.ranges else None)
                body = bytes(found.body)
                self.send_response(found.status)
                headers = dict(found.headers)
                if files.moves:
                    headers["Content-Range"] = f"bytes {files.moves}-{files.moves + len(body) - 1}/{len(data)}"
                for name, value in headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body[: len(body) // 2] if files.cuts else bytes(len(body)) if files.spoils else body)
                self.close_connection = files.cuts

            def log_message(self, *_):
                pass

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(pem)
        self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        self.url = f"https://127.0.0.1:{self._server.server_port}/files"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)
        self._thread.start()

    def close(self):
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


@pytest.fixture(scope="module")
def pem(tmp_path_factory):
    return certificate(tmp_path_factory.mktemp("pem"))


@pytest.fixture
def files(pem) -> Iterator[Files]:
    files = Files(pem)
    yield files
    files.close()


class Clock:
    now_s = 0.0

    def __call__(self):
        return self.now_s


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def https(pem, clock):
    https = Https(lambda: ssl.create_default_context(cafile=str(pem)), timeout_s=2.0, monotonic=clock)
    yield https
    https.close()


def test_neighbours_come_in_one_answer_over_one_connection(files, https):
    found = https.get(files.url, Fetch(sha256=SHA256, blocks=(0, 1, 3)))
    assert [(header.index, header.total_bytes) for header, _ in found] == [(index, len(DATA)) for index in (0, 1, 3)]
    for header, data in found:
        assert data == DATA[header.index * BLOCK_BYTES : (header.index + 1) * BLOCK_BYTES]
    assert files.asked == [
        (f"/files/{SHA256}", f"bytes=0-{2 * BLOCK_BYTES - 1}"),
        (f"/files/{SHA256}", f"bytes={3 * BLOCK_BYTES}-{4 * BLOCK_BYTES - 1}"),
    ]
    assert files.connections == 1


def test_a_connection_that_died_meanwhile_is_made_anew(files, https):
    assert https.get(files.url, Fetch(sha256=SHA256, blocks=(0,)))
    https._connection.sock.close()
    assert https.get(files.url, Fetch(sha256=SHA256, blocks=(1,)))
    assert files.connections == 2


def nothing_for_a_while(https, clock, url, words, caplog, blocks=(0, 1)):
    fetch = Fetch(sha256=SHA256, blocks=blocks)
    assert https.get(url, fetch) == []
    assert words in caplog.text
    caplog.clear()
    assert https.get(url, fetch) == []
    assert caplog.text == ""
    clock.now_s += REST_S + 1
    https.get(url, fetch)


def test_a_server_without_ranges_or_without_the_file_is_left_alone(files, https, clock, caplog):
    files.ranges = False
    nothing_for_a_while(https, clock, files.url, "expected 206 and a Content-Range", caplog)
    assert len(files.asked) == 2
    files.ranges, files.files = True, {}
    clock.now_s += 2 * REST_S
    nothing_for_a_while(https, clock, files.url, "404", caplog)


def test_another_part_than_was_asked_for_is_not_taken(files, https, clock, caplog):
    files.moves = BLOCK_BYTES
    nothing_for_a_while(https, clock, files.url, f"expected 0-{2 * BLOCK_BYTES - 1}", caplog)


def test_an_answer_that_takes_too_long_is_left(files, pem, clock, caplog):
    times = iter([0.0, 0.0, *[2 * LONGEST_S] * 100])
    slow = Https(lambda: ssl.create_default_context(cafile=str(pem)), timeout_s=2.0, monotonic=lambda: next(times))
    assert len(slow.get(files.url, Fetch(sha256=SHA256, blocks=(0, 1, 2, 3)))) < 4
    slow.close()


def test_another_certificate_is_not_believed(files, clock, caplog, tmp_path):
    other = certificate(tmp_path)
    stranger = Https(lambda: ssl.create_default_context(cafile=str(other)), timeout_s=2.0, monotonic=clock)
    nothing_for_a_while(stranger, clock, files.url, "certificate verify failed", caplog)
    assert files.asked == []


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:1/files", "file:///etc", "https://", "https://127.0.0.1:x/", "", "https://[/"]
)
def test_what_is_no_https_address_is_not_followed(https, clock, url, caplog):
    words = "Invalid IPv6 URL" if "[" in url else "Port could not" if ":x" in url else "expected https://host:port/path"
    nothing_for_a_while(https, clock, url, words, caplog)


def test_an_answer_that_is_cut_off_gives_what_came(files, https):
    files.cuts = True
    found = https.get(files.url, Fetch(sha256=SHA256, blocks=(0, 1)))
    assert [(header.index, data) for header, data in found] == [(0, DATA[:BLOCK_BYTES])]


def test_an_answer_of_less_than_a_block_is_none_and_messages_carry_on(files, https, clock, caplog):
    """Or a link on which no connection lives long enough for one block would ask for it for ever."""
    files.cuts = True
    nothing_for_a_while(https, clock, files.url, f"{BLOCK_BYTES // 2} of {BLOCK_BYTES} bytes came", caplog, blocks=(0,))


def test_nothing_comes_while_the_link_is_held_and_what_comes_is_counted(files, pem, clock):
    held, came = [True], []
    context = ssl.create_default_context(cafile=str(pem))
    https = Https(lambda: context, may=lambda: not held[0], came=came.append, timeout_s=2.0, monotonic=clock)
    wanted = Fetch(sha256=SHA256, blocks=(0, 1, 3))
    assert https.get(files.url, wanted) == []
    assert files.asked == came == []
    held[0] = False
    found = https.get(files.url, wanted)
    assert len(found) == 3
    assert sum(came) == sum(len(data) for _, data in found)


class Member(Device):
    """A device that knows HTTPS."""

    https = None

    def besides(self):
        return {"https": lambda: self.https}


@pytest.fixture
def device(tmp_path, https):
    Member.https = https
    return Member(tmp_path / "models", Server())


def test_a_model_comes_by_https_and_goes_on_after_a_power_cut(device, files):
    assignment = msgspec.structs.replace(device.server.publish(1), url=files.url)
    files.files = device.server.files
    device.assign(assignment)
    device.run(until=lambda: device.updater.state().fetched_share > 0.9)
    device.power_cut()
    device.assign(assignment)
    device.run()
    assert device.slots == Staged(committed=0, candidate=1)
    assert device.server.asked == []
    assert len(files.asked) < 8


def test_messages_carry_on_where_https_does_not(device, files):
    assignment = msgspec.structs.replace(device.server.publish(1), url=files.url)
    files.files = {assignment.manifest_sha256: device.server.files[assignment.manifest_sha256]}
    device.assign(assignment)
    device.run()
    assert device.slots == Staged(committed=0, candidate=1)
    assert len(device.model_asked(1)) == 20


def test_spoilt_answers_are_refused_like_spoilt_blocks(device, files):
    assignment = msgspec.structs.replace(device.server.publish(1), url=files.url)
    files.files, files.spoils = device.server.files, True
    device.assign(assignment)
    device.run()
    assert "IntegrityError" in device.updater.state().refused[1]
