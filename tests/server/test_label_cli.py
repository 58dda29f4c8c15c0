"""Can people label from a command line, beside a running server or without one?"""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
import sqlalchemy as sa
from device_words import FLEET, uploads
from PIL import Image

from server.__main__ import main
from server.cli.options import now_ms
from server.collect.ingest import Ingest
from server.config import load_config
from server.roles.election import Election
from server.roles.labelling import labelling_of
from server.store import labels, questions, trail
from server.store.lock import only_one
from server.store.schema import label
from server.store.store import Store, open_store


@pytest.fixture
def config(tmp_path):
    path = tmp_path / "server.toml"
    path.write_text(
        '[server]\ndata_dir = "data"\n[labeler]\nkind = "human"\nprices = ["human=36/h"]\ncurrency = "CHF"\n'
        "gold_share = 0.0\nblind_share = 0.0\n"
    )
    store = Store.open(tmp_path / "data")
    ingest = Ingest(store, fleet=FLEET, offline_after_s=90.0)
    ingest.take([message for seq in range(4) for message in uploads("cam-1", seq)])
    with store.database.write() as connection:
        labels.ensure_names(connection, ["cat", "dog", "owl", "rat"])
    store.close()
    return str(path)


@pytest.fixture
def say(config, capsys):
    def say(*words: str, code: int = 0) -> str:
        assert main([*words, config]) == code
        done = capsys.readouterr()
        return done.err if code else done.out

    return say


def name(seq: int) -> str:
    return f"cam-1.main.1.{seq}"


def test_a_session_of_two_people(say, tmp_path):
    asked = json.loads(say("label", "next", "--by", "ann", "--count", "2", "--out", str(tmp_path / "pics"), "--json"))
    assert [row["sample_id"] for row in asked] == [name(0), name(1)]
    assert (asked[0]["guess"], asked[0]["guess_by"]) == ("rat", "version 1")
    assert Image.open(asked[0]["picture"]).size == (228, 228)
    assert name(2) in say("label", "next", "--by", "bob")
    assert say("label", "answer", name(0), "dog", "--by", "ann", "--seconds", "10").startswith(f"{name(0)}: dog, by 1")
    assert "did you mean 'cat'" in say("label", "answer", name(1), "catt", "--by", "ann", code=1)
    say("label", "answer", name(1), "newt", "--new-class", "--by", "ann", "--seconds", "20")
    say("label", "skip", name(2), "--by", "bob")
    assert name(1) in say("label", "undo", "--by", "ann")
    assert name(1) in say("label", "next", "--by", "ann")
    say("label", "answer", name(1), "cannot tell", "--by", "ann", "--seconds", "2")
    assert [row["class"] for row in json.loads(say("label", "classes", "--json"))] == [
        "cat",
        "dog",
        "owl",
        "rat",
        "newt",
    ]


def test_effort_is_told_in_minutes_and_money(say):
    for seq, seconds in ((0, "10"), (1, "20")):
        say("label", "answer", name(seq), "dog", "--by", "ann", "--seconds", seconds)
    view = json.loads(say("labels", "--json"))
    assert (view["minutes"], view["price"], view["currency"]) == (0.5, 0.3, "CHF")
    assert view["kinds"][0] | {"seconds_each": 15.0, "price_each": 0.15} == view["kinds"][0]
    assert "0.5 label-minutes, 0.30 CHF" in say("labels", "--days", "7")
    status = json.loads(say("status", "--json"))
    assert status["labelling"]["price"] == 0.3
    assert "0.5 label-minutes, 0.30 CHF" in say("status")
    quality = json.loads(say("label", "quality", "--json"))
    assert (quality["labelers"][0]["labeler"], quality["labelers"][0]["answers"]) == ("ann", 2)
    assert "ann" in say("label", "quality")


def test_decisions_are_in_the_trail(say, tmp_path):
    say("label", "gold", "add", name(0), "cat", "--by", "boss", "--why", "I was there")
    assert json.loads(say("label", "gold", "list", "--json")) == [{"sample": name(0), "class": "cat", "by": "boss"}]
    say("label", "gold", "remove", name(0), "--by", "boss")
    say("label", "ask", name(1), "--labelers", "2", "--by", "boss")
    assert "is asked" not in say("label", "ask", "cam-9.main.1.1", code=1)
    say("label", "classes", "--add", "emu", "--by", "boss", "--why", "they moved in")
    store = Store.open(tmp_path / "data")
    with store.database.read() as connection:
        told = [(one.what, one.who, one.why) for one in trail.entries(connection)]
        assert trail.verify(connection) is None
        assert connection.scalars(sa.select(label.c.labeler)).all() == ["boss"]
    store.close()
    assert [what for what, _, _ in told] == ["vouch", "doubt", "ask again", "add class"]
    assert told[0] == ("vouch", "boss", "I was there")
    assert told[3][2] == "they moved in"


def test_who_is_alone_is_asked_about_everything_though_others_are_wanted_too(config, say):
    path = Path(config)
    path.write_text(path.read_text() + "overlap_share = 1.0\nbatch = 2\n")
    for _ in range(4):
        (asked,) = json.loads(say("label", "next", "--by", "ann", "--json"))
        say("label", "answer", asked["sample_id"], "cat", "--by", "ann")
    assert say("label", "next", "--by", "ann").strip() == "nothing to answer now"
    assert json.loads(say("labels", "--json"))["kinds"][0]["answers"] == 4


def test_beside_a_running_server_the_queue_is_the_servers(say, config, tmp_path):
    loaded = load_config(Path(config))
    with only_one(tmp_path / "data"), open_store(loaded) as store:
        if store.database.shared:  # there the lock says nothing, and the seat does
            assert Election(store, "schedule", lease_s=60.0).stand()
        assert say("label", "next", "--by", "ann").strip() == "nothing to answer now"  # it is the server that plans
        server = labelling_of(loaded, store, now_ms=now_ms)
        server.start()
        for _ in range(600):
            with store.database.read() as connection:
                if questions.count(connection).get("first") == 4:
                    break
            time.sleep(0.05)
        assert name(0) in say("label", "next", "--by", "ann")
        say("label", "answer", name(0), "cat", "--by", "ann")
        server.stop(timeout_s=10)
        with store.database.read() as connection:
            assert labels.counts(connection).labelled == 1


def test_suspects_without_a_model_say_what_to_do(say):
    assert "train one" in say("label", "suspects", code=1)


def test_nothing_to_do_is_said(say):
    for seq in range(4):
        say("label", "answer", name(seq), "cat", "--by", "ann")
    assert say("label", "next", "--by", "ann").strip() == "nothing to answer now"
    assert "nothing that could" not in say("label", "undo", "--by", "zoe", code=1)
