"""winnow-server lineage | erase | audit | card | govern: where models come from, and who answers for them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from server.cli.options import AsJson, By, Config, Why, now_ms
from server.config import load_config
from server.errors import GovernError

commands = typer.Typer()
audit = typer.Typer(
    help="Who did what, to what, and why.", epilog="Example: winnow-server audit list --limit 20 server.toml"
)
govern = typer.Typer(
    help="What can be shown of how models are governed.",
    epilog="Example: winnow-server govern export evidence-2026-12 server.toml",
)

commands.add_typer(audit, name="audit")
commands.add_typer(govern, name="govern")


@commands.command("lineage", epilog="Example: winnow-server lineage 7 --picture lineage.svg server.toml")
def lineage(
    what: Annotated[
        str, typer.Argument(metavar="WHAT", help="a version's number, a sample's id, a device or a labeler")
    ],
    path: Config,
    picture: Annotated[Path | None, typer.Option(help="draw it into this file: .svg, .png or .pdf")] = None,
    verify: Annotated[bool, typer.Option("--verify", help="check that its snapshot is what it was")] = False,
    as_json: AsJson = False,
) -> None:
    """Say what a version was made of and where it runs; or which versions learned from a sample, device or labeler."""
    from server import status as views
    from server.govern import words
    from server.govern.lineage import trace, verified

    with views.opened(load_config(path)) as store:
        view = trace(store, what)
        if verify:
            view |= {"verified": verified(store, view)}
    if picture is not None:
        from server.govern.picture import draw

        draw(view, picture)
    typer.echo(views.as_json(view) if as_json else "\n".join(words.lines(view, views.stamp)))


@commands.command("erase", epilog='Example: winnow-server erase --device cam-1 --why "its owner asked" server.toml')
def erase(
    path: Config,
    why: Annotated[str, typer.Option("--why", help="kept for ever; name nobody in it who wants to be forgotten")] = "",
    device: Annotated[str, typer.Option("--device", help="all that it sent, and all that it still has")] = "",
    sample: Annotated[list[str] | None, typer.Option("--sample", help="its id; may be given more than once")] = None,
    labeler: Annotated[
        str, typer.Option("--labeler", help="all answers of a labeler, and the account; the samples stay")
    ] = "",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="say what would go, and change nothing")] = False,
    by: By = "",
    as_json: AsJson = False,
) -> None:
    """Forget something: its rows, its bytes in every file here, and what its device still has of it. For ever."""
    from server import status as views
    from server.govern.erase import erase as forget
    from server.govern.foreseen import foresee, lines
    from server.govern.subject import Subject
    from server.label import label_studio
    from server.store import trail
    from server.store.store import open_store

    given = [
        Subject("device", (device,)) if device else None,
        Subject("sample", tuple(dict.fromkeys(sample))) if sample else None,
        Subject("labeler", (labeler,)) if labeler else None,
    ]
    subjects = [one for one in given if one is not None]
    if len(subjects) != 1 or not (dry_run or why.strip()):
        raise GovernError("erase: expected one of --device, --sample and --labeler, and a reason in --why")
    config = load_config(path)
    if dry_run:
        with views.opened(config) as store, store.database.read() as connection:
            found = foresee(connection, subjects[0])
        found = found._replace(elsewhere=(*found.elsewhere, *label_studio.copies(config)))
        typer.echo(views.as_json(found._asdict()) if as_json else "\n".join(lines(found)))
        return
    with open_store(config) as store:
        done = forget(store, subjects[0], who=by or trail.person(), why=why, now_ms=now_ms())
    done = done._replace(elsewhere=(*done.elsewhere, *label_studio.copies(config)))
    if as_json:
        typer.echo(views.as_json(done._asdict()))
        return
    went = ", ".join(f"{number} of {table}" for table, number in sorted(done.counts.items())) or "nothing was here"
    typer.echo(f"erasure {done.id}: {went}")
    for version in done.learned:
        typer.echo(f"version {version} learned from it: to be trained again, from scratch")
    if done.judged:
        typer.echo(f"judged by it: versions {', '.join(map(str, done.judged))}")
    for name in done.ordered:
        typer.echo(f"{name} is told to purge; what it sends of it until then is refused")
    for copy in done.elsewhere:
        typer.echo(f"not here, so not erased: {copy}")
    for snapshot in done.unsound:
        typer.echo(f"snapshot {snapshot[:12]} was not what its id says even before: somebody changed it")


@commands.command("card", epilog="Example: winnow-server card 7 --data server.toml")
def card(
    version: Annotated[int, typer.Argument(metavar="VERSION", help="its number, as `models` lists it")],
    path: Config,
    data: Annotated[bool, typer.Option("--data", help="the card of what it was trained on")] = False,
    fresh: Annotated[bool, typer.Option("--now", help="as things are now, not when it was published")] = False,
    as_json: AsJson = False,
) -> None:
    """Print a version's model card, or its data card, as Markdown."""
    from server import status as views
    from server.govern import card as cards

    config = load_config(path)
    with views.opened(config) as store:
        made = cards.card(store, version, config.govern, now_ms=now_ms(), fresh=fresh)
    which = "data" if data else "model"
    typer.echo(views.as_json(made[which]) if as_json else cards.words(made, which, views.stamp))


