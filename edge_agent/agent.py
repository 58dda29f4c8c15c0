"""What does the agent do, from start to stop?

The only file that knows every part, and the only forgiving one. It opens the parts, carries values between them, and
keeps house beside the loop:

    loop (main thread)   source -> model -> scores -> selector -> writer             intake.py, loop.py
    writer, uplink       outbox -> broker -> receipt                                 send/
    updater              desired -> blocks -> checked artifact                       update/
    housekeeping         a staged model is tried beside the running one, then live    housekeeping.py

How a stream goes on when its source fails is in stream.py, what the agent says of itself in account.py, what it is told
in standing.py. Somebody's own loop may take the place of the source: session.py.
"""

from __future__ import annotations

import functools
import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import msgspec

from edge_agent import parts
from edge_agent.account import Account
from edge_agent.choose import strategy
from edge_agent.choose.splitmix import SplitMix64
from edge_agent.choose.targets import Targets
from edge_agent.choose.tasks.frames import Frames
from edge_agent.config import AgentConfig, load_config, parse_listen
from edge_agent.contract import images
from edge_agent.contract.errors import ConfigError, IncompatibleError, OutboxError
from edge_agent.contract.wire import Desired, Event, ModelState, Purge
from edge_agent.extras import SHADOW, WANTED, Extras
from edge_agent.housekeeping import Housekeeping
from edge_agent.loader import Loader
from edge_agent.lock import only_one
from edge_agent.loop import CURSOR, DRIFT, FRAMES, SELECTOR, TARGETS, Cursor, Loop
from edge_agent.model import TOGETHER, Model
from edge_agent.orders import configured
from edge_agent.outgoing import Identity
from edge_agent.pace import Pace
from edge_agent.pulse import Pulse
from edge_agent.send.allowance import Allowance
from edge_agent.send.health import ROOT
from edge_agent.send.outbox import Outbox
from edge_agent.send.privacy import Privacy
from edge_agent.send.purging import Purging
from edge_agent.send.uplink import Uplink
from edge_agent.send.writer import Handover, Writer
from edge_agent.standing import Standing, read
from edge_agent.status import STATUS
from edge_agent.stream import Stream
from edge_agent.systemd import NOBODY, Manager, Watchdog
from edge_agent.thermostat import Thermostat
from edge_agent.update.updater import Updater

if TYPE_CHECKING:
    from edge_agent.session import Session

log = logging.getLogger(__name__)

DRAIN_S = 10.0  # longest wait for receipts when the source has ended
SETTLED_S = 1.0  # longest wait for the first answers, before all is there that stays
PREDICTIONS, BEFORE = "predictions.bin", "predictions.before.bin"
LINK = "link"  # key of the saved state: what is left of the link's bytes of the day
DESIRED = "desired"  # key of the saved state: the server's last word on budgets, acquisition and strategy

Part = TypeVar("Part")


