"""What can be set, said and typed? `make docs` writes docs/reference/ from the code; a test fails when it is stale.

agent-config.md, server-config.md   every key of the two TOML files, from their msgspec structs
agent-cli.md, server-cli.md         every command, from argparse and typer
wire.md                             every message, from the source of edge_agent/contract/
api.md                              what programs can ask, from the description that the server gives of itself
"""

from __future__ import annotations

import argparse
import ast
import inspect
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, get_args, get_origin, get_type_hints

import msgspec
import typer
from api_page import api_page
from page import NOTE, table

from edge_agent import __main__ as agent_program
from edge_agent.config import AgentConfig
from edge_agent.contract import desired, reports, types, wire
from edge_agent.contract.settings import of_many, table_of
from server import __main__ as server_program
from server.config import ServerConfig

FOLDER = Path(__file__).resolve().parent.parent / "docs" / "reference"


class Key(NamedTuple):
    """One setting."""

    section: str
    name: str
    type: str
    default: str
    limits: str
    meaning: str


class Command(NamedTuple):
    """One command of a program: its name, what it says of itself, and (option, default, meaning) of its options."""

    name: str
    about: str
    epilog: str
    options: list[tuple[str, str, str]]


class Route(NamedTuple):
    """How a message travels."""

    message: type[msgspec.Struct]
    topic: str
    form: str
    qos: int
    retained: str


def _up(kind: wire.Up) -> str:
    return wire.up_topic("<fleet>", "<device>", kind)


def _down(kind: wire.Down) -> str:
    return wire.down_topic("<fleet>", "<device>", kind)


ROUTES = (
    Route(wire.Birth, _up("birth"), "JSON", 1, ""),
    Route(wire.Death, _up("death"), "JSON", 1, "as the will"),
    Route(wire.SampleHeader, _up("sample"), "frame", 1, ""),
    Route(wire.Heartbeat, _up("heartbeat"), "JSON", 0, ""),
    Route(wire.Event, _up("event"), "JSON", 1, ""),
    Route(wire.Fetch, _up("fetch"), "JSON", 1, ""),
    Route(wire.Desired, _down("desired"), "JSON", 1, "retained"),
    Route(wire.Receipt, _down("receipt"), "JSON", 1, ""),
    Route(wire.BlockHeader, _down("block"), "frame", 1, ""),
    Route(wire.ServerState, wire.server_state_topic("<fleet>"), "JSON", 1, "retained, and the will"),
)


def pages() -> dict[str, str]:
    """Every page: file name -> text."""
    return {
        "agent-config.md": config_page("agent.toml", "winnow-agent check agent.toml", AgentConfig),
        "server-config.md": config_page("server.toml", "winnow-server check server.toml", ServerConfig),
        "agent-cli.md": cli_page("winnow-agent", agent_commands()),
        "server-cli.md": cli_page("winnow-server", server_commands()),
        "wire.md": wire_page(),
        "api.md": api_page(),
    }


def main() -> None:
    """Write the pages that differ."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    for name, text in pages().items():
        path = FOLDER / name
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")
            print(f"docs: wrote {path.name}")


# --- settings -------------------------------------------------------------------------------------------------------


def config_page(file: str, check: str, kind: type[msgspec.Struct]) -> str:
    """The reference of a TOML file."""
    lines = [NOTE, "", f"# `{file}`", "", f"`{check}` prints what is in force. An unknown key is an error.", ""]
    found = list(keys(kind))
    for section in dict.fromkeys(key.section for key in found):
        hint = _section(kind, section)
        head = f"[{section}]" if hint is of_many(hint) else f"[[{section}]]"
        lines += [f"## `{head}`", "", inspect.getdoc(of_many(hint)) or "", ""]
        rows = [(f"`{k.name}`", k.type, k.default, k.limits, k.meaning) for k in found if k.section == section]
        lines += [*table(("key", "type", "default", "limits", "meaning"), rows), ""]
    return "\n".join(lines)


def keys(kind: type[msgspec.Struct]) -> Iterator[Key]:
    """Every key of every section of a configuration."""
    for section in msgspec.structs.fields(kind):
        yield from _keys(section.name, of_many(get_type_hints(kind)[section.name]))


def _keys(section: str, struct: type[msgspec.Struct]) -> Iterator[Key]:
    hints = get_type_hints(struct, include_extras=True)
    inner = {field.name: table for field in msgspec.structs.fields(struct) if (table := table_of(hints[field.name]))}
    for field in msgspec.structs.fields(struct):
        if field.name in inner:
            continue
        plain, metas = _unwrap(hints[field.name])
        needed = field.default is msgspec.NODEFAULT and field.default_factory is msgspec.NODEFAULT
        default = "needed" if needed else _default(field.default)
        meaning = next((meta.description for meta in metas if meta.description), "")
        yield Key(section, field.encode_name, _type_name(plain), default, _limits(metas), meaning)
    for name, table in inner.items():
        yield from _keys(f"{section}.{name}", table)


def _section(kind: type[msgspec.Struct], section: str) -> Any:
    """The type of `section`, or of a table within one (`a.b`)."""
    name, _, rest = section.partition(".")
    hint = get_type_hints(kind)[name]
    return _section(table_of(hint) or of_many(hint), rest) if rest else table_of(hint) or hint


def _unwrap(hint: Any) -> tuple[Any, tuple[msgspec.Meta, ...]]:
    if get_origin(hint) is Annotated:
        plain, *own = get_args(hint)
        metas = tuple(meta for meta in own if isinstance(meta, msgspec.Meta))
        if type(None) in get_args(plain):  # `Annotated[int, ge] | None`: the limits are said of the number
            plain, inner = _unwrap(next(kind for kind in get_args(plain) if kind is not type(None)))
            metas += inner
        return plain, metas
    return hint, ()


def _default(value: object) -> str:
    return "not said" if value is None else f"`{msgspec.json.encode(value).decode()}`"


def _type_name(plain: Any) -> str:
    if get_origin(plain) is Literal:
        return "one of " + ", ".join(f"`{value}`" for value in get_args(plain))
    if get_origin(plain) is tuple:
        return f"list of {_type_name(_unwrap(get_args(plain)[0])[0])}"
    return {str: "text", int: "integer", float: "number", bool: "true or false"}[plain]


def _limits(metas: tuple[msgspec.Meta, ...]) -> str:
    signs = (("ge", ">="), ("gt", ">"), ("le", "<="), ("lt", "<"))
    return ", ".join(
        f"{sign} {value:g}" for m in metas for name, sign in signs if (value := getattr(m, name)) is not None
    )


# --- commands -------------------------------------------------------------------------------------------------------


def cli_page(program: str, commands: list[Command]) -> str:
    """The reference of a program's commands."""
    lines = [NOTE, "", f"# `{program}`", ""]
    for command in commands:
        lines += [f"## `{command.name}`", "", command.about, ""]
        lines += [*table(("option", "default", "meaning"), command.options), ""] if command.options else []
        lines += ["```", command.epilog.strip(), "```", ""] if command.epilog else []
    return "\n".join(lines)


