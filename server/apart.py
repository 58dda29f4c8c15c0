"""What are the processes of a server in parts?

    web        shows, and takes people's word as rows: any number
    schedule   all that one alone may do (roles/leading.py): one leads, others stand by
    train      begins rounds and sees them end: one leads, others stand by

`winnow-server ingest` (roles/ingest.py) takes in beside them. They meet in the catalogue and at the broker, nowhere
else; docs/processes.md says what each needs. What a process does not need it does not load.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Literal

from server.config import ServerConfig
from server.roles.election import Election
from server.roles.health import Health, told
from server.roles.tick import Step, Tick
from server.store.leadership import Name
from server.store.lock import one_of_several
from server.store.store import Store

Role = Literal["web"] | Name
Act = Callable[[Store, Callable[[], bool]], None]
"""Do it on a store, as long as the second says so."""

log = logging.getLogger(__name__)


class Apart:
    """One of the processes."""

    def __init__(self, config: ServerConfig, role: Role, *, now_ms: Callable[[], int], health: str = "") -> None:
        """Nothing happens yet. `health`: host:port at which the process says how it is; empty: nowhere."""
        self._config, self._role, self._now_ms, self._health_at = config, role, now_ms, health
        self._stopping = threading.Event()
        self._tick: Tick | None = None

    def stop(self) -> None:
        """Ask `run` to end; from any thread, not from a signal handler (it may hold the lock of the event)."""
        self._stopping.set()

    def run(self) -> None:
        """Run until `stop`. Call it from the main thread: trainings end when their starter does."""
        config = self._config
        with ExitStack() as stack:
            stack.enter_context(one_of_several(Path(config.server.data_dir)))
            store = Store.open(Path(config.server.data_dir), config.store)
            stack.callback(store.close)
            if self._role == "web":
                from server.roles.showing import show

                show(stack, config, store, role="web", now_ms=self._now_ms)
                self._stopping.wait()
            else:
                self._elected(stack, store, self._role)
            log.info("stopping")

    def _elected(self, stack: ExitStack, store: Store, name: Name) -> None:
        # Loaded before it is needed in haste.
        act = self._watched(self._scheduling() if name == "schedule" else self._training())
        election = Election(store, name, lease_s=self._config.server.lease_s)
        health = Health(name, lambda: election.terms if election.acts else {}, self._looked_s)
        stack.enter_context(told(health, self._health_at))
        election.lead(self._stopping, lambda held: act(held, lambda: election.acts))

    def _watched(self, act: Act) -> Act:
        """The same, with a first look that is overdue in time where the beginning hangs; not since it last led."""

        def watched(store: Store, acts: Callable[[], bool]) -> None:
            self._tick = Tick((), now_ms=self._now_ms)
            try:
                act(store, acts)
            finally:
                self._tick = None

        return watched

    def _scheduling(self) -> Act:
        from server.roles.collecting import ANSWERED
        from server.roles.leading import READY_S, lead

        def act(store: Store, acts: Callable[[], bool]) -> None:
            with ExitStack() as stack:
                leading = lead(stack, self._config, store, now_ms=self._now_ms, kinds=ANSWERED)
                leading.wait_ready(min(READY_S, self._config.server.lease_s / 3))  # it goes on trying
                self._look(leading.steps, acts)

        return act

    def _training(self) -> Act:
        from server.roles.teaching import teach_of

        def act(store: Store, acts: Callable[[], bool]) -> None:
            teach = teach_of(self._config, store)
            teach.recover(now_ms=self._now_ms())
            try:
                self._look([lambda now_ms: teach.tick(now_ms=now_ms)], acts)
            finally:
                teach.stop(again=True, now_ms=self._now_ms())  # another may stand by

        return act

    def _look(self, steps: Sequence[Step], acts: Callable[[], bool]) -> None:
        self._tick = Tick(steps, now_ms=self._now_ms, acts=acts)
        self._tick.until(self._stopping)

    def _looked_s(self) -> float | None:
        tick = self._tick  # another thread asks
        return tick.looked_s if tick else None
