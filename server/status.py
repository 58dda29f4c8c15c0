"""What is going on?

Read from the catalogue alone, so it answers whether or not the server runs. Each view is plain data first (that is the
`--json`), and a table second.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import msgspec
import sqlalchemy as sa
from rich.console import Console
from rich.table import Table

from server.audit import accuracy as estimates
from server.audit import words
from server.audit.evidence import gather
from server.audit.yields import against_random
from server.config import ServerConfig
from server.errors import StoreError
from server.label import quality
from server.release.commands import summary
from server.store import devices, gaps, labels, portfolios, rollouts, runs, samples, usage, versions
from server.store.leadership import SEATS
from server.store.presence import leader
from server.store.store import Store
from server.store.stretches import day_of
from server.teach import outlook, proposals
from server.teach.when import due

View = dict[str, Any]
LAST_STEPS = 5
JSON_ONLY = ("metrics", "refusals")
ACCURACY_DAYS = 7
YIELD_DAYS = 30  # fewer, and a small fleet's random arm has too few labels to compare with
DAY_MS = 86_400_000
PIPED_COLUMNS = 200  # nothing is cut off when somebody else reads it


@contextmanager
def opened(config: ServerConfig) -> Iterator[Store]:
    """The store that is there; StoreError when there is none yet."""
    folder = Path(config.server.data_dir)
    if not Store.is_there(folder, config.store):
        raise StoreError(f"{folder}: no data yet: start `winnow-server run`, or import some")
    store = Store.open(folder, config.store)
    try:
        yield store
    finally:
        store.close()


def overview(config: ServerConfig, store: Store, *, now_ms: int, over_all: View | None = None) -> View:
    """The whole loop, in figures. `over_all`: as made before, by the function of that name."""
    leaders = {name: leader(store, name) for name in SEATS}
    found = figures_over_all(store, now_ms=now_ms) if over_all is None else over_all
    with store.database.read() as connection:
        champion = versions.champion(connection)
        last = runs.latest(connection)
        known, online = devices.count(connection)
        return found | {
            "fleet": config.server.fleet,
            "running": any(leaders.values()),
            "leaders": leaders,
            "devices": known,
            "online": online,
            "samples": samples.counts_by_reason(connection),
            "labels": labels.counts(connection)._asdict(),
            "labelling": quality.effort(connection, since_ms=0, currency=config.labeler.currency)
            | quality.at_hand(connection, now_ms=now_ms),
            "classes": list(labels.names(connection)),
            "champion": champion.number if champion else None,
            "run": _run(last[0]) if last else None,
            "teaching": _teaching(connection, config, now_ms),
            "portfolio": _portfolio(connection),
            "rollouts": _rollouts(connection),
            "disk": usage.outline(connection, config.retention, now_ms=now_ms),
        }


def figures_over_all(store: Store, *, now_ms: int) -> View:
    """What every device, and all that it counted lately, is read for: seconds, with 10,000 of them."""
    with store.database.read() as connection:
        return {
            "missing": sum(gaps.missing(connection, devices.kept(connection)).values()),
            "accuracy": estimates.fleet(gather(connection, since_day=_since(ACCURACY_DAYS, now_ms))),
            "yield": _yield(connection, now_ms),
            "as_of_ms": now_ms,
        }


def accuracy(store: Store, by: estimates.By, *, days: int, now_ms: int) -> View:
    """The fleet's accuracy of the last `days` (0: of all), by `by`."""
    with store.database.read() as connection:
        evidence = gather(connection, since_day=_since(days, now_ms))
        names = labels.names(connection)
    return {
        "days": days,
        "by": by,
        "fleet": estimates.fleet(evidence),
        "rows": [] if by == "fleet" else estimates.table(evidence, by, names=names),
        "left_out": {why: number for why, number in evidence.left_out.items() if number},
    }


def _since(days: int, now_ms: int) -> str:
    return day_of(now_ms - (days - 1) * DAY_MS) if days else ""


