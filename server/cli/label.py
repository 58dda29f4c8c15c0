"""winnow-server label: how people answer questions, and look after the labels, in words of a command line.

Every command works on the store, so it may be given whether or not the server runs; several people may work at once.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import typer

from server.cli.options import NO_REASON, AsJson, Config, now_ms, show
from server.config import load_config
from server.errors import LabelError

if TYPE_CHECKING:
    import sqlalchemy as sa

    from server.label.queue import Queue
    from server.label.task import Task
    from server.store.store import Store

commands = typer.Typer()
label = typer.Typer(
    help="Questions that people answer, and what becomes of the answers.",
    epilog="Example: winnow-server label next --by ann server.toml",
)
commands.add_typer(label, name="label")
By = Annotated[str, typer.Option(help="the labeler's name; empty: of whoever is logged in here")]
Why = Annotated[str, typer.Option(help="kept in the audit trail, for those who look later")]
Truth = Annotated[
    str,
    typer.Option(
        metavar="JSON",
        help='what is more than a class: {"boxes": [["person", left, top, right, bottom], ...]} in 0..1, '
        '{"applies": ["person", ...]} or {"values": [["speed", 3.2], ...]}',
    ),
]
SampleId = Annotated[str, typer.Argument(metavar="SAMPLE", help="its id: cam-1.main.7.1204")]


@label.command("next", epilog="Example: winnow-server label next --by ann --count 10 --out pictures server.toml")
def next_question(
    path: Config,
    by: By = "",
    count: Annotated[int, typer.Option(min=1, max=1000, help="questions at most")] = 1,
    out: Annotated[Path | None, typer.Option(help="folder for a picture of each")] = None,
    as_json: AsJson = False,
) -> None:
    """Get what is to be answered now: nobody else is asked about it until its lease runs out."""
    from server import status as views

    config = load_config(path)
    with views.opened(config) as store:
        tasks = _next(config, store, who(by), count)
        pictures = [_picture(store, task, out) if out else "" for task in tasks]
    rows = [task.view | ({"picture": at} if at else {}) for task, at in zip(tasks, pictures, strict=True)]
    if as_json:
        typer.echo(views.as_json(rows))
        return
    for row in rows:
        guess = f"; {row['guess_by']} takes it for {row['guess']}" if row["guess"] else ""
        at = f"; {row['picture']}" if out else ""
        typer.echo(f"{row['sample_id']}, until {views.stamp(row['until_ms'])}{guess}{at}")
    if not rows:
        typer.echo("nothing to answer now")


@label.command("answer", epilog='Example: winnow-server label answer cam-1.main.7.1204 "cannot tell" server.toml')
def answer(
    sample_id: SampleId,
    said: Annotated[
        str, typer.Argument(metavar="CLASS", help="its class; or `cannot tell`, or `none of these`; '' with --truth")
    ],
    path: Config,
    truth: Truth = "",
    by: By = "",
    new_class: Annotated[
        bool, typer.Option("--new-class", help="this class is new: the next version knows it")
    ] = False,
    key: Annotated[str | None, typer.Option(help="as `next --json` gave it: said twice, it counts once")] = None,
    seconds: Annotated[float | None, typer.Option(min=0.0, help="that it took; else, since it was asked")] = None,
    as_json: AsJson = False,
) -> None:
    """Answer a question, or correct a label; says what is in force."""
    from server import status as views
    from server.label.answer import Reply

    config = load_config(path)
    with views.opened(config) as store:
        told = Reply(sample_id, said, seconds, key, truth_in(truth))
        found = _queue(config, store).answers(who(by), [told], new_class=new_class)[0]
    sure = f", {found.confidence:.0%} sure" if found.confidence is not None else ""
    line = f"{sample_id}: {found.in_force}, by {found.labelers}{sure}"
    typer.echo(views.as_json(found._asdict()) if as_json else line)


@label.command("skip", epilog="Example: winnow-server label skip cam-1.main.7.1204 --by ann server.toml")
def skip(sample_id: SampleId, path: Config, by: By = "") -> None:
    """Leave a question to others: they get it at once, you not before a day is over."""
    from server import status as views

    config = load_config(path)
    with views.opened(config) as store:
        _queue(config, store).skip(who(by), sample_id)
    typer.echo(f"{sample_id}: skipped")


@label.command("undo", epilog="Example: winnow-server label undo --by ann server.toml")
def undo(path: Config, by: By = "") -> None:
    """Take your last answer back; its question is yours again."""
    from server import status as views

    config = load_config(path)
    with views.opened(config) as store:
        sample_id = _queue(config, store).undo(who(by))
    typer.echo(f"{sample_id}: your answer counts no more; `winnow-server label next` asks again")


@label.command("ask", epilog="Example: winnow-server label ask cam-1.main.7.1204 --labelers 3 server.toml")
def ask_again(
    sample_id: SampleId,
    path: Config,
    people: Annotated[int, typer.Option("--labelers", min=1, help="people that are to have answered, in all")] = 2,
    by: By = "",
    why: Why = NO_REASON,
) -> None:
    """Have several people answer about a sample."""
    from server.label import orders

    with deciding(path) as (connection, now_ms):
        orders.ask_several(connection, sample_id, people, who=who(by), why=why, now_ms=now_ms)
    typer.echo(f"{sample_id}: is asked of {people} people in all")


@label.command("suspects", epilog="Example: winnow-server label suspects --send --most 50 server.toml")
def find_suspects(
    path: Config,
    send: Annotated[bool, typer.Option("--send", help="have somebody look at them again")] = False,
    most: Annotated[int, typer.Option(min=1, help="of them, the most suspicious first")] = 50,
    by: By = "",
    why: Why = "suspected mistakes",
    as_json: AsJson = False,
) -> None:
    """Find labels that are probably wrong, by what the champion makes of the samples and the other labels say."""
    from server import status as views
    from server.label import orders, suspects

    with views.opened(load_config(path)) as store:
        found = suspects.find(store)
        chosen = found.suspects[:most]
        if send and chosen:
            ids = [one.sample_id for one in chosen]
            with store.database.write() as connection:
                orders.look_again(connection, ids, who=who(by), why=why, now_ms=now_ms())
    if as_json:
        typer.echo(views.as_json(found._asdict() | {"suspects": [one._asdict() for one in chosen], "sent": send}))
        return
    views.print_table([one._asdict() for one in chosen], views.console())
    left = f", {found.left_out} could not be judged" if found.left_out else ""
    sent = "; they are in the queue for a second look" if send and chosen else ""
    typer.echo(f"{len(found.suspects)} of {found.judged} labels are suspected{left}{sent}")


@label.command("classes", epilog="Example: winnow-server label classes --add bicycle server.toml")
def classes(
    path: Config,
    add: Annotated[list[str] | None, typer.Option("--add", help="a new class; may be given more than once")] = None,
    by: By = "",
    why: Why = NO_REASON,
    as_json: AsJson = False,
) -> None:
    """List the classes and their labels, or add some: versions to come know them. A class is never taken away."""
    from server import status as views
    from server.label import orders
    from server.store import labels

    if add:
        with deciding(path) as (connection, now_ms):
            for name in add:
                orders.new_class(connection, name, who=who(by), why=why, now_ms=now_ms)
    with views.opened(load_config(path)) as store, store.database.read() as connection:
        known, names = labels.by_class(connection), labels.names(connection)
    nothing = labels.Answered(0, 0, 0.0)
    found = [(name, known.get(name, nothing)) for name in names]
    rows = [
        {
            "index": k,
            "class": name,
            "labels": one.labels,
            "seconds_each": one.seconds / one.timed if one.timed else None,
        }
        for k, (name, one) in enumerate(found)
    ]
    show(rows, as_json)


@contextmanager
def deciding(path: Path) -> Iterator[tuple[sa.Connection, int]]:
    """A transaction, for what goes into the audit trail as well."""
    from server import status as views

    with views.opened(load_config(path)) as store, store.database.write() as connection:
        yield connection, now_ms()


def _queue(config: Any, store: Store) -> Queue:
    from server.label.queue import Queue, Rules

    return Queue(store, Rules.of(config), now_ms=now_ms, rng=np.random.default_rng())


def _next(config: Any, store: Store, who: str, count: int) -> list[Task]:
    """Planned here, where no server does it: only people's questions wait in the queue."""
    from server.label.queue import PERSON
    from server.roles.labelling import labelling_of
    from server.store.presence import leader

    queue = _queue(config, store)
    tasks = queue.next(who, count=count)
    if not tasks and config.labeler.kind in ("", PERSON) and not leader(store, "schedule"):
        labelling_of(config, store, now_ms=now_ms).step()
        tasks = queue.next(who, count=count)
    return tasks


def _picture(store: Store, task: Task, folder: Path) -> str:
    from server.label import picture
    from server.store.samples import sample_array

    folder.mkdir(parents=True, exist_ok=True)
    shown = picture.of(sample_array(store, task.row))
    at = folder / f"{task.sample_id}{shown.suffix}"
    at.write_bytes(shown.body)
    return str(at)


def truth_in(said: str) -> dict[str, Any] | None:
    """What somebody typed; LabelError when it is no JSON object."""
    if not said:
        return None
    try:
        found = json.loads(said)
    except ValueError as error:
        raise LabelError(f"--truth: {error}: got {said[:100]!r}, expected a JSON object") from None
    if not isinstance(found, dict):
        raise LabelError(f"--truth: got {said[:100]!r}, expected a JSON object")
    return found


def who(by: str) -> str:
    """Whose word it is."""
    from server.store.trail import person

    return by.strip() or person()
