"""What does the agent do, from start to stop?

The only file that knows every part, and the only forgiving one. It opens the parts, carries values between them, and
keeps house beside the loop:

    loop (main thread)   source -> model -> scores -> selector -> writer             loop.py
    writer, uplink       outbox -> broker -> receipt                                 send/
    updater              desired -> blocks -> checked artifact                       update/
    housekeeping         a staged model is tried beside the running one, then live    housekeeping.py

How a stream goes on when its source fails is in stream.py, what the agent says of itself in account.py.
"""

from __future__ import annotations

import functools
import logging
import ssl
import sys
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import msgspec
import numpy as np

from edge_agent.account import Account
from edge_agent.choose import strategy
from edge_agent.choose.drift import Watch
from edge_agent.choose.wanted import pick
from edge_agent.config import AgentConfig, parse_listen
from edge_agent.contract import images
from edge_agent.contract.artifact import read_artifact
from edge_agent.contract.broker import TlsFiles, in_the_clear, parse_broker
from edge_agent.contract.errors import ArtifactError, ConfigError, IncompatibleError, OutboxError, StaleError
from edge_agent.contract.settings import read_secret
from edge_agent.contract.wire import Desired, Event
from edge_agent.extras import SHADOW, WANTED, Extras
from edge_agent.housekeeping import Housekeeping
from edge_agent.loop import CURSOR, DRIFT, SELECTOR, Cursor, Identity, Loop, sample_bytes
from edge_agent.model import Model
from edge_agent.orders import Orders, configured, desired_over
from edge_agent.send.allowance import Allowance
from edge_agent.send.health import rss_bytes
from edge_agent.send.lull import Lulls, parse_hours
from edge_agent.send.outbox import Outbox
from edge_agent.send.privacy import Privacy
from edge_agent.send.purging import Purging
from edge_agent.send.recent import Recent
from edge_agent.send.uplink import Uplink
from edge_agent.send.writer import Handover, Writer
from edge_agent.status import STATUS
from edge_agent.stream import play
from edge_agent.update.https import Https
from edge_agent.update.trial import CheckStoppedError, run_check
from edge_agent.update.trust import Trust
from edge_agent.update.updater import Updater

if TYPE_CHECKING:
    from edge_agent.identity.renewal import Renewal

log = logging.getLogger(__name__)

TICK_S = 0.1  # of waiting for a first model
DRAIN_S = 10.0  # longest wait for receipts when the source has ended
PREDICTIONS, BEFORE = "predictions.bin", "predictions.before.bin"
RECENT = "recent"
LINK = "link"  # key of the saved state: what is left of the link's bytes of the day
DESIRED = "desired"  # key of the saved state: the server's last word on budgets, acquisition and strategy

Part = TypeVar("Part")


