"""Who begins rounds of training?"""

from __future__ import annotations

import time
from collections.abc import Callable

from server.config import ServerConfig
from server.errors import TrainingError
from server.govern import card as cards
from server.roles.schedule import publish
from server.store import runs
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
    published = {version.run_id: version for version in publish(store, now_ms=now_ms())}
    cards.keep(store, config.govern, now_ms=now_ms())
    with store.database.read() as connection:
        run = runs.following(connection, after=before)
    if run is None:
        raise TrainingError(f"no round could begin: {teach.trouble}")
    if run.id not in published:
        raise TrainingError(f"run {run.id} {run.state}: {describe(run)}")
    return published[run.id]
