"""Does exactly he get a certificate who may have one?

The rules with a clock of our own; what travels, over real HTTPS with the agent's half of it.
"""

from __future__ import annotations

import contextlib
import http.client
import io
import socket
import ssl
import stat
import threading
from concurrent.futures import ThreadPoolExecutor

import msgspec
import numpy as np
import pytest
from cryptography import x509
from fleet_ca import FleetCA, now_ms

from edge_agent.__main__ import main as agent_main
from edge_agent.config import load_config
from edge_agent.contract.enrolment import (
    ENROL,
    MESSAGE_MAX_BYTES,
    RENEW,
    Enrol,
    Enrolled,
    Renew,
    Renewed,
    Token,
    parse_token,
    renewal_bytes,
)
from edge_agent.contract.errors import EXIT_CONFIG, ConfigError, UplinkError
from edge_agent.contract.errors import IdentityError as RefusedError
from edge_agent.contract.keys import new_key, private_pem, sign, signing_request, write_key
from edge_agent.identity.enrol import enrol
from edge_agent.identity.papers import Papers
from edge_agent.identity.portal import Portal
from edge_agent.identity.renewal import RETRY_MAX_S, Renewal
from server.errors import IdentityError
from server.identity.copies import COPIED
from server.identity.enrolment import Enrolment, invite
from server.identity.patience import REFUSALS
from server.identity.revocation import revoke
from server.identity.web import Web, make_app
from server.store import events, identities
from server.store.store import Store

DAY_MS = 86_400_000
MINUTE_MS = 60_000
START_MS = 1_790_000_000_000
DAYS = 90.0
BROKER = "mqtts://winnow.lan:8883"


class Clock:
    def __init__(self) -> None:
        self.ms = START_MS

    def now_ms(self) -> int:
        return self.ms

    def now_s(self) -> float:
        return self.ms / 1000

    def forward(self, *, days: float = 0.0, minutes: float = 0.0) -> None:
        self.ms += int(days * DAY_MS + minutes * MINUTE_MS)


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def store(tmp_path):
    store = Store.open(tmp_path / "store")
    yield store
    store.close()


@pytest.fixture
def ca(tmp_path):
    return FleetCA(tmp_path / "ca")


@pytest.fixture
def enrolment(store, ca):
    return Enrolment(store, ca.authority, fleet="farm", broker=BROKER, days=DAYS)


@pytest.fixture
def web(enrolment, ca, clock):
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    app = make_app(enrolment, ca.authority, now_ms=clock.now_ms)
    web = Web(app, listen="127.0.0.1", port=port, cert_file=str(ca.credentials.cert_file))
    web.start()
    yield Portal("127.0.0.1", port)
    web.stop()


@pytest.fixture
def make_token(store, ca, clock):
    """Of a portal, for a device."""
    count = iter(range(1, 100))

    def make_token(name: str = "cam-1", portal: Portal | None = None, *, again: bool = False) -> Token:
        return invite(
            store,
            name,
            again=again,
            url=f"https://{portal}" if portal else "https://nowhere:1",
            ca_sha256=ca.authority.fingerprint,
            secret=bytes([next(count)]) * 32,
            expires_at_ms=clock.ms + 15 * MINUTE_MS,
            now_ms=clock.ms,
        )

    return make_token


def ask(token: Token, key=None) -> Enrol:
    return Enrol(secret=token.secret, request=signing_request(key or new_key()))


def renew_word(certificate: str, old_key, new=None) -> Renew:
    request = signing_request(new or new_key())
    return Renew(certificate=certificate, request=request, signature=sign(old_key, renewal_bytes(certificate, request)))


@pytest.fixture
def member(enrolment, make_token, clock):
    """A certificate of cam-1, and its key."""
    key = new_key()
    return enrolment.enrol(ask(make_token(), key), now_ms=clock.ms).certificate, key


# --- tokens ---


def test_a_token_is_good_once(enrolment, make_token, clock):
    token = make_token()
    enrolled = enrolment.enrol(ask(token), now_ms=clock.ms)
    assert (enrolled.device, enrolled.fleet, enrolled.broker) == ("cam-1", "farm", BROKER)
    with pytest.raises(IdentityError, match="used already.*revoke"):
        enrolment.enrol(ask(token), now_ms=clock.ms)


