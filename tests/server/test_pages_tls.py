"""Do the pages speak TLS, and whom do they believe that a proxy signed somebody in? Over real sockets."""

from __future__ import annotations

import contextlib
import http.client
import ssl

import pytest
from browser import HASHED, PASSWORD
from fleet_ca import FleetCA

from server import config
from server.errors import ServerError
from server.store import users
from server.store.store import Store
from server.web.service import Pages

NOW_MS = 1_790_000_000_000
FORM = {"Content-Type": "application/x-www-form-urlencoded"}


@pytest.fixture
def serve(tmp_path):
    with contextlib.ExitStack() as stack:
        store = stack.enter_context(contextlib.closing(Store.open(tmp_path / "store")))
        with store.database.write() as connection:
            users.add(connection, "vera", "viewer", password_hash=HASHED, by="test", now_ms=NOW_MS)

        def serve(**web) -> int:
            settings = config.ServerConfig(server=config.Server(data_dir=str(tmp_path)), web=config.Web(port=0, **web))
            pages = Pages(store, settings, now_ms=lambda: NOW_MS)
            url = pages.start()
            stack.callback(pages.stop)
            return int(url.rstrip("/").rpartition(":")[2])

        yield serve


@pytest.fixture
def ca(tmp_path):
    return FleetCA(tmp_path / "ca")


def ask(connection, path, *, headers=None, body=None):
    with contextlib.closing(connection):
        connection.request("POST" if body else "GET", path, body, headers or {})
        answer = connection.getresponse()
        return answer, answer.read()


def test_a_client_that_checks_the_certificate_signs_in_and_the_cookie_is_for_tls_alone(serve, ca):
    port = serve(cert_file=str(ca.credentials.cert_file))
    context = ssl.create_default_context(cafile=ca.ca_file)

    def call(path, **how):
        return ask(http.client.HTTPSConnection("127.0.0.1", port, context=context, timeout=10), path, **how)

    answer, _ = call("/sign-in", headers=FORM, body=f"name=vera&password={PASSWORD.replace(' ', '+')}")
    cookie = answer.headers["set-cookie"]
    assert (answer.status, "secure" in cookie.lower()) == (303, True)
    answer, page = call("/fleet", headers={"Cookie": cookie.partition(";")[0]})
    assert (answer.status, b"vera" in page) == (200, True)


def test_who_does_not_know_the_authority_or_speaks_no_tls_gets_nothing(serve, ca, tmp_path):
    port = serve(cert_file=str(ca.credentials.cert_file))
    other = FleetCA(tmp_path / "other")
    context = ssl.create_default_context(cafile=other.ca_file)
    with pytest.raises(ssl.SSLCertVerificationError):
        ask(http.client.HTTPSConnection("127.0.0.1", port, context=context, timeout=10), "/sign-in")
    with pytest.raises((http.client.HTTPException, OSError)):
        ask(http.client.HTTPConnection("127.0.0.1", port, timeout=10), "/sign-in")


@pytest.mark.parametrize("content", [None, b"no certificate"])
def test_a_certificate_that_cannot_be_used_is_said_at_the_start(serve, tmp_path, content):
    file = tmp_path / "web.pem"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(ServerError, match=r"\[web\] .*web\.pem: .*expected a certificate with its chain"):
        serve(cert_file=str(file))


def test_only_the_proxy_says_who_comes_whatever_a_header_says_of_the_way(serve):
    port = serve(user_header="X-Forwarded-User", proxies=("127.0.0.2",))

    def call(source, **headers):
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10, source_address=(source, 0))
        return ask(connection, "/fleet", headers=headers)[0].status

    named = {"X-Forwarded-User": "vera"}
    assert call("127.0.0.2", **named) == 200
    assert call("127.0.0.1", **named) == 303
    assert call("127.0.0.1", **named, **{"X-Forwarded-For": "127.0.0.2", "Forwarded": "for=127.0.0.2"}) == 303
    assert call("127.0.0.2", **{"X-Forwarded-User": "mallory"}) == 303
    assert call("127.0.0.2") == 303
