"""Who answers what samples show, as it is configured?"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from edge_agent.contract.settings import read_secret
from server.config import ServerConfig
from server.errors import ServerConfigError
from server.label import label_studio, labeler
from server.label.labeler import Labeler
from server.label.labelling import Labelling
from server.label.queue import PERSON, Rules
from server.label.teacher import Teacher
from server.label.teacher import load as load_teacher
from server.store import samples
from server.store.store import Store

NEWS_MS = 30_000  # a sample that was long on its way into the store may look older than the last one


def labelling_of(config: ServerConfig, store: Store, *, now_ms: Callable[[], int]) -> Labelling:
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


class News:
    """Wakes labelling for samples that another process took in. A step of Tick: a look at the end of one index."""

    def __init__(self, store: Store, wake: Callable[[], None]) -> None:
        """`wake` is called where samples are newer than at the last look, and where that was long ago."""
        self._store, self._wake = store, wake
        self._newest_ms, self._woken_ms = 0, 0

    def tick(self, now_ms: int) -> None:
        """One look."""
        with self._store.database.read() as connection:
            newest_ms = samples.newest_ms(connection)
        if newest_ms != self._newest_ms or now_ms - self._woken_ms >= NEWS_MS:
            self._newest_ms, self._woken_ms = newest_ms, now_ms
            self._wake()


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
