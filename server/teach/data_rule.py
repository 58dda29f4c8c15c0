"""How is a data rule set?

By a person, for a scope, who says only what changes: the rest stays as it is in force there. It is recorded in the
audit trail in the same transaction.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
import sqlalchemy as sa

from edge_agent.contract.errors import did_you_mean
from edge_agent.contract.types import is_name
from server.errors import StoreError
from server.store import rules, trail
from server.store.rules import ANY, RETENTION_DAYS, USES, Rule, rule_of
from server.store.store import Store
from server.teach.licences import checked


def change(store: Store, scope: str, said: Mapping[str, Any], *, who: str, why: str, now_ms: int) -> Rule:
    """Set the rule of a scope; keys of `said` that are None stay as they are. StoreError says what is wrong."""
    device, stream = _scope(scope)
    values: dict[str, Any] = {key: value for key, value in said.items() if value is not None}
    if "licence" in values:
        values["licence"] = checked(values["licence"])
    if "uses" in values:
        values["uses"] = _uses(values["uses"])
    if "retention" in values:
        values["retention"], values["retention_days"] = _retention(values["retention"])
    with store.database.write() as connection:
        before = rule_of(rules.in_force(connection), device, stream)
        made = msgspec.structs.replace(before, device=device, stream=stream, **values)
        rules.add(connection, made, now_ms=now_ms)
        _record(connection, "rule", made, who=who, why=why, now_ms=now_ms)
    return made


def narrower(store: Store, made: Rule) -> list[Rule]:
    """Those of narrower scopes, which go on: consent that is withdrawn in a wider one is not withdrawn there."""
    with store.database.read() as connection:
        return rules.narrower(rules.in_force(connection), made)


def end(store: Store, scope: str, *, who: str, why: str, now_ms: int) -> None:
    """Let the wider rule hold again; StoreError when the scope has none of its own."""
    device, stream = _scope(scope)
    with store.database.write() as connection:
        there = {(rule.device, rule.stream): rule for rule in rules.in_force(connection)}
        if (device, stream) not in there:
            raise StoreError(
                f"{scope}: has no rule of its own; there are: {', '.join(r.scope for r in there.values())}"
            )
        rules.add(connection, there[device, stream], ended=True, now_ms=now_ms)
        _record(connection, "end rule", there[device, stream], who=who, why=why, now_ms=now_ms)


def listed(store: Store) -> list[dict[str, Any]]:
    """The rules in force, and the default."""
    with store.database.read() as connection:
        found = rules.in_force(connection)
    default = [] if any((rule.device, rule.stream) == (ANY, ANY) for rule in found) else [Rule()]
    rows = []
    for rule in [*found, *default]:
        row = msgspec.structs.asdict(rule)
        del row["device"], row["stream"]
        rows.append({"scope": rule.scope} | row | {"uses": ", ".join(rule.uses) or "none"})
    return rows


def line(rule: Rule) -> str:
    """What it says, in one line."""
    may = [use for use in USES if rule.allows(use)]
    parts = [f"may be used to {', '.join(may)}" if may else "may not be used", f"consent {rule.consent}"]
    parts += [f"licence {rule.licence or 'unknown'}", f"kept {rule.retention_days or 'for ever, 0'} days"]
    parts += [f"{name} {value}" for name, value in (("region", rule.region), ("purpose", rule.purpose)) if value]
    return "; ".join(parts).replace("for ever, 0 days", "for ever")


def _record(connection: sa.Connection, what: str, rule: Rule, *, who: str, why: str, now_ms: int) -> None:
    detail = msgspec.to_builtins(rule)
    trail.record(
        connection, what, f"data {rule.scope}", why=why, who=who or trail.person(), detail=detail, now_ms=now_ms
    )


def _scope(text: str) -> tuple[str, str]:
    device, slash, stream = text.partition("/")
    if not slash or not all(part == ANY or is_name(part) for part in (device, stream)):
        raise StoreError(f"scope {text!r}: expected DEVICE/STREAM, * for any: cam-1/main, cam-1/*, import/first, */*")
    return device, stream


def _uses(text: str) -> tuple[str, ...]:
    named = [] if text.strip() == "none" else [part.strip() for part in text.split(",") if part.strip()]
    for name in named:
        if name not in USES:
            raise StoreError(f"use {name!r}: unknown{did_you_mean(name, USES)}; known: {', '.join(USES)}, or none")
    return tuple(use for use in USES if use in named)


def _retention(text: str) -> tuple[str, int]:
    name, equals, days = text.partition("=")
    if not equals and name in RETENTION_DAYS:
        return name, RETENTION_DAYS[name]
    if is_name(name) and days.isdecimal() and len(days) < 6:
        return name, int(days)
    known = ", ".join(RETENTION_DAYS)
    raise StoreError(
        f"retention {text!r}: expected {known}, or a name and days: clips=14{did_you_mean(name, RETENTION_DAYS)}"
    )
