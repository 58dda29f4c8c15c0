"""Which model does the agent begin with, and what if it cannot be loaded?

The one that ran, or the configured artifact where that is newer; else whatever the server sends. A version that does
not load is no good: the updater is told, and offers another.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from pathlib import Path

from edge_agent.config import AgentConfig
from edge_agent.contract.artifact import read_manifest
from edge_agent.contract.errors import ArtifactError, ConfigError, IncompatibleError, StaleError
from edge_agent.model import TOGETHER, Model
from edge_agent.providers import PROCESSOR, Providers
from edge_agent.pulse import LOADING_S, Pulse
from edge_agent.send.health import rss_bytes
from edge_agent.update.trial import CheckStoppedError
from edge_agent.update.updater import Updater

log = logging.getLogger(__name__)

TICK_S = 0.1  # of waiting for a first model


class Loader:
    """Loads what the updater has."""

    def __init__(
        self,
        config: AgentConfig,
        updater: Updater,
        *,
        providers: Providers,
        stopping: threading.Event,
        report: Callable[[str], None],
        pulse: Pulse,
        together: int = TOGETHER,
    ) -> None:
        """`report` is told of providers that were passed over, of each once. `pulse` beats with the first model.

        `together`: samples to one run at most; 1 where somebody waits for each.
        """
        self._config = config
        self._together = together
        self._updater = updater
        self._providers = providers
        self._stopping = stopping
        self._report = report
        self._pulse = pulse
        self._told: set[str] = set()
        self._on: dict[int, str] = {}  # version -> the provider that it runs on

    def install(self) -> bool:
        """Take the configured artifact in, if it is newer; False when a stop came meanwhile.

        One that is no good matters only where there is nothing else to run: ConfigError.
        """
        path = self._config.model.artifact
        if not path:
            return True
        self._pulse.beat(LOADING_S)
        try:
            self._updater.install_first(Path(path))
        except CheckStoppedError:
            return False
        except (ArtifactError, StaleError, OSError) as error:  # the last: a full disk, which stops nothing that runs
            running = self._updater.running_folder()
            if running is None:
                raise ConfigError(f"[model] artifact: {error}") from error
            log.error("[model] artifact: %s: going on with version %s", error, running.name)
        return True

    def here(self) -> Model | None:
        """The model that is here already, loaded; None when there is none."""
        while not self._stopping.is_set() and (folder := self._updater.running_folder()) is not None:
            self._pulse.beat(LOADING_S)
            if (model := self.load(folder)) is not None:
                self._updater.executing(model.version)
                return model
        return None

    def first(self) -> Model | None:
        """The model to begin with; waits for the server to send one when there is none. None: stopped.

        ConfigError when there is no server to wait for.
        """
        said = False
        while not self._stopping.is_set():
            self._pulse.beat(LOADING_S)
            folder = self._updater.running_folder() or self._updater.take()
            if folder is not None and (model := self.load(folder)):
                return model
            if not self._config.uplink.broker:
                raise ConfigError("no model: set [model] artifact to an artifact folder, or [uplink] broker to get one")
            if not said:
                log.warning("no model yet: waiting for the server to send one")
                said = True
            self._stopping.wait(TICK_S)
        return None

    def load(self, folder: Path) -> Model | None:
        """The model in `folder`, or None; then the updater knows, and offers another."""
        config, before = self._config.model, rss_bytes()
        try:
            model = load(
                folder,
                self._providers,
                variant=config.variant,
                threads=config.threads,
                block=config.block,
                together=self._together,
                passed_over=lambda why: self._tell(f"[model] providers: version {folder.name} does without {why}"),
            )
        except ArtifactError as error:
            log.error("%s", error)
            self._updater.failed(int(folder.name), str(error))
            return None
        model.grew_bytes = max(0, rss_bytes() - before)
        self._on[model.version] = model.provider
        return model

    def provider(self, version: int) -> str:
        """On what a version runs; "" when it was not loaded."""
        return self._on.get(version, "")

    def _tell(self, text: str) -> None:
        if text not in self._told:
            self._told.add(text)
            self._report(text)


def load(
    folder: Path,
    providers: Providers,
    *,
    variant: str,
    threads: int = 1,
    block: int = 0,
    together: int = TOGETHER,
    passed_over: Callable[[str], None] = lambda _: None,
) -> Model:
    """The artifact on the first chain on which it starts and gives its golden answers; ArtifactError when none does.

    `passed_over` is told of each that is not it, and why. The processor's answers are not looked at: the check of a
    new version did that, on this machine.
    """
    sha256 = read_manifest(folder).variant(variant).sha256
    for chain, why_not in providers.tries(sha256):
        if chain is None:
            passed_over(why_not)
            continue
        try:
            model = Model(folder, variant=variant, threads=threads, block=block, together=together, chain=chain)
            if chain != PROCESSOR:
                model.check_golden()
        except IncompatibleError as error:
            if chain == PROCESSOR:
                raise
            providers.failed(chain.names[0], sha256, str(error))
            passed_over(f"{chain.names[0]}: {error}")
        else:
            providers.used(sha256, chain.names[0])
            return model
    raise AssertionError("the processor is last, and raises")
