"""Who tells the devices their arms?

The effects around `portfolio`. After every run that was judged, what it says of the arms' labels is learned and every
device is told anew; a device that is new in between is given an arm at once. What is told lies in the store, from where
the fleet's orders are made. Switched off, the arms are taken back and the devices go by their own configuration.
Switched on, it begins with the next run: what was judged before, nobody steered.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping, Sequence

import msgspec
import numpy as np

from server.store import events, portfolios, runs, trail
from server.store.portfolios import CHANNEL, Kept
from server.store.store import Store
from server.teach import portfolio
from server.teach.lesson import Gain
from server.teach.portfolio import Arm

log = logging.getLogger(__name__)

HORIZON_MS = 7 * 86_400_000
"""A device silent for so long is no part of the fleet: lower forgets those that report once a week, higher assigns arms
to what was scrapped, and counts it as tried."""
NEWS = 0.05  # of the fleet: a share that changed by as much is worth an event


class Steering:
    """Learns from runs, and assigns arms."""

    def __init__(self, store: Store, arms: Sequence[Arm], *, rng: np.random.Generator) -> None:
        """No `arms`: what was told is taken back."""
        self._store = store
        self._arms = tuple(arms)
        self._rng = rng

    def tick(self, now_ms: int) -> None:
        """One look: is there a run to learn from, or a device without an arm?"""
        if self._arms:
            self._steer(now_ms)
        else:
            self._switch_off(now_ms)

    def _steer(self, now_ms: int) -> None:
        with self._store.database.read() as connection:
            kept = portfolios.get(connection)
            on = _is_on(kept)
            run_id = kept.run_id if kept is not None and on else runs.last_id(connection)
            run = runs.following(connection, *runs.JUDGED, after=run_id)
            settled = [arm.name for arm in self._arms] if run is None else []
            told = portfolios.told(connection, seen_since_ms=now_ms - HORIZON_MS, but=settled)
        known = msgspec.convert(kept.state, type=portfolio.State) if kept else None
        state = portfolio.fresh(self._arms, known)
        if run is not None:
            self._learn(state, run, told, now_ms)
        elif not on or state != known or told:  # who has an arm of these keeps it
            self._keep(state, run_id, portfolio.assign(state, sorted(told), self._rng), now_ms)

    def _switch_off(self, now_ms: int) -> None:
        with self._store.database.read() as connection:
            on = _is_on(portfolios.get(connection))  # not which devices have an arm: of a large fleet a long answer
        if on:
            with self._store.database.write() as connection:
                portfolios.switch_off(connection, now_ms=now_ms)
            log.info("no portfolio any more: the devices go by their own configuration")

    def _learn(self, before: portfolio.State, run: runs.Run, told: Mapping[str, str | None], now_ms: int) -> None:
        gains = msgspec.convert(run.report.get("gains", {}), type=dict[str, Gain])
        state = portfolio.learn(before, gains, Counter(arm for arm in told.values() if arm))
        self._keep(state, run.id, portfolio.assign(state, sorted(told), self._rng), now_ms, before=before)

    def _keep(
        self,
        state: portfolio.State,
        run_id: int,
        arms: Mapping[str, str],
        now_ms: int,
        *,
        before: portfolio.State | None = None,
    ) -> None:
        shares = portfolio.shares(state)
        with self._store.database.write() as connection:
            portfolios.save(connection, Kept(CHANNEL, msgspec.to_builtins(state), shares, run_id, now_ms))
            portfolios.tell(connection, arms)
            if before is not None and (text := _news(before, state)):
                text = f"after run {run_id}: {text}"
                events.say(connection, "portfolio", text, version=0, detail=shares, now_ms=now_ms)
                trail.record(connection, "steer", f"channel {CHANNEL}", why=text, detail=shares, now_ms=now_ms)
                log.info("portfolio %s", text)


def _is_on(kept: Kept | None) -> bool:
    return kept is not None and bool(kept.shares)


def _news(before: portfolio.State, after: portfolio.State) -> str:
    """What changed in the mix, or nothing."""
    old, new = portfolio.shares(before), portfolio.shares(after)
    if max(abs(new[name] - old[name]) for name in new) < NEWS:
        return ""
    return ", ".join(f"{name} {share:.0%} (was {old[name]:.0%})" for name, share in new.items())
