"""What does the agent do, from start to stop?

The only file that knows every part, and the only forgiving one. It opens the parts, carries values between them, and
keeps house beside the loop:

    loop (main thread)   source -> model -> scores -> selector -> writer             loop.py
    writer, uplink       outbox -> broker -> receipt                                 send/
    updater              desired -> blocks -> checked artifact                       update/
    housekeeping         a staged model is loaded and handed to the loop, a trial is judged   housekeeping.py
"""

from __future__ import annotations

import functools
import logging
import sys
import threading
import time
import uuid
from collections.abc import Iterator
from importlib.metadata import version as installed_version
from pathlib import Path

import msgspec
import numpy as np
import onnxruntime as ort

from edge_agent.choose.selector import Rules, Selector
from edge_agent.config import AgentConfig
from edge_agent.contract.artifact import read_artifact
from edge_agent.contract.errors import ArtifactError, ConfigError, SourceError
from edge_agent.contract.settings import read_secret
from edge_agent.contract.types import Reading
from edge_agent.contract.wire import Birth, Desired, Event, EventKind, Heartbeat, StreamCounts
from edge_agent.housekeeping import Housekeeping
from edge_agent.loop import CURSOR, SELECTOR, Cursor, Identity, Loop
from edge_agent.model import Model
from edge_agent.send.health import CpuMeter, clock_quality, machine, rss_bytes, temperature_c
from edge_agent.send.outbox import Outbox
from edge_agent.send.uplink import TlsFiles, Uplink, parse_broker
from edge_agent.send.writer import Writer
from edge_agent.source import IDLE_S, Fit, Start, open_source
from edge_agent.status import STATUS
from edge_agent.update.trial import run_check
from edge_agent.update.updater import Updater

log = logging.getLogger(__name__)

TICK_S = 0.1  # of waiting for a first model
SOURCE_RETRY_S = (1.0, 60.0)  # first and longest wait before a source that failed is opened again
DRAIN_S = 10.0  # longest wait for receipts when the source has ended
PREDICTIONS = "predictions.bin"


