"""How does a program read its configuration?

One TOML file, once, into frozen structs that forbid unknown keys. Every mistake names the file, the key, what was got
and what was expected, and the nearest valid key. Nothing here reads the environment.
"""

# Annotations are not postponed here: msgspec would compile each of them at every start (docs/adr/0041).

import re
import sys
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, get_args, get_origin, get_type_hints

import msgspec

from edge_agent.contract.errors import ConfigError, did_you_mean

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

T = TypeVar("T", bound=msgspec.Struct)
Share = Annotated[float, msgspec.Meta(ge=0.0, le=1.0)]


class Section(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A table of the device's file."""


def load(path: Path, kind: type[T]) -> T:
    """Read `path` into `kind`; ConfigError says what to mend."""
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}: expected a TOML file") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: not text: expected a TOML file") from error
    return parse(text, kind, where=str(path))


def parse(text: str, kind: type[T], *, where: str) -> T:
    """Read TOML text into `kind`; `where` is named in the errors."""
    try:
        table = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{where}: not TOML: {error}") from error
    try:
        return msgspec.convert(table, type=kind)
    except msgspec.ValidationError as error:
        _refuse_unknown(table, kind, where, "")  # says it better; it goes through all types, a few ms of a start
        message = str(error)
        at = re.search(r" - at `\$\.?(.*)`$", message)
        key = at.group(1) if at else ""
        said = message[: at.start()] if at else message
        raise ConfigError(f"{where}: {key + ': ' if key else ''}{said}{_choice(table, kind, key)}") from error


def _choice(table: Any, kind: Any, key: str) -> str:
    """What the key at `a.b[0]` may be, and which of these was meant, where it is to be one of some words; else ""."""
    for part in filter(None, re.split(r"[.\[\]]+", key)):
        if part.isdecimal():
            table = table[int(part)]
        else:
            table = table.get(part)
            hint = next(field.type for field in msgspec.structs.fields(kind) if field.encode_name == part)
            hint = get_args(hint)[0] if get_origin(hint) is Annotated else hint
            kind = table_of(hint) or of_many(hint)
    if get_origin(kind) is not Literal or not isinstance(table, str):
        return ""
    return f"{did_you_mean(table, get_args(kind))}; expected one of {', '.join(get_args(kind))}"


def _refuse_unknown(table: dict[str, Any], kind: type[msgspec.Struct], where: str, prefix: str) -> None:
    known = {field.encode_name: field.name for field in msgspec.structs.fields(kind)}
    hints = get_type_hints(kind)
    for key, value in table.items():
        if key not in known:
            name = f"[{prefix[:-1]}] {key}" if prefix else key
            raise ConfigError(f"{where}: unknown key {name}{did_you_mean(key, known)}; known: {', '.join(known)}")
        inner = table_of(hints[known[key]]) or of_many(hints[known[key]])
        tables = value if isinstance(value, list) else [value]
        if isinstance(inner, type) and issubclass(inner, msgspec.Struct):
            for table_ in tables:
                if isinstance(table_, dict):
                    _refuse_unknown(table_, inner, where, f"{prefix}{key}.")


def of_many(hint: Any) -> Any:
    """What an array of tables (`[[name]]`) holds; anything else as it is."""
    return get_args(hint)[0] if get_origin(hint) is tuple else hint


def table_of(hint: Any) -> type[msgspec.Struct] | None:
    """The struct of a table within a table (`[a.b]`) that may be left out; None: no such table."""
    for kind in get_args(hint):
        if isinstance(kind, type) and issubclass(kind, msgspec.Struct) and type(None) in get_args(hint):
            return kind
    return None


def imported(place: str, *, where: str) -> Any:
    """What `package.module:name` names; ConfigError when it is not there, whatever its module raises.

    `where`: the key that names it.
    """
    module, _, name = place.partition(":")
    try:
        return getattr(import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise ConfigError(f"{where} {place!r}: {error}") from error
    except Exception as error:
        raise ConfigError(f"{where} {place!r}: importing {module!r} raised {type(error).__name__}: {error}") from error


def read_secret(path: str) -> str:
    """The content of a `*_file` setting, without its last newline; "" for an empty path."""
    if not path:
        return ""
    try:
        return Path(path).read_text(encoding="utf-8").rstrip("\n")
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from error


def show(settings: msgspec.Struct) -> str:
    """What is in force, as TOML, defaults included."""
    lines: list[str] = []
    for section, value in msgspec.structs.asdict(settings).items():
        if isinstance(value, msgspec.Struct):
            lines += _table(f"[{section}]", value)
        elif get_origin(get_type_hints(type(settings))[section]) is tuple:
            for one in value:
                lines += _table(f"[[{section}]]", one)
        else:
            lines.append(f"{section} = {_toml(value)}")
    return "\n".join(lines).lstrip("\n") + "\n"


def _table(head: str, settings: msgspec.Struct) -> list[str]:
    told = {key: item for key, item in msgspec.structs.asdict(settings).items() if item is not None}
    inner = {key: item for key, item in told.items() if isinstance(item, msgspec.Struct)}
    lines = ["", head]  # TOML has no word for "not said"
    lines += [f"{key} = {_toml(item)}" for key, item in told.items() if key not in inner]
    return lines + [line for key, item in inner.items() for line in _table(f"{head[:-1]}.{key}]", item)]


def _toml(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(_toml(item) for item in value) + "]"
    if isinstance(value, str):
        # A JSON string is a TOML basic string, but for DEL, which TOML wants escaped.
        return msgspec.json.encode(value).decode().replace("\x7f", "\\u007f")
    return repr(value)
