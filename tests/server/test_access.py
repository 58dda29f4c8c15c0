"""Does the broker let in only members, as whom their certificate says, and only to what is theirs?"""

from __future__ import annotations

import socket
import ssl
from pathlib import Path

import pytest
from fleet_ca import FLEET, Client, FleetCA, now_ms, until

from edge_agent.contract.broker import TlsFiles
from edge_agent.contract.errors import UplinkError
from edge_agent.contract.wire import down_topic, server_state_topic, up_topic
from edge_agent.send.connection import Access, Connection
from server.errors import IdentityError
from server.identity.authority import SERVER
from server.identity.revocation import cut

DAY_MS = 86_400_000


@pytest.fixture
def join(secure_broker):
    """Clients of the broker, by name or by files, closed at the end."""
    made: list[Client] = []

    def join(who: str | TlsFiles, **options) -> Client:
        files = secure_broker.ca.identify(who) if isinstance(who, str) else who
        made.append(Client(secure_broker, files, **options))
        return made[-1]

    yield join
    for client in made:
        client.close()


def test_who_shows_no_certificate_of_the_fleet_stays_outside(secure_broker, join, tmp_path):
    ca = secure_broker.ca
    other = FleetCA(tmp_path / "other")
    stranger = other.identify("cam-1")._replace(ca_file=str(ca.ca_file))
    late = ca.identify("cam-1", at_ms=now_ms() - 100 * DAY_MS, days=10.0)
    assert not join(TlsFiles(str(ca.ca_file), "", "")).in_
    assert not join(stranger).in_
    assert not join(late).in_
    assert join("cam-1").in_
    assert not answer_to_plain_connect(secure_broker)


def answer_to_plain_connect(broker) -> bytes:
    """What is said to who speaks MQTT without TLS, but for a TLS alert."""
    with socket.create_connection((broker.host, broker.port), timeout=5.0) as plain:
        try:
            plain.sendall(b"\x10\x0f\x00\x04MQTT\x04\x02\x00\x3c\x00\x03abc")
            said = plain.recv(100)
        except ConnectionError:
            return b""
    return b"" if said[:1] == b"\x15" else said


def test_a_device_does_not_take_another_server_for_its_own(secure_broker, tmp_path):
    other = FleetCA(tmp_path / "other")
    mine = secure_broker.ca.identify("cam-1")
    assert not Client(secure_broker, mine._replace(ca_file=str(other.ca_file))).in_


def test_a_device_is_who_its_certificate_says(join):
    victim = join("cam-1", client_id="cam-1")
    attacker = join("cam-2", client_id="cam-1")
    attacker.publish(up_topic(FLEET, "cam-2", "heartbeat"))
    assert victim.in_  # with a client id of its own choice it would have ended the other's session
    assert attacker.in_


def test_a_device_speaks_for_itself_alone_and_hears_only_what_is_for_it(secure_broker, join):
    server = join(secure_broker.ca.server_files)
    server.subscribe(f"winnow/1/{FLEET}/+/up/+")
    server.publish(down_topic(FLEET, "cam-2", "desired"), b"for cam-2", retain=True)
    spy = join("cam-1")
    ours = f"winnow/1/{FLEET}"
    for topic in ("#", "+/+/+/+/+/+", "winnow/1/#", f"{ours}/cam-2/#", "$share/g/#", f"{ours}/+/down/+"):
        spy.subscribe(topic)
    spy.publish(up_topic(FLEET, "cam-2", "sample"), b"forged")
    spy.publish(down_topic(FLEET, "cam-2", "desired"), b"forged", retain=True)
    spy.publish(down_topic(FLEET, "cam-1", "desired"), b"forged", retain=True)
    spy.publish(server_state_topic(FLEET), b"forged", retain=True)
    spy.publish(f"{ours}/cam-1/up/other", b"forged")
    spy.publish("winnow/1/other/cam-1/up/event", b"forged")
    spy.publish(up_topic(FLEET, "cam-1", "event"), b"mine")
    server.publish(down_topic(FLEET, "cam-2", "receipt"), b"for cam-2")
    server.publish(down_topic(FLEET, "cam-1", "receipt"), b"for cam-1")
    server.publish(server_state_topic(FLEET), b"here", retain=True)
    until(lambda: len(spy.messages) >= 2 and server.messages)
    assert {(topic, payload) for topic, payload, _ in spy.messages} == {
        (down_topic(FLEET, "cam-1", "receipt"), b"for cam-1"),
        (server_state_topic(FLEET), b"here"),
    }
    assert server.messages == [(up_topic(FLEET, "cam-1", "event"), b"mine", False)]
    other = join("cam-2")
    other.subscribe(down_topic(FLEET, "cam-2", "desired"))
    until(lambda: other.messages)
    assert other.messages == [(down_topic(FLEET, "cam-2", "desired"), b"for cam-2", True)]


