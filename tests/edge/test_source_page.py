"""Has every source a page in docs/sources, whose TOML is a configuration as one pastes it, and a contract test?"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import edge_agent
from edge_agent.config import load_config
from edge_agent.source.options import TABLES

ROOT = Path(edge_agent.__file__).parent.parent
PAGES = ROOT / "docs" / "sources"
INDENTED = re.compile(r"(?:^    .*\n|^\n(?=    ))+", re.MULTILINE)
PARTS = ("## When it fails", "## Limits", "## Run with", "Contract: ")


def page(name: str) -> str:
    return (PAGES / f"{name}.md").read_text(encoding="utf-8")


def blocks(name: str) -> Iterator[str]:
    """Each that is TOML; one of tables that stand alone with a kind that has them."""
    for block in INDENTED.findall(page(name)):
        text = "".join(line[4:] for line in block.splitlines(keepends=True))
        table = re.match(r"\[source\.(\w+)\]", text)
        if text.startswith("[device]"):
            yield text
        elif table:
            kind = next(kind for kind, tables in TABLES.items() if table[1] in tables)
            yield f'[device]\nname = "cam"\n[source]\nkind = "{kind}"\n{text}'


def choices(name: str) -> Iterator[str]:
    """Each block, and once more for each line that is a comment in it, in the place of the same key."""
    for block in blocks(name):
        yield block
        for said in re.findall(r"(?m)^# (\w+ = .*)$", block):
            key = re.compile(rf"(# )?{said.partition(' ')[0]} = ")
            lines = block.splitlines()
            at = next(number for number, line in enumerate(lines) if key.match(line))
            yield "\n".join([*lines[:at], said, *(line for line in lines[at:] if not key.match(line))])


CHOICES = {name: list(choices(name)) for name in (*TABLES, "python", "README")}


@pytest.mark.parametrize("toml", [toml for found in CHOICES.values() for toml in found])
def test_what_a_page_says_to_paste_is_a_configuration(tmp_path: Path, toml: str) -> None:
    (tmp_path / "agent.toml").write_text(toml)
    load_config(tmp_path / "agent.toml")


def test_pages_are_of_the_kinds_and_are_in_the_index() -> None:
    names = {path.stem for path in PAGES.iterdir()}
    assert names == {*TABLES, "python", "README"}
    assert {f"{name}.md" for name in names - {"README"}} <= set(re.findall(r"\]\((\w+\.md)\)", page("README")))
    assert sum(map(len, CHOICES.values())) > len(names) + 10


@pytest.mark.parametrize("kind", TABLES)
def test_a_page_begins_with_the_whole_file_and_says_what_fails_what_it_cannot_and_what_was_run(kind: str) -> None:
    assert re.search(rf'^\[source\]\nkind = "{kind}"$', next(blocks(kind)), re.MULTILINE)
    assert "\n[model]\nartifact = " in next(blocks(kind))
    assert [part for part in PARTS if f"\n{part}" not in page(kind)] == []
    assert "](../reference/agent-config.md#source" in page(kind)


@pytest.mark.parametrize("kind", TABLES)
def test_the_contract_test_that_a_page_names_is_one(kind: str) -> None:
    named = re.findall(r"`(tests/edge/\w+\.py)::(test_\w+)`", page(kind))
    assert named
    for file, test in named:
        body = (ROOT / file).read_text(encoding="utf-8").partition(f"def {test}(")[2].partition("\ndef ")[0]
        assert "check_source(" in body, f"{file} has no {test} that checks a source"


def test_links_of_the_pages_lead_somewhere() -> None:
    for path in PAGES.iterdir():
        for target in re.findall(r"\]\(([^)#]*)(?:#[^)]*)?\)", path.read_text(encoding="utf-8")):
            assert not target or (PAGES / target).exists(), f"{path.name}: {target}"
