"""How is lineage said to people?"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from server.store.wording import in_words

View = dict[str, Any]
SHOWN = 12  # names in one line of a text; the JSON has all


def lines(view: View, stamp: Any) -> list[str]:
    """A view as text; `stamp` makes a time of ms."""
    head = _lines_of_version(view, stamp) if "version" in view else _lines_of_origin(view, stamp)
    if "verified" in view:
        head.append("its snapshot is what it was" if view["verified"] else "ITS SNAPSHOT IS NOT WHAT IT WAS")
    said = [
        f"{stamp(one['at_ms'])} {one['who']} {one['what']} {one['subject']}: {one['why']}" for one in view["decisions"]
    ]
    return [*head, *said]


def _lines_of_version(view: View, stamp: Any) -> list[str]:
    run, made = view["run"], view["snapshot"]
    found = [f"version {view['version']} ({view['name']}), published {stamp(view['published_at_ms'])}"]
    found.append(f"held against: {'version ' + str(view['held_against']) if view['held_against'] else 'nothing'}")
    found.append(
        f"went on from: {_listed(view['parents']) or 'nothing'}; from it: {_listed(view['children']) or 'none'}"
    )
    if run is None:
        found.append("run: none here, it was given by hand or is an earlier one again")
    else:
        code = run["environment"].get("code", {})
        made_by = f", code {code['version']} {code.get('commit', '')[:12]}".rstrip() if code else ""
        teach = run["settings"].get("teach", {})
        found.append(f"run {run['run']}: recipe {run['recipe'] or 'by shape'}, seed {teach.get('seed', '?')}{made_by}")
    if made is None:
        found.append("snapshot: not in the store")
    else:
        gone = f", {made['erased']} erased since" if made["erased"] else ""
        found.append(
            f"snapshot {made['snapshot'][:12]}: {made['train']} to train on, {made['holdout']} to judge by{gone}"
        )
    rows = [f"{row['device']}/{row['stream']} {_counts(row)}" for row in view["sources"]]
    found.append(f"samples (trained on + held out): {_listed(rows) or 'none known'}")
    found.append(
        f"labels: {_listed([f'{name} {number}' for name, number in view['labelers'].items()]) or 'none known'}"
    )
    rolled = [f"{one['id']} to {one['channel']} ({one['status']})" for one in view["rollouts"]]
    found.append(
        f"rollouts: {_listed(rolled) or 'none'}; runs on: {_listed(view['runs_on']) or 'no device that said so'}"
    )
    if view["erased_since"]:
        found.append(f"learned from what was erased since (erasures {_listed(view['erased_since'])}): train it again")
    return found


def _counts(row: View) -> str:
    without = f" and {row['unlabelled']} without a label" if row.get("unlabelled") else ""
    return f"{row['train']}+{row['holdout']}{without}"


def _lines_of_origin(view: View, stamp: Any) -> list[str]:
    if "sample" in view:
        one, why = view["sample"], view["selection"]
        found = [
            f"sample {one['id']}, {one['origin']}, captured {stamp(one['captured_at_ms'])}, serves as {one['split']}"
        ]
        if why["reason"]:
            found.append(
                f"selected by version {why['model_version']}: {why['reason']}, probability {why['probability']:.3g}, "
                f"{why['strategy']}/{why['acquisition'] or 'its own'}"
            )
        found += [
            f"{stamp(row['at_ms'])} {row['labeler']}: {in_words(row['class_index'], row['truth'], view['classes'])}"
            + (", taken back" if row["undone_at_ms"] else "")
            for row in view["labels"]
        ]
    elif "device" in view:
        found = [f"device {view['device']}: {view['samples']} samples, executes version {view['executes'] or 'none'}"]
    else:
        found = [f"labeler {view['labeler']}: {view['labels']} labels"]
    taught = view["versions"]
    found.append(f"versions that learned from it: {_counted(taught['learned'])}")
    found.append(f"versions that went on from those: {_listed(taught['inherited']) or 'none'}")
    found.append(f"versions that were judged by it: {_counted(taught['judged'])}")
    found += [f"version {number} runs on: {_listed(names)}" for number, names in taught["runs_on"].items()]
    return found


def _counted(by_version: Mapping[int, int]) -> str:
    return _listed([f"{number} ({count} samples)" for number, count in by_version.items()]) or "none"


def _listed(items: Collection[object]) -> str:
    shown = [str(item) for item in list(items)[:SHOWN]]
    return ", ".join([*shown, *([f"and {len(items) - SHOWN} more"] if len(items) > SHOWN else [])])
