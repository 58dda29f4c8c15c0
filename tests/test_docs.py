"""Are the generated references what the code says, and does everything that can be set or typed say what it is?"""

from __future__ import annotations

import re
import typing
from pathlib import Path

import pytest

from edge_agent.config import AgentConfig
from edge_agent.contract import wire
from scripts import docs
from server.config import ServerConfig


@pytest.mark.parametrize("name", sorted(docs.pages()))
def test_the_reference_is_not_stale(name: str) -> None:
    page = docs.FOLDER / name
    assert page.exists(), f"run `make docs`: {page} is missing"
    assert page.read_text(encoding="utf-8") == docs.pages()[name], "run `make docs`"


def test_the_reference_has_no_other_page() -> None:
    assert {path.name for path in docs.FOLDER.iterdir()} == set(docs.pages())


@pytest.mark.parametrize("kind", [AgentConfig, ServerConfig])
def test_every_key_is_described(kind: type) -> None:
    assert not [f"[{key.section}] {key.name}" for key in docs.keys(kind) if not key.meaning]


@pytest.mark.parametrize("command", [*docs.agent_commands(), *docs.server_commands()], ids=lambda command: command.name)
def test_every_command_is_described_with_an_example(command: docs.Command) -> None:
    assert command.about
    assert command.name in command.about.partition("xample")[2] + command.epilog, "its help shows no example of itself"
    assert not [option for option, _, meaning in command.options if not meaning]


def test_every_message_has_a_route() -> None:
    messages = {*typing.get_args(wire.JsonMessage), *wire.H.__constraints__}
    assert {route.message for route in docs.ROUTES} == messages


def test_every_topic_has_a_route() -> None:
    kinds = {wire.parse_topic(route.topic.replace("<", "").replace(">", "")).kind for route in docs.ROUTES[:-1]}
    assert kinds == {*wire.UP, *wire.DOWN}
    assert docs.ROUTES[-1].topic == wire.server_state_topic("<fleet>")


def test_the_examples_of_plug_ins_run_and_keep_their_contracts() -> None:
    page = (Path(docs.FOLDER).parent / "plug-ins.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```python\n(.*?)^```", page, re.DOTALL | re.MULTILINE)
    names: dict[str, typing.Any] = {}
    for block in blocks:
        exec(block, names)
    tests = [function for name, function in names.items() if name.startswith("test_")]
    assert len(tests) == 3
    for test in tests:
        test()


def test_every_proof_that_the_threat_model_names_exists() -> None:
    root = Path(docs.FOLDER).parents[1]
    named = re.findall(
        r"`(tests/[\w/]+\.py)::(test_\w+)`", (root / "docs" / "threat-model.md").read_text(encoding="utf-8")
    )
    assert len(named) > 20
    for file, test in named:
        assert f"def {test}(" in (root / file).read_text(encoding="utf-8"), f"{file} has no {test}"
