"""What an enrolment says of models, and what a member may then fetch by HTTPS: the server's own service, real TLS."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Iterator
from typing import NamedTuple

import pytest
import quadrants
from device_words import NOW_MS
from fleet_ca import FleetCA
from hypothesis import given
from hypothesis import strategies as st

from edge_agent.config import load_config
from edge_agent.contract.artifact import MODEL, sha256_hex
from edge_agent.contract.wire import BLOCK_BYTES, Fetch
from edge_agent.identity.enrol import enrol
from edge_agent.update.https import Https
from edge_agent.update.trust import check_anchor
from server.identity.enrolment import Enrolment, invite
from server.identity.handout import Handout
from server.identity.web import FILES, Web, make_app
from server.release.blocks import Blocks
from server.release.files import part
from server.release.registry import add_artifact
from server.release.signing import Policy, Signing
from server.roles.devices import files_of
from server.store.store import Store


class Service(NamedTuple):
    store: Store
    signing: Signing
    ca: FleetCA
    address: str


@pytest.fixture
def service(tmp_path) -> Iterator[Service]:
    store, ca, signing = Store.open(tmp_path / "store"), FleetCA(tmp_path / "ca"), Signing(tmp_path / "store")
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]

    def root() -> str:
        return bytes(signing.bundle().roots[-1]).decode() if signing.on else ""

    enrolment = Enrolment(store, ca.authority, fleet="farm", broker="mqtts://127.0.0.1:1", days=90.0, root=root)
    app = make_app(enrolment, ca.authority, now_ms=lambda: NOW_MS, handout=Handout(files_of(Blocks(store, signing))))
    web = Web(app, listen="127.0.0.1", port=port, cert_file=str(ca.credentials.cert_file))
    web.start()
    yield Service(store, signing, ca, f"https://127.0.0.1:{port}")
    web.stop()
    store.close()


def member(service: Service, folder, name: str):
    """Its agent.toml."""
    token = invite(
        service.store,
        name,
        again=False,
        url=service.address,
        ca_sha256=service.ca.authority.fingerprint,
        secret=name.encode().ljust(32),
        expires_at_ms=NOW_MS + 60_000,
        now_ms=NOW_MS,
    )
    return enrol(token, folder).toml


def test_a_member_is_given_the_root_of_now_and_trusts_it(service, tmp_path):
    unsigned = load_config(member(service, tmp_path / "cam-1", "cam-1"))
    assert unsigned.update.trust == ""
    service.signing.init(Policy(), now_ms=NOW_MS)
    service.signing.rotate("root", now_ms=NOW_MS)
    signed = load_config(member(service, tmp_path / "cam-2", "cam-2"))
    assert signed.update.trust == str(tmp_path / "cam-2" / "identity" / "root.json")
    assert check_anchor(tmp_path / "cam-2" / "identity" / "root.json") == 2


def test_a_member_fetches_models_and_signatures_and_nothing_else(service, tmp_path):
    service.signing.init(Policy(), now_ms=NOW_MS)
    quadrants.artifact(tmp_path / "one", version=1)
    version = add_artifact(service.store, tmp_path / "one", weights=None, now_ms=NOW_MS)
    secret = service.store.blobs.put(b"somebody's sample")
    ca_file = tmp_path / "cam-1" / "identity" / "ca.pem"
    member(service, tmp_path / "cam-1", "cam-1")
    https = Https(lambda: ssl.create_default_context(cafile=str(ca_file)), timeout_s=5.0)
    onnx = (tmp_path / "one" / MODEL).read_bytes()
    for sha256, size in (
        (version.manifest_sha256, version.manifest_bytes),
        (sha256_hex(onnx), len(onnx)),
        service.signing.stamp(),
    ):
        ((header, data),) = https.get(service.address + FILES, Fetch(sha256=sha256, blocks=(0,)))
        assert (header.total_bytes, sha256_hex(data)) == (size, sha256)
    assert https.get(service.address + FILES, Fetch(sha256=secret, blocks=(0,))) == []
    https.close()


@given(st.integers(1, 300), st.integers(0, 400), st.integers(0, 400))
def test_a_part_is_the_bytes_that_it_says(size, first, last):
    data = bytes(index % 251 for index in range(size))
    found = part(data, f"bytes={first}-{last}")
    if found.status == 206:
        begins, _, ends = found.headers["Content-Range"].removeprefix("bytes ").partition("/")[0].partition("-")
        assert bytes(found.body) == data[int(begins) : int(ends) + 1]
        assert (int(begins), int(ends)) == (first, min(last, size - 1))
    elif found.status == 416:
        assert first >= size
        assert bytes(found.body) == b""
    else:
        assert last < first
        assert bytes(found.body) == data


@pytest.mark.parametrize(
    "asked", [None, "", "bytes=-5", "bytes=0-1,4-5", "lines=1-2", "bytes=x-y", "bytes=0-" + "9" * 99]
)
def test_what_is_no_range_we_know_gives_the_whole(asked):
    assert part(bytes(BLOCK_BYTES), asked).status == 200
