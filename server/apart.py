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
from server.roles.health import Health, Pulse, told
from server.roles.tick import Step
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
        self._pulse = Pulse(now_ms=now_ms)

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
        act = self._scheduling() if name == "schedule" else self._training()
        election = Election(store, name, lease_s=self._config.server.lease_s)
        health = Health(name, lambda: election.terms, lambda: self._pulse.looked_s, lambda: election.acts)
        stack.enter_context(told(health, self._health_at))

        def led(held: Store) -> None:
            with self._pulse.leading():
                act(held, lambda: election.acts)

        election.lead(self._stopping, led, well=self._pulse.beats)

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
        self._pulse.look(steps, self._stopping, acts=acts)
