"""Where does a device belong: which channel, which ring, which site?

An operator says so, of one device or of many at once. A channel's rollouts concern its devices and no others; a ring
holds for rollouts to come; a site is what gates and people tell devices apart by.
"""

from __future__ import annotations

from collections.abc import Sequence

from edge_agent.contract.types import is_name
from server.errors import RolloutError
from server.release import orders
from server.store import trail, whereabouts
from server.store.store import Store


def put(
    store: Store,
    names: Sequence[str],
    *,
    channel: str | None = None,
    ring: str | None = None,
    site: str | None = None,
    whom: str = "",
    who: str = trail.SERVER,
    why: str = "",
    now_ms: int,
) -> None:
    """Put devices into a channel, a ring or at a site, "-" for none; None: as it is. All of them, or none.

    `whom`: how they were meant, for the trail.

    Raises:
        RolloutError: a place that cannot be, or none is named.
        StoreError: there is no device of such a name.
    """
    said = {"channel": channel, "ring": ring, "site": site}
    wanted = {what: word for what, word in said.items() if word is not None}
    if not wanted:
        raise RolloutError("nothing is named to put it into: expected a channel, a ring or a site")
    for what, word in wanted.items():
        if not (is_name(word) or (what != "channel" and word == "-")):
            raise RolloutError(f"{what} {word!r}: expected letters, digits, - and _")
    nowhere = {"ring": None, "site": ""}
    where = {what: nowhere[what] if word == "-" else word for what, word in wanted.items()}
    subject = orders.subject(names, whom)
    detail = wanted if len(names) == 1 else {**wanted, "devices": list(names)}
    with store.database.write() as connection:
        whereabouts.put(connection, names, **where)
        trail.record(connection, "place", subject, why=why, who=who, detail=detail, now_ms=now_ms)
