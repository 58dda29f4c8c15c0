"""What may those who are measured not see? Which samples they are measured by.

A gold question looks like any other (label/task.py); it would not, if a sample's page, the trail or the API told
labelers which samples are vouched for. Operators, who vouch, see it all.
"""

from __future__ import annotations

from server.store.consensus import FIRST, GOLD
from server.web.access import Person

OF_GOLD = ("vouch", "doubt")  # as the trail calls it


def hidden_from(person: Person) -> tuple[str, ...]:
    """Entries of the trail that somebody is not shown, by what was done."""
    return () if person.may("operator") else OF_GOLD


def purpose_for(person: Person, purpose: str) -> str:
    """What somebody is told that a question was asked for."""
    return FIRST if purpose == GOLD and not person.may("operator") else purpose
