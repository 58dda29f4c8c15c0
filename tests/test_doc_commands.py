"""Can every command that a page shows be typed, and every TOML be read?"""

from __future__ import annotations

import re
import shlex
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer.main

from edge_agent.__main__ import parser
from edge_agent.config import load_config
from models import preparation
from server.__main__ import app

ROOT = Path(__file__).parents[1]
SHOWN = re.compile(r"(?!docker buildx|sudo apt)[^#`]*?\bwinnow-(?:server|agent) ")
BLOCKS = re.compile(r"(?:^    [^\n]*\n|^\n(?=    ))+|^```(?:sh|console|bash|text)?\n.*?^```$", re.MULTILINE | re.DOTALL)


def commands() -> Iterator[tuple[str, str]]:
    """(page, command), of what stands in blocks."""
    for path in [
        ROOT / "README.md",
        *sorted((ROOT / "docs").glob("*.md")),
        *sorted((ROOT / "docs/sources").glob("*.md")),
    ]:
        for block in BLOCKS.findall(path.read_text(encoding="utf-8")):
            for line in block.replace("\\\n", " ").splitlines():
                if SHOWN.match(command := line.strip().removeprefix("$ ")):
                    yield path.name, command


ALL = list(dict.fromkeys(commands()))


def words_of(command: str) -> list[list[str]]:
    """The words of each program of ours that a line starts."""
    inner = command.partition("$(")[2].removesuffix(")") or command
    words = shlex.split(inner, comments=True)
    starts = [at for at, word in enumerate(words) if word.rpartition("/")[2] in ("winnow-server", "winnow-agent")]
    found = []
    for first, after in zip(starts, [*starts[1:], None], strict=True):
        line = words[first:after]
        ends = (at for at, word in enumerate(line) if word in ("&&", "||", "|", ">", "<", ";", "&"))
        found.append(line[: next(ends, None)])
    return found


@pytest.mark.parametrize(("page", "command"), ALL, ids=[f"{page}: {command}"[:70] for page, command in ALL])
def test_a_command_can_be_typed(page: str, command: str) -> None:
    for name, *words in words_of(command):
        if name.endswith("winnow-agent"):
            parser().parse_args(words)
        else:
            parse(words)


def parse(words: list[str]) -> None:
    """By the program's own parser, down to the last word; UsageError."""
    node: Any = typer.main.get_command(app)
    context = node.make_context("winnow-server", list(words))
    while hasattr(node, "resolve_command"):
        name, node, rest = node.resolve_command(context, [*context._protected_args, *context.args])
        context = node.make_context(name, list(rest), parent=context)


def test_what_cannot_be_typed_is_found() -> None:
    for wrong in ("model bogus", "model add", "model add first farm/server.toml --bogus", "bogus"):
        with pytest.raises(Exception, match="bogus|Missing"):
            parse(wrong.split())
    assert len(ALL) > 80
    assert {"boards.md", "bring-a-model.md", "stdin.md"} <= {page for page, _ in ALL}


TABLES = re.compile(r"^ *\[\w+\]$", re.MULTILINE)


def tomls(page: str) -> Iterator[str]:
    """What stands in blocks and is TOML of an agent: it has a table."""
    for block in BLOCKS.findall((ROOT / "docs" / page).read_text(encoding="utf-8")):
        if TABLES.search(block):
            yield textwrap.dedent(block)


@pytest.mark.parametrize("toml", tomls("boards.md"))
def test_what_the_page_on_boards_says_to_paste_is_a_configuration(tmp_path: Path, toml: str) -> None:
    (tmp_path / "agent.toml").write_text('[device]\nname = "cam"\n[source]\npath = "x"\n' + toml)
    load_config(tmp_path / "agent.toml")


def test_the_preparation_that_is_shown_can_be_read(tmp_path: Path) -> None:
    page = (ROOT / "docs" / "bring-a-model.md").read_text(encoding="utf-8")
    (said,) = re.findall(r"^```toml\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    (tmp_path / "prepare.toml").write_text(said)
    read = preparation.read(str(tmp_path / "prepare.toml"))
    assert (read.scale, read.colour, read.size) == (255.0, "BGR", (224, 224))
    for name in re.findall(r"^\| `(\w+)` \| ", page, re.MULTILINE):
        preparation.read(name)