def _yield(connection: sa.Connection, now_ms: int) -> View:
    found = against_random(connection, since_ms=now_ms - YIELD_DAYS * DAY_MS)
    return found._asdict() | {"chosen": found.chosen._asdict(), "random": found.random._asdict()}


def _run(run: runs.Run) -> View:
    report = run.report
    verdict = report.get("verdict", {})
    failed = [gate["name"] for gate in verdict.get("gates", ()) if gate["state"] == "failed"]
    return {
        "id": run.id,
        "state": run.state,
        "champion": run.champion,
        "error": run.error,
        "failed_gates": failed,
        "figures": report.get("figures", {}),
    }


def _teaching(connection: sa.Connection, config: ServerConfig, now_ms: int) -> View:
    """Whether a round is due, what the audit's labels say of the champion, and who has the word where."""
    look = outlook.look(connection, config.teach, now_ms=now_ms)
    found, proposed = due(config.teach, look), proposals.waiting(connection)
    return {
        "new_labels": look.new_labels,
        "due": found.why if found else None,
        "proposed_ms": proposed.at_ms if found and proposed else None,
        "enabled": config.teach.enabled,
        "harm": look.harm._asdict() if look.harm else None,
        "autonomy": config.autonomy.dials(),
    }


def _portfolio(connection: sa.Connection) -> list[View]:
    """One row per arm, the largest share first; none when it is off."""
    kept = portfolios.get(connection)
    if kept is None:
        return []
    told = Counter(portfolios.told(connection).values())
    rows = [
        {
            "arm": name,
            "share": round(share, 3),
            "devices": told[name],
            "pulls": belief["pulls"],
            "labels_judged": belief["labels"],
            "advantage": round(belief["advantage"], 3),
            "advantage_sd": round(belief["sd"], 3),
            "typical_gain": kept.state["typical"],
        }
        for name, share in kept.shares.items()
        if (belief := kept.state["beliefs"].get(name))
    ]
    return sorted(rows, key=lambda row: -row["share"])


def _rollouts(connection: sa.Connection) -> list[View]:
    """The newest of each channel, with its last steps."""
    return [
        summary(one) | {"steps": [step._asdict() for step in rollouts.steps(connection, one.id, last=LAST_STEPS)]}
        for one in rollouts.newest(connection).values()
    ]


def stamp(at_ms: int) -> str:
    """A time for people."""
    return datetime.fromtimestamp(at_ms / 1000, timezone.utc).isoformat(timespec="seconds")


# --- for people -------------------------------------------------------------------------------------------------------


def as_json(view: View | list[View]) -> str:
    """As JSON."""
    return json.dumps(msgspec.to_builtins(view, str_keys=True), indent=1)


def print_overview(view: View, console: Console) -> None:
    """As lines."""
    last = view["run"]
    lines = {
        "server": "running" if view["running"] else "not running",
        "fleet": f"{view['fleet']}, {view['online']} of {view['devices']} devices online",
        "samples": _pairs(view["samples"]) or "none",
        "labels": _pairs(view["labels"]),
        "labelling": quality.effort_line(view["labelling"]),
        "classes": ", ".join(view["classes"]) or "none",
        "accuracy": words.accuracy_line(view["accuracy"], days=ACCURACY_DAYS),
        "mistakes": words.yield_line(view["yield"], days=YIELD_DAYS),
        "champion": f"version {view['champion']}" if view["champion"] else "none",
        "last run": _run_line(last) if last else "none",
        "teaching": _teaching_line(view["teaching"]),
    }
    if view["disk"]:
        lines["disk"] = usage.line(view["disk"])
    if view["missing"]:
        lines["missing"] = f"{view['missing']} samples that devices had kept will not come: see `winnow-server devices`"
    for name, text in lines.items():
        console.print(f"{name:<10}{text}", markup=False, highlight=False)
    for place, arm in enumerate(view["portfolio"]):
        console.print(f"{'' if place else 'portfolio':<10}{_arm_line(arm)}", markup=False, highlight=False)
    for line in [line for roll in view["rollouts"] for line in _rollout_lines(roll)] or ["rollout   none"]:
        console.print(line, markup=False, highlight=False)


