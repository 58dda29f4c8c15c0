"""What is different between two snapshots?

    added, removed   members of the one alone
    relabelled       of both, but of another class or truth; by "was -> is"
    moved            of both, but in another split

each counted by class, device, labeler and split, with the ids. What is removed because the newer one leaves it out says
why. Probabilities may differ in every member, since plans go on; that is no difference. Pure.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from server.store.rules import Rule


class Entry(NamedTuple):
    """A member, as people know it."""

    class_name: str
    split: str
    device: str
    labeler: str
    truth: str = ""  # where it is more than a class, exactly


class Group(NamedTuple):
    """Some members; those of the newer snapshot, but where they were removed."""

    ids: list[str]
    by_class: dict[str, int]
    by_device: dict[str, int]
    by_labeler: dict[str, int]
    by_split: dict[str, int]


class Difference(NamedTuple):
    """From one snapshot to the other."""

    added: Group
    removed: Group
    relabelled: Group
    moved: Group
    same: int
    changes: dict[str, int]  # "cat -> dog": relabelled
    left_out: dict[str, int]  # why -> of the removed
    classes: list[str]  # only the newer one has
    rules: list[str]  # scopes of the data rules that differ


def difference(
    before: Mapping[str, Entry], after: Mapping[str, Entry], *, left_out: Mapping[str, str] | None = None
) -> Difference:
    """From `before` to `after`: sample id -> member. left_out: sample id -> why, of the newer."""
    both = sorted(before.keys() & after.keys())
    relabelled = [one for one in both if _label(before[one]) != _label(after[one])]
    moved = [one for one in both if before[one].split != after[one].split]
    removed = sorted(before.keys() - after.keys())
    changes = Counter(f"{before[one].class_name} -> {after[one].class_name}" for one in relabelled)
    why = Counter((left_out or {}).get(one, "") for one in removed)
    del why[""]
    return Difference(
        added=_group(sorted(after.keys() - before.keys()), after),
        removed=_group(removed, before),
        relabelled=_group(relabelled, after),
        moved=_group(moved, after),
        same=len(both) - len({*relabelled, *moved}),
        changes=_sorted(changes),
        left_out=_sorted(why),
        classes=[],
        rules=[],
    )


def rules_between(before: Sequence[Rule], after: Sequence[Rule]) -> list[str]:
    """Scopes whose rule is new, gone or another."""
    mine, theirs = ({rule.scope: rule for rule in rules} for rules in (before, after))
    return sorted(scope for scope in mine.keys() | theirs.keys() if mine.get(scope) != theirs.get(scope))


def lines(found: Difference) -> list[str]:
    """For people."""
    said = []
    for name in ("added", "removed", "relabelled", "moved"):
        group: Group = getattr(found, name)
        said.append(f"{name:<12}{len(group.ids)}")
        for by in ("class", "device", "labeler", "split"):
            if counts := getattr(group, f"by_{by}"):
                said.append(f"  {by:<10}" + ", ".join(f"{key or '-'} {number}" for key, number in counts.items()))
    said += [f"  {change:<30} {number}" for change, number in found.changes.items()]
    said.append(f"{'the same':<12}{found.same}")
    for name, values in (("new classes", found.classes), ("other rules", found.rules)):
        if values:
            said.append(f"{name:<12}" + ", ".join(values))
    if found.left_out:
        said.append(f"{'left out':<12}" + ", ".join(f"{number} {why}" for why, number in found.left_out.items()))
    return said


def _group(ids: list[str], members: Mapping[str, Entry]) -> Group:
    some = [members[one] for one in ids]
    return Group(
        ids,
        _sorted(Counter(one.class_name for one in some)),
        _sorted(Counter(one.device for one in some)),
        _sorted(Counter(one.labeler for one in some)),
        _sorted(Counter(one.split for one in some)),
    )


def _label(one: Entry) -> tuple[str, str]:
    return one.class_name, one.truth


def _sorted(counts: Counter[str]) -> dict[str, int]:
    """The largest first, then by name."""
    return dict(sorted(counts.items(), key=lambda one: (-one[1], one[0])))
