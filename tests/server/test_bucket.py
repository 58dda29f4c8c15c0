"""What can go wrong with a bucket: a real S3 that dies, denies and garbles, and answers that only AWS gives."""

from __future__ import annotations

import contextlib
import hashlib
import re
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from link import Link
from s3 import BUCKET, HOST, S3Server, act_as, put_raw

from server import config
from server.errors import StoreError
from server.store import s3 as speaking
from server.store.bucket import Bucket
from server.store.s3 import Address
from server.store.store import Store, open_blobs


def bodies(count: int, *, of: int = 20_000, start: int = 0) -> list[bytes]:
    return [hashlib.sha256(str(n).encode()).digest() * (of // 32) for n in range(start, start + count)]


def name_of(body: bytes) -> str:
    return hashlib.sha256(body).hexdigest()


class Garbling(Link):
    """Changes every GOOD that passes, either way."""

    def _carry(self, source: socket.socket, sink: socket.socket, went: list[tuple[float, int]]) -> None:
        with contextlib.suppress(OSError):  # the other way was closed first
            while data := source.recv(1 << 20):
                sink.sendall(data.replace(b"GOOD", b"EVIL"))
        for end in (source, sink):
            end.close()


def test_a_server_that_is_killed_while_it_is_put_to_has_all_that_it_said_it_has(s3: S3Server) -> None:
    with closing(Bucket(s3.address("killed"))) as bucket:
        kept: list[list[bytes]] = []
        some_kept = threading.Event()
        killer = threading.Thread(target=lambda: (some_kept.wait(), s3.kill()))
        killer.start()
        with pytest.raises(StoreError, match="s3://fleet/killed: .*cannot be reached"):  # noqa: PT012 - which is open
            while True:
                some = bodies(40, start=40 * len(kept))
                bucket.put_many(some)
                kept.append(some)
                some_kept.set()
        killer.join()
        s3.start()
        for whole in kept:
            assert list(bucket.get_many(map(name_of, whole))) == whole
        assert list(bucket.get_many(bucket.put_many(some))) == some
        assert len(bucket) == 40 * (len(kept) + 1)


def test_a_link_that_breaks_is_an_error_and_is_used_again(s3: S3Server) -> None:
    link = Link(s3.port)
    with closing(Bucket(s3.address("link", port=link.port))) as bucket:
        large = bytes(3_000_000)
        name = bucket.put(large)
        link.slow(0.02)
        cutting = threading.Timer(0.1, link.cut)
        cutting.start()
        with pytest.raises(StoreError, match="cannot be reached") as caught:
            bucket.get(name)
        assert caught.value.__cause__ is not None  # not the body's fault
        cutting.join()
        with pytest.raises(StoreError, match="is it up"):
            bucket.has(name)
        link.mend()
        assert bucket.get(name) == large
    link.close()


def test_bytes_that_change_on_the_way_are_refused_there_and_here(s3: S3Server) -> None:
    link = Garbling(s3.port)
    good = b"GOOD" * 2000
    name = hashlib.sha256(good).hexdigest()
    with closing(Bucket(s3.address("garbled", port=link.port))) as bucket:
        with pytest.raises(StoreError, match=r"(?i)sha256|digest"):
            bucket.put(good)
        with closing(Bucket(s3.address("garbled"))) as straight:
            assert not straight.has(name)
            straight.put(good)
        with pytest.raises(StoreError, match=f"blob {name} is damaged"):
            bucket.get(name)
    link.close()


def test_who_may_not_is_told_what_to_mend(s3: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    with closing(Bucket(s3.address("rights"))) as bucket:
        name = bucket.put(b"to be read")
    act_as("reader", monkeypatch)
    with closing(Bucket(s3.address("rights"))) as bucket:
        bucket.look()
        assert bucket.get(name) == b"to be read"
        with pytest.raises(StoreError, match=r"s3://fleet/rights: .*AccessDenied.*grant these credentials") as caught:
            bucket.put(b"not to be written")
        assert str(caught.value).count("\n") == 0
        with pytest.raises(StoreError, match="AccessDenied"):
            bucket.erase([name])
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    with closing(Bucket(s3.address("rights"))) as bucket, pytest.raises(StoreError, match="AWS_SECRET_ACCESS_KEY"):
        bucket.look()
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "nobody")
    with closing(Bucket(s3.address("rights"))) as bucket, pytest.raises(StoreError, match="InvalidAccessKeyId"):
        bucket.look()


def test_without_credentials_the_store_says_where_they_are_looked_for(
    s3: S3Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    with pytest.raises(StoreError, match=r"s3://fleet/none: no credentials: set AWS_ACCESS_KEY_ID"):
        Bucket(s3.address("none"))
    (tmp_path / "credentials").write_text(
        "[default]\naws_access_key_id = owner-key\naws_secret_access_key = owner-secret\n"
    )
    with closing(Bucket(s3.address("none"))) as bucket:
        assert bucket.get(bucket.put(b"by a file")) == b"by a file"


def test_a_bucket_that_is_not_there_is_no_empty_one(s3: S3Server, tmp_path: Path) -> None:
    missing = s3.address("x", bucket="not-made")
    with closing(Bucket(missing)) as bucket:
        for ask in (bucket.look, lambda: bucket.put(b"x"), lambda: bucket.get("ab" * 32), lambda: len(bucket)):
            with pytest.raises(StoreError, match="NoSuchBucket.*make the bucket"):
                ask()
    settings = config.Store(blobs=str(missing), s3_endpoint=missing.endpoint)
    with pytest.raises(StoreError, match="NoSuchBucket"):
        Store.open(tmp_path / "data", settings)


def test_a_store_opens_while_its_bucket_is_away(s3: S3Server, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    link = Link(s3.port)
    link.cut()
    with closing(Store.open(tmp_path / "data", s3.settings("away", port=link.port))) as store:
        assert "cannot be reached" in caplog.text
        with pytest.raises(StoreError, match="cannot be reached"):
            store.blobs.put(b"x")
        link.mend()
        assert store.blobs.get(store.blobs.put(b"x")) == b"x"
    link.close()


def test_erasing_leaves_no_version(s3: S3Server) -> None:
    client = s3.client()
    client.create_bucket(Bucket="versioned")
    client.put_bucket_versioning(Bucket="versioned", VersioningConfiguration={"Status": "Enabled"})
    address = s3.address("blobs", bucket="versioned")
    with closing(Bucket(address)) as bucket:
        name, kept, marked = bucket.put_many([b"to be erased", b"to be kept", b"deleted by somebody"])
        client.put_object(Bucket="versioned", Key=address.key(name), Body=b"to be erased")
        client.delete_object(Bucket="versioned", Key=address.key(marked))

        def versions() -> list[str]:
            found = client.list_object_versions(Bucket="versioned", Prefix="blobs/")
            return sorted(one["Key"][-64:] for kind in ("Versions", "DeleteMarkers") for one in found.get(kind, ()))

        assert versions().count(name) == 2
        assert versions().count(marked) == 2
        assert bucket.erase([name, marked, "00" * 32]) == 2
        assert versions() == [kept]
        client.put_bucket_versioning(Bucket="versioned", VersioningConfiguration={"Status": "Suspended"})
        assert bucket.delete(kept)
        assert versions() == []
        assert not bucket.delete(kept)


class Small(BaseHTTPRequestHandler):
    """As much S3 as a bucket needs, with the faults of small servers, and AWS's words."""

    objects: dict[str, bytes]
    refuses: tuple[int, str]  # status and body of every answer; 0: none
    conflicts: int  # that many PUTs meet another that is under way
    put: list[str]
    protocol_version = "HTTP/1.1"

    def do_PUT(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        key = self.path.partition("?")[0]
        assert self.headers["x-amz-checksum-sha256"] or self.headers["x-amz-content-sha256"]
        self.put.append(key)
        if type(self).conflicts and self.headers["If-None-Match"]:
            type(self).conflicts -= 1
            self._answer(409, "<Error><Code>ConditionalRequestConflict</Code></Error>")
        elif not self._refused():
            self.objects[key] = body  # whatever If-None-Match says
            self._answer(200)

    def do_GET(self) -> None:
        if not self._refused():
            body = self.objects.get(self.path)
            self._answer(200, body) if body is not None else self._answer(404, "<Error><Code>NoSuchKey</Code></Error>")

    do_HEAD = do_GET  # noqa: N815

    def _refused(self) -> bool:
        if self.refuses[0]:
            self._answer(*self.refuses)
        return bool(self.refuses[0])

    def _answer(self, status: int, body: str | bytes = b"") -> None:
        said = body.encode() if isinstance(body, str) else body
        self.send_response(status)
        for name, value in (("Content-Length", len(said)), ("ETag", '"1"'), ("Last-Modified", self.date_time_string())):
            self.send_header(name, str(value))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(said)

    def log_message(self, *_: object) -> None:
        """Nothing."""


@contextmanager
def small(**how: object) -> Iterator[tuple[Bucket, type[Small]]]:
    defaults: dict[str, object] = {"objects": {}, "refuses": (0, ""), "conflicts": 0, "put": []}
    handler = type("Handler", (Small,), {**defaults, **how})
    server = ThreadingHTTPServer((HOST, 0), handler)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    with closing(Bucket(Address("small", "p", f"http://{HOST}:{server.server_port}"))) as bucket:
        yield bucket, handler
    server.shutdown()
    server.server_close()


@pytest.fixture
def credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    act_as("owner", monkeypatch)


@pytest.mark.usefixtures("credentials")
def test_a_server_that_ignores_if_none_match_stays_right() -> None:
    with small() as (bucket, server):
        names = bucket.put_many(bodies(20) * 2)
        assert bucket.put_many(bodies(20) * 2) == names
        assert list(bucket.get_many(names)) == bodies(20) * 2
        assert len(server.objects) == 20


@pytest.mark.usefixtures("credentials")
def test_whoever_meets_another_that_puts_the_same_does_not_trust_it_to_succeed() -> None:
    with small(conflicts=1) as (bucket, server):
        name = bucket.put(b"contested")
        assert len(server.put) == 2
        assert bucket.get(name) == b"contested"


@pytest.mark.usefixtures("credentials")
@pytest.mark.parametrize(
    ("status", "code", "advice"),
    [
        (301, "PermanentRedirect", "set [store] s3_region"),
        (400, "AuthorizationHeaderMalformed", "set [store] s3_region"),
        (403, "RequestTimeTooSkewed", "set the clock"),
        (403, "AccessDenied", "docs/blobs.md"),
        (400, "ExpiredToken", "renew the credentials"),
        (404, "NoSuchBucket", "make the bucket"),
    ],
)
def test_what_aws_says_is_explained(status: int, code: str, advice: str) -> None:
    answer = f"<Error><Code>{code}</Code><Message>in AWS's words</Message></Error>"
    with small(refuses=(status, answer)) as (bucket, _):
        for ask in (lambda: bucket.put(b"x"), lambda: bucket.get("ab" * 32)):
            with pytest.raises(StoreError, match=rf"s3://small/p.*{code}: .*{re.escape(advice)}"):
                ask()


@pytest.mark.usefixtures("credentials")
def test_a_server_that_is_busy_is_asked_again_and_then_given_up_for_now() -> None:
    with small(refuses=(503, "<Error><Code>SlowDown</Code></Error>")) as (bucket, server):
        with pytest.raises(StoreError, match=r"SlowDown.*tried again"):
            bucket.put(b"x")
        assert len(server.put) == 1 + speaking.TRIES_MORE
        server.refuses = (0, "")
        bucket.put(b"x")


@pytest.mark.parametrize(
    "wrong",
    [
        "s3://",
        "s3://UPPER/x",
        "s3://ab",
        "s3://bucket/pre fix",
        "s3://bucket/../x",
        "s3://bucket/x?",
        "s3://bucket//x",
        "gs://bucket/x",
    ],
)
def test_an_address_that_is_none(wrong: str) -> None:
    with pytest.raises(StoreError, match="expected s3://bucket/prefix"):
        open_blobs(wrong)


def test_the_wait_for_a_silent_server_is_bounded(s3: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    link = Link(s3.port)
    with closing(Bucket(s3.address("silent"))) as bucket:
        name = bucket.put(b"x")
    monkeypatch.setattr(speaking, "SILENT_S", 0.3)
    monkeypatch.setattr(speaking, "TRIES_S", 0.3)
    link.hang()
    since = time.monotonic()
    with closing(Bucket(s3.address("silent", port=link.port))) as bucket:
        with pytest.raises(StoreError, match="cannot be reached"):
            bucket.put_many(bodies(100))
        with pytest.raises(StoreError, match="cannot be reached"):
            bucket.get(name)
    assert time.monotonic() - since < speaking.REQUEST_S / 2
    link.close()


def test_whoever_asks_a_bucket_that_was_closed_is_told(s3: S3Server) -> None:
    bucket = Bucket(s3.address("closed"))
    name = bucket.put(b"x")
    bucket.close()
    with pytest.raises(StoreError, match="we are stopping") as caught:
        bucket.get(name)
    assert caught.value.__cause__ is not None


def test_a_bucket_may_be_used_from_its_root(s3: S3Server) -> None:
    s3.client().create_bucket(Bucket="all-of-it")
    with closing(Bucket(s3.address("", bucket="all-of-it"))) as bucket:
        bucket.look()
        names = sorted(bucket.put_many(bodies(5)))
        assert list(bucket.names()) == names
        assert list(bucket.names(names[1])) == names[2:]
        assert bucket.erase(names[:2]) == 2
        assert (len(bucket), bucket.where) == (3, "s3://all-of-it")


def test_a_bucket_is_named_by_its_place(s3: S3Server) -> None:
    with closing(open_blobs(f"s3://{BUCKET}/here/", s3.settings("here"))) as blobs:
        assert blobs.where == "s3://fleet/here"
        put_raw(s3, "here", "ab" * 32, b"rubbish")
        assert list(blobs.names()) == ["ab" * 32]
