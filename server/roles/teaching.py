"""Who begins rounds of training?"""

from __future__ import annotations

import time
from collections.abc import Callable

from server.config import ServerConfig
from server.errors import TrainingError
from server.govern import card as cards
from server.roles.schedule import publish
from server.store import runs, versions
from server.store.store import Store
from server.store.versions import Version
from server.teach.rounds import Teach, describe


def teach_of(config: ServerConfig, store: Store) -> Teach:
    """As configured."""
    return Teach(
        store,
        teach=config.teach,
        gates=config.gates,
        autonomy=config.autonomy,
        snapshot=config.snapshot,
    )


def train_once(config: ServerConfig, store: Store, *, why: str, now_ms: Callable[[], int]) -> Version:
    """One round by hand, on all that is labelled; returns the version. TrainingError when none came of it.

    `why` goes into the audit trail.
    """
    teach = teach_of(config, store)
    teach.recover(now_ms=now_ms())
    with store.database.read() as connection:
        before = runs.last_id(connection)
    teach.begin(why=why)
    try:
        while teach.busy:
            time.sleep(0.1)
            teach.watch(now_ms=now_ms())
    finally:
        teach.stop(now_ms=now_ms())
    publish(store, now_ms=now_ms())
    cards.keep(store, config.govern, now_ms=now_ms())
    return came_of(store, after=before, trouble=teach.trouble)


def came_of(store: Store, *, after: int, trouble: str) -> Version:
    """The version that the first run above `after` led to, whoever published it; TrainingError when there is none.

    `trouble`: why there is no run, if there is none.
    """
    with store.database.read() as connection:
        run = runs.following(connection, after=after)
        number = runs.led_to(connection, run.id) if run else None
        made = versions.get(connection, number) if number is not None else None
    if run is None:
        raise TrainingError(f"no round could begin: {trouble}")
    if made is None:
        raise TrainingError(f"run {run.id} {run.state}: {describe(run)}")
    return made
