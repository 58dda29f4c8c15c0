"""Does every command say how it is used, and speak to programs too?"""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator
from typing import Any

import pytest
import typer
from api_scene import Scene

from server import __main__ as program

# They do something, and say no more than that it is done.
ACTS = {
    "init", "run", "ingest", "schedule", "web",
    "broker-certificate", "train", "demo", "backtest", "export", "request", "cancel-request",
    "device enrol", "device revoke", "device channel", "device ring", "device site", "device pause", "device resume",
    "device budget",
    "webhook test", "data import", "data rule", "model add",
    "model import", "model sign", "model export", "keys init", "keys rotate", "keys extend", "keys sign",
    "label skip", "label undo", "label ask", "label gold add", "label gold remove", "snapshot export", "gates override",
    "rollout start", "rollout pause", "rollout resume", "rollout approve", "rollout halt", "rollout rollback",
    "user add", "user change", "user token", "user revoke-token",
}  # fmt: skip


def commands(group: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """Every command that can be given, those of groups included."""
    for word, one in group.commands.items():
        whole = f"{name} {word}".strip()
        if hasattr(one, "commands"):
            yield from commands(one, whole)
        else:
            yield whole, one


TOP = typer.main.get_command(program.app)
COMMANDS = dict(commands(TOP))


def parse(words: list[str]) -> str:
    """Read a command line as the program would; returns the command that it names."""
    group, named = TOP, []
    while hasattr(group, "commands"):
        context = group.make_context(words[0], words[1:])
        word, group, rest = group.resolve_command(context, [*context._protected_args, *context.args])
        named, words = [*named, word], [word, *rest]
    group.make_context(words[0], words[1:])
    return " ".join(named)


@pytest.mark.parametrize("name", COMMANDS)
def test_its_example_can_be_typed_and_is_of_itself(name):
    kind, _, example = COMMANDS[name].epilog.partition(": ")
    assert kind == "Example"
    program_name, *words = shlex.split(example)
    assert program_name == "winnow-server"
    assert parse([program_name, *words]) == name


@pytest.mark.parametrize("name", sorted(COMMANDS.keys() - ACTS))
def test_what_shows_something_shows_it_to_programs_too(name):
    assert "--json" in {word for parameter in COMMANDS[name].params for word in parameter.opts}


def test_the_list_of_those_that_only_do_something_is_not_stale():
    assert COMMANDS.keys() >= ACTS


def test_a_word_that_no_command_takes_is_an_error(capsys):
    assert program.main(["devices", "--sight", "barn", "server.toml"]) == 2
    assert "No such option: --sight" in capsys.readouterr().err


@pytest.fixture(scope="module")
def toml(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cli")
    Scene(folder / "data").close()
    (folder / "server.toml").write_text('[server]\nfleet = "test"\ndata_dir = "data"\n[broker]\nplain = true\n')
    return str(folder / "server.toml")


def shown(capsys, *words: str) -> Any:
    assert program.main(list(words)) == 0
    return json.loads(capsys.readouterr().out)


def test_samples_are_found_and_a_device_and_a_version_are_shown(toml, capsys):
    found = shown(capsys, "samples", "--device", "cam-1", "--labelled", "--limit", "3", "--json", toml)
    assert [row["label"] for row in found] == ["cat", "owl", "fox"]  # the last labelled first
    device = shown(capsys, "device", "show", "cam-1", "--json", toml)
    assert (device["stored"], device["version"], len(device["events"])) == (12, 1, 3)
    version = shown(capsys, "model", "show", "1", "--json", toml)
    assert (version["rollouts"], version["devices"]) == ({"stable": "running"}, ["cam-1", "cam-2"])
    tokens = shown(capsys, "user", "tokens", "--name", "admin", "--json", toml)
    assert [row["user"] for row in tokens] == ["admin"]
    for words in (["samples"], ["device", "show", "cam-2"], ["model", "show", "1"], ["user", "tokens"], ["models"]):
        assert program.main([*words, toml]) == 0
        assert capsys.readouterr().out.strip()


def test_how_a_round_learned_is_shown(toml, capsys):
    (listed,) = shown(capsys, "runs", "list", "--json", toml)
    assert (listed["run"], listed["state"], listed["epochs"]) == (1, "rejected", 2)
    curve = shown(capsys, "runs", "show", "1", "--json", toml)["curve"]
    assert [(point["epoch"], point["loss"], point["held_loss"]) for point in curve] == [(1, 0.9, None), (2, None, 1)]
    assert program.main(["runs", "show", "1", toml]) == 0
    told = capsys.readouterr().out
    assert "rejected" in told
    assert "0.004" in told


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["runs", "show", "9"], "there is no round 9; the newest is 1"),
        (["device", "show", "cam-3"], "device 'cam-3' has never been seen (did you mean 'cam-2'?)"),
        (["model", "show", "9"], "version 9 is not in the registry"),
    ],
)
def test_what_is_not_there_is_said(toml, capsys, words, said):
    assert program.main([*words, toml]) == 1
    assert said in capsys.readouterr().err


def test_the_newest_snapshot_is_exported(toml, tmp_path, capsys):
    assert program.main(["export", str(tmp_path / "out"), "--format", "images", toml]) == 0
    assert "of snapshot" in capsys.readouterr().out
    assert any((tmp_path / "out").iterdir())
