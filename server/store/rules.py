"""What may be done with whose samples?

A data rule is said of a stream, `device/stream`, or of several, with `*` for any; the narrowest holds. It says what the
samples are for, under which licence and consent they came, where they may be, how long they are kept, and what they may
be used for. Rules are events, set by a person and kept for ever beside the audit trail: a snapshot remembers those that
were in force.

Where no rule speaks, samples teach, judge and are exported within the house, and are shared with nobody.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple, get_args

import msgspec
import sqlalchemy as sa

from server.store.schema import data_rule, sample

Use = Literal["train", "evaluate", "export", "share"]
USES: tuple[Use, ...] = get_args(Use)
Consent = Literal["not_needed", "granted", "unknown", "withdrawn"]
CONSENTS: tuple[Consent, ...] = get_args(Consent)
RETENTION_DAYS = {"short": 30, "standard": 365, "long": 3650, "keep": 0}
"""Classes that have a name already; 0: no end."""

ANY = "*"
DAY_MS = 86_400_000


class Rule(msgspec.Struct, frozen=True, kw_only=True):
    """What holds for the samples of a scope."""

    device: str = ANY
    stream: str = ANY
    purpose: str = ""
    licence: str = ""  # SPDX expression; empty: not known
    consent: Consent = "not_needed"
    region: str = ""
    retention: str = "keep"
    retention_days: int = 0  # after which samples are due to be erased; 0: never
    uses: tuple[Use, ...] = ("train", "evaluate", "export")

    @property
    def scope(self) -> str:
        """As it is said: device/stream."""
        return f"{self.device}/{self.stream}"

    def allows(self, use: Use) -> bool:
        """Whether they may be used so: never once consent is withdrawn; shared only if consent and licence are known.

        >>> Rule().allows("train"), Rule(consent="withdrawn").allows("train"), Rule(uses=USES).allows("share")
        (True, False, False)
        """
        if self.consent == "withdrawn" or use not in self.uses:
            return False
        return use != "share" or (self.consent != "unknown" and bool(self.licence))


class Due(NamedTuple):
    """Samples of one stream that were kept for longer than their rule says."""

    device: str
    stream: str
    retention: str
    retention_days: int
    samples: int
    oldest_ms: int  # when the oldest arrived


def rule_of(rules: Sequence[Rule], device: str, stream: str) -> Rule:
    """The one that holds for a stream: its own, its device's, its stream's on any device, that of all, the default.

    >>> rules = [Rule(device="cam-1", region="EU"), Rule(stream="door", region="US")]
    >>> [rule_of(rules, *of).region for of in (("cam-1", "door"), ("cam-2", "door"), ("cam-2", "main"))]
    ['EU', 'US', '']
    """
    by_scope = {(rule.device, rule.stream): rule for rule in rules}
    narrowest_first = ((device, stream), (device, ANY), (ANY, stream), (ANY, ANY))
    return next((by_scope[scope] for scope in narrowest_first if scope in by_scope), Rule())


def narrower(rules: Sequence[Rule], rule: Rule) -> list[Rule]:
    """Those that hold in its place for some of its streams, by scope.

    >>> rules = [Rule(device="cam-1", stream="door"), Rule(device="cam-2")]
    >>> [one.scope for one in narrower(rules, Rule(device="cam-1"))]
    ['cam-1/door']
    """

    def rank(one: Rule) -> int:
        return 2 * (one.device == ANY) + (one.stream == ANY)

    def meet(one: str, other: str) -> bool:
        return ANY in (one, other) or one == other

    mine = [one for one in rules if meet(one.device, rule.device) and meet(one.stream, rule.stream)]
    return [one for one in mine if rank(one) < rank(rule)]


def add(connection: sa.Connection, rule: Rule, *, ended: bool = False, now_ms: int) -> None:
    """Put a rule in force, instead of the one of the same scope; `ended`: the wider one holds again."""
    values = msgspec.structs.asdict(rule) | {"uses": list(rule.uses), "ended": ended, "at_ms": now_ms}
    connection.execute(sa.insert(data_rule).values(values))


def in_force(connection: sa.Connection) -> list[Rule]:
    """The latest of every scope, by scope."""
    latest = sa.select(sa.func.max(data_rule.c.id)).group_by(data_rule.c.device, data_rule.c.stream)
    query = sa.select(data_rule).where(data_rule.c.id.in_(latest), ~data_rule.c.ended)
    rows = connection.execute(query.order_by(data_rule.c.device, data_rule.c.stream)).mappings()
    return [_rule(row) for row in rows]


def due(connection: sa.Connection, *, now_ms: int) -> list[Due]:
    """What was kept for longer than its rule says, stream by stream."""
    found = []
    rules = in_force(connection)
    if not any(rule.retention_days for rule in rules):
        return []
    for device, stream in connection.execute(sa.select(sample.c.device, sample.c.stream).distinct()).all():
        rule = rule_of(rules, device, stream)
        number, oldest = connection.execute(
            sa.select(sa.func.count(), sa.func.min(sample.c.received_at_ms)).where(
                _is_due(rule, device, stream, now_ms)
            )
        ).one()
        if number:
            found.append(Due(device, stream, rule.retention, rule.retention_days, number, oldest))
    return sorted(found)


def _is_due(rule: Rule, device: str, stream: str, now_ms: int) -> sa.ColumnElement[bool]:
    if not rule.retention_days:
        return sa.false()
    before = sample.c.received_at_ms < now_ms - rule.retention_days * DAY_MS
    return sa.and_(sample.c.device == device, sample.c.stream == stream, before)


def _rule(row: Any) -> Rule:
    return msgspec.convert({name: row[name] for name in Rule.__struct_fields__}, type=Rule)
