"""What is a running server made of?

The composition root: the only file that knows every part (roles/). Collecting, labelling and the watch for drift have
threads of their own; the main thread looks once a second whether there is something to publish, to teach or to roll
out. A training is a process of its own, so nothing here ever holds up ingest.

Everything that matters is in the store when it is acted upon: a server that is killed goes on where it was. One server
at a time works on a data folder; whoever only looks (status, devices, models) needs no permission.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from edge_agent.contract.wire import UP
from server.collect.broker import find_mosquitto
from server.config import ServerConfig
from server.label.labelling import Labelling
from server.label.queue import Rules
from server.release.rings import parse
from server.release.signing import Signing
from server.roles import teaching
from server.roles.collecting import ANSWERED, collector_of
from server.roles.devices import Devices, check_authority, external
from server.roles.labelling import News, labeler_of, labelling_of, teacher_of
from server.roles.schedule import Schedule
from server.roles.telling import STOP_S, tell
from server.roles.tick import Tick
from server.roles.voice import Voice
from server.roles.workers import Workers, remember
from server.store import training_orders
from server.store.lock import is_held, only_one
from server.store.store import Store
from server.store.versions import Version
from server.teach import portfolio
from server.teach.gates import budgets
from server.tell.webhooks import Receiver
from server.web.frame import nothing
from server.web.service import Pages

log = logging.getLogger(__name__)

READY_S = 10.0


def now_ms() -> int:
    """The wall clock, ms since 1970."""
    return time.time_ns() // 1_000_000


class Server:
    """All parts, wired, in one process."""

    def __init__(self, config: ServerConfig, path: Path) -> None:
        """Nothing happens yet. `path`: the file that the configuration is of, for processes that are started by it."""
        self._config, self._path = config, path
        self._stopping = threading.Event()

    def stop(self) -> None:
        """Ask `run` to end; from any thread, not from a signal handler (it may hold the lock of the event)."""
        self._stopping.set()

    def run(self) -> None:
        """Run until `stop`. Call it from the main thread: trainings end when their starter does."""
        config, data_dir = self._config, Path(self._config.server.data_dir)
        with ExitStack() as stack:
            stack.enter_context(only_one(data_dir))
            store = Store.open(data_dir, config.store)
            stack.callback(store.close)
            signing, voice = Signing(data_dir), Voice()
            devices = Devices(config, store, signing, publish=voice, now_ms=now_ms)
            address = devices.start(stack)
            labelling = labelling_of(config, store, now_ms=now_ms) if config.labeler.kind else None
            schedule = Schedule(config, store, signing, publish=voice, files_url=devices.files_url, now_ms=now_ms)
            collector = collector_of(
                config,
                store,
                address,
                now_ms=now_ms,
                on_fetch=devices.downloads.ask,
                on_samples=lambda _: labelling.wake() if labelling else None,
                kinds=ANSWERED if config.collect.workers else UP,
            )
            voice.through(collector.publish)
            teach = teaching.teach_of(config, store)
            teach.recover(now_ms=now_ms())
            collector.start()
            stack.callback(collector.stop)
            _work(stack, config, self._path, store)
            if labelling is not None:
                labelling.start()
                stack.callback(labelling.stop, timeout_s=STOP_S)
            tell(stack, config, store, now_ms=now_ms)
            stack.callback(lambda: teach.stop(now_ms=now_ms()))
            _show(stack, config, store, labelling)
            collector.wait_ready(READY_S)  # it says itself what is wrong, and goes on trying
            log.info("stop with Ctrl-C")
            steps = [devices.tick, *schedule.to_publish, lambda ms: teach.tick(now_ms=ms), *schedule.steps]
            if labelling is not None and config.collect.workers:
                steps.append(News(store, labelling.wake).tick)
            Tick(steps, now_ms=now_ms).until(self._stopping)
            log.info("stopping")


def _work(stack: ExitStack, config: ServerConfig, path: Path, store: Store) -> None:
    """The processes that take in for this one, if any are wanted, until the stack ends."""
    if config.collect.workers:
        workers = Workers(path, config.collect.workers, ended=remember(store, now_ms=now_ms))
        workers.start()
        stack.callback(workers.stop)


def _show(stack: ExitStack, config: ServerConfig, store: Store, labelling: Labelling | None) -> None:
    """The pages, until the stack ends."""
    if not config.web.enabled:
        return
    pages = Pages(store, config, now_ms=now_ms, hint=labelling.hint if labelling is not None else nothing)
    log.info("pages at %s", pages.start())
    stack.callback(pages.stop)


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
    """Leave an order for a round with the running server; returns its number. None: none runs."""
    if not is_held(Path(config.server.data_dir)):
        return None
    with open_store(config) as store, store.database.write() as connection:
        return training_orders.add(connection, who=who, why=why, now_ms=now_ms())


def train_once(config: ServerConfig, *, why: str) -> Version:
    """One round by hand (roles/teaching.py), where nobody else works; ServerError when somebody does."""
    with only_one(Path(config.server.data_dir)), open_store(config) as store:
        return teaching.train_once(config, store, why=why, now_ms=now_ms)


@contextmanager
def open_store(config: ServerConfig) -> Iterator[Store]:
    """The store of a configuration, closed at the end."""
    store = Store.open(Path(config.server.data_dir), config.store)
    try:
        yield store
    finally:
        store.close()