class Agent:
    """One device's agent: `run` until the source ends or `stop` is called."""

    def __init__(self, config: AgentConfig) -> None:
        """Open everything that is on disk; ConfigError, ArtifactError or OutboxError when it cannot work so."""
        self.config = config
        self.folder = Path(config.device.data_dir)
        self.folder.mkdir(parents=True, exist_ok=True)
        self._stopping = threading.Event()
        self._session = uuid.uuid4().hex[:16]
        self._started_s = time.monotonic()
        self._events = 0
        self._loop: Loop | None = None
        self._samples_per_s = 0.0
        self._cpu = CpuMeter()
        self._rules, self._acquisition = self._own_rules(), config.choose.acquisition
        outbox = config.outbox
        self.outbox = Outbox(
            self.folder / "outbox.db",
            max_bytes=outbox.max_bytes,
            max_rows=outbox.max_rows,
            min_free_disk_bytes=outbox.min_free_disk_bytes,
        )
        self.boot = self.outbox.next_boot()
        self.updater = self._make_updater()
        self.uplink = self._make_uplink() if config.uplink.broker else None
        self.writer = Writer(
            self.outbox,
            commit_rows=outbox.commit_rows,
            commit_ms=outbox.commit_ms,
            stored=self.uplink.kick if self.uplink else lambda: None,
            predictions=self.folder / PREDICTIONS if config.log.predictions else None,
        )

    # --- the parts ---

    def _own_rules(self) -> Rules:
        budget, choose = self.config.budget, self.config.choose
        return Rules(
            label_share=budget.label_share,
            depth_labels=budget.depth_labels,
            floor_share=choose.floor_share,
            random_share=choose.random_share,
            labels_per_day=budget.labels_per_day,
            bytes_per_day=budget.bytes_per_day,
        )

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
            report=self._report,
        )

    def _make_uplink(self) -> Uplink:
        config, uplink = self.config, self.config.uplink
        address = parse_broker(uplink.broker)
        return Uplink(
            host=address.host,
            port=address.port,
            tls=TlsFiles(uplink.ca_file, uplink.cert_file, uplink.key_file) if address.tls else None,
            username=uplink.username,
            password=read_secret(uplink.password_file),
            fleet=config.device.fleet,
            device=config.device.name,
            session=self._session,
            outbox=self.outbox,
            window=uplink.window,
            retry_first_s=uplink.retry_first_s,
            retry_max_s=uplink.retry_max_s,
            keepalive_s=uplink.keepalive_s,
            heartbeat_s=uplink.heartbeat_s,
            birth=self.birth,
            heartbeat=self.heartbeat,
            on_desired=self._on_desired,
            on_block=self.updater.on_block,
            rng=np.random.default_rng(),
        )

    # --- running ---

    def run(self) -> None:
        """Run until the source ends (and `stop_at_end`), or `stop`. Raises what the model or the stream raised."""
        if self.config.model.artifact:
            self.updater.install_first(Path(self.config.model.artifact))
        self.writer.start()
        self.updater.start()
        if self.uplink:
            self.uplink.start()
        ended = False
        try:
            ended = self._run_stream()
        finally:
            self._stopping.set()
            self.updater.stop()
            self.writer.stop()
            if self.uplink:
                self.uplink.stop(drain_s=DRAIN_S if ended else 0.0)
            self._write_status()
            self.outbox.close()

    def stop(self) -> None:
        """Finish what is in hand and return from `run`. May be called from a signal handler."""
        self._stopping.set()

    def _run_stream(self) -> bool:
        """Whether the source ended by itself."""
        model = self._first_model()
        if model is None:
            return False
        self._loop = loop = self._make_loop(model)
        self.updater.executing(model.version)
        self._report("started", f"boot {self.boot}, model version {model.version}", model.version, {})
        house = Housekeeping(
            loop, self.updater, update=self.config.update, load=self._load, write_status=self._write_status
        )
        thread = threading.Thread(target=house.run, args=(self._stopping,), name="housekeeping", daemon=True)
        thread.start()
        try:
            return self._play(loop)
        finally:
            self._stopping.set()
            thread.join()

    def _play(self, loop: Loop) -> bool:
        """Open the source, and again whenever it fails; whether it ended by itself."""
        first_s, longest_s = SOURCE_RETRY_S
        wait_s = first_s
        while not self._stopping.is_set():
            begun_s = time.monotonic()
            try:
                loop.run(self._readings(loop), self._stopping)
            except SourceError as error:
                wait_s = first_s if time.monotonic() - begun_s > longest_s else wait_s
                log.error("source: %s: again in %.0f s", error, wait_s)
                self._report("error", f"source: {error}", 0, {})
                self._stopping.wait(wait_s)
                wait_s = min(2 * wait_s, longest_s)
                continue
            if not self._stopping.is_set():
                return True
        return False

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
        model = self.config.model
        try:
            return Model(folder, variant=model.variant, threads=model.threads, block=model.block)
        except ArtifactError as error:
            log.error("%s", error)
            self.updater.failed(int(folder.name), str(error))
            return None

    def _make_loop(self, model: Model) -> Loop:
        saved = self.outbox.state(CURSOR)
        cursor = msgspec.json.decode(saved, type=Cursor) if saved else Cursor()
        rng = np.random.default_rng(self.config.choose.seed)
        self.updater.needs = model.manifest.input
        loop = Loop(
            model,
            Selector(self._rules, rng, saved=self.outbox.state(SELECTOR) or b""),
            identity=Identity(self.config.device.name, self.config.source.stream, self.boot),
            acquisition=self._acquisition,
            cursor=cursor,
            flush_s=self.config.model.flush_ms / 1000.0,
            hand_over=self.writer.hand_over,
            log_predictions=self.config.log.predictions,
        )
        loop.change(self._rules, self._acquisition)  # an order may have come meanwhile
        return loop

    def _readings(self, loop: Loop) -> Iterator[Reading | None]:
        """The source's readings; when it ends and the agent is to stay, silence."""
        source, model = self.config.source, loop.model
        opened = open_source(
            source.kind,
            path=Path(source.path),
            fit=Fit(model.shape, str(model.dtype)),
            rate_per_s=source.rate_per_s,
            poll_s=source.poll_s,
        )
        yield from opened.readings(Start(loop.cursor.seq, loop.cursor.mark))
        if not source.stop_at_end:
            log.info("the source has ended; waiting for a stop")
            while True:
                self._stopping.wait(IDLE_S)
                yield None

    # --- what the server wants ---

    def _on_desired(self, desired: Desired) -> None:
        """Budgets at once, the model through the updater. What the server leaves open stays as configured."""
        own = self._own_rules()
        rules = own._replace(
            **{
                key: value
                for key in ("label_share", "labels_per_day", "bytes_per_day")
                if (value := getattr(desired, key)) is not None
            }
        )
        self._rules, self._acquisition = rules, desired.acquisition or self.config.choose.acquisition
        if self._loop is not None:
            self._loop.change(self._rules, self._acquisition)
        if self.config.update.enabled:
            self.updater.on_desired(desired)

    # --- what is said of it ---

    def birth(self) -> Birth:
        """Said on every connect."""
        return Birth(
            session=self._session,
            boot=self.boot,
            at_ms=now_ms(),
            agent=installed_version("winnow-edge"),
            runtime=f"onnxruntime {ort.__version__}, python {sys.version.split()[0]}",
            machine=machine(),
            stream=self.config.source.stream,
            model=self.updater.state(),
            outbox=self.outbox.status(),
            clock=clock_quality(),
            interval_s=self.config.uplink.heartbeat_s,
        )

    def heartbeat(self) -> Heartbeat:
        """Said every `heartbeat_s`, and written to status.json."""
        loop = self._loop
        vitals = loop.vitals() if loop else None
        return Heartbeat(
            session=self._session,
            boot=self.boot,
            at_ms=now_ms(),
            uptime_s=time.monotonic() - self._started_s,
            model=self.updater.state(),
            counts=loop.counts() if loop else StreamCounts(read=0, scored=0, invalid=0, selected={}),
            outbox=self.outbox.status(),
            samples_per_s=self._samples_per_s,
            latency_p50_ms=vitals.latency_p50_ms if vitals else 0.0,
            latency_p95_ms=vitals.latency_p95_ms if vitals else 0.0,
            label_tokens=loop.selector.label_tokens if loop else 0.0,
            byte_tokens=loop.selector.byte_tokens if loop else None,
            rss_bytes=rss_bytes(),
            cpu_share=self._cpu.share(),
            temperature_c=temperature_c(),
            messages_bad=self.uplink.messages_bad if self.uplink else 0,
        )

    def _write_status(self, samples_per_s: float = 0.0) -> None:
        """For `winnow-agent status`; replaced in one step, not flushed: it is worth nothing after a power cut."""
        self._samples_per_s = samples_per_s
        beside = self.folder / (STATUS + ".new")
        beside.write_bytes(msgspec.json.format(msgspec.json.encode(self.heartbeat()), indent=1))
        beside.replace(self.folder / STATUS)

    def _report(self, kind: EventKind, text: str, version: int, detail: dict[str, str | int | float]) -> None:
        self._events += 1
        log.log(logging.WARNING if kind in ("refused", "revert", "error") else logging.INFO, "%s: %s", kind, text)
        if self.uplink:
            self.uplink.event(
                Event(
                    session=self._session,
                    boot=self.boot,
                    n=self._events,
                    at_ms=now_ms(),
                    kind=kind,
                    text=text[:1000],
                    model_version=version,
                    detail=detail,
                )
            )


def now_ms() -> int:
    """Wall clock, ms since 1970."""
    return time.time_ns() // 1_000_000


def _check_in_child(folder: Path, *, variant: str, timeout_s: float, memory_bytes: int, stop: threading.Event) -> None:
    read_artifact(folder, variant=variant)  # a hash needs no child
    argv = [sys.executable, "-m", "edge_agent.model", str(folder), variant]
    run_check(argv, timeout_s=timeout_s, memory_bytes=memory_bytes, stop=stop)
