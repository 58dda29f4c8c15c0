"""Does the fleet work as well with a broker that somebody else runs, by the files in deploy/broker?"""

from __future__ import annotations

import base64
import hashlib
import os
import pwd
from pathlib import Path
from typing import NamedTuple

import pytest
from broker import Broker
from device_words import FLEET, frames
from fleet_ca import FleetCA, now_ms, until

from edge_agent.contract.broker import NO_FILES, TlsFiles
from edge_agent.contract.errors import UplinkError
from edge_agent.contract.keys import new_key, private_pem
from edge_agent.contract.wire import Receipt, decode, down_topic, up_topic
from edge_agent.send.connection import Access, Connection
from server.collect.access import rules
from server.collect.broker import configuration
from server.collect.collector import Collector
from server.collect.gateway import BrokerAddress
from server.collect.ingest import Ingest
from server.errors import ServerConfigError
from server.identity.authority import SERVER
from server.store.store import Store

DEPLOY = Path(__file__).resolve().parents[2] / "deploy" / "broker"
PASSWORDS = {SERVER: "of the server", "cam-1": "of cam-1"}


class Way(NamedTuple):
    """How to come in as somebody."""

    username: str
    password: str
    files: TlsFiles


class OwnBroker:
    """deploy/broker, where we have its files; by certificates or, as its comments say, by passwords."""

    def __init__(self, folder: Path, *, passwords: bool) -> None:
        self.ca = FleetCA(folder, fleet=FLEET)
        self.passwords = passwords
        key = new_key()
        made = self.ca.authority.issue_broker(key.public_key(), host="127.0.0.1", now_ms=now_ms(), days=10.0)
        (folder / "broker.pem").write_bytes(private_pem(key) + made.pem)
        (folder / "fleet.acl").write_text((DEPLOY / "fleet.acl").read_text().replace("/default/", f"/{FLEET}/"))
        (folder / "passwords").write_text("".join(hashed(*pair) for pair in PASSWORDS.items()))
        for name in ("ca.pem", "crl.pem"):
            (folder / name).write_bytes((folder / "identity" / name).read_bytes())
        self.broker = Broker(folder)
        text = (DEPLOY / "mosquitto.conf").read_text().replace("/etc/mosquitto/winnow", str(folder))
        text = text.replace("listener 8883", f"listener {self.broker.port} 127.0.0.1")
        text = with_passwords(text) if passwords else text
        (folder / "mosquitto.conf").write_text(f"user {pwd.getpwuid(os.geteuid()).pw_name}\n{text}")
        self.broker.start()

    def way(self, name: str) -> Way:
        if self.passwords:
            return Way(name, PASSWORDS[name], TlsFiles(str(self.ca.ca_file), "", ""))
        return Way("", "", self.ca.server_files if name == SERVER else self.ca.identify(name))


def with_passwords(text: str) -> str:
    lines = text.splitlines()
    first = lines.index("require_certificate true")
    lines = lines[:first] + lines[first + 4 :]
    return "\n".join(line.removeprefix("#") if line.startswith("#") and line[1] != " " else line for line in lines)


def hashed(user: str, password: str) -> str:
    """A line of mosquitto's password file: PBKDF2 with SHA-512, 101 turns."""
    salt = hashlib.sha256(user.encode()).digest()[:12]
    found = hashlib.pbkdf2_hmac("sha512", password.encode(), salt, 101)
    return f"{user}:$7$101${base64.b64encode(salt).decode()}${base64.b64encode(found).decode()}\n"


@pytest.fixture(params=["certificates", "passwords"])
def own(request, tmp_path):
    made = OwnBroker(tmp_path, passwords=request.param == "passwords")
    yield made
    made.broker.kill()


@pytest.fixture
def collector(own, tmp_path):
    way, store = own.way(SERVER), Store.open(tmp_path / "store")
    url = f"mqtts://127.0.0.1:{own.broker.port}"
    made = Collector(
        Ingest(store, fleet=FLEET, offline_after_s=90.0),
        BrokerAddress.parse(url, username=way.username, password=way.password, files=way.files),
        fleet=FLEET,
        now_ms=now_ms,
        commit_rows=10,
    )
    made.start()
    yield made
    made.stop()
    store.close()


def test_samples_come_in_and_receipts_go_out(own, collector):
    assert collector.wait_ready(10.0)
    way, received = own.way("cam-1"), []
    access = Access("127.0.0.1", own.broker.port, "cam-1", way.username, way.password, way.files, 5)
    connection = Connection(
        access,
        will=(up_topic(FLEET, "cam-1", "death"), b"{}"),
        received=lambda topic, payload, _: received.append((topic, payload)),
        ended=lambda: None,
    )
    connection.open([down_topic(FLEET, "cam-1", "receipt")])
    for frame in frames("cam-1", 7):
        connection.publish(up_topic(FLEET, "cam-1", "sample"), frame, qos=1)
    connection.publish(up_topic(FLEET, "cam-2", "sample"), b"forged", qos=1)
    until(lambda: received)
    assert received[0][0] == down_topic(FLEET, "cam-1", "receipt")
    assert decode(Receipt, received[0][1]).accepted == ("cam-1.main.1.7",)
    connection.close(cleanly=True)


def test_who_cannot_prove_who_he_is_stays_outside(own):
    way = own.way("cam-1")
    wrong = (
        way._replace(password="x")
        if own.passwords
        else way._replace(files=NO_FILES._replace(ca_file=way.files.ca_file))
    )
    access = Access("127.0.0.1", own.broker.port, "cam-1", wrong.username, wrong.password, wrong.files, 5)
    connection = Connection(access, will=("x", b""), received=lambda *_: None, ended=lambda: None)
    with pytest.raises(UplinkError):
        connection.open([])
    connection.close(cleanly=False)


def test_the_files_in_deploy_are_what_the_server_would_write(tmp_path):
    text = (DEPLOY / "fleet.acl").read_text()
    assert text[text.index("user ") :] == rules("default", server=SERVER)
    ca = FleetCA(tmp_path)
    ours = set(configuration(8883, user="x", entry=ca.entry, acl_file=tmp_path).splitlines())
    theirs = set((DEPLOY / "mosquitto.conf").read_text().splitlines())
    bounds = {line for line in ours if line.startswith("max_")}
    assert (
        bounds | {"require_certificate true", "use_identity_as_username true", "use_username_as_clientid true"}
        <= ours & theirs
    )


@pytest.mark.parametrize(
    ("url", "files", "expected"),
    [
        ("mqtts://h", TlsFiles("/nowhere/ca.pem", "", ""), "expected PEM certificates"),
        ("mqttss://h", NO_FILES, "did you mean 'mqtts'"),
        ("mqtt://me:secret@h", NO_FILES, "password_file"),
    ],
)
def test_a_broker_that_cannot_be_used_is_a_configuration_to_mend(url, files, expected):
    with pytest.raises(ServerConfigError, match=expected):
        BrokerAddress.parse(url, files=files)