class Agent:
    """One device's agent: `run` until the source ends or `stop` is called."""

    def __init__(self, config: AgentConfig) -> None:
        """Open everything that is on disk; ConfigError, ArtifactError or OutboxError when it cannot work so."""
        self.config = config
        self.folder = Path(config.device.data_dir)
        self.folder.mkdir(parents=True, exist_ok=True)
        self._stopping = threading.Event()
        self._loop: Loop | None = None
        self._ended = False  # the source, by itself
        outbox = config.outbox
        self.outbox = Outbox(
            self.folder / "outbox.db",
            max_bytes=outbox.max_bytes,
            max_rows=outbox.max_rows,
            min_free_disk_bytes=outbox.min_free_disk_bytes,
            on_damage=self._report_damage,
        )
        self.boot = self.outbox.next_boot()
        self.privacy = Privacy(config.privacy.transforms, report=self._report_error)
        self.recent = self._make_recent()
        self.account = self._make_account()
        self.updater = self._make_updater()
        self.uplink = self._make_uplink() if config.uplink.broker else None
        self.renewal = self._make_renewal() if config.uplink.renewal else None
        if self.outbox.damage:
            self._report_damage(self.outbox.damage)
        self._revision = 0  # the server's last, this run: one restored from a backup counts from further back
        self._desired = self._go_on(DESIRED, _read_desired)
        self._orders = desired_over(configured(config), self._desired)
        self._pause_uplink()
        self.extras = self._go_on(
            WANTED, lambda saved: Extras(wanted=saved, shadow=self.outbox.state(SHADOW) or b"", recent=self.recent)
        )
        self.purging = Purging(
            self.outbox,
            self.recent,
            boot=self.boot,
            logs=[self.folder / PREDICTIONS, self.folder / BEFORE],
            done=self.uplink.introduce if self.uplink else lambda: None,
        )
        self.writer = Writer(
            self.outbox,
            commit_rows=outbox.commit_rows,
            commit_ms=outbox.commit_ms,
            stored=self.uplink.kick if self.uplink else lambda: None,
            stopping=self._stopping,
            predictions=self.folder / PREDICTIONS if config.log.predictions else None,
            codec=images.codec(config.uplink.images, config.uplink.image_quality),
            purging=self.purging,
            privacy=self.privacy,
        )

    def _go_on(self, key: str, make: Callable[[bytes], Part]) -> Part:
        """What `make` makes of the state saved under `key`; afresh where it cannot be read, and that is told."""
        saved = self.outbox.state(key) or b""
        try:
            return make(saved)
        except (ConfigError, msgspec.DecodeError) as error:
            if not saved:
                raise
            self._report_error(f"saved {key} cannot be read, it begins afresh: {error}")
            return make(b"")

    # --- the parts ---

    def _make_account(self) -> Account:
        return Account(
            self.folder,
            boot=self.boot,
            stream=self.config.source.stream,
            heartbeat_s=self.config.uplink.heartbeat_s,
            model=lambda: self.updater.state(),
            outbox=self.outbox.status,
            messages_bad=lambda: self.uplink.messages_bad if self.uplink else 0,
            link=lambda: self.uplink.link if self.uplink else None,
            budgets=lambda: self._orders.budgets(),
            tell=self._tell,
        )

    def _tell(self, event: Event) -> None:
        if self.uplink:
            self.uplink.event(event)

    def _make_recent(self) -> Recent | None:
        """None without a ring; what is left of one is deleted then."""
        recent, folder = self.config.recent, self.folder / RECENT
        try:
            made = Recent(
                folder,
                max_bytes=recent.max_bytes,
                bytes_per_day=recent.bytes_per_day,
                min_free_disk_bytes=self.config.outbox.min_free_disk_bytes,
                pick=pick,
                privacy=self.privacy,
            )
        except OSError as error:
            raise ConfigError(f"{folder}: {error.strerror}: expected a folder for recent samples") from error
        return made if recent.max_bytes else None

    def _make_updater(self) -> Updater:
        update, variant = self.config.update, self.config.model.variant
        check = functools.partial(
            _check_in_child,
            variant=variant,
            timeout_s=update.check_timeout_s,
            memory_bytes=update.check_memory_bytes,
            stop=self._stopping,
        )
        return Updater(
            self.folder / "models",
            variant=variant,
            check=check,
            needs=None,
            max_starts=update.max_starts,
            keep_versions=update.keep_versions,
            request=lambda fetch: self.uplink is not None and self.uplink.fetch(fetch),
            report=self.account.report,
            trust=self._make_trust(),
            https=Https(
                lambda: ssl.create_default_context(cafile=self.config.uplink.ca_file or None),
                may=lambda: self.uplink is not None and self.uplink.carries(),
                came=lambda size: self.uplink.carried(size) if self.uplink else None,
            ),
        )

    def _make_trust(self) -> Trust | None:
        """None where unsigned models are taken; that is said where a server may send some."""
        update = self.config.update
        if update.trust:
            ask = functools.partial(
                run_check, timeout_s=update.check_timeout_s, memory_bytes=update.check_memory_bytes, stop=self._stopping
            )
            return Trust(self.folder / "trust", anchor=Path(update.trust), ask=ask)
        if update.enabled and self.config.uplink.broker:
            log.warning("[update] trust is empty: models are taken from the server unsigned")
        return None

    def _make_uplink(self) -> Uplink:
        config, uplink = self.config, self.config.uplink
        address, password = parse_broker(uplink.broker), read_secret(uplink.password_file)
        if wrong := in_the_clear(address.host, tls=address.tls, password=password):
            log.warning("[uplink] broker: %s", wrong)
        return Uplink(
            host=address.host,
            port=address.port,
            tls=TlsFiles(uplink.ca_file, uplink.cert_file, uplink.key_file) if address.tls else None,
            username=uplink.username,
            password=password,
            fleet=config.device.fleet,
            device=config.device.name,
            session=self.account.session,
            outbox=self.outbox,
            window=uplink.window,
            retry_first_s=uplink.retry_first_s,
            retry_max_s=uplink.retry_max_s,
            keepalive_s=uplink.keepalive_s,
            heartbeat_s=uplink.heartbeat_s,
            birth=self.account.birth,
            heartbeat=self.account.heartbeat,
            on_desired=self._on_desired,
            on_block=self.updater.on_block,
            rng=np.random.default_rng(),
            allowance=self._go_on(LINK, self._make_allowance),
            lull=Lulls(parse_hours(uplink.quiet_hours), Path(uplink.metered_file) if uplink.metered_file else None).why,
        )

    def _make_allowance(self, saved: bytes) -> Allowance:
        return Allowance(
            bytes_per_s=self.config.uplink.bytes_per_s,
            bytes_per_day=self.config.uplink.bytes_per_day,
            saved=saved,
            save=lambda state: self.outbox.put([], state={LINK: state}),
            now_s=time.monotonic(),
        )

    def _make_renewal(self) -> Renewal:
        from edge_agent.identity.papers import Papers  # needs cryptography, a fifth of the agent's start
        from edge_agent.identity.portal import Portal
        from edge_agent.identity.renewal import Renewal

        uplink = self.config.uplink
        papers = Papers(ca_file=Path(uplink.ca_file), cert_file=Path(uplink.cert_file))
        papers.check(self.config.device.name)
        return Renewal(papers, Portal.parse(uplink.renewal), report=self._report_error, rng=np.random.default_rng())

    # --- running ---

    def run(self) -> None:
        """Run until the source ends (and `stop_at_end`), or `stop`. Raises what the model or the stream raised."""
        with ExitStack() as parts:
            parts.callback(self.outbox.close)
            if not self._install_first():
                return
            parts.callback(self._last_status)
            model = self._model_here()  # first, or the first word to the server would be that none runs
            if self.uplink:
                self.uplink.start()
                parts.callback(self._stop_uplink, self.uplink)
            if self.config.metrics.listen:
                parts.callback(self._serve_metrics())
            if self.renewal:
                self.renewal.start()
                parts.callback(self.renewal.stop)
            if self.recent:
                self.recent.start()
                parts.callback(self.recent.stop)
            self.writer.start()
            parts.callback(self.writer.stop)
            self.updater.start()
            parts.callback(self.updater.stop)
            parts.callback(self._stopping.set)
            self._ended = self._run_stream(model)

    def _install_first(self) -> bool:
        """Take the configured artifact in, if it is newer; False when a stop came meanwhile.

        One that is no good matters only where there is nothing else to run.
        """
        path = self.config.model.artifact
        if not path:
            return True
        try:
            self.updater.install_first(Path(path))
        except CheckStoppedError:
            return False
        except (ArtifactError, StaleError, OSError) as error:  # the last: a full disk, which stops nothing that runs
            running = self.updater.running_folder()
            if running is None:
                raise ConfigError(f"[model] artifact: {error}") from error
            log.error("[model] artifact: %s: going on with version %s", error, running.name)
        return True

    def _serve_metrics(self) -> Callable[[], None]:
        """What ends it. Where it cannot listen that is said, and stops nothing."""
        from edge_agent.metrics import Metrics  # brings http.server, for whoever wants it

        host, port = parse_listen(self.config.metrics.listen)
        try:
            return Metrics(host, port, self.account.look).stop
        except OSError as error:
            self._report_error(
                f"[metrics] listen = {self.config.metrics.listen!r}: {error.strerror}: nothing is served"
            )
            return lambda: None

    def _stop_uplink(self, uplink: Uplink) -> None:
        uplink.stop(drain_s=DRAIN_S if self._ended else 0.0)

    def _last_status(self) -> None:
        try:
            self.account.write_status()
        except (OSError, OutboxError) as error:  # a full disk must not keep the rest from being closed
            log.error("%s: %s", STATUS, error)

    def stop(self) -> None:
        """Finish what is in hand and return from `run`. From any thread; not from a signal handler, see __main__."""
        self._stopping.set()

    def _run_stream(self, model: Model | None) -> bool:
        """Whether the source ended by itself."""
        model = model or self._first_model()
        if model is None:
            return False
        try:
            return self._play(model)
        except ConfigError as error:
            if not self.updater.on_trial(version := (self._loop.model if self._loop else model).version):
                raise
            # Not for the operator to mend: with exit 78 systemd would not start the agent again.
            self.updater.failed(version, str(error))
            raise IncompatibleError(f"version {version} cannot run here: {error}") from error

    def _play(self, model: Model) -> bool:
        self._loop = self.account.loop = loop = self._make_loop(model)
        orders = self._orders  # one may have come meanwhile
        loop.change(orders.rules, orders.acquisition, orders.strategy)
        self.updater.executing(model.version)
        self.account.report("started", f"boot {self.boot}, model version {model.version}", model.version, {})
        house = Housekeeping(
            loop,
            self.updater,
            update=self.config.update,
            load=self._load,
            rng=np.random.default_rng(),
            write_status=self.account.write_status,
            status_s=self.config.uplink.heartbeat_s,
        )
        thread = threading.Thread(target=house.run, args=(self._stopping,), name="housekeeping", daemon=True)
        thread.start()
        try:
            return play(loop, self.config.source, self._stopping, report=self._report_error)
        finally:
            self._stopping.set()
            thread.join()

    def _report_error(self, text: str) -> None:
        self.account.report("error", text, 0, {})

    def _report_damage(self, damage: str) -> None:
        self._report_error(f"outbox: {damage}, with what waited in it; a fresh one begins")

    def _model_here(self) -> Model | None:
        """The model that is here already, loaded; None when there is none."""
        while not self._stopping.is_set() and (folder := self.updater.running_folder()) is not None:
            if (model := self._load(folder)) is not None:
                self.updater.executing(model.version)
                return model
        return None

    def _first_model(self) -> Model | None:
        """The model to start with; waits for the server to send one when there is none."""
        said = False
        while not self._stopping.is_set():
            folder = self.updater.running_folder() or self.updater.take()
            if folder is not None and (model := self._load(folder)):
                return model
            if not self.uplink:
                raise ConfigError("no model: set [model] artifact to an artifact folder, or [uplink] broker to get one")
            if not said:
                log.warning("no model yet: waiting for the server to send one")
                said = True
            self._stopping.wait(TICK_S)
        return None

    def _load(self, folder: Path) -> Model | None:
        """The model in `folder`, or None; then the updater knows, and offers another."""
        config, before = self.config.model, rss_bytes()
        try:
            model = Model(folder, variant=config.variant, threads=config.threads, block=config.block)
        except ArtifactError as error:
            log.error("%s", error)
            self.updater.failed(int(folder.name), str(error))
            return None
        model.grew_bytes = max(0, rss_bytes() - before)
        return model

    def _make_loop(self, model: Model) -> Loop:
        self.updater.needs = model.manifest.input
        self._orders = orders = self._orders_for(model)
        return Loop(
            model,
            self._go_on(
                SELECTOR,
                lambda saved: strategy.make(
                    orders.strategy, orders.rules, np.random.default_rng(self.config.choose.seed), saved=saved
                ),
            ),
            identity=Identity(self.config.device.name, self.config.source.stream, self.boot),
            acquisition=orders.acquisition,
            cursor=self._go_on(CURSOR, lambda saved: msgspec.json.decode(saved, type=Cursor) if saved else Cursor()),
            flush_s=self.config.model.flush_ms / 1000.0,
            hand_over=self.writer.hand_over,
            watch=self._go_on(DRIFT, lambda saved: self._make_watch(model, saved))
            if self.config.drift.enabled
            else None,
            on_alarm=self.account.alarm,
            log_predictions=self.config.log.predictions,
            extras=self.extras,
        )

    def _make_watch(self, model: Model, saved: bytes) -> Watch:
        return Watch(
            model.manifest,
            false_alarms_per_month=self.config.drift.false_alarms_per_month,
            embedding=model.embedding is not None,
            saved=saved,
        )

    # --- what the server wants ---

    def _on_desired(self, desired: Desired) -> None:
        """Budgets and requests at once, the model through the updater. What is left open stays as configured.

        A revision older than the last is ignored; the same one again (it is retained) is a new try for the model.
        """
        if desired.revision < self._revision:
            return
        self._revision = desired.revision
        self._desired = msgspec.structs.replace(desired, model=None, requests=(), purges=())
        self._pause_uplink()
        before = self._orders
        self._orders = orders = self._orders_for(self._loop.model if self._loop is not None else None)
        if orders.complaint and orders.complaint != before.complaint:
            self._report_error(orders.complaint)
        # Before anything is decided by it, so that the next start begins with it.
        saved = {DESIRED: msgspec.json.encode(self._desired)}
        self.writer.hand_over(Handover([], saved, purges=self.purging.new(desired.purges)))
        if self._loop is not None:
            self._loop.change(orders.rules, orders.acquisition, orders.strategy)
        self.extras.want(desired.requests)
        if self.uplink:
            self.uplink.beat()  # it says what is in force now, to whoever waits for it
        if self.config.update.enabled:
            self.updater.on_desired(desired)

    def _pause_uplink(self) -> None:
        if self.uplink:
            self.uplink.pause(self._desired.pause.at_ms if self._desired.pause else 0)

    def _orders_for(self, model: Model | None) -> Orders:
        """What is in force while `model` runs; None: not known yet."""
        return desired_over(
            configured(self.config),
            self._desired,
            members=model.manifest.members if model else 0,
            sample_bytes=sample_bytes(model) if model else 0,
        )


def _read_desired(saved: bytes) -> Desired:
    return msgspec.json.decode(saved, type=Desired) if saved else Desired(revision=0)


def _check_in_child(folder: Path, *, variant: str, timeout_s: float, memory_bytes: int, stop: threading.Event) -> None:
    read_artifact(folder, variant=variant)  # a hash needs no child
    argv = [sys.executable, "-m", "edge_agent.model", str(folder), variant]
    run_check(argv, timeout_s=timeout_s, memory_bytes=memory_bytes, stop=stop)
