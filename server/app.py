"""What is a running server made of?

The composition root: the only file that knows every step. Collecting, labelling and the watch for drift have threads
of their own; the main thread looks once a second whether there is something to publish, to teach or to roll out. A
training is a process of its own, so nothing here ever holds up ingest.

Everything that matters is in the store when it is acted upon: a server that is killed goes on where it was. One server
at a time works on a data folder; whoever only looks (status, devices, models) needs no permission.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import numpy as np

from edge_agent.contract.artifact import write_durably
from edge_agent.contract.broker import TlsFiles
from edge_agent.contract.settings import read_secret
from server.collect.access import Audience
from server.collect.broker import BrokerChild, Entry, find_mosquitto
from server.collect.collector import Collector
from server.collect.gateway import BrokerAddress
from server.collect.ingest import Ingest
from server.collect.turns import UNLIMITED, Limit
from server.config import Broker, ServerConfig
from server.drift.watch import Watch
from server.errors import ServerConfigError, TrainingError
from server.govern import card as cards
from server.govern.scrub import Scrub
from server.identity import service as identities
from server.identity.authority import SERVER
from server.identity.copies import Copies
from server.identity.credentials import Credentials
from server.identity.service import Service
from server.label import label_studio, labeler
from server.label.labeler import Labeler
from server.label.labelling import Labelling
from server.label.queue import PERSON, Rules
from server.label.teacher import Teacher
from server.label.teacher import load as load_teacher
from server.release.blocks import Blocks
from server.release.downloads import Downloads
from server.release.files import Part, part
from server.release.fleet import Fleet
from server.release.registry import publish_passed
from server.release.rings import parse
from server.release.signing import Signing
from server.store import parcels, runs, training_orders, versions
from server.store.lock import is_held, only_one
from server.store.store import Store
from server.store.versions import Version
from server.teach import portfolio
from server.teach.gates import budgets
from server.teach.rounds import Teach, describe
from server.teach.steering import Steering
from server.tell.alarms import Alarms
from server.tell.home_assistant import HomeAssistant
from server.tell.webhooks import Receiver, Webhooks
from server.web.frame import nothing
from server.web.service import Pages

log = logging.getLogger(__name__)

TICK_S = 1.0
SWEEP_S = 3600.0  # between looks for parcels that nobody needs, and counts of what the tables hold
READY_S = 10.0
STOP_S = 1.0  # for what labelling and the watch have in hand; then it is left behind, and loses nothing
_NO_CA = (
    "there is no fleet CA: make one with `winnow-server init`, name a broker of yours in [broker] url, "
    "or set [broker] plain = true, which lets in whoever is on this machine"
)
BROKER_URL = "broker.url"
"""File in the data folder with the broker's address, for whoever starts agents on the same machine."""


def now_ms() -> int:
    """The wall clock, ms since 1970."""
    return time.time_ns() // 1_000_000


