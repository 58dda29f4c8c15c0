"""Which device goes in which ring?

    canary=1%,early=10%,all        the last takes everybody
    canary=cam-1+cam-2,early=5,all

Shares and counts are of the fleet in all, the rings before included. Devices are drawn by a hash of their name and of
the version, so that a device's place is the same at every look, and it is not always the same device's turn to be the
first. A share is rounded up, and a ring takes at least as many as must have reported in it. While the fleet grows, a
share grows with it; a ring never gives a device back. A device that an operator put into a ring (`device ring`) goes
there whatever its hash, and last of all where a rollout has no such ring. Pure.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Collection, Iterable, Mapping, Sequence

import msgspec

from edge_agent.contract.errors import did_you_mean
from edge_agent.contract.types import is_name
from server.config import RingRules
from server.errors import ServerConfigError

EXAMPLE = "canary=1%,early=10%,all"
ROUNDING = 1e-9  # of a share of devices: 10 % of 30 are 3, whatever the last bit of 0.1 says


class Ring(msgspec.Struct, frozen=True, kw_only=True):
    """One ring: `devices` if there are any, else `count` of the fleet, else a `share` of it; and its rules."""

    name: str
    share: float = 1.0  # of the devices heard, 1: everybody
    count: int = 0
    devices: tuple[str, ...] = ()
    rules: RingRules = RingRules()

    @property
    def everybody(self) -> bool:
        """Whether nobody is left for a ring after it."""
        return not self.devices and not self.count and self.share >= 1.0

    def size(self, fleet: int) -> int:
        """How many devices it and the rings before it hold, of a fleet of so many."""
        share = self.count or math.ceil(self.share * fleet - ROUNDING)
        return max(1, self.rules.min_reported, share)


def parse(specs: Sequence[str], rules: Sequence[str], default: RingRules) -> tuple[Ring, ...]:
    """Rings as an operator writes them; ServerConfigError says what to mend.

    Args:
        specs: `name=10%`, `name=5`, `name=cam-1+cam-2`; the last one a plain `name`.
        rules: `ring.rule=value` for one ring, `rule=value` for all.
        default: what holds where no rule says otherwise.

    >>> [ring.name for ring in parse(["canary=1%", "all"], ["canary.soak_s=60"], RingRules())]
    ['canary', 'all']
    """
    named = dict.fromkeys(spec.partition("=")[0].strip() for spec in specs)
    said = [_rule(rule, named) for rule in rules]
    common = _with(default, {key: value for ring, key, value in said if not ring})
    last = len(specs) - 1
    found = []
    for place, spec in enumerate(specs):
        ring = _ring(spec)
        own = {key: value for name, key, value in said if name == ring.name}
        followed = common if place < last else msgspec.structs.replace(common, soak_s=0.0)
        found.append(msgspec.structs.replace(ring, rules=_with(followed, own)))
    if not found or len(named) < len(found) or [ring.everybody for ring in found] != [False] * last + [True]:
        raise ServerConfigError(
            f"rings: got {','.join(specs)!r}, expected different names, and that the last one alone takes everybody: "
            + EXAMPLE
        )
    return tuple(found)


def _ring(spec: str) -> Ring:
    name, takes, what = (part.strip() for part in spec.partition("="))
    if not is_name(name):
        raise ServerConfigError(f"ring {spec!r}: got the name {name!r}, expected letters, digits, - and _: {EXAMPLE}")
    if not takes:
        return Ring(name=name)
    if what.isascii() and what.isdigit() and int(what):
        return Ring(name=name, count=int(what))
    if what.endswith("%"):
        return Ring(name=name, share=_share(spec, what[:-1]))
    devices = tuple(part.strip() for part in what.split("+"))
    if all(is_name(device) for device in devices):
        return Ring(name=name, devices=devices)
    raise ServerConfigError(f"ring {spec!r}: expected a share (10%), a number of devices (5) or names (cam-1+cam-2)")


def _share(spec: str, percent: str) -> float:
    try:
        share = float(percent) / 100.0
    except ValueError:
        share = math.nan
    if not 0.0 < share <= 1.0:
        raise ServerConfigError(f"ring {spec!r}: got {percent!r} %, expected more than 0 and 100 at most")
    return share


def _rule(text: str, rings: Iterable[str]) -> tuple[str, str, object]:
    """(ring, rule, value) of `ring.rule=value`; ring is "" for all."""
    left, is_set, value = (part.strip() for part in text.partition("="))
    ring, _, key = left.rpartition(".")
    known = msgspec.structs.fields(RingRules)
    if ring and ring not in rings:
        raise ServerConfigError(f"rule {text!r}: no ring {ring!r}{did_you_mean(ring, rings)}: {', '.join(rings)}")
    names = [field.name for field in known]
    if not is_set or key not in names:
        raise ServerConfigError(f"rule {text!r}: no rule {key!r}{did_you_mean(key, names)}: {', '.join(names)}")
    try:
        made = msgspec.convert({key: value}, type=RingRules, strict=False)
    except msgspec.ValidationError as error:
        raise ServerConfigError(f"rule {text!r}: {error}") from error
    return ring, key, getattr(made, key)


def _with(rules: RingRules, values: Mapping[str, object]) -> RingRules:
    return RingRules(**{**{key: getattr(rules, key) for key in RingRules.__struct_fields__}, **values})


def joining(
    rings: Sequence[Ring],
    opened: int,
    members: Mapping[str, str],
    heard: Collection[str],
    *,
    version: int,
    pinned: Mapping[str, str],
) -> dict[str, str]:
    """Who joins which ring now: device -> ring.

    Args:
        rings: of the rollout, in order.
        opened: how many of them have begun.
        members: device -> ring, of those that joined before.
        heard: devices that are there to join.
        version: what is rolled out.
        pinned: device -> ring where an operator put it.

    >>> rings = parse(["canary=1%", "all"], [], RingRules())
    >>> joining(rings, 1, {}, ["a", "b", "c"], version=7, pinned={})
    {'c': 'canary'}
    """
    homes = {name: index for index, ring in enumerate(rings) for name in ring.devices}
    places = {ring.name: index for index, ring in enumerate(rings)}
    homes |= {name: places.get(ring, len(rings) - 1) for name, ring in pinned.items()}
    free = sorted((name for name in heard if name not in members), key=lambda name: place(name, version))
    drawn = [name for name in free if name not in homes]
    found: dict[str, str] = {}
    for index, ring in enumerate(rings[:opened]):
        found |= {name: ring.name for name in free if homes.get(name) == index}
        if not ring.devices:
            inside = sum(places.get(at, 0) <= index for at in members.values()) + len(found)
            room = len(drawn) if ring.everybody else max(0, ring.size(len(heard)) - inside)
            found |= dict.fromkeys(drawn[:room], ring.name)
            drawn = drawn[room:]
    return found


def place(name: str, version: int) -> bytes:
    """What a device is drawn by: the lowest first."""
    return hashlib.sha256(f"{version}/{name}".encode()).digest()