def print_accuracy(view: View, console: Console) -> None:
    """As a line for the fleet, and a table."""
    console.print(words.accuracy_line(view["fleet"], days=view["days"]), markup=False, highlight=False)
    if view["rows"]:
        console.print()
        print_table([words.shown(row, view["by"]) for row in view["rows"]], console)
    if view["left_out"]:
        console.print(words.left_out_line(view["left_out"]), markup=False, highlight=False)


def _run_line(run: View) -> str:
    why = run["error"] or ", ".join(run["failed_gates"])
    return f"{run['id']} {run['state']}{': ' + why if why else ''}"


def _teaching_line(teaching: View) -> str:
    harm = teaching["harm"]
    said = [f"a round is due: {teaching['due']}" if teaching["due"] else f"{teaching['new_labels']} new labels"]
    if teaching["due"] and not teaching["enabled"]:
        said.append("[teach] enabled is false: `winnow-server train` begins it")
    elif teaching["proposed_ms"]:
        said.append(f"proposed {stamp(teaching['proposed_ms'])}, `winnow-server train` begins it")
    if harm and harm["labels"]:
        said.append(f"{harm['errors']} of {harm['labels']} labels of the audit wrong, {harm['allowed']:.1%} allowed")
    return "; ".join([*said, ", ".join(f"{channel} {dial}" for channel, dial in teaching["autonomy"].items())])


def _rollout_lines(roll: View) -> list[str]:
    state = f"{roll['status']}{', ' + roll['why'] if roll['why'] else ''}: {_pairs(roll['members'])}"
    head = f"{'rollout':<10}{roll['rollout']}, version {roll['version']} to {roll['channel']} {state}"
    return [head, *(f"{'':<10}{stamp(step['at_ms'])} {step['text']}" for step in roll["steps"])]


def _arm_line(arm: View) -> str:
    """Its advantage is over the mean of all arms, in percent of what a label gains."""
    worth = f"{100 * arm['advantage']:+.0f} +- {100 * arm['advantage_sd']:.0f} %"
    return (
        f"{arm['arm']}: {arm['share']:.0%} of the fleet, {arm['devices']} devices; {arm['pulls']} pulls, "
        f"{arm['labels_judged']} labels judged, each worth {worth} against the mean"
    )


def _pairs(counts: dict[str, int]) -> str:
    return ", ".join(f"{number} {name.replace('_', ' ')}" for name, number in counts.items())


def print_table(rows: Sequence[View], console: Console) -> None:
    """As a table: one column per key; what is too wide for one is in the JSON only."""
    if not rows:
        console.print("none", highlight=False)
        return
    table = Table(box=None, pad_edge=False, header_style="bold" if console.is_terminal else "")
    shown = [key for key in rows[0] if key not in JSON_ONLY]
    for key in shown:
        value = rows[0][key]
        table.add_column(key.replace("_", " "), justify="right" if isinstance(value, (int, float)) else "left")
    for row in rows:
        table.add_row(*(_cell(row[key]) for key in shown))
    console.print(table, markup=False, highlight=False)


def print_lines(view: View) -> None:
    """As lines, a name and its value on each."""
    width = max(map(len, view)) + 2
    for name, value in view.items():
        shown = ", ".join(map(_cell, value)) or "-" if isinstance(value, list) else _cell(value)
        console().print(f"{name.replace('_', ' '):<{width}}{shown}", markup=False, highlight=False)


def _cell(value: object) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, dict):
        return ", ".join(f"{key} {_cell(item)}" for key, item in value.items()) or "-"
    return f"{value:.3f}" if isinstance(value, float) else str(value)


def console() -> Console:
    """On a terminal as wide as that; plain and wide when piped."""
    found = Console()
    return found if found.is_terminal else Console(width=PIPED_COLUMNS, no_color=True)