class Server:
    """All parts, wired."""

    def __init__(self, config: ServerConfig) -> None:
        """Nothing happens yet."""
        self._config = config
        self._data_dir = Path(config.server.data_dir)
        self._stopping = threading.Event()
        self._complaints: set[str] = set()  # of the last look
        self._signing = Signing(self._data_dir)
        self._collector: Collector | None = None
        self._home_assistant: HomeAssistant | None = None
        self._sweep_at_s = 0.0  # of the monotonic clock

    def stop(self) -> None:
        """Ask `run` to end; from any thread, not from a signal handler (it may hold the lock of the event)."""
        self._stopping.set()

    def run(self) -> None:
        """Run until `stop`. Call it from the main thread: trainings end when their starter does."""
        with ExitStack() as stack:
            stack.enter_context(only_one(self._data_dir))
            store = Store.open(self._data_dir, self._config.store)
            stack.callback(store.close)
            identity = self._identity(store)
            blocks = Blocks(store, self._signing)  # one, whichever way they go: it keeps files in memory
            rate, name = self._config.rollout.bytes_per_s, self._config.server.fleet
            downloads = Downloads(blocks, fleet=name, bytes_per_s=rate, publish=self._say)
            address = self._broker(stack, blocks, downloads, identity)
            labelling = self._labelling(store)
            files_url = identity.files_url if identity else ""
            fleet, collector = self._collecting(store, address, labelling, downloads, files_url)
            teach = self._teach(store)
            steering = Steering(store, portfolio.parse(self._config.choose.portfolio), rng=np.random.default_rng())
            teach.recover(now_ms=now_ms())
            downloads.start()
            stack.callback(downloads.stop)
            collector.start()
            stack.callback(collector.stop)
            if labelling is not None:
                labelling.start()
                stack.callback(labelling.stop, timeout_s=STOP_S)
            watch = Watch(store, self._config.drift)
            watch.start(now_ms)
            stack.callback(watch.stop, timeout_s=STOP_S)
            self._telling(stack, store)
            stack.callback(lambda: teach.stop(now_ms=now_ms()))
            if self._config.web.enabled:
                self._pages(stack, store, labelling)
            scrub = Scrub(store)
            collector.wait_ready(READY_S)  # it says itself what is wrong, and goes on trying
            log.info("stop with Ctrl-C")
            self._loop(store, teach, steering, fleet, identity, scrub)
            log.info("stopping")

    def _loop(
        self, store: Store, teach: Teach, steering: Steering, fleet: Fleet, identity: Service | None, scrub: Scrub
    ) -> None:
        while not self._stopping.wait(TICK_S):
            self._tick(
                lambda: identity.tick(now_ms()) if identity else None,
                lambda: _publish(store),
                lambda: teach.tick(now_ms=now_ms()),
                lambda: steering.tick(now_ms()),
                lambda: self._sign(store),
                lambda: self._sweep(store),
                lambda: fleet.tick(now_ms()),
                lambda: scrub.tick(now_ms()),
                lambda: cards.keep(store, self._config.govern, now_ms=now_ms()),
                lambda: self._home_assistant.tick(now_ms()) if self._home_assistant else None,
            )

    def _sign(self, store: Store) -> None:
        if self._signing.on:
            with store.database.read() as connection:
                every = versions.every(connection)
            self._signing.tick(every, now_ms=now_ms())

    def _sweep(self, store: Store) -> None:
        if (now := time.monotonic()) >= self._sweep_at_s:
            self._sweep_at_s = now + SWEEP_S
            store.database.analyse()
            if swept := parcels.sweep(store, now_ms=now_ms()):
                log.info("%d parcels of old versions were deleted: no device can need them", swept)

    def _tick(self, *steps: Callable[[], object]) -> None:
        """One look; a step that fails holds up neither the others nor the next look. Its complaint is said once."""
        complaints = set()
        for step in steps:
            try:
                step()
            except Exception as error:  # the supervising loop: collecting must go on
                complaint = f"{type(error).__name__}: {error}"
                complaints.add(complaint)
                if complaint not in self._complaints:
                    log.exception("a step of the scheduler failed, and is tried again")
        self._complaints = complaints

    def _identity(self, store: Store) -> Service | None:
        """None where the fleet has no authority, or the broker is one that knows nobody."""
        if self._config.broker.plain or (self._config.broker.url and not identities.exists(self._config)):
            return None
        _check_authority(self._config)
        return Service(self._config, store, now_ms=now_ms)

    def _broker(self, stack: ExitStack, blocks: Blocks, downloads: Downloads, service: Service | None) -> BrokerAddress:
        config = self._config.broker
        if config.url:
            address, reload = _external(config), lambda: None
        else:
            child = BrokerChild(
                self._data_dir / "broker",
                port=config.port,
                binary=config.binary,
                entry=_entry(self._config, service.credentials) if service else None,
            )
            child.start()
            stack.callback(child.stop)
            address, reload = BrokerAddress(child.host, child.port, tls=service.tls if service else None), child.reload
        write_durably(self._data_dir / BROKER_URL, address.url.encode())
        log.info("fleet %r, broker %s, data in %s", self._config.server.fleet, address.url, self._data_dir)
        if service is not None:
            service.start(
                host=address.host,
                port=address.port,
                tls=address.tls is not None,
                reload=reload,
                root=lambda: bytes(self._signing.bundle().roots[-1]).decode() if self._signing.on else "",
                files=_files(blocks),
                turn=downloads.turn,
            )
            stack.callback(service.stop)
        return address

    def _labelling(self, store: Store) -> Labelling | None:
        return labelling_of(self._config, store) if self._config.labeler.kind else None

    def _collecting(
        self, store: Store, address: BrokerAddress, labelling: Labelling | None, downloads: Downloads, files_url: str
    ) -> tuple[Fleet, Collector]:
        config, rollout, name = self._config.collect, self._config.rollout, self._config.server.fleet
        copies = Copies(store, now_ms=now_ms)

        def on_birth(device: str) -> None:
            fleet.on_birth(device)
            copies.on_birth(device)
            announced.on_birth(device)

        fleet = Fleet(
            store,
            fleet=name,
            rules=rollout,
            publish=self._say,
            autonomy=self._config.autonomy,
            signing=self._signing,
            files_url=files_url,
        )
        self._home_assistant = announced = HomeAssistant(
            store, self._config.home_assistant, fleet=name, publish=self._say
        )
        self._collector = collector = Collector(
            Ingest(store, fleet=name, offline_after_s=config.offline_after_s),
            address,
            fleet=name,
            now_ms=now_ms,
            commit_rows=config.commit_rows,
            backlog_bytes=config.backlog_bytes,
            device_share=config.device_share,
            limit=Limit(config.device_messages_per_s or UNLIMITED, config.device_bytes_per_s or UNLIMITED),
            on_birth=on_birth,
            on_fetch=downloads.ask,
            on_samples=lambda _: labelling.wake() if labelling else None,
        )
        return fleet, collector

    def _say(self, topic: str, payload: bytes, *, qos: int, retain: bool) -> None:
        if self._collector is not None:  # before, nobody can have asked
            self._collector.publish(topic, payload, qos=qos, retain=retain)

    def _telling(self, stack: ExitStack, store: Store) -> None:
        """Who wants to be told of alarms."""
        config, name = self._config, self._config.server.fleet
        webhooks = Webhooks(store, config.webhook, fleet=name, now_ms=now_ms, rng=np.random.default_rng())
        webhooks.start()
        stack.callback(webhooks.stop, timeout_s=STOP_S)
        alarms = Alarms(store, config, now_ms=now_ms, wake=webhooks.wake)
        alarms.start()
        stack.callback(alarms.stop, timeout_s=STOP_S)

    def _pages(self, stack: ExitStack, store: Store, labelling: Labelling | None) -> None:
        hint = labelling.hint if labelling is not None else nothing
        pages = Pages(store, self._config, now_ms=now_ms, hint=hint)
        log.info("pages at %s", pages.start())
        stack.callback(pages.stop)

    def _teach(self, store: Store) -> Teach:
        return Teach(
            store,
            teach=self._config.teach,
            gates=self._config.gates,
            autonomy=self._config.autonomy,
            snapshot=self._config.snapshot,
        )


