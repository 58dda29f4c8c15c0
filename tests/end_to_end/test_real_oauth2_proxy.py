"""Does signing in by OIDC work as docs/pages.md says, with a real oauth2-proxy between a provider and the pages?

The provider is a small one of our own, which lets in whoever it is told to. The proxy is taken where it is found: in
PATH, or in the cache folder (`go install github.com/oauth2-proxy/oauth2-proxy/v7@latest`, and the program put there).
"""

from __future__ import annotations

import base64
import json
import shutil
import socket
import subprocess
import threading
import time
import urllib.parse
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx
import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa

from models.data import default_cache
from server import config
from server.store import users
from server.store.store import Store
from server.web.access import digest
from server.web.service import Pages

CACHED = default_cache() / "oauth2-proxy" / "oauth2-proxy"
PROGRAM = shutil.which("oauth2-proxy") or (str(CACHED) if CACHED.exists() else "")
CLIENT = "winnow"
START_S = 30.0

pytestmark = [
    pytest.mark.oauth2_proxy,
    pytest.mark.skipif(
        not PROGRAM,
        reason=f"oauth2-proxy is not installed: build it with Go, and put it into PATH or {CACHED.parent.name} of the "
        "cache folder",
    ),
]


def coded(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


class Provider:
    """OpenID Connect, as far as it is needed: discovery, authorization code, id tokens (RS256), keys."""

    def __init__(self) -> None:
        self.email = ""  # of whoever signs in next
        self._key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        provider = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                path, _, query = self.path.partition("?")
                said = dict(urllib.parse.parse_qsl(query))
                if path == "/authorize":
                    back = urllib.parse.urlencode({"code": said.get("nonce", "-"), "state": said["state"]})
                    self.send_response(302)
                    self.send_header("Location", f"{said['redirect_uri']}?{back}")
                    self.end_headers()
                    return
                self._answer(provider.discovery() if "openid-configuration" in path else provider.keys())

            def do_POST(self) -> None:
                form = dict(urllib.parse.parse_qsl(self.rfile.read(int(self.headers["Content-Length"])).decode()))
                token = provider.token(form["code"])
                self._answer({"access_token": "a", "token_type": "Bearer", "expires_in": 3600, "id_token": token})

            def _answer(self, body: object) -> None:
                data = json.dumps(body).encode()
                self.send_response(200)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *_args: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def discovery(self) -> dict[str, object]:
        ends = {"authorization_endpoint": "authorize", "token_endpoint": "token", "jwks_uri": "keys"}
        return {"issuer": self.url, **{name: f"{self.url}/{path}" for name, path in ends.items()}} | {
            "response_types_supported": ["code"],
            "subject_types_supported": ["public"],
            "id_token_signing_alg_values_supported": ["RS256"],
        }

    def keys(self) -> dict[str, object]:
        numbers = self._key.public_key().public_numbers()
        n, e = (coded(value.to_bytes(size, "big")) for value, size in ((numbers.n, 256), (numbers.e, 3)))
        return {"keys": [{"kty": "RSA", "use": "sig", "alg": "RS256", "kid": "1", "n": n, "e": e}]}

    def token(self, nonce: str) -> str:
        now_s = int(time.time())
        said = {"iss": self.url, "aud": CLIENT, "sub": self.email, "email": self.email, "email_verified": True}
        said |= {"iat": now_s, "exp": now_s + 3600, "nonce": nonce}
        head = {"alg": "RS256", "typ": "JWT", "kid": "1"}
        signed = ".".join(coded(json.dumps(part).encode()) for part in (head, said))
        return f"{signed}.{coded(self._key.sign(signed.encode(), padding.PKCS1v15(), hashes.SHA256()))}"


@pytest.fixture
def provider() -> Iterator[Provider]:
    made = Provider()
    yield made
    made.stop()


@pytest.fixture
def pages(tmp_path: Path) -> Iterator[str]:
    """Their address: of the proxy alone a header is believed."""
    store = Store.open(tmp_path / "data")
    told = config.ServerConfig(
        server=config.Server(data_dir=str(tmp_path / "data")),
        web=config.Web(port=0, user_header="X-Forwarded-Email", proxies=("127.0.0.1",)),
    )
    with store.database.write() as connection:
        users.add(connection, "ada@example.org", "operator", password_hash="", by="test", now_ms=1)
        users.add(connection, "root@example.org", "admin", password_hash="", by="test", now_ms=1)
        secret = {"secret_sha256": digest("secret"), "expires_at_ms": None}
        users.add_token(connection, "ada@example.org", "a program", **secret, by="test", now_ms=1)
    made = Pages(store, told, now_ms=lambda: time.time_ns() // 1_000_000)
    yield made.start()
    made.stop()
    store.close()


@pytest.fixture
def proxied(provider: Provider, pages: str, tmp_path: Path) -> Iterator[str]:
    """Started with what docs/pages.md says, but on loopback and without TLS."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    (tmp_path / "secret").write_text("of the client")
    command = [
        PROGRAM, "--provider", "oidc", "--oidc-issuer-url", provider.url, "--client-id", CLIENT,
        "--client-secret-file", str(tmp_path / "secret"), "--cookie-secret", "0123456789abcdef0123456789abcdef",
        "--email-domain", "example.org", "--redirect-url", f"{url}/oauth2/callback",
        "--http-address", f"127.0.0.1:{port}", "--cookie-secure=false", "--skip-provider-button",
        "--upstream", pages, "--pass-user-headers", "--flush-interval", "1s", "--skip-auth-route", "^/(api|metrics)",
    ]  # fmt: skip
    with (tmp_path / "proxy.log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        deadline = time.monotonic() + START_S
        while not _up(url):
            assert process.poll() is None, (tmp_path / "proxy.log").read_text()
            assert time.monotonic() < deadline, (tmp_path / "proxy.log").read_text()
            time.sleep(0.1)
        yield url
    finally:
        process.terminate()
        process.wait(20)


def _up(url: str) -> bool:
    try:
        return httpx.get(f"{url}/ping").status_code == 200
    except httpx.HTTPError:
        return False


def test_who_the_provider_names_comes_in_with_the_role_that_is_said_here(provider: Provider, proxied: str) -> None:
    provider.email = "ada@example.org"
    forged = {"X-Forwarded-Email": "root@example.org", "X-Forwarded-User": "root@example.org"}
    with httpx.Client(base_url=proxied, follow_redirects=True, headers=forged) as client:
        page = client.get("/fleet")
        assert (page.status_code, page.url.path) == (200, "/fleet")
        assert "ada@example.org" in page.text  # and not who the browser says
        assert "root@example.org" not in page.text
        csrf = page.text.split('name="csrf" content="')[1].split('"')[0]
        assert client.get("/api/v1/me").json()["name"] == "ada@example.org"  # as scripts of the pages ask
        named = {"name": "hen", "why": "seen"}
        assert client.post("/api/v1/classes", json=named).status_code == 403
        assert client.post("/api/v1/classes", json=named, headers={"X-CSRF-Token": csrf}).status_code in (200, 201)
        with client.stream("GET", "/live") as news:  # events are not held back
            assert next(news.iter_lines()) == "retry: 2000"


def test_who_is_no_user_here_and_who_is_of_another_domain_stay_outside(provider: Provider, proxied: str) -> None:
    provider.email = "eve@example.org"
    with httpx.Client(base_url=proxied, follow_redirects=True) as client:
        assert client.get("/fleet").url.path == "/sign-in"
    provider.email = "ada@elsewhere.org"
    with httpx.Client(base_url=proxied, follow_redirects=True) as client:
        assert client.get("/fleet").status_code == 403


def test_a_program_comes_with_its_token(proxied: str) -> None:
    token = {"Authorization": "Bearer secret"}
    assert httpx.get(f"{proxied}/api/v1/me", headers=token).json()["name"] == "ada@example.org"
    forged = httpx.get(f"{proxied}/api/v1/me", headers={"X-Forwarded-Email": "root@example.org"})
    assert forged.status_code == 401
