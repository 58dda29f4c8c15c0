"""Which commands deal with keys and signatures?

`winnow-server init`, which makes all of a fleet's keys; `winnow-server keys ...`; and of `winnow-server model` those
that sign, export and verify.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from edge_agent.contract.trust import day
from server.config import load_config
from server.errors import SigningError

if TYPE_CHECKING:
    from server.release.signing import Signing

keys = typer.Typer(
    help="Keys that vouch for models: make, list, replace, sign by hand.",
    epilog="Example: winnow-server keys list server.toml",
)

Config = Annotated[Path, typer.Argument(metavar="server.toml", help="the configuration file")]
KeyFiles = Annotated[
    list[Path] | None, typer.Option("--key", help="file of a key that lies elsewhere; may be given more than once")
]
By = Annotated[str, typer.Option("--by", help="who says so; empty: whoever is logged in here")]
Kept = Literal["root", "targets"]
Role = Literal["root", "targets", "snapshot", "timestamp"]


def init_fleet(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="for server.toml and the data")] = Path(),
    fleet: Annotated[str, typer.Option(help="name of the fleet")] = "default",
    names: Annotated[
        list[str] | None,
        typer.Option("--name", help="name or address by which devices call this machine; may be given more than once"),
    ] = None,
) -> None:
    """Make a fleet: its certificate authority, its signing keys, and a server.toml unless there is one."""
    from server.identity.commands import found, make_authority
    from server.identity.service import exists
    from server.release.signing import Policy, Signing

    config, toml = found(folder, fleet, names or [])
    signing = Signing(Path(config.server.data_dir))
    if signing.ready or not exists(config):  # else the command was killed between the two
        make_authority(config, toml)
    if not signing.ready:
        signing.init(Policy(), now_ms=_now_ms())
        typer.echo(f"{signing.keys}: keys that sign models; `winnow-server keys` replaces them, adds more, moves them")
    typer.echo(f"Next: winnow-server run {toml}")
    typer.echo(f"and:  winnow-server device enrol NAME {toml}")


@keys.command("init", epilog="Example: winnow-server keys init --root-keys 3 --root-threshold 2 server.toml")
def init(
    path: Config,
    root_keys: Annotated[int, typer.Option(min=1, help="keys that may say which keys count")] = 1,
    root_threshold: Annotated[int, typer.Option(min=1, help="how many of them must sign")] = 1,
    targets_keys: Annotated[int, typer.Option(min=1, help="keys that may vouch for versions")] = 1,
    targets_threshold: Annotated[int, typer.Option(min=1, help="how many of them must sign")] = 1,
    by: By = "",
) -> None:
    """Make the fleet's keys: from then on versions are signed, and none is rolled out that is not."""
    from server.release.signing import ROOT, Policy, Signing

    signing = Signing(Path(load_config(path).server.data_dir))
    signing.init(Policy(root_keys, root_threshold, targets_keys, targets_threshold), now_ms=_now_ms())
    counts = {"root": [root_threshold, root_keys], "targets": [targets_threshold, targets_keys]}
    _note(path, "make keys", "keys", by, counts)
    typer.echo(f"{signing.keys}: keys of root, targets, snapshot and timestamp, for your eyes only")
    typer.echo(f"{signing.folder / ROOT}: what devices are given to trust: [update] trust in agent.toml")
    typer.echo("Move the root keys to a safe, and a copy of each: without them no lost key can be replaced.")


@keys.command("list", epilog="Example: winnow-server keys list --json server.toml")
def list_keys(
    path: Config, as_json: Annotated[bool, typer.Option("--json", help="as JSON, for programs")] = False
) -> None:
    """List the roles: their keys, which of them are here, how long what they signed is good; and what waits."""
    from server import status as views
    from server.release.signing import Signing

    signing = Signing(Path(load_config(path).server.data_dir))
    rows = rows_of(signing)
    if as_json:
        typer.echo(views.as_json(rows))
    else:
        views.print_table(rows, views.console())
        _say_pending(signing)


@keys.command("rotate", epilog="Example: winnow-server keys rotate targets --key safe/root-0a1b.pem server.toml")
def rotate(
    role: Annotated[Role, typer.Argument(help="whose keys")],
    path: Config,
    more: KeyFiles = None,
    count: Annotated[int, typer.Option("--keys", min=1, help="new keys")] = 1,
    threshold: Annotated[int, typer.Option(min=1, help="how many of them must sign")] = 1,
    by: By = "",
) -> None:
    """Replace the keys of a role; the old ones count no more once the root's keys have signed it."""
    from server.release.signing import Signing

    signing = Signing(Path(load_config(path).server.data_dir))
    signing.rotate(role, count=count, threshold=threshold, more=more or (), now_ms=_now_ms())
    _note(path, "rotate keys", f"keys {role}", by, {"keys": count, "threshold": threshold})
    _say(signing, f"{role}: {count} new keys in {signing.keys}")


