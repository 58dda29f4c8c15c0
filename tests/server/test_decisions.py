"""Does the audit trail tell of whatever was decided, by whom and why?"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import quadrants
from device_words import FLEET, birth, message

from edge_agent.contract.wire import encode
from server.__main__ import main
from server.collect.ingest import Ingest
from server.store import trail
from server.store.store import Store

CONFIG = f"""
[server]
fleet = "{FLEET}"
data_dir = "data"
[broker]
plain = true
"""


@pytest.fixture
def here(tmp_path: Path) -> Path:
    (tmp_path / "server.toml").write_text(CONFIG)
    quadrants.artifact(tmp_path / "first")
    quadrants.another(tmp_path / "second", version=2)
    x, y = quadrants.images(20)
    np.savez(tmp_path / "some.npz", x=x, y=y, names=np.array(list("abcd")))
    store = Store.open(tmp_path / "data")
    Ingest(store, fleet=FLEET, offline_after_s=90.0).take([message("cam-1", "birth", encode(birth("s")))])
    store.close()
    return tmp_path


def say(here: Path, *words: str) -> None:
    assert main([*words, "--by", "ada", str(here / "server.toml")]) == 0


def told(here: Path) -> list[trail.Entry]:
    store = Store.open(here / "data")
    with store.database.read() as connection:
        assert trail.verify(connection) is None
        found = trail.entries(connection)
    store.close()
    return list(found)


def test_what_is_said_by_command_is_told_with_who_and_why(here: Path) -> None:
    say(here, "data", "import", str(here / "some.npz"), "--why", "bought")
    say(here, "model", "add", str(here / "first"), "--why", "from the maker")
    say(here, "model", "add", str(here / "second"))
    say(here, "rollout", "start", "2", "--why", "tested in the lab")
    say(here, "rollout", "pause", "1", "--reason", "the line is moved")
    say(here, "device", "channel", "cam-1", "beta")
    say(here, "device", "revoke", "cam-1", "--why", "stolen")
    say(here, "keys", "init")
    found = [(entry.what, entry.subject, entry.why) for entry in told(here)]
    assert found == [
        ("import", "import some", "bought"),
        ("publish", "version 1", "from the maker"),
        ("publish", "version 2", "given by hand"),
        ("roll out", "rollout 1", "tested in the lab"),
        ("pause", "rollout 1", "the line is moved"),
        ("place", "device cam-1", ""),
        ("revoke", "device cam-1", "stolen"),
        ("make keys", "keys", ""),
    ]
    assert {entry.who for entry in told(here)} == {"ada"}


def test_the_trail_is_listed_checked_and_held_against_a_head_kept_elsewhere(here: Path, capsys) -> None:
    for name in ("first", "second"):
        say(here, "model", "add", str(here / name))
    capsys.readouterr()
    config = str(here / "server.toml")
    assert main(["audit", "list", "--subject", "version 2", "--json", config]) == 0
    assert [entry["id"] for entry in json.loads(capsys.readouterr().out)] == [2]
    assert main(["audit", "verify", config]) == 0
    head = capsys.readouterr().out.split()[-1]
    assert main(["audit", "verify", "--head", head, config]) == 0
    store = Store.open(here / "data")
    with store.database.write() as connection:
        connection.exec_driver_sql("DELETE FROM trail WHERE id = 2")
    store.close()
    assert main(["audit", "verify", config]) == 0  # a shorter trail is a whole one
    assert main(["audit", "verify", "--head", head, config]) == 1
    assert "it was cut off, or made anew" in capsys.readouterr().err
    store = Store.open(here / "data")
    with store.database.write() as connection:
        connection.exec_driver_sql("UPDATE trail SET who = 'eve'")
    store.close()
    assert main(["audit", "verify", config]) == 1
    assert "entry 1: its content is not what was recorded" in capsys.readouterr().err


def test_a_command_that_fails_tells_nothing(here: Path) -> None:
    say(here, "model", "add", str(here / "second"))
    assert main(["model", "add", str(here / "first"), str(here / "server.toml")]) == 1
    assert main(["rollout", "pause", "7", str(here / "server.toml")]) == 1
    assert main(["erase", "--device", "cam-9", "--why", "x", str(here / "server.toml")]) == 1
    assert [entry.subject for entry in told(here)] == ["version 2"]


def test_what_would_be_erased_is_said_and_nothing_is_changed(here: Path, capsys) -> None:
    config = str(here / "server.toml")
    assert main(["erase", "--device", "cam-1", "--dry-run", config]) == 0
    assert "samples of 0 bytes and 0 labels would go\ntold to purge: cam-1" in capsys.readouterr().out
    assert main(["erase", "--device", "cam-1", "--dry-run", "--json", config]) == 0
    assert json.loads(capsys.readouterr().out)["ordered"] == ["cam-1"]
    assert main(["erase", "--device", "cam-1", config]) == 1  # without a reason nothing goes
    assert told(here) == []
