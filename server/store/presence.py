"""Is somebody there to act?

On one machine the lock of the data folder says whether anybody works, and whether that is one server of all parts; who
leads among several, and on any machine, is in the catalogue.
"""

from __future__ import annotations

from server.store import leadership, lock
from server.store.leadership import Name
from server.store.store import Store

RUN = "run"
"""Who leads, where it is one server of all parts."""


def leader(store: Store, name: Name) -> str:
    """Who does now what one alone may: its holder, RUN, or "" when nobody does."""
    held = lock.held(store.folder)
    if held == "alone" and not store.settings.shared:
        return RUN
    if not held and not store.settings.shared:
        return ""  # whoever is in the catalogue was killed
    with store.database.read() as connection:
        seat = leadership.led(connection, name)
    return seat.holder if seat else ""
