"""winnow-server keys: which keys vouch for models?"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from edge_agent.contract.trust import day
from server.cli.options import AsJson, By, Config, now_ms
from server.config import load_config

if TYPE_CHECKING:
    from server.release.signing import Signing

keys = typer.Typer(
    help="Keys that vouch for models: make, list, replace, sign by hand.",
    epilog="Example: winnow-server keys list server.toml",
)
KeyFiles = Annotated[
    list[Path] | None, typer.Option("--key", help="file of a key that lies elsewhere; may be given more than once")
]
Kept = Literal["root", "targets"]
Role = Literal["root", "targets", "snapshot", "timestamp"]


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
    signing.init(Policy(root_keys, root_threshold, targets_keys, targets_threshold), now_ms=now_ms())
    counts = {"root": [root_threshold, root_keys], "targets": [targets_threshold, targets_keys]}
    note(path, "make keys", "keys", by, counts)
    typer.echo(f"{signing.keys}: keys of root, targets, snapshot and timestamp, for your eyes only")
    typer.echo(f"{signing.folder / ROOT}: what devices are given to trust: [update] trust in agent.toml")
    typer.echo("Move the root keys to a safe, and a copy of each: without them no lost key can be replaced.")


@keys.command("list", epilog="Example: winnow-server keys list --json server.toml")
def list_keys(path: Config, as_json: AsJson = False) -> None:
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
    signing.rotate(role, count=count, threshold=threshold, more=more or (), now_ms=now_ms())
    note(path, "rotate keys", f"keys {role}", by, {"keys": count, "threshold": threshold})
    say(signing, f"{role}: {count} new keys in {signing.keys}")


@keys.command("extend", epilog="Example: winnow-server keys extend root --key safe/root-0a1b.pem server.toml")
def extend(
    role: Annotated[Kept, typer.Argument(help="what expires")], path: Config, more: KeyFiles = None, by: By = ""
) -> None:
    """Sign root or targets for another term, with the same keys."""
    from server.release.signing import Signing

    signing = Signing(Path(load_config(path).server.data_dir))
    signing.extend(role, more=more or (), now_ms=now_ms())
    note(path, "extend keys", f"keys {role}", by, {})
    say(signing, f"{role}: extended")


@keys.command("sign", epilog="Example: winnow-server keys sign pending-targets.json --key targets-0a1b.pem")
def sign_file(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="what waits for signatures: trust/pending-*.json")],
    more: Annotated[list[Path], typer.Option("--key", help="file of a key; may be given more than once")],
) -> None:
    """Add signatures to a file, on any machine; the server takes it over when it is back and has enough."""
    from server.release.pending import add_signatures

    given = add_signatures(file, more)
    typer.echo(f"{file}: signed by {', '.join(given)}")


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


def say(signing: Signing, text: str) -> None:
    """Say what was done, and what still lacks signatures."""
    typer.echo(text)
    _say_pending(signing)


def _say_pending(signing: Signing) -> None:
    for file, lacks in signing.pending.lacking(signing.bundle()).items():
        typer.echo(f"{file} lacks {lacks} signatures: winnow-server keys sign {file} --key FILE")


def note(path: Path, what: str, subject: str, by: str, detail: Mapping[str, object]) -> None:
    """Into the audit trail, when it is done: keys are files, no part of a transaction."""
    from server.store import trail
    from server.store.store import open_store

    with open_store(load_config(path)) as store, store.database.write() as connection:
        trail.record(connection, what, subject, why="", who=by or trail.person(), detail=detail, now_ms=now_ms())