def test_whose_answer_was_lost_is_given_the_same_again_while_the_token_lives(enrolment, make_token, clock):
    token, key = make_token(), new_key()
    first = enrolment.enrol(ask(token, key), now_ms=clock.ms)
    clock.forward(minutes=14)
    assert enrolment.enrol(ask(token, key), now_ms=clock.ms) == first
    clock.forward(minutes=2)
    with pytest.raises(IdentityError, match="expired"):
        enrolment.enrol(ask(token, key), now_ms=clock.ms)


def test_a_token_that_is_late_unknown_or_replaced_lets_nobody_in(enrolment, make_token, clock):
    token = make_token()
    replaced = make_token("cam-2")
    make_token("cam-2")
    clock.forward(minutes=15)
    for bad, why in (
        (token, "expired"),
        (replaced, "unknown"),
        (msgspec.structs.replace(token, secret=bytes(32)), "unk"),
    ):
        with pytest.raises(IdentityError, match=why):
            enrolment.enrol(ask(bad), now_ms=clock.ms)


@pytest.mark.of_a_file
def test_the_store_keeps_no_secret(store, make_token, tmp_path):
    token = make_token()
    store.close()
    kept = b"".join(path.read_bytes() for path in (tmp_path / "store").rglob("*") if path.is_file())
    assert b"cam-1" in kept
    assert token.secret not in kept
    assert token.secret.hex().encode() not in kept


def test_of_many_who_bring_the_same_token_at_once_exactly_one_gets_in(web, store, ca, make_token):
    token, racers = make_token("cam-1", web), 8
    barrier = threading.Barrier(racers)

    def race(_: int) -> str:
        barrier.wait()
        try:
            return web.ask(
                ENROL, ask(token), msgspec.defstruct("Any", ["certificate"]), ca_pem=ca.authority.pem.decode()
            ).certificate
        except RefusedError as error:
            return str(error)

    with ThreadPoolExecutor(racers) as pool:
        results = list(pool.map(race, range(racers)))
    winners = [result for result in results if result.startswith("-----BEGIN CERTIFICATE")]
    assert len(winners) == 1
    assert sum("used already" in result for result in results) == racers - 1
    with store.database.read() as connection:
        assert identities.latest_certificate(connection, "cam-1").n == 1


@pytest.mark.parametrize("name", ["winnow.server", "a/b", "#", "", "+"])
def test_only_a_name_can_be_invited(make_token, name):
    with pytest.raises(IdentityError, match="expected letters"):
        make_token(name)


def test_a_name_that_is_taken_must_be_asked_for_again(enrolment, store, make_token, member, clock):
    with pytest.raises(IdentityError, match="has a certificate.*--again"):
        make_token()
    fresh = enrolment.enrol(ask(make_token(again=True)), now_ms=clock.ms)
    with store.database.read() as connection:
        gone = identities.revoked_serials(connection)
    old = x509.load_pem_x509_certificate(member[0].encode())
    assert gone == {f"{old.serial_number:x}": "cam-1"}  # a name has one certificate
    assert fresh.certificate != member[0]


def test_what_is_no_request_is_refused_and_costs_no_token(enrolment, make_token, clock):
    token, other = make_token(), new_key()
    good = signing_request(new_key())
    for request in (b"", b"junk", good[:-1], bytes(reversed(good)), good[:-4] + signing_request(other)[-4:]):
        with pytest.raises(IdentityError):
            enrolment.enrol(Enrol(secret=token.secret, request=request), now_ms=clock.ms)
    assert enrolment.enrol(ask(token), now_ms=clock.ms).device == "cam-1"


# --- renewal ---


def test_renewal_by_the_old_key_is_good_long_after_the_end(enrolment, member, clock):
    clock.forward(days=400)
    fresh = enrolment.renew(renew_word(*member), now_ms=clock.ms).certificate
    made = x509.load_pem_x509_certificate(fresh.encode())
    assert made.not_valid_after_utc.timestamp() == pytest.approx(clock.now_s() + DAYS * 86_400, abs=2)
    assert made.subject == x509.load_pem_x509_certificate(member[0].encode()).subject