@audit.command("list", epilog='Example: winnow-server audit list --subject "version 7" --json server.toml')
def audit_list(
    path: Config,
    subject: Annotated[str, typer.Option(help="of it alone: version 7, device cam-1; empty: of all")] = "",
    limit: Annotated[int, typer.Option(min=0, help="the newest; 0: all")] = 50,
    as_json: AsJson = False,
) -> None:
    """List what people and rules decided, the newest last."""
    from server import status as views
    from server.store import trail

    with views.opened(load_config(path)) as store, store.database.read() as connection:
        found = trail.entries(connection, subject=subject, limit=limit or None)
    if as_json:
        typer.echo(views.as_json([entry._asdict() for entry in found]))
        return
    for entry in found:
        why = f": {entry.why}" if entry.why else ""
        typer.echo(f"{entry.id} {views.stamp(entry.at_ms)} {entry.who} {entry.what} {entry.subject}{why}")


@audit.command("verify", epilog="Example: winnow-server audit verify --head 3f0c... server.toml")
def audit_verify(
    path: Config,
    head: Annotated[
        str, typer.Option(help="as an earlier run printed it, kept elsewhere: nothing up to it was taken away")
    ] = "",
    as_json: AsJson = False,
) -> None:
    """Check that nothing was changed, removed or put in between; prints the head, to be kept elsewhere."""
    from server import status as views
    from server.store import trail

    with views.opened(load_config(path)) as store, store.database.read() as connection:
        broken = trail.verify(connection)
        kept = not head or trail.holds(connection, head)
        newest, number = trail.head(connection), trail.last_id(connection)
    if broken is not None:
        raise GovernError(f"audit trail: entry {broken.id}: {broken.why}")
    if not kept:
        raise GovernError(f"audit trail: no entry has the hash {head[:12]}: it was cut off, or made anew")
    if as_json:
        typer.echo(views.as_json({"entries": number, "head": newest}))
    else:
        typer.echo(f"{number} entries, whole; head {newest}")


@govern.command("export", epilog="Example: winnow-server govern export evidence-2026-12 server.toml")
def govern_export(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="a new folder")],
    path: Config,
    why: Why = "",
    by: By = "",
    as_json: AsJson = False,
) -> None:
    """Write what can be shown of how models are governed, mapped to NIST AI RMF and ISO/IEC 42001."""
    from server import status as views
    from server.govern.evidence import export
    from server.store import trail

    config, now = load_config(path), now_ms()
    with views.opened(config) as store:
        digests = export(store, folder, config, now_ms=now, stamp=views.stamp)
        with store.database.write() as connection:
            detail = {"to": str(folder), "files": len(digests)}
            trail.record(connection, "govern", "evidence", why=why, who=by or trail.person(), detail=detail, now_ms=now)
    if as_json:
        typer.echo(views.as_json(digests))
    else:
        typer.echo(f"{folder}: {len(digests)} files; begin with README.md, and keep digests.json elsewhere as well")
