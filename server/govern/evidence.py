"""What can be shown to somebody who asks how the models are governed?

A folder of files (facts.py, cards, lineage) and a map from the controls of two frameworks to them (controls.toml).
Software gives evidence; it certifies nothing, and what it cannot do the map says, with what people must do instead.
"""

from __future__ import annotations

import hashlib
import zipfile
from collections import Counter
from collections.abc import Iterator, Sequence
from importlib.resources import files
from pathlib import Path
from typing import IO, Any, Literal

import msgspec
import tomllib

from edge_agent.contract import settings
from server import config
from server.errors import GovernError
from server.govern import card as cards
from server.govern.facts import FILES, Source
from server.govern.lineage import of_version
from server.store import versions
from server.store.store import Store

CONFIGURATION, COVERAGE, DIGESTS, README = "configuration.toml", "coverage.json", "digests.json", "README.md"
FRAMEWORKS = {"nist_ai_rmf": "NIST AI RMF 1.0", "iso_iec_42001": "ISO/IEC 42001:2023, Annex A"}


class Control(msgspec.Struct, frozen=True, kw_only=True):
    """One control, and what speaks to it."""

    id: str
    asks: str  # our paraphrase
    state: Literal["covered", "partial", "organisational"]
    how: str  # by what of Winnow; empty: by nothing
    files: tuple[str, ...]  # of the folder; one that ends in / is a folder of it
    people: str  # what an organisation must do; empty where it is covered


def controls() -> dict[str, list[Control]]:
    """The map: framework -> its controls."""
    text = files("server.govern").joinpath("controls.toml").read_text(encoding="utf-8")
    return {name: msgspec.convert(rows, list[Control]) for name, rows in tomllib.loads(text).items()}


def export(store: Store, folder: Path, stated: config.ServerConfig, *, now_ms: int, stamp: Any) -> dict[str, str]:
    """Write the folder, which must be new or empty; returns name -> sha256 of its files. GovernError: it cannot be."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if any(folder.iterdir()):
            raise GovernError(f"{folder}: is not empty: expected a new folder, so that nothing of another day is in it")
        digests = {}
        for name, data in _contents(Source(store, stated, now_ms), stamp):
            path = folder / name
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(data)
            digests[name] = hashlib.sha256(data).hexdigest()
        (folder / DIGESTS).write_bytes(_json(digests))
    except OSError as error:
        raise GovernError(f"{error.filename}: {error.strerror}: expected a folder to write to") from error
    return digests


def zipped(store: Store, to: IO[bytes], stated: config.ServerConfig, *, now_ms: int, stamp: Any) -> dict[str, str]:
    """The same as one ZIP file; returns name -> sha256 of what is in it."""
    digests = {}
    with zipfile.ZipFile(to, "w", zipfile.ZIP_DEFLATED) as made:
        for name, data in _contents(Source(store, stated, now_ms), stamp):
            made.writestr(name, data)
            digests[name] = hashlib.sha256(data).hexdigest()
        made.writestr(DIGESTS, _json(digests))
    return digests


def _contents(source: Source, stamp: Any) -> Iterator[tuple[str, bytes]]:
    for name, make in FILES.items():
        made = make(source)
        yield name, _lines(made) if name.endswith(".jsonl") else _json(made)
    yield CONFIGURATION, settings.show(_told(source.settings)).encode()
    yield "lineage/README.md", b"One file for each version: `winnow-server lineage VERSION --json`.\n"
    yield "cards/README.md", b"Model and data card of each version, as they are now.\n"
    with source.store.database.read() as connection:
        every = versions.every(connection)
    for one in every:
        with source.store.database.read() as connection:
            view = of_version(connection, one)
        yield f"lineage/version-{one.number}.json", _json(view)
        made = cards.card(source.store, one.number, source.settings.govern, now_ms=source.now_ms, fresh=True)
        yield f"cards/version-{one.number}.json", _json(made)
        for which in ("model", "data"):
            yield f"cards/version-{one.number}-{which}.md", cards.words(made, which, stamp).encode()
    known = controls()
    yield COVERAGE, _json({FRAMEWORKS[name]: rows for name, rows in known.items()})
    yield README, "\n".join(_readme(known, source, stamp)).encode()


def _told(stated: config.ServerConfig) -> config.ServerConfig:
    """As others may read it: of a webhook's address the host alone, for its path or its user may be a secret."""
    addresses = ((one, f"{one.url.partition('://')[0]}://{config.host_of(one.url)}/...") for one in stated.webhook)
    hooks = tuple(msgspec.structs.replace(one, url=url) for one, url in addresses)
    return msgspec.structs.replace(stated, webhook=hooks)


def _readme(known: dict[str, list[Control]], source: Source, stamp: Any) -> Iterator[str]:
    yield f"# Evidence: fleet {source.settings.server.fleet}, {stamp(source.now_ms)}\n"
    yield "Made by `winnow-server govern export`, of what the store knows. It is evidence, no certificate: whether a"
    yield "control is met, somebody must judge who knows the use. `digests.json` has the sha256 of every file,"
    yield "`audit.json` the head of the audit trail: keep both elsewhere.\n"
    yield "*covered*: software does it, and the files show it. *partial*: people must add something."
    yield "*organisational*: software cannot do it at all.\n"
    for name, rows in known.items():
        counts = Counter(row.state for row in rows)
        yield f"## {FRAMEWORKS[name]}\n"
        yield f"{len(rows)} controls: {', '.join(f'{number} {state}' for state, number in sorted(counts.items()))}.\n"
        yield from _table(rows)
        yield ""


def _table(rows: Sequence[Control]) -> Iterator[str]:
    yield "| control | asks that | state | by | files | people must |"
    yield "| --- | --- | --- | --- | --- | --- |"
    for row in rows:
        yield f"| {row.id} | {row.asks} | {row.state} | {row.how} | {', '.join(row.files)} | {row.people} |"


def _json(data: Any) -> bytes:
    return msgspec.json.format(msgspec.json.encode(data, order="sorted"), indent=1) + b"\n"


def _lines(rows: Sequence[Any]) -> bytes:
    return b"".join(msgspec.json.encode(row, order="sorted") + b"\n" for row in rows)
