"""What is sent beside what the selector chooses?

    requested      samples like one that a person pointed at: as they go by, and out of the recent ring   choose/wanted
    disagreement   samples on which a shadow model says something else than the running one          shadow

Both are off until somebody asks. They take nothing from the label bucket, but keep to the limits a day. The selector
decides first and does not know of them; what it takes anyway is its own.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from edge_agent.block import Block
from edge_agent.choose.novelty import Floats
from edge_agent.choose.selector import Chosen
from edge_agent.choose.splitmix import SplitMix64
from edge_agent.choose.wanted import Running, Sketcher, Wanted
from edge_agent.contract.errors import ConfigError, IncompatibleError
from edge_agent.contract.types import Prediction, Sample, SampleId
from edge_agent.contract.wire import Request, RequestState
from edge_agent.model import Model
from edge_agent.send.recent import Hit, Passing, Recent

if TYPE_CHECKING:
    from edge_agent.choose.disagreement import Share
    from edge_agent.shadow import Shadow, Shadowed

log = logging.getLogger(__name__)

WANTED, SHADOW = "wanted", "shadow"  # keys of the saved state


class Extras:
    """`want`, `shadow`, `states` and `shadowed` may be called from any thread, the rest from the loop's."""

    def __init__(self, *, wanted: bytes = b"", shadow: bytes = b"", recent: Recent | None = None) -> None:
        """`wanted` and `shadow`: as saved. ConfigError when they cannot be read."""
        self._wanted = Wanted(saved=wanted)
        self._saved_shadow = shadow
        self._recent = recent
        self._lock = threading.Lock()  # of all below; held once a block, and only when there is something to do
        self._requests: Sequence[Request] | None = None
        self._asked: set[tuple[int, tuple[float, ...]]] = set()  # of the ring
        self._recalled: set[str] = set()  # ids that searches which began before may find once more
        self._next_shadow: tuple[Shadow | None] | None = None
        self._shadow: Shadow | None = None
        self._sketcher: tuple[int, Sketcher | None] = (-1, None)  # of the version that runs

    # --- what is asked for ---

    def want(self, requests: Sequence[Request]) -> None:
        """These requests are open, from the end of the block."""
        with self._lock:
            self._requests = requests

    def shadow(self, model: Model, share: Share, running: Model, rng: SplitMix64) -> None:
        """Run `model` beside `running` from the end of the block.

        IncompatibleError when its inputs or its task are others.
        """
        if (model.shape, model.dtype) != (running.shape, running.dtype):
            raise IncompatibleError(
                f"shadow model version {model.version} takes {model.shape} {model.dtype}, "
                f"version {running.version} that runs takes {running.shape} {running.dtype}"
            )
        if model.manifest.task != running.manifest.task:
            raise IncompatibleError(
                f"shadow model version {model.version} is for {model.manifest.task}, "
                f"version {running.version} that runs for {running.manifest.task}: they cannot be compared"
            )
        with self._lock:
            if self._shadow is not None:
                self._saved_shadow = self._shadow.rule.save()
            self._next_shadow = (self._beside(model, share, rng),)

    def end_shadow(self) -> None:
        """No model runs beside from the end of the block."""
        with self._lock:
            self._next_shadow = (None,)

    def _beside(self, model: Model, share: Share, rng: SplitMix64) -> Shadow:
        from edge_agent.choose.disagreement import Disagreement  # both for trials alone
        from edge_agent.shadow import Shadow

        try:
            return Shadow(model, Disagreement(model.version, share, rng, saved=self._saved_shadow))
        except ConfigError as error:
            log.warning("%s: the trial begins afresh", error)
            return Shadow(model, Disagreement(model.version, share, rng))

    # --- deciding ---

    def add(self, chosen: list[Chosen], block: Block) -> list[Chosen]:
        """What is sent of a block, given what the selector chose of it; in order."""
        recent = self._recent is not None and self._recent.due()
        if not (recent or self._wanted or self._shadow):
            return chosen
        with self._lock:
            sketches = self._sketches(block.model) if recent or self._wanted else None
            chosen = chosen + self._wanted.look(
                block.scored,
                sketches,
                chosen=chosen,
                count=len(block.readings),
                running=Running(block.model.version, sketches is not None, block.now_ms),
                pay=block.pay,
            )
            if self._shadow is not None:
                chosen = self._shadow.decide(chosen, block)
        if recent:
            self._keep(chosen, block, sketches)
        return sorted(chosen)

    def _sketches(self, model: Model) -> Floats | None:
        if model.embedding is None:
            return None
        if self._sketcher[0] != model.version:
            self._sketcher = (model.version, Sketcher(model.manifest.reference.embedding_mean.array()))
        sketcher = self._sketcher[1]
        return sketcher(model.embedding) if sketcher else None

    def _keep(self, chosen: list[Chosen], block: Block, sketches: Floats | None) -> None:
        sent = {row for row, _ in chosen}
        scored = block.scored
        for row, reading in enumerate(block.readings):
            if self._recent is None or not self._recent.due():
                return
            if row not in sent and np.isfinite(scored.utility[row]):
                passing = Passing(
                    id=block.id_of(reading),
                    ref=reading.ref,
                    captured_at_ms=block.now_ms,
                    data=reading.data.copy(),
                    prediction=scored.prediction(row),
                    utility=float(scored.utility[row]),
                    version=block.model.version,
                    sketch=None if sketches is None else sketches[row].copy(),
                )
                self._recent.keep(passing)

    # --- between two blocks ---

    def settle(self, model: Model, *, now_ms: int, pay: Callable[[], bool]) -> tuple[list[Sample], bool]:
        """Obey what was asked for meanwhile; returns samples out of the ring, and whether there is state to save.

        `model`: the one that runs.
        """
        if self._requests is None and self._next_shadow is None and not self._asked:
            return [], False
        with self._lock:
            requests, self._requests = self._requests, None
            if self._next_shadow is not None:
                (self._shadow,), self._next_shadow = self._next_shadow, None
            running = Running(model.version, model.embedding is not None, now_ms)
            if requests is not None:
                self._search(self._wanted.change(requests, running))
            return self._recall(running, pay)

    def _search(self, unsearched: list[Request]) -> None:
        for request in unsearched:
            if self._recent is not None and (request.id, request.sketch) not in self._asked:
                self._asked.add((request.id, request.sketch))
                self._recent.search(request)

    def _recall(self, running: Running, pay: Callable[[], bool]) -> tuple[list[Sample], bool]:
        samples: list[Sample] = []
        done = False
        while self._recent is not None and (news := self._recent.found()) is not None:
            if not isinstance(news, Hit):
                self._asked.discard((news.request.id, news.request.sketch))
                self._wanted.searched(news.request, searched=news.compared, unsearchable=news.unsearchable)
                done = True
            elif sample := self._sample(news, running, pay):
                samples.append(sample)
                self._recalled.add(news.kept.id)
                self._recent.sent(news.kept.id)
        if not self._asked:
            self._recalled.clear()
        return samples, done or bool(samples)

    def _sample(self, hit: Hit, running: Running, pay: Callable[[], bool]) -> Sample | None:
        kept = hit.kept
        if kept.id in self._recalled:
            return None
        selection = self._wanted.recall(hit.request, hit.sketch, running, utility=kept.utility, pay=pay)
        if selection is None:
            return None
        return Sample(
            id=SampleId.parse(kept.id),
            ref=kept.ref,
            captured_at_ms=kept.captured_at_ms,
            data=hit.data,
            prediction=Prediction(kept.label, kept.confidence, kept.said),
            selection=selection,
            model_version=kept.version,
            transforms=kept.transforms,
        )

    # --- looking, and across restarts ---

    def states(self, model: Model, *, now_ms: int) -> tuple[RequestState, ...]:
        """How the open requests do while `model` runs."""
        with self._lock:
            return self._wanted.states(Running(model.version, model.embedding is not None, now_ms))

    @property
    def beside(self) -> Shadow | None:
        """The shadow model. For the loop: it sees its samples between those of the running one."""
        return self._shadow

    def take_over(self, model: Model) -> None:
        """`model` runs from now on. It is no shadow any more, whose runs write into the memory that it answers from."""
        with self._lock:
            if self._shadow is not None and self._shadow.model is model:
                self._shadow = None

    def shadowed(self) -> Shadowed | None:
        """How the shadow model did so far; None when there is none, or it has not begun."""
        with self._lock:
            return None if self._shadow is None else self._shadow.shadowed()

    def save(self) -> dict[str, bytes]:
        """The state, to be committed with the samples that led to it."""
        with self._lock:
            state = {WANTED: self._wanted.save()}
            if self._shadow is not None:
                state[SHADOW] = self._shadow.rule.save()
            return state