def check_parts(config: ServerConfig) -> list[str]:
    """Try what can be tried without starting anything; returns what was found, or raises what would stop a start."""
    lines = []
    if config.broker.url:
        _external(config.broker)
        lines.append(f"broker: {config.broker.url}, user {config.broker.username or 'none'}")
    else:
        mosquitto = find_mosquitto(config.broker.binary)
        lines.append(f"broker: {mosquitto.binary} {'.'.join(map(str, mosquitto.version))}, as a child")
        _check_authority(config)
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


def labelling_of(config: ServerConfig, store: Store) -> Labelling:
    """Whoever answers, as configured; people, where nobody is."""
    settings = config.labeler
    return Labelling(
        store,
        labeler_of(config),
        name=settings.kind or PERSON,
        batch=settings.batch,
        strategy=settings.strategy,
        labels_per_day=settings.labels_per_day,
        exploration=settings.exploration,
        duplicate_cosine=settings.duplicate_cosine,
        now_ms=now_ms,
        rng=np.random.default_rng(),
        teacher=teacher_of(config),
        rules=Rules.of(config),
    )


def labeler_of(config: ServerConfig) -> Labeler:
    """The labeler; ServerConfigError when it cannot be had."""
    studio = config.label_studio
    if config.labeler.kind == label_studio.KIND:
        if not studio.token_file:
            raise ServerConfigError("[label_studio] token_file: expected a file with an access token of Label Studio")
        token, task = read_secret(studio.token_file), config.server.task
        return label_studio.LabelStudio(studio.url, token, studio.project, task=task)
    return labeler.load(config.labeler.kind or PERSON, config.labeler.files)


