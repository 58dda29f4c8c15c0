"""What is a running server made of?

All parts (roles/) in one process; apart.py has them as processes. Collecting, labelling and the watch for drift have
threads of their own; the main thread looks once a second whether there is something to publish, to teach or to roll
out. A training is a process of its own, so nothing here ever holds up ingest.

Everything that matters is in the store when it is acted upon: a server that is killed goes on where it was. One server
at a time works on a data folder; whoever only looks (status, devices, models) needs no permission.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack, closing
from functools import partial
from pathlib import Path

from edge_agent.contract.wire import UP
from server.collect.broker import find_mosquitto
from server.config import ServerConfig
from server.label.queue import Rules
from server.release.rings import parse
from server.roles import teaching
from server.roles.collecting import ANSWERED
from server.roles.devices import check_authority, external
from server.roles.election import Election
from server.roles.health import Pulse
from server.roles.labelling import labeler_of, teacher_of
from server.roles.leading import READY_S, lead
from server.roles.showing import show
from server.roles.tick import always
from server.roles.workers import Workers, remember
from server.store import training_orders
from server.store.database import Database
from server.store.leadership import SEATS
from server.store.lock import one_of_several, one_server
from server.store.migrations import tried
from server.store.presence import leader
from server.store.store import Store, open_store
from server.store.versions import Version
from server.teach import portfolio
from server.teach.gates import budgets
from server.tell.webhooks import Receiver
from server.web.frame import nothing

log = logging.getLogger(__name__)


def now_ms() -> int:
    """The wall clock, ms since 1970."""
    return time.time_ns() // 1_000_000


class Server:
    """All parts, wired, in one process."""

    def __init__(self, config: ServerConfig, path: Path) -> None:
        """Nothing happens yet. `path`: the file that the configuration is of, for processes that are started by it."""
        self._config, self._path = config, path
        self._stopping = threading.Event()
        self._pulse = Pulse(now_ms=now_ms)

    def stop(self) -> None:
        """Ask `run` to end; from any thread, not from a signal handler (it may hold the lock of the event)."""
        self._stopping.set()

    def run(self) -> None:
        """Run until `stop`. Call it from the main thread: trainings end when their starter does."""
        config, data_dir = self._config, Path(self._config.server.data_dir)
        with ExitStack() as stack:
            stack.enter_context(one_server(data_dir))
            store = Store.open(data_dir, config.store)
            stack.callback(store.close)
            if config.store.shared:  # the lock speaks for this machine alone, and others may work on the catalogue
                election = Election(store, *SEATS, lease_s=config.server.lease_s)
                led = partial(self._act, acts=lambda: election.acts)
                election.lead(self._stopping, led, well=self._pulse.beats)
            else:
                self._act(store, acts=always)
            log.info("stopping")

    def _act(self, store: Store, *, acts: Callable[[], bool]) -> None:
        config = self._config
        with ExitStack() as stack:
            stack.enter_context(self._pulse.leading())
            teach = teaching.teach_of(config, store)
            teach.recover(now_ms=now_ms())
            leading = lead(stack, config, store, now_ms=now_ms, kinds=ANSWERED if config.collect.workers else UP)
            _work(stack, config, self._path, store)
            again = config.store.shared  # another may stand by
            stack.callback(lambda: teach.stop(again=again, now_ms=now_ms()))
            if config.web.enabled:
                hint = leading.labelling.hint if leading.labelling is not None else nothing
                show(stack, config, store, role="run", now_ms=now_ms, hint=hint)
            leading.wait_ready(READY_S)  # it says itself what is wrong, and goes on trying
            log.info("stop with Ctrl-C")
            self._pulse.look([*leading.steps, lambda ms: teach.tick(now_ms=ms)], self._stopping, acts=acts)


def _work(stack: ExitStack, config: ServerConfig, path: Path, store: Store) -> None:
    """The processes that take in for this one, if any are wanted, until the stack ends."""
    if config.collect.workers:
        workers = Workers(path, config.collect.workers, ended=remember(store, now_ms=now_ms))
        workers.start()
        stack.callback(workers.stop)


def check_parts(config: ServerConfig) -> list[str]:
    """Try what can be tried without starting anything; returns what was found, or raises what would stop a start."""
    lines = []
    if config.broker.url:
        external(config.broker)
        lines.append(f"broker: {config.broker.url}, user {config.broker.username or 'none'}")
    else:
        mosquitto = find_mosquitto(config.broker.binary)
        lines.append(f"broker: {mosquitto.binary} {'.'.join(map(str, mosquitto.version))}, as a child")
        check_authority(config)
    if config.store.shared:
        with closing(Database(config.store)) as database:
            lines.append(f"catalogue: {tried(database)}")
    rings = parse(config.rollout.rings, config.rollout.rules, config.rollout)
    lines.append(f"rings: {', '.join(ring.name for ring in rings)}")
    if boards := budgets.parse(config.gates.budgets):
        lines.append(f"budgets: {', '.join(one.board for one in boards)}")
    if arms := portfolio.parse(config.choose.portfolio):
        lines.append(f"portfolio: {', '.join(arm.name for arm in arms)}")
    if config.labeler.kind:
        labeler_of(config)
        lines.append(f"labeler: {config.labeler.kind}, {len(config.labeler.files)} files")
    else:
        lines.append("labeler: nobody")
    if found := teacher_of(config):
        lines.append(f"teacher: {found.name}, {len(found.classes)} classes")
    Rules.of(config)
    lines += [f"webhook: {Receiver(hook).host}, {', '.join(hook.events)}" for hook in config.webhook]
    return lines


def order_round(config: ServerConfig, *, who: str, why: str) -> int | None:
    """Leave an order for a round with whoever begins them; returns its number. None: nobody does now."""
    if not Store.is_there(Path(config.server.data_dir), config.store):
        return None
    with open_store(config) as store:
        if not leader(store, "train"):
            return None
        with store.database.write() as connection:
            return training_orders.add(connection, who=who, why=why, now_ms=now_ms())


def train_once(config: ServerConfig, *, why: str) -> Version:
    """One round by hand (roles/teaching.py), where nobody else begins rounds; ServerError when somebody does."""
    with one_of_several(Path(config.server.data_dir)), open_store(config) as store:
        election = Election(store, "train", lease_s=config.server.lease_s)
        with election.won() as held:
            return teaching.train_once(config, held, why=why, now_ms=now_ms)
