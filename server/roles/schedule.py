"""What happens by itself?

    publish      what passed its gates becomes a version, and is signed; its card is kept
    steering     which arm of the portfolio goes to whom
    greet        who has connected is told what is wanted of it, whichever process took the birth in
    fleet        rollouts go on, orders and requests are passed on
    sweep        parcels that nobody needs, and counts of what the tables hold; scrub: what was erased
    keep         what was kept for long enough goes, and what is used of the disk is noted
    announced    devices, in Home Assistant

Each is a look at the store, once a second; a look finds what a killed one left.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence

import numpy as np

from server.config import ServerConfig
from server.govern import card as cards
from server.govern.scrub import Scrub
from server.identity.copies import Copies
from server.keep.sweep import Sweep
from server.release.downloads import Publish
from server.release.fleet import Fleet
from server.release.registry import publish_passed
from server.release.signing import Signing
from server.roles.tick import Step
from server.store import arrivals, parcels, versions
from server.store.store import Store
from server.store.versions import Version
from server.teach import portfolio
from server.teach.steering import Steering
from server.tell.home_assistant import HomeAssistant

log = logging.getLogger(__name__)

SWEEP_FIRST_S, SWEEP_S = 60.0, 3600.0
"""Between looks for parcels that nobody needs, and counts of what the tables hold: twice as long after each, up to an
hour. A fleet that is just coming is counted soon; later, tables grow by less of what they hold."""


class Schedule:
    """All of it."""

    def __init__(
        self,
        config: ServerConfig,
        store: Store,
        signing: Signing,
        *,
        publish: Publish,
        files_url: str,
        now_ms: Callable[[], int],
    ) -> None:
        """`publish` hands a message to the broker; `files_url`: of Fleet."""
        name = config.server.fleet
        self._config, self._store, self._signing = config, store, signing
        self._steering = Steering(store, portfolio.parse(config.choose.portfolio), rng=np.random.default_rng())
        self._copies = Copies(store, now_ms=now_ms)
        self._scrub = Scrub(store)
        self._keep = Sweep(store, config.retention)
        self._announced = HomeAssistant(store, config.home_assistant, fleet=name, publish=publish)
        self._fleet = Fleet(
            store,
            fleet=name,
            rules=config.rollout,
            publish=publish,
            autonomy=config.autonomy,
            signing=signing,
            files_url=files_url,
            monotonic=time.monotonic,
        )
        self._sweep_at_s, self._sweep_in_s = 0.0, SWEEP_FIRST_S  # of the monotonic clock

    @property
    def steps(self) -> Sequence[Step]:
        """In their order: whatever else looks is to see a new version."""
        return (
            lambda now_ms: publish(self._store, now_ms=now_ms),
            self._steering.tick,
            self._sign,
            self._sweep,
            self._greet,
            self._fleet.tick,
            self._scrub.tick,
            self._keep.tick,
            lambda now_ms: cards.keep(self._store, self._config.govern, now_ms=now_ms),
            self._announced.tick,
        )

    def stop(self, *, timeout_s: float) -> None:
        """Wait so long for what is not done between two looks."""
        self._scrub.stop(timeout_s=timeout_s)

    def _greet(self, _now_ms: int) -> None:
        with self._store.database.read() as connection:
            found = arrivals.waiting(connection)
        for one in found:
            self._fleet.on_birth(one.device)
            self._copies.on_birth(one.device, one.session)
            self._announced.on_birth(one.device)
        if found:
            with self._store.database.write() as connection:
                arrivals.answered(connection, found)

    def _sign(self, now_ms: int) -> None:
        if self._signing.on:
            with self._store.database.read() as connection:
                every = versions.every(connection)
            self._signing.tick(every, now_ms=now_ms)

    def _sweep(self, now_ms: int) -> None:
        if (now_s := time.monotonic()) >= self._sweep_at_s:
            self._sweep_at_s = now_s + self._sweep_in_s
            self._sweep_in_s = min(SWEEP_S, 2.0 * self._sweep_in_s)
            self._store.database.analyse()
            if swept := parcels.sweep(self._store, now_ms=now_ms):
                log.info("%d parcels of old versions were deleted: no device can need them", swept)


def publish(store: Store, *, now_ms: int) -> list[Version]:
    """Make versions of the candidates that passed."""
    made = publish_passed(store, now_ms=now_ms)
    for version in made:
        log.info("version %d published, from run %s", version.number, version.run_id)
    return made