def test_only_the_key_of_the_certificate_renews_it(enrolment, member, clock):
    clock.forward(days=50)
    certificate, _ = member
    thief = new_key()
    with pytest.raises(IdentityError, match="not signed by the key"):
        enrolment.renew(renew_word(certificate, thief), now_ms=clock.ms)
    good = renew_word(*member)
    swapped = msgspec.structs.replace(good, request=signing_request(thief))  # somebody in between
    with pytest.raises(IdentityError, match="not signed by the key"):
        enrolment.renew(swapped, now_ms=clock.ms)


def test_a_certificate_of_another_ca_or_of_nobody_is_refused(enrolment, ca, tmp_path, clock):
    other = FleetCA(tmp_path / "other")
    key = new_key()
    foreign = other.authority.issue_device("cam-1", key.public_key(), now_ms=clock.ms, days=DAYS)
    ours = ca.authority.issue_device("cam-9", key.public_key(), now_ms=clock.ms, days=DAYS)
    server = ca.authority.issue_server(key.public_key(), hosts=["x"], now_ms=clock.ms, days=DAYS)
    for made, why in (
        (foreign, "not.*of this fleet's CA"),
        (ours, "was not enrolled here"),
        (server, "not enrolled here"),
    ):
        with pytest.raises(IdentityError, match=why):
            enrolment.renew(renew_word(made.pem.decode(), key), now_ms=clock.ms)
    with pytest.raises(IdentityError, match="not a certificate"):
        enrolment.renew(renew_word("junk", key), now_ms=clock.ms)


def test_a_revoked_device_cannot_renew(enrolment, store, member, clock, make_token):
    clock.forward(days=50)
    revoke(store, "cam-1", why="stolen", samples_left_out=False, now_ms=clock.ms)
    with pytest.raises(IdentityError, match="is revoked"):
        enrolment.renew(renew_word(*member), now_ms=clock.ms)
    with pytest.raises(IdentityError, match="is revoked.*--again"):
        make_token()
    token = make_token(again=True)
    with store.database.read() as connection:
        assert identities.revoked(connection) == {"cam-1"}  # until somebody comes with the token
    enrolment.enrol(ask(token), now_ms=clock.ms)
    with store.database.read() as connection:
        assert not identities.revoked(connection)
    with pytest.raises(IdentityError, match="another certificate followed"):  # not by what it had
        enrolment.renew(renew_word(*member), now_ms=clock.ms)


def test_a_token_that_was_used_gives_nothing_back_after_a_revocation(enrolment, store, make_token, clock):
    token, key = make_token(), new_key()
    enrolment.enrol(ask(token, key), now_ms=clock.ms)
    revoke(store, "cam-1", why="", samples_left_out=False, now_ms=clock.ms)
    with pytest.raises(IdentityError, match="used already"):
        enrolment.enrol(ask(token, key), now_ms=clock.ms)