def teacher_of(config: ServerConfig) -> Teacher | None:
    """The model in front of the labeler, if there is one; ServerConfigError when it cannot be used."""
    settings = config.labeler
    if not settings.teacher:
        return None
    if config.server.task != "classification":
        raise ServerConfigError(f"[labeler] teacher: it gives classes, and [server] task is {config.server.task!r}")
    return load_teacher(
        settings.teacher, max_error=settings.teacher_max_error, check_share=settings.teacher_check_share
    )


def _files(blocks: Blocks) -> Callable[[str, str | None], Part | None]:
    def answer(sha256: str, asked: str | None) -> Part | None:
        data = blocks.file(sha256)
        return None if data is None else part(data, asked)

    return answer


def _check_authority(config: ServerConfig) -> None:
    if not config.broker.url and not config.broker.plain and not identities.exists(config):
        raise ServerConfigError(f"{identities.folder_of(config)}: {_NO_CA}")


def _external(config: Broker) -> BrokerAddress:
    """A broker that runs already; ServerConfigError when what is said of it cannot be used."""
    return BrokerAddress.parse(
        config.url,
        username=config.username,
        password=read_secret(config.password_file),
        files=TlsFiles(config.ca_file, config.cert_file, config.key_file),
    )


def _entry(config: ServerConfig, credentials: Credentials) -> Entry:
    server, told = config.server, config.home_assistant
    return Entry(
        listen=server.listen,
        ca_file=credentials.ca_file,
        cert_file=credentials.cert_file,
        crl_file=credentials.crl_file,
        fleet=server.fleet,
        server=SERVER,
        audience=Audience(told.client, told.prefix) if told.discovery else None,
    )


def order_round(config: ServerConfig, *, who: str, why: str) -> int | None:
    """Leave an order for a round with the running server; returns its number. None: none runs."""
    if not is_held(Path(config.server.data_dir)):
        return None
    with open_store(config) as store, store.database.write() as connection:
        return training_orders.add(connection, who=who, why=why, now_ms=now_ms())


def train_once(config: ServerConfig, *, why: str) -> Version:
    """One round by hand, on all that is labelled; returns the version. TrainingError when none came of it.

    `why` goes into the audit trail.
    """
    with only_one(Path(config.server.data_dir)), open_store(config) as store:
        teach = Teach(store, teach=config.teach, gates=config.gates, snapshot=config.snapshot)
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
        published = {version.run_id: version for version in _publish(store)}
        cards.keep(store, config.govern, now_ms=now_ms())
        with store.database.read() as connection:
            run = runs.following(connection, after=before)
    if run is None:
        raise TrainingError(f"no round could begin: {teach.trouble}")
    if run.id not in published:
        raise TrainingError(f"run {run.id} {run.state}: {describe(run)}")
    return published[run.id]


def _publish(store: Store) -> list[Version]:
    made = publish_passed(store, now_ms=now_ms())
    for version in made:
        log.info("version %d published, from run %s", version.number, version.run_id)
    return made


@contextmanager
def open_store(config: ServerConfig) -> Iterator[Store]:
    """The store of a configuration, closed at the end."""
    store = Store.open(Path(config.server.data_dir), config.store)
    try:
        yield store
    finally:
        store.close()