@keys.command("extend", epilog="Example: winnow-server keys extend root --key safe/root-0a1b.pem server.toml")
def extend(
    role: Annotated[Kept, typer.Argument(help="what expires")], path: Config, more: KeyFiles = None, by: By = ""
) -> None:
    """Sign root or targets for another term, with the same keys."""
    from server.release.signing import Signing

    signing = Signing(Path(load_config(path).server.data_dir))
    signing.extend(role, more=more or (), now_ms=_now_ms())
    _note(path, "extend keys", f"keys {role}", by, {})
    _say(signing, f"{role}: extended")


@keys.command("sign", epilog="Example: winnow-server keys sign pending-targets.json --key targets-0a1b.pem")
def sign_file(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="what waits for signatures: trust/pending-*.json")],
    more: Annotated[list[Path], typer.Option("--key", help="file of a key; may be given more than once")],
) -> None:
    """Add signatures to a file, on any machine; the server takes it over when it is back and has enough."""
    from server.release.pending import add_signatures

    given = add_signatures(file, more)
    typer.echo(f"{file}: signed by {', '.join(given)}")


def model_sign(
    number: Annotated[int, typer.Argument(metavar="VERSION", help="its number")],
    path: Config,
    more: KeyFiles = None,
    by: By = "",
) -> None:
    """Vouch for a published version by hand: with the keys that are here, and those given."""
    from server.app import open_store
    from server.release.signing import Signing
    from server.store import versions

    config = load_config(path)
    signing = Signing(Path(config.server.data_dir))
    with open_store(config) as store, store.database.read() as connection:
        version = versions.get(connection, number)
    if version is None:
        raise SigningError(f"version {number} is not in the registry: winnow-server models lists them")
    signing.sign([version], more=more or (), now_ms=_now_ms())
    _note(path, "sign", f"version {number}", by, {"covered": signing.covers(version)})
    _say(signing, f"version {number} is signed" if signing.covers(version) else f"version {number}: not signed yet")


def model_export(
    number: Annotated[int, typer.Argument(metavar="VERSION", help="its number")],
    path: Config,
    out: Annotated[Path, typer.Option(help="folder to write")],
    variant: Annotated[str, typer.Option(help="which of its files: cpu-int8 or cpu-fp32")] = "cpu-int8",
) -> None:
    """Write a version as an artifact folder, with the signatures that vouch for it: to carry it to a device by hand."""
    from server.app import open_store
    from server.release.registry import export
    from server.release.signing import Signing

    config = load_config(path)
    with open_store(config) as store:
        signed = export(store, Signing(Path(config.server.data_dir)), number, out, variant=variant)
    typer.echo(f"{out}: version {number}, {'signed' if signed else 'not signed'}")


def model_verify(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="an artifact folder, or its manifest.json")],
    root: Annotated[Path, typer.Option(help="the fleet's root of trust: trust/root.json of the server")],
) -> None:
    """Say whether an artifact is intact and vouched for; needs neither server nor network."""
    from edge_agent.contract.trust import verify_artifact

    found = verify_artifact(file, root)
    typer.echo(f"{file}: {found.describe(now_ms=_now_ms())}")


def rows_of(signing: Signing) -> list[dict[str, object]]:
    """A row for each key that counts, and each that is here."""
    from server.release import keys as files
    from server.release import metadata

    bundle, here = signing.bundle(), files.here(signing.keys)
    root, expiries = metadata.root_of(bundle), metadata.expiries(bundle)
    rows: list[dict[str, object]] = []
    for role in metadata.ROLES:
        trusted = root.roles[role]
        for keyid in trusted.keyids:
            file = here.pop(keyid, None)
            rows.append(
                {
                    "role": role,
                    "key": keyid[: files.ID_CHARS],
                    "file": file.name if file else "elsewhere",
                    "must_sign": f"{trusted.threshold} of {len(trusted.keyids)}",
                    "expires": day(expiries[role]),
                }
            )
    gone: dict[str, object] = {"role": "-", "must_sign": "counts no more", "expires": "-"}
    return [*rows, *({**gone, "key": keyid[: files.ID_CHARS], "file": file.name} for keyid, file in here.items())]


def _say(signing: Signing, text: str) -> None:
    typer.echo(text)
    _say_pending(signing)


def _say_pending(signing: Signing) -> None:
    for file, lacks in signing.pending.lacking(signing.bundle()).items():
        typer.echo(f"{file} lacks {lacks} signatures: winnow-server keys sign {file} --key FILE")


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


def _note(path: Path, what: str, subject: str, by: str, detail: Mapping[str, object]) -> None:
    """Into the audit trail, when it is done: keys are files, no part of a transaction."""
    from server.app import open_store
    from server.store import trail

    with open_store(load_config(path)) as store, store.database.write() as connection:
        trail.record(connection, what, subject, why="", who=by or trail.person(), detail=detail, now_ms=_now_ms())