class Agent:
    """One device's agent: `run` until the source ends or `stop` is called; or `open` it, for a loop of one's own."""

    def __init__(
        self,
        config: AgentConfig,
        *,
        manager: Manager = NOBODY,
        root: Path = ROOT,
        own_source: bool = True,
        settled: Callable[[], None] = lambda: None,
    ) -> None:
        """Open everything that is on disk; ConfigError, ArtifactError or OutboxError when it cannot work so.

        `manager`: who started it; `root`: where the machine says how it is. `own_source`: False where samples come by
        `open`, not from `[source]`. `settled` is called when all is there that stays: after the first answers, and
        before a wait for a first model.
        """
        self.config, self._settled = config, settled
        self._pulse = Pulse(manager.stuck_s)
        self._watchdog = Watchdog(manager, self._pulse)
        self._pace = Pace(max_rate_per_s=config.model.max_rate_per_s)
        self._thermostat = Thermostat(self._pace, hot_c=config.model.hot_c, report=self._report_error, root=root)
        self.folder = Path(config.device.data_dir)
        self.folder.mkdir(parents=True, exist_ok=True)
        self._stopping, self._answered = threading.Event(), threading.Event()  # the latter: the first samples
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
        self.recent = parts.make_recent(config, self.folder, privacy=self.privacy)
        self.account = self._make_account()
        self._providers = parts.make_providers(config, self.folder)
        self.updater = self._make_updater()
        self._stream = Stream(config.source, report=self._report_error, pace=self._pace) if own_source else None
        self._loader = self._make_loader(together=1 if self._stream is None or self._stream.answers else TOGETHER)
        self.uplink = self._make_uplink() if config.uplink.broker else None
        self.renewal = parts.make_renewal(config, report=self._report_error) if config.uplink.renewal else None
        if self.outbox.damage:
            self._report_damage(self.outbox.damage)
        self.standing = self._make_standing()
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
        self.writer = self._make_writer()

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
            model=self._model_state,
            outbox=self.outbox.status,
            messages_bad=lambda: self.uplink.messages_bad if self.uplink else 0,
            link=lambda: self.uplink.link if self.uplink else None,
            budgets=lambda: self.standing.budgets(),
            source=lambda: self._stream.state() if self._stream else None,
            pace=lambda: self._thermostat.state if self._stream else None,
            tell=self._tell,
        )

    def _model_state(self) -> ModelState:
        state = self.updater.state()
        return msgspec.structs.replace(state, provider=self._loader.provider(state.version))

    def _tell(self, event: Event) -> None:
        if self.uplink:
            self.uplink.event(event)

    def _make_loader(self, *, together: int) -> Loader:
        return Loader(
            self.config,
            self.updater,
            providers=self._providers,
            stopping=self._stopping,
            report=self._report_error,
            pulse=self._pulse,
            together=together,
        )

    def _make_updater(self) -> Updater:
        update, variant = self.config.update, self.config.model.variant
        check = functools.partial(
            parts.check_in_child,
            variant=variant,
            providers=self._providers,
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
            trust=parts.make_trust(self.config, self.folder, stop=self._stopping),
            https=functools.partial(
                parts.make_https,
                self.config,
                may=lambda: self.uplink is not None and self.uplink.carries(),
                came=lambda size: self.uplink.carried(size) if self.uplink else None,
            ),
        )

    def _make_uplink(self) -> Uplink:
        return parts.make_uplink(
            self.config,
            session=self.account.session,
            outbox=self.outbox,
            birth=self.account.birth,
            heartbeat=self.account.heartbeat,
            on_desired=self._on_desired,
            on_block=self.updater.on_block,
            allowance=self._go_on(LINK, self._make_allowance),
        )

    def _make_standing(self) -> Standing:
        return Standing(
            configured(self.config),
            self._go_on(DESIRED, read),
            pause=self.uplink.pause if self.uplink else lambda _at_ms: None,
            complain=self._report_error,
        )

    def _make_writer(self) -> Writer:
        outbox = self.config.outbox
        return Writer(
            self.outbox,
            commit_rows=outbox.commit_rows,
            commit_ms=outbox.commit_ms,
            stored=self.uplink.kick if self.uplink else lambda: None,
            stopping=self._stopping,
            predictions=self.folder / PREDICTIONS if self.config.log.predictions else None,
            codec=images.codec(self.config.uplink.images, self.config.uplink.image_quality),
            purging=self.purging,
            privacy=self.privacy,
        )

    def _make_allowance(self, saved: bytes) -> Allowance:
        return Allowance(
            bytes_per_s=self.config.uplink.bytes_per_s,
            bytes_per_day=self.config.uplink.bytes_per_day,
            saved=saved,
            save=lambda state: self.outbox.put([], state={LINK: state}),
            now_s=time.monotonic(),
        )

    # --- running ---

    @classmethod
    def open(cls, path: str | Path) -> Session:
        """For somebody's own loop: everything of agent.toml at work but `[source]`, of which `stream` counts.

        Waits for the server to send a first model where there is none. ConfigError, and EdgeError when another agent
        works in the same data folder; errors of models as `run`.
        """
        from edge_agent.session import Session  # of no use to an agent that runs by itself

        config = load_config(Path(path))
        with ExitStack() as running:
            running.enter_context(only_one(Path(config.device.data_dir)))
            agent = cls(config, own_source=False)
            agent._ended = config.source.stop_at_end  # then the outbox is drained when it is closed
            model = agent._start(running)
            if model is None:
                raise ConfigError(f"{path}: no model to run")
            with agent._on_trial(model):
                loop = agent._begin(model, running)
            return Session(loop, running.pop_all())

    def run(self) -> None:
        """Run until the source ends (and `stop_at_end`), or `stop`. Raises what the model or the stream raised."""
        with ExitStack() as running:
            model = self._start(running)
            if model is not None and self._stream is not None:
                with self._on_trial(model):
                    self._ended = self._stream.play(self._begin(model, running), self._stopping)

    def _start(self, running: ExitStack) -> Model | None:
        """Everything but the loop; `running` ends it. The model to begin with; None: stopped before there was one."""
        running.callback(self.outbox.close)
        running.callback(self._watchdog.stop)
        self._watchdog.start()
        if not self._loader.install():
            return None
        running.callback(self._last_status)
        model = self._loader.here()  # first, or the first word to the server would be that none runs
        if self.uplink:
            self.uplink.start(after=self._answered if model else None)  # what runs goes before what is told of it
            running.callback(self._stop_uplink, self.uplink)
        if self.config.metrics.listen:
            running.callback(self._serve_metrics())
        if self.renewal:
            self.renewal.start()
            running.callback(self.renewal.stop)
        if self.recent:
            self.recent.start()
            running.callback(self.recent.stop)
        self.writer.start()
        running.callback(self.writer.stop)
        self.updater.start()
        running.callback(self.updater.stop)
        running.callback(self._stopping.set)
        if model is None:
            self._settled()
            model = self._loader.first()
        return model

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

    @contextmanager
    def _on_trial(self, model: Model) -> Iterator[None]:
        """A version on trial that does not go with the configuration is the version's fault."""
        try:
            yield
        except ConfigError as error:
            if not self.updater.on_trial(version := (self._loop.model if self._loop else model).version):
                raise
            # Not for the operator to mend: with exit 78 systemd would not start the agent again.
            self.updater.failed(version, str(error))
            raise IncompatibleError(f"version {version} cannot run here: {error}") from error

    def _begin(self, model: Model, running: ExitStack) -> Loop:
        """A loop for the model, and housekeeping beside it."""
        self._loop = self.account.loop = loop = self._make_loop(model)
        self.standing.begin(loop, model)
        self.updater.executing(model.version)
        self.account.report("started", f"boot {self.boot}, model version {model.version}", model.version, {})
        house = Housekeeping(
            loop,
            self.updater,
            update=self.config.update,
            load=self._loader.load,
            rng=SplitMix64(),
            write_status=self.account.write_status,
            status_s=self.config.uplink.heartbeat_s,
            met=self.standing.meet,
            tend_heat=self._thermostat.tend if self._stream and self.config.model.slow_when_hot else lambda _: None,
        )
        thread = threading.Thread(target=self._keep_house, args=(house,), name="housekeeping", daemon=True)
        thread.start()
        running.callback(thread.join)
        running.callback(self._answered.set)
        running.callback(self._stopping.set)
        return loop

    def _keep_house(self, house: Housekeeping) -> None:
        self._answered.wait(SETTLED_S)  # to settle takes a twentieth of the start: no first sample waits for that
        self._settled()
        house.run(self._stopping)

    def _report_error(self, text: str) -> None:
        self.account.report("error", text, 0, {})

    def _report_damage(self, damage: str) -> None:
        self._report_error(f"outbox: {damage}, with what waited in it; a fresh one begins")

    def _make_loop(self, model: Model) -> Loop:
        self.updater.needs = model.manifest.input
        orders = self.standing.over(model)
        return Loop(
            model,
            self._go_on(
                SELECTOR,
                lambda saved: strategy.make(orders.strategy, orders.rules, parts.make_chance(self.config), saved=saved),
            ),
            identity=Identity(self.config.device.name, self.config.source.stream, self.boot),
            acquisition=orders.acquisition,
            cursor=self._go_on(CURSOR, lambda saved: msgspec.json.decode(saved, type=Cursor) if saved else Cursor()),
            flush_s=self.config.model.flush_ms / 1000.0,
            hand_over=self.writer.hand_over,
            watch=self._go_on(DRIFT, lambda saved: parts.make_watch(self.config, model, saved=saved))
            if self.config.drift.enabled
            else None,
            on_alarm=self.account.alarm,
            log_predictions=self.config.log.predictions,
            extras=self.extras,
            targets=self._go_on(TARGETS, lambda saved: Targets(saved=saved)),
            frames=self._go_on(FRAMES, lambda saved: Frames(saved=saved)),
            pulse=self._pulse,
            answered=self._answered,
        )

    # --- what the server wants ---

    def _on_desired(self, desired: Desired) -> None:
        """Budgets and requests at once, the model through the updater. What is left open stays as configured.

        A revision older than the last is ignored; the same one again (it is retained) is a new try for the model.
        """
        if not self.standing.take(desired, functools.partial(self._keep, desired.purges)):
            return
        self.extras.want(desired.requests)
        if self.uplink:
            self.uplink.beat()  # it says what is in force now, to whoever waits for it
        if self.config.update.enabled:
            self.updater.on_desired(desired)

    def _keep(self, purges: tuple[Purge, ...], desired: bytes) -> None:
        """An order for the next start, and what is to be purged."""
        self.writer.hand_over(Handover([], {DESIRED: desired}, purges=self.purging.new(purges)))
