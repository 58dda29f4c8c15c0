"""What may an operator tell a device, and which devices are meant?

A pause keeps samples on the device: they go on being selected, into the outbox and under its limits, and are sent when
the device is told to resume. A budget takes the place of the device's own. Both are kept at once, with who said so and
why, and passed on by the running server with the next look (fleet.py); the device says back what it obeys.

An order is of the devices that are meant when it is given; one that comes later to a site or a ring is none of them.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import msgspec
import sqlalchemy as sa

from edge_agent.contract import wire
from edge_agent.contract.errors import did_you_mean
from edge_agent.contract.wire import Desired
from server.errors import OrderError
from server.store import device_orders, devices, identities, rollouts, trail, whereabouts
from server.store.device_orders import Order, Orders
from server.store.devices import Device
from server.store.store import Store
from server.store.whereabouts import Place

SUBJECT_CHARS = 200  # of whom an order was for, in the trail, which has all names beside it
EXPECTED = "expected names such as cam-1,cam-2, or site:NAME, ring:NAME, all"


class Budget(NamedTuple):
    """What a device may spend; None: as its own file says. Limits a day: 0 is none."""

    label_share: float | None = None
    labels_per_day: float | None = None
    bytes_per_day: float | None = None

    def check(self) -> None:
        """OrderError when it cannot be."""
        for name, value in self._asdict().items():
            most = 1.0 if name == "label_share" else math.inf
            if value is not None and not (math.isfinite(value) and 0.0 <= value <= most):
                raise OrderError(f"{name}: got {value:g}, expected 0 or more{', at most 1' if most == 1.0 else ''}")


OWN = Budget()


def pause(store: Store, whom: str, *, why: str, who: str = trail.SERVER, now_ms: int) -> list[str]:
    """Keep samples on devices until they are told to resume; returns the devices. OrderError: nobody is meant."""
    return _give(store, whom, "pause", {}, "pause", {}, why=why, who=who, now_ms=now_ms)


def resume(store: Store, whom: str, *, why: str, who: str = trail.SERVER, now_ms: int) -> list[str]:
    """Let samples go again; returns the devices that were paused. OrderError: none was."""
    return _give(store, whom, "pause", None, "resume", {}, why=why, who=who, now_ms=now_ms)


def set_budget(store: Store, whom: str, budget: Budget, *, why: str, who: str = trail.SERVER, now_ms: int) -> list[str]:
    """Put a budget in place of the one before, `OWN`: of none; returns the devices. OrderError when that cannot be."""
    budget.check()
    said = {name: value for name, value in budget._asdict().items() if value is not None}
    return _give(store, whom, "budget", said or None, "budget", said, why=why, who=who, now_ms=now_ms)


def _give(
    store: Store,
    whom: str,
    word: device_orders.Word,
    said: dict[str, Any] | None,
    what: str,
    detail: dict[str, Any],
    *,
    why: str,
    who: str,
    now_ms: int,
) -> list[str]:
    with store.database.write() as connection:
        names = concerned(connection, whom)
        if said is None:
            given = device_orders.standing(connection)
            asked, names = names, [name for name in names if word in given.get(name, {})]
            if not names:
                raise OrderError(f"{what}: no {word} was ordered of {_few(asked)}")
        device_orders.give(connection, names, word, said, who=who, why=why, now_ms=now_ms)
        trail.record(
            connection, what, subject(names, whom), why=why, who=who, detail={**detail, "devices": names}, now_ms=now_ms
        )
    return names


def subject(names: Sequence[str], whom: str) -> str:
    """What the trail calls those that an order was for."""
    if len(names) == 1:
        return f"device {names[0]}"
    return whom if whom and len(whom) <= SUBJECT_CHARS else _few(names)


class Meant(NamedTuple):
    """Whom an order would be for, and how things are with them."""

    devices: list[str]
    revoked: list[str]  # left out
    unknown: list[str]  # names that no device has, or none has any more; left out
    online: int
    paused: int
    budgeted: int  # with a budget by order
    channels: dict[str, int]
    rings: dict[str, int]  # "": drawn anew for every version
    sites: dict[str, int]


def meant(store: Store, whom: str | Sequence[str]) -> Meant:
    """What an order to `whom`, or to those of these names, would come to. OrderError: nobody is meant."""
    with store.database.read() as connection:
        fleet = _fleet(connection)
        listed = _asked(connection, fleet, whom) if isinstance(whom, str) else whom
        asked, unknown = [one for one in listed if one in fleet], [one for one in listed if one not in fleet]
        names, gone = _left(connection, fleet, asked)
        given = device_orders.standing(connection)
    places = [fleet[name] for name in names]
    return Meant(
        devices=names,
        revoked=gone,
        unknown=unknown,
        online=sum(place.online for place in places),
        paused=sum("pause" in given.get(name, {}) for name in names),
        budgeted=sum("budget" in given.get(name, {}) for name in names),
        channels=dict(Counter(place.channel for place in places)),
        rings=dict(Counter(place.ring or "" for place in places)),
        sites=dict(Counter(place.site for place in places)),
    )


def concerned(connection: sa.Connection, whom: str) -> list[str]:
    """The devices that `whom` means: "cam-1,cam-2", "site:north", "ring:canary" or "all". OrderError: none.

    A ring is who an operator put there, and who was drawn into it by the newest rollout of its channel. Who is revoked
    hears nothing any more.
    """
    fleet = _fleet(connection)
    return _left(connection, fleet, _asked(connection, fleet, whom))[0]


def _fleet(connection: sa.Connection) -> dict[str, Place]:
    return {place.name: place for place in whereabouts.every(connection)}


def _asked(connection: sa.Connection, fleet: Mapping[str, Place], whom: str) -> list[str]:
    kind, mark, value = whom.strip().partition(":")
    if mark and kind not in ("site", "ring"):
        raise OrderError(f"devices {whom!r}: {EXPECTED}")
    if mark:
        return _at_site(fleet, value) if kind == "site" else _in_ring(connection, fleet, value)
    return list(fleet) if whom.strip() == "all" else _named(fleet, whom)


def _left(connection: sa.Connection, fleet: Mapping[str, Place], asked: Sequence[str]) -> tuple[list[str], list[str]]:
    """Who of those that are asked for hears anything, and who is revoked."""
    revoked = identities.revoked(connection)
    left, gone = [name for name in asked if name not in revoked], [name for name in asked if name in revoked]
    if not fleet:
        raise OrderError("no device has been seen yet")
    if not asked:
        raise OrderError("no device is meant: nothing fits")
    if not left:
        raise OrderError(f"devices {_few(asked)}: all of them are revoked")
    return left, gone


def _named(fleet: Mapping[str, Place], whom: str) -> list[str]:
    names = [part.strip() for part in whom.split(",") if part.strip()]
    if not names:
        raise OrderError(f"no device is named: {EXPECTED}")
    for name in names:
        if name not in fleet:
            raise OrderError(f"device {name!r} has never been seen{did_you_mean(name, fleet)}; {EXPECTED}")
    return list(dict.fromkeys(names))


def _at_site(fleet: Mapping[str, Place], site: str) -> list[str]:
    found = [device.name for device in fleet.values() if device.site == site and site]
    if not found:
        known = {device.site for device in fleet.values()} - {""}
        raise OrderError(f"no device is at site {site!r}{did_you_mean(site, known)}")
    return found


def _in_ring(connection: sa.Connection, fleet: Mapping[str, Place], ring: str) -> list[str]:
    rings = {name: device.ring for name, device in fleet.items() if device.ring}
    for one in rollouts.newest(connection).values():
        drawn = {name: member["ring"] for name, member in one.state.get("members", {}).items()}
        rings = {name: at for name, at in drawn.items() if name in fleet and fleet[name].channel == one.channel} | rings
    found = sorted(name for name, at in rings.items() if at == ring)
    if not found:
        raise OrderError(f"no device is in ring {ring!r}{did_you_mean(ring, set(rings.values()))}")
    return found


def _few(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


# --- to the device ----------------------------------------------------------------------------------------------------


def with_orders(desired: Desired, orders: Orders) -> Desired:
    """What a device is told, with the last that operators said; what was taken back, its own file says again."""
    changes: dict[str, Any] = {}
    if paused := orders.get("pause"):
        told = wire.Pause(by=paused.who[:200], at_ms=paused.at_ms, why=paused.why[:500])
        changes["pause"] = None if paused.said is None else told
    if budget := orders.get("budget"):
        changes |= Budget(**(budget.said or {}))._asdict()
    return msgspec.structs.replace(desired, **changes)


# --- for people -------------------------------------------------------------------------------------------------------


class Standing(NamedTuple):
    """An order in force. `obeyed`: the device said so in its last heartbeat; None: it is too old to say."""

    device: str
    word: str
    said: dict[str, float]
    who: str
    why: str
    at_ms: int
    obeyed: bool | None


def listed(store: Store, device: str = "") -> list[Standing]:
    """The orders in force, by device; of one alone, if one is named."""
    with store.database.read() as connection:
        given = device_orders.standing(connection, device)
        found = [devices.get(connection, name) for name in given] if device else devices.devices(connection)
        fleet = {one.name: one for one in found if one is not None}
    return [
        Standing(order.device, order.word, order.said or {}, order.who, order.why, order.at_ms, _obeyed(fleet, order))
        for orders in given.values()
        for order in orders.values()
    ]


def _obeyed(fleet: dict[str, Device], order: Order) -> bool | None:
    device = fleet.get(order.device)
    beat = device.heartbeat if device else None
    if beat is None or beat.budgets is None or beat.link is None:
        return None
    if order.word == "pause":
        return beat.link.paused_ms == order.at_ms
    said = order.said or {}
    kept = all(
        math.isclose(getattr(beat.budgets, name), value)
        for name, value in said.items()
        if name != "label_share"  # times the device's own over-selection
    )
    return kept and not beat.budgets.complaint
