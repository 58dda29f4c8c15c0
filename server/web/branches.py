"""Where does each version stand in the picture of all?

A row each, the newest on top. What led to the champion is the trunk, lane 0; a version that goes on from another
begins a lane of its own where that one's lane goes on already. Lanes end, and are used again. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

LANES_MAX = 7  # more are drawn on the last one


class Row(NamedTuple):
    """One version."""

    number: int
    lane: int
    passing: tuple[int, ...]  # lanes that go by
    up: tuple[int, ...]  # lanes that go on from here
    down: bool  # it goes on from an earlier one


def rows(bases: Mapping[int, int], champion: int) -> list[Row]:
    """From version -> the one it went on from, 0: none. `champion`: at the end of the trunk; 0: the newest.

    >>> [(row.number, row.lane, row.up) for row in rows({1: 0, 2: 1, 3: 1, 4: 2}, 4)]
    [(4, 0, ()), (3, 1, ()), (2, 0, (0,)), (1, 0, (0, 1))]
    """
    order = sorted(bases)
    if not order:
        return []
    place = {number: at for at, number in enumerate(order)}
    goes_on = {number: base for number, base in bases.items() if base in place and base != number}
    lane = _lanes(order, goes_on, champion if champion in place else order[-1])
    return [
        Row(
            number,
            lane[number],
            passing=tuple(sorted({lane[on] for on, base in goes_on.items() if place[base] < at < place[on]})),
            up=tuple(sorted({lane[on] for on, base in goes_on.items() if base == number})),
            down=number in goes_on,
        )
        for number, at in sorted(place.items(), reverse=True)
    ]


def _lanes(order: Sequence[int], goes_on: Mapping[int, int], champion: int) -> dict[int, int]:
    chains = _chains(order, goes_on, champion)
    place = {number: at for at, number in enumerate(order)}
    ends: list[int] = []  # of each lane, where it is taken to
    lane: dict[int, int] = {}
    for chain in sorted(chains, key=lambda one: (champion not in one, place[one[0]])):
        first = place[goes_on.get(chain[0], chain[0])]
        if champion in chain:
            ends.append(len(order))  # the trunk is nobody else's
            mine = 0
        else:
            mine = next((at for at, end in enumerate(ends) if end < first), len(ends))
            ends[mine : mine + 1] = [place[chain[-1]]]
        lane |= dict.fromkeys(chain, min(mine, LANES_MAX))
    return lane


def _chains(order: Sequence[int], goes_on: Mapping[int, int], champion: int) -> list[list[int]]:
    """Versions that stand on one lane, each from the one before."""
    trunk = {champion}
    while (champion := goes_on.get(champion, 0)) and champion not in trunk:
        trunk.add(champion)
    continued = {goes_on[number] for number in trunk if number in goes_on}
    chain_of: dict[int, list[int]] = {}
    for number in order:
        base = goes_on.get(number, 0)
        if base in chain_of and (number in trunk or base not in continued):
            continued.add(base)
            chain_of[number] = chain_of[base]
            chain_of[base].append(number)
        else:
            chain_of[number] = [number]
    return list({id(chain): chain for chain in chain_of.values()}.values())
