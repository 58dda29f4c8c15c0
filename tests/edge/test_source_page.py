"""Is every TOML of docs/sources.md a configuration, as one pastes it?"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import edge_agent
from edge_agent.config import load_config
from edge_agent.source.options import TABLES

PAGE = Path(edge_agent.__file__).parent.parent / "docs" / "sources.md"
INDENTED = re.compile(r"(?:^    .*\n|^\n(?=    ))+", re.MULTILINE)


def blocks() -> Iterator[str]:
    """Each that begins with [source], and with a kind that has them the tables that stand alone."""
    for block in INDENTED.findall(PAGE.read_text(encoding="utf-8")):
        text = "".join(line[4:] for line in block.splitlines(keepends=True))
        for part in re.split(r"(?m)^(?=\[source\]$)", text):
            table = re.match(r"\[source\.(\w+)\]", part)
            if table:
                kind = next(kind for kind, tables in TABLES.items() if table[1] in tables)
                yield f'[source]\nkind = "{kind}"\n{part}'
            elif part.startswith("[source]"):
                yield part


def choices() -> Iterator[str]:
    """Each block, and once more for each line that is a comment in it, in the place of the same key."""
    for block in blocks():
        yield block
        for said in re.findall(r"(?m)^# (\w+ = .*)$", block):
            key = re.compile(rf"(# )?{said.partition(' ')[0]} = ")
            lines = block.splitlines()
            at = next(number for number, line in enumerate(lines) if key.match(line))
            yield "\n".join([*lines[:at], said, *(line for line in lines[at:] if not key.match(line))])


CHOICES = list(choices())


@pytest.mark.parametrize("toml", CHOICES)
def test_what_the_page_says_to_paste_is_a_configuration(tmp_path: Path, toml: str) -> None:
    (tmp_path / "agent.toml").write_text('[device]\nname = "cam"\n' + toml)
    load_config(tmp_path / "agent.toml")


def test_the_page_has_every_kind_and_its_other_ways() -> None:
    kinds = {found[1] for toml in CHOICES if (found := re.search(r'kind = "(\w+)"', toml))}
    assert kinds == set(TABLES)
    assert len(CHOICES) > len(list(blocks())) + 5