@pytest.mark.parametrize("spoiled", [b"", b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"])
def test_a_damaged_certificate_of_the_server_is_made_anew(ca, spoiled):
    own = ca.credentials
    _, _, certificate = own.cert_file.read_bytes().partition(b"-----END PRIVATE KEY-----\n")
    for data in (spoiled + certificate, private_pem(new_key()) + certificate):
        own.cert_file.write_bytes(data)
        assert own.refresh(now_ms())
        own.context()


def test_a_token_of_a_device_that_is_revoked_meanwhile_is_worth_nothing(enrolment, store, make_token, clock):
    token = make_token()
    revoke(store, "cam-1", why="", samples_left_out=False, now_ms=clock.ms)
    with pytest.raises(IdentityError, match="unknown"):
        enrolment.enrol(ask(token), now_ms=clock.ms)


def test_a_lost_renewal_is_given_again_and_a_copied_card_is_told(enrolment, store, member, clock):
    clock.forward(days=50)
    wanted = new_key()
    fresh = enrolment.renew(renew_word(*member, wanted), now_ms=clock.ms)
    assert enrolment.renew(renew_word(*member, wanted), now_ms=clock.ms) == fresh
    for _ in range(3):
        with pytest.raises(IdentityError, match="two machines"):
            enrolment.renew(renew_word(*member), now_ms=clock.ms)
    with store.database.read() as connection:
        told = events.last_said(connection, COPIED, version=0)
        count = connection.exec_driver_sql("SELECT count(*) FROM event").scalar()
    assert (told.detail, count) == ({"device": "cam-1"}, 1)


def test_a_device_in_a_loop_does_not_fill_the_store(enrolment, member, clock):
    clock.forward(days=1)
    with pytest.raises(IdentityError, match="is new"):
        enrolment.renew(renew_word(*member), now_ms=clock.ms)


# --- over HTTPS ---


def mode(path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_a_device_enrols_with_a_key_that_only_it_can_read(web, make_token, tmp_path):
    token = parse_token(f" {make_token('cam-1', web)}\n")
    done = enrol(token, tmp_path / "device")
    folder = tmp_path / "device" / "identity"
    assert (mode(folder), mode(folder / "device.pem")) == (0o700, 0o600)
    assert not (folder / "next.key").exists()
    assert done.written
    config = load_config(done.toml)
    assert (config.device.name, config.device.fleet, config.uplink.broker) == ("cam-1", "farm", BROKER)
    assert config.uplink.renewal == f"https://{web}"
    with pytest.raises(ConfigError, match="'cam-1' is enrolled here"):
        enrol(token, tmp_path / "device")


def test_what_broke_off_goes_on_with_the_same_key_and_leaves_a_configuration_alone(web, make_token, tmp_path, ca):
    token = make_token("cam-1", web)
    folder = tmp_path / "device"
    (folder / "identity").mkdir(parents=True)
    (folder / "agent.toml").write_text("# mine\n")
    papers = Papers.within(folder / "identity")
    key = papers.next_key()
    web.ask(ENROL, ask(token, key), Enrolled, ca_pem=ca.authority.pem.decode())  # lost
    done = enrol(token, folder)
    assert papers.current()[1].public_key() == key.public_key()
    assert (done.written, (folder / "agent.toml").read_text()) == (False, "# mine\n")
    assert 'cert_file = "identity/device.pem"' in done.uplink


def test_nothing_is_sent_to_a_server_with_another_ca(web, make_token, store, tmp_path):
    token = make_token("cam-1", web)
    wrong = msgspec.structs.replace(token, ca_sha256=bytes(32))
    with pytest.raises(RefusedError, match="nothing was sent to it"):
        enrol(wrong, tmp_path / "device")
    assert not (tmp_path / "device" / "identity" / "next.key").exists()
    assert enrol(token, tmp_path / "device").certificate.device == "cam-1"  # so the token is as good as before


def test_who_shows_the_right_ca_but_has_no_certificate_of_it_learns_nothing(ca, make_token, tmp_path):
    """The CA's certificate is public: whoever stands in between can show it. TLS is what he cannot do."""
    impostor = FleetCA(tmp_path / "impostor")
    heard: list[bytes] = []

    async def app(scope, receive, send):
        body = ca.authority.pem if scope["path"] == "/ca.pem" else b"{}"
        heard.append(scope["path"].encode())
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": body})

    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    web = Web(app, listen="127.0.0.1", port=port, cert_file=str(impostor.credentials.cert_file))
    web.start()
    try:
        with pytest.raises(RefusedError, match="not a server of this fleet"):
            enrol(make_token("cam-1", Portal("127.0.0.1", port)), tmp_path / "device")
    finally:
        web.stop()
    assert heard == [b"/ca.pem"]


def test_a_server_that_is_away_is_no_refusal(make_token, tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    with pytest.raises(UplinkError, match="refused"):
        enrol(make_token("cam-1", Portal("127.0.0.1", port)), tmp_path / "device")


@pytest.mark.parametrize("text", ["", "winnow1.", "winnow1.!!!", "winnow2.k7Zo", "k7Zo", "winnow1.gA"])
def test_what_is_no_token_says_so(text):
    with pytest.raises(ConfigError, match="^token: got"):
        parse_token(text)


def raw(portal: Portal, ca, body: bytes, *, path: str = ENROL, method: str = "POST") -> tuple[int, bytes]:
    context = ssl.create_default_context(cadata=ca.authority.pem.decode())
    connection = http.client.HTTPSConnection(portal.host, portal.port, context=context, timeout=10)
    try:
        connection.request(method, path, body)
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


def test_what_is_too_large_or_not_of_the_format_is_turned_away(web, ca):
    assert raw(web, ca, b"x" * (MESSAGE_MAX_BYTES + 1))[0] == 413
    for body in (b"", b"{}", b"[1]", b'{"secret": 1}', b"\xff\xfe", b'{"secret":"AA==","request":"%%"}'):
        status, said = raw(web, ca, body)
        assert (status, b"expected Enrol" in said) == (400, True)
    assert raw(web, ca, b"", path="/docs", method="GET")[0] == 404
    assert raw(web, ca, b"", method="GET")[0] == 405


def test_whoever_says_nothing_does_not_keep_others_out(enrolment, ca, clock):
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    app = make_app(enrolment, ca.authority, now_ms=clock.now_ms)
    web = Web(app, listen="127.0.0.1", port=port, cert_file=str(ca.credentials.cert_file), life_s=0.5)
    web.start()
    context = ssl.create_default_context(cadata=ca.authority.pem.decode())
    try:
        idle = socket.create_connection(("127.0.0.1", port), timeout=10)
        with context.wrap_socket(idle, server_hostname="127.0.0.1", suppress_ragged_eofs=True) as silent:
            silent.sendall(b"POST /enrol HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n")  # and no more
            with contextlib.suppress(ConnectionError):
                assert silent.recv(100) == b""
    finally:
        web.stop()


def test_a_new_certificate_of_the_server_is_shown_without_a_restart(enrolment, ca, clock):
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    app = make_app(enrolment, ca.authority, now_ms=clock.now_ms)
    web = Web(app, listen="127.0.0.1", port=port, cert_file=str(ca.credentials.cert_file))
    web.start()

    def shown() -> str:
        return ssl.get_server_certificate(("127.0.0.1", port), timeout=10)

    try:
        before = shown()
        ca.credentials.cert_file.unlink()
        ca.credentials.refresh(now_ms())
        assert shown() == before
        web.reload()
        assert shown() != before
    finally:
        web.stop()


def test_an_address_that_is_refused_too_often_has_to_wait(web, ca, make_token, clock, tmp_path):
    token = make_token("cam-1", web)
    for _ in range(REFUSALS):
        assert raw(web, ca, b"{}")[0] == 400
    with pytest.raises(UplinkError, match="too many refusals"):
        enrol(token, tmp_path / "device")
    clock.forward(minutes=1)
    assert enrol(token, tmp_path / "device").certificate.device == "cam-1"


# --- a device that renews by itself ---


@pytest.fixture
def device(web, make_token, tmp_path, clock):
    """Its papers, and its renewal."""
    enrol(make_token("cam-1", web), tmp_path / "device")
    papers = Papers.within(tmp_path / "device" / "identity")
    told: list[str] = []
    made = Renewal(papers, web, report=told.append, uniform=np.random.default_rng(0).random, clock=clock.now_s)
    return papers, made, told


def test_a_device_renews_after_half_of_its_time_and_not_before(device, clock):
    papers, renewal, _ = device
    first, first_key = papers.current()
    clock.forward(days=44)
    renewal.look()
    assert papers.current()[0] == first
    clock.forward(days=11)
    renewal.look()
    second, second_key = papers.current()
    assert second.expires_s - first.expires_s == pytest.approx(55 * 86_400, abs=2)
    assert second_key.public_key() != first_key.public_key()
    assert not papers.cert_file.with_name("next.key").exists()
    renewal.look()
    assert papers.current()[0] == second


def test_a_device_that_was_off_for_years_comes_back_and_a_revoked_one_does_not(device, store, clock):
    papers, renewal, _ = device
    clock.forward(days=900)
    renewal.look()
    certificate, _ = papers.current()
    assert certificate.expires_s > clock.now_s()
    clock.forward(days=100)
    revoke(store, "cam-1", why="", samples_left_out=False, now_ms=clock.ms)
    with pytest.raises(RefusedError, match="is revoked"):
        renewal.look()
    assert papers.current()[0] == certificate


def test_an_answer_that_is_lost_on_the_way_is_asked_for_again(device, web, clock):
    papers, renewal, _ = device
    clock.forward(days=60)
    certificate, key = papers.current()
    wanted = papers.next_key()
    word = renew_word(certificate.pem, key, wanted)
    lost = web.ask(RENEW, word, Renewed, ca_pem=papers.authority())
    renewal.look()
    current, current_key = papers.current()
    assert (current.pem, current_key.public_key()) == (lost.certificate, wanted.public_key())
    write_key(papers.cert_file.with_name("next.key"), current_key)  # the power went before it was deleted
    assert papers.next_key().public_key() != wanted.public_key()


def test_trouble_is_told_once_and_tried_again_ever_later(device, web, clock, ca, tmp_path):
    papers, _, _ = device
    told: list[str] = []
    clock.forward(days=60)
    with socket.create_server(("127.0.0.1", 0)) as probe:
        nobody = Portal("127.0.0.1", probe.getsockname()[1])
    away = Renewal(papers, nobody, report=told.append, uniform=np.random.default_rng(0).random, clock=clock.now_s)
    waits = [away.step() for _ in range(12)]
    assert len(told) == 1
    assert "certificate not renewed" in told[0]
    assert 30 <= waits[0] <= 60
    assert 0.5 * RETRY_MAX_S <= waits[-1] <= RETRY_MAX_S


@pytest.mark.parametrize("spoiled", ["", "no certificate", "-----BEGIN CERTIFICATE-----\nAAAA\n"])
def test_a_damaged_file_of_the_ca_is_told_and_does_not_end_the_looking(device, clock, spoiled):
    papers, renewal, told = device
    clock.forward(days=60)
    papers.ca_file.write_text(spoiled)
    assert renewal.step() > 0.0
    assert "CA that is kept here is none" in told[0]


def test_a_certificate_whose_card_has_lost_a_bit_is_told_and_does_not_end_the_looking(device):
    papers, renewal, told = device
    key, mark, certificate = papers.cert_file.read_text().partition("-----BEGIN CERTIFICATE-----")
    der = ssl.PEM_cert_to_DER_cert(mark + certificate).replace(b"\xa0\x03\x02\x01\x02", b"\xa0\x03\x02\x01\x42", 1)
    papers.cert_file.write_text(key + ssl.DER_cert_to_PEM_cert(der))
    assert renewal.step() > 0.0
    assert "expected a key and its certificate" in told[0]


def test_a_name_that_is_not_the_certificates_is_a_configuration_to_mend(web, make_token, tmp_path, capsys):
    toml = enrol(make_token("cam-1", web), tmp_path).toml
    assert agent_main(["check", str(toml)]) == 0
    toml.write_text(toml.read_text().replace('"cam-1"', '"cam-2"'))
    for word in ("check", "run"):
        assert agent_main([word, str(toml)]) == EXIT_CONFIG
        assert "name = 'cam-2': its certificate is of 'cam-1'" in capsys.readouterr().err
    (tmp_path / "identity" / "device.pem").unlink()
    assert agent_main(["check", str(toml)]) == EXIT_CONFIG
    assert "device.pem" in capsys.readouterr().err


def test_the_program_enrols_by_a_token_that_is_piped_in(web, make_token, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("sys.stdin", io.StringIO(f"{make_token('cam-1', web)}\n"))
    assert agent_main(["enrol", "-", "--dir", str(tmp_path)]) == 0
    assert "device cam-1 is enrolled" in capsys.readouterr().out
    assert agent_main(["enrol", "winnow1.x", "--dir", str(tmp_path)]) == EXIT_CONFIG
    assert "not whole" in capsys.readouterr().err