def agent_commands() -> list[Command]:
    """Of winnow-agent: the program itself, then each command."""
    top = agent_program.parser()
    subparsers = next(a for a in top._actions if isinstance(a, argparse._SubParsersAction))
    return [_from_argparse(parser) for parser in (top, *subparsers.choices.values())]


def _from_argparse(parser: argparse.ArgumentParser) -> Command:
    options = [
        (
            ", ".join(f"`{text}`" for text in action.option_strings) or f"`{action.metavar or action.dest}`",
            "" if action.default in (None, False, argparse.SUPPRESS) else f"`{action.default}`",
            action.help or "",
        )
        for action in parser._actions
        if not isinstance(action, (argparse._HelpAction, argparse._SubParsersAction))
    ]
    return Command(parser.prog, parser.description or "", parser.epilog or "", options)


def server_commands() -> list[Command]:
    """Of winnow-server: the program itself, then each command, and the commands of its groups."""
    return list(_from_typer("winnow-server", typer.main.get_command(server_program.app)))


def _from_typer(name: str, command: Any) -> Iterator[Command]:
    options = []
    for parameter in command.params:
        names = [parameter.metavar or parameter.name] if parameter.param_type_name == "argument" else parameter.opts
        shown = parameter.default not in (None, False, (), []) and not parameter.required
        default = f"`{parameter.default}`" if shown else "needed" if parameter.required else ""
        options.append((", ".join(f"`{text}`" for text in names), default, parameter.help or ""))
    about = inspect.cleandoc(command.help or "").replace("\b\n", "")
    yield Command(name, about, command.epilog or "", options)
    for word, inner in getattr(command, "commands", {}).items():
        yield from _from_typer(f"{name} {word}", inner)


# --- the wire -------------------------------------------------------------------------------------------------------


def wire_page() -> str:
    """The reference of topics and messages."""
    lines = [NOTE, "", "# The wire", "", inspect.getdoc(wire) or "", "", "## Topics", ""]
    rows = [
        (f"`{r.topic}`", f"[{r.message.__name__}](#{r.message.__name__.lower()})", r.form, str(r.qos), r.retained)
        for r in ROUTES
    ]
    lines += [*table(("topic", "message", "form", "QoS", "kept by the broker"), rows), "", "## Messages", ""]
    for name, about, fields in structs():
        lines += [f"### {name}", "", about, "", *table(("field", "type", "default", "meaning"), fields), ""]
    return "\n".join(lines)


def structs() -> Iterator[tuple[str, str, list[tuple[str, str, str, str]]]]:
    """Name, docstring and fields of every struct of the wire, in the order of the source; comments are the meaning."""
    for module in (reports, desired, types):
        source = inspect.getsource(module)
        lines = source.splitlines()
        for node in ast.parse(source).body:
            if isinstance(node, ast.ClassDef) and any("Struct" in ast.unparse(base) for base in node.bases):
                fields = [_field(item, lines) for item in node.body if isinstance(item, ast.AnnAssign)]
                yield node.name, ast.get_docstring(node) or "", fields


def _field(item: ast.AnnAssign, lines: list[str]) -> tuple[str, str, str, str]:
    comment = lines[(item.end_lineno or item.lineno) - 1][item.end_col_offset :].strip().removeprefix("#").strip()
    default = f"`{ast.unparse(item.value)}`" if item.value else "needed"
    return f"`{ast.unparse(item.target)}`", f"`{ast.unparse(item.annotation)}`", default, comment


if __name__ == "__main__":
    main()