def test_a_will_is_spoken_only_where_its_device_may_speak(secure_broker, join):
    server = join(secure_broker.ca.server_files)
    server.subscribe(f"winnow/1/{FLEET}/+/up/+")
    for name, of in (("cam-1", "cam-2"), ("cam-3", "cam-3")):
        client = join(name, will=up_topic(FLEET, of, "death"))
        client.mqtt._sock.close()  # no DISCONNECT: a crash
    until(lambda: server.messages)
    assert [topic for topic, _, _ in server.messages] == [up_topic(FLEET, "cam-3", "death")]


def test_no_device_can_have_the_servers_name(secure_broker):
    for name in (SERVER, "+", "#", "a/b", "", "a" * 64, "cam 1"):
        with pytest.raises(IdentityError, match="expected letters"):
            secure_broker.ca.identify(name)


def test_a_revoked_device_is_cut_off_at_once_and_does_not_come_back(secure_broker, join):
    ca = secure_broker.ca
    files, certificate = ca.identify_as("cam-1")
    device, neighbour = join(files), join("cam-2")
    assert device.in_
    ca.revoke(certificate.serial)
    secure_broker.reload()
    cut(ca.authority, "cam-1", host=secure_broker.host, port=secure_broker.port, ca_file=ca.ca_file, now_ms=now_ms())
    until(lambda: device.ended)
    assert not join(files).in_
    assert neighbour.in_
    assert join("cam-1").in_  # by another certificate: enrolled anew


def test_a_tls_session_from_before_does_not_let_a_revoked_device_in(secure_broker):
    """Who resumes a session shows no certificate again."""
    ca = secure_broker.ca
    files, certificate = ca.identify_as("cam-1")
    context = ssl.create_default_context(cafile=files.ca_file)
    context.load_cert_chain(files.cert_file)
    context.maximum_version = ssl.TLSVersion.TLSv1_2  # where a session is known as soon as the handshake is over

    def come_in(session=None):
        wire = socket.create_connection((secure_broker.host, secure_broker.port), timeout=5.0)
        return context.wrap_socket(wire, server_hostname=secure_broker.host, session=session)

    first = come_in()
    again = come_in(first.session)
    assert again.session_reused
    ca.revoke(certificate.serial)
    secure_broker.reload()

    def is_refused():
        try:
            come_in(again.session).close()
        except ssl.SSLError as error:
            return "REVOKED" in str(error)
        return False

    until(is_refused)


def test_a_new_server_certificate_is_shown_without_a_restart(secure_broker, join):
    ca, device = secure_broker.ca, join("cam-1")
    context = ca.credentials.context()

    def shown() -> bytes:
        wire = socket.create_connection((secure_broker.host, secure_broker.port), timeout=5.0)
        with context.wrap_socket(wire, server_hostname=secure_broker.host) as tls:
            return tls.getpeercert(binary_form=True)

    before, pid = shown(), secure_broker.pid
    ca.credentials.cert_file.unlink()
    assert ca.credentials.refresh(now_ms())
    assert not ca.credentials.refresh(now_ms())
    secure_broker.reload()
    until(lambda: shown() != before)
    assert (secure_broker.pid, device.in_) == (pid, True)


def test_a_connection_is_made_with_the_certificate_as_it_is_then(secure_broker):
    """An agent renews while it runs."""
    ca = secure_broker.ca
    files, old = ca.identify_as("cam-1")
    access = Access(secure_broker.host, secure_broker.port, "cam-1", "", "", files, 5)

    def connect() -> Connection:
        return Connection(access, will=("x", b""), received=lambda *_: None, ended=lambda: None)

    first = connect()
    first.open(["x"])
    Path(files.cert_file).write_bytes(Path(ca.identify("cam-1").cert_file).read_bytes())
    ca.revoke(old.serial)
    secure_broker.reload()
    first.close(cleanly=True)
    second = connect()
    second.open(["x"])
    assert second.alive
    second.close(cleanly=True)
    Path(files.cert_file).write_bytes(b"")
    third = connect()
    with pytest.raises(UplinkError, match="expected PEM certificates"):
        third.open(["x"])
    third.close(cleanly=False)
