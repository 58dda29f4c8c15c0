"""Is this sample like one that somebody wants more of?

A person points at a sample and asks for more like it. The server sends its sketch, and every sample whose sketch is
near enough is taken, whatever the selector thinks of it: a match is certain, so its probability is 1. A request is a
grant of its own: it takes nothing from the bucket of labels, but keeps to the limits a day.

    near enough     cosine to what was asked for >= similar
    not again       1 - cosine to everything sent for it >= NEAR

Sketches are of embeddings less the mean that the manifest states. Embeddings behind a ReLU all point the same way, and
without that "cosine 0.9" would mean little: on Fashion-MNIST, of the samples within 0.9 of one, 96 % are of its class
with it and 90 % without, and one in 26 samples matches instead of one in 68.

A sketch belongs to one version of the model; under another the request waits until the server sends it anew.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec
import numpy as np
from numpy.typing import NDArray

from edge_agent.choose.acquisition import Scored
from edge_agent.choose.novelty import SKETCH, Floats, Projection
from edge_agent.choose.selector import Chosen
from edge_agent.contract.errors import ConfigError
from edge_agent.contract.types import Selection
from edge_agent.contract.wire import REQUEST_MAX_SAMPLES, REQUESTS_MAX, Request, RequestState

NEAR = 0.01  # distance of near-duplicates: lower sends a still camera's noise (0.004, 0.012 at times), higher one of
# each kind only. With a high `similar` a part of what it lets in, or nothing would be left:
NEAR_SHARE = 0.25
REMEMBERED = 32  # sketches of what was sent, of each request: fewer repeats, more makes every commit larger (96 B each)


class Sketcher:
    """Sketches of one model's embeddings; server and device make the same."""

    def __init__(self, mean: NDArray[np.generic]) -> None:
        """`mean`: (D,) of the manifest's reference."""
        self._mean = mean.astype(np.float32)
        self._project = Projection()

    def __call__(self, embedding: Floats) -> Floats:
        """Embeddings (N, D) to unit sketches (N, SKETCH)."""
        fits = self._mean.shape == embedding.shape[1:]  # else a manifest made by hand: on both sides alike
        return self._project(embedding - self._mean if fits else embedding)


class Running(msgspec.Struct, frozen=True):
    """What a request is held against. version, embeds: of the model that runs. now_ms: wall clock, ms since 1970."""

    version: int
    embeds: bool
    now_ms: int


class Record(msgspec.Struct, kw_only=True):
    """One request and what came of it, as saved."""

    request: Request
    found: int = 0
    recalled: int = 0
    taken: int = 0
    searched: int | None = None
    unsearchable: int = 0
    sent: bytes = b""  # sketches of the last ones, (at most REMEMBERED, SKETCH) float32


class Search:
    """One open request: whether a sample answers it, and what has come of it."""

    def __init__(self, record: Record) -> None:
        """Go on from a record."""
        self.record = record
        self.request = record.request
        self.sketch = np.array(record.request.sketch, np.float32)
        self._sent = np.frombuffer(record.sent, np.float32).reshape(-1, SKETCH)

    @property
    def left(self) -> int:
        """Samples that may still be sent for it."""
        return min(self.request.count, REQUEST_MAX_SAMPLES) - self.record.found

    def idle(self, running: Running) -> str:
        """Why nothing is looked out for; empty when something is."""
        request = self.request
        if len(request.sketch) != SKETCH or not 0.0 < request.similar < 1.0:
            return f"not understood: expected {SKETCH} numbers and 0 < similar < 1"
        if self.left < 1:
            return "all found"
        if running.now_ms > request.until_ms:
            return "its time is over, by this device's clock"
        if request.version != running.version:
            return f"its sketch is of version {request.version}, version {running.version} runs"
        return "" if running.embeds else f"version {running.version} has no embedding"

    def novelty(self, sketch: Floats) -> float:
        """1 less the greatest cosine of (SKETCH,) to what was asked for and what was sent for it."""
        return 1.0 - max(float(self.sketch @ sketch), float((self._sent @ sketch).max(initial=-1.0)))

    def is_new(self, novelty: float) -> bool:
        """Whether it is not a near-duplicate of something sent."""
        return novelty >= min(NEAR, NEAR_SHARE * (1.0 - self.request.similar))

    def remember(self, sketch: Floats) -> None:
        """This one was sent: (SKETCH,). Beyond REMEMBERED it takes the place of the oldest."""
        kept = self._sent if len(self._sent) < REMEMBERED else self._sent[1:]
        self._sent = np.concatenate([kept, sketch[None]])

    def save(self) -> Record:
        """The record as it is now."""
        return msgspec.structs.replace(self.record, sent=self._sent.tobytes())

    def selection(self, *, utility: float, novelty: float) -> Selection:
        """As recorded with a sample that is sent for it."""
        return Selection(
            reason="requested",
            probability=1.0,
            utility=utility,
            novelty=novelty,
            threshold=self.request.similar,
            tokens=float(self.left),
            strategy=strategy_of(self.request.id),
        )


class Wanted:
    """The open requests of a device, in the order of their ids."""

    def __init__(self, *, saved: bytes = b"") -> None:
        """ConfigError when `saved` cannot be read."""
        try:
            records = msgspec.msgpack.decode(saved, type=list[Record]) if saved else []
            self._searches = [Search(record) for record in records]
        except (msgspec.DecodeError, ValueError) as error:
            raise ConfigError(f"saved requests: {error}") from error

    def __len__(self) -> int:
        return len(self._searches)

    def change(self, requests: Sequence[Request], running: Running) -> list[Request]:
        """These are open now; returns those for which the recent samples are yet to be searched.

        What was found for one goes on counting under another sketch; which samples look alike begins anew.
        """
        known = {search.request.id: search.save() for search in self._searches}
        self._searches = []
        for request in sorted(requests, key=lambda request: request.id)[:REQUESTS_MAX]:
            record = known.get(request.id) or Record(request=request)
            changes: dict[str, object] = {"request": request}
            if record.request.sketch != request.sketch:
                changes |= {"searched": None, "unsearchable": 0, "sent": b""}
            self._searches.append(Search(msgspec.structs.replace(record, **changes)))
        return [s.request for s in self._searches if s.record.searched is None and not s.idle(running)]

    def look(
        self,
        scored: Scored,
        sketches: Floats | None,
        *,
        chosen: Sequence[Chosen],
        count: int,
        running: Running,
        pay: Callable[[], bool],
    ) -> list[Chosen]:
        """The first `count` rows of a block that are wanted and not chosen already; pass the whole block.

        Args:
            scored: of the block; NaN utility cannot be used.
            sketches: (N, SKETCH), None without an embedding.
            chosen: what the selector takes of the block anyway.
            count: rows in use.
            running: the model that ran.
            pay: takes one sample from the limits a day, or says that they forbid it.
        """
        searches = [search for search in self._searches if not search.idle(running)]
        if not searches or sketches is None:
            return []
        # Not a matrix product: its rounding would depend on the row, and on how many other requests are open.
        cosine = np.stack([np.einsum("nd,d->n", sketches, search.sketch) for search in searches], axis=1)[:count]
        usable = np.isfinite(scored.utility[:count])
        near = (cosine >= np.array([search.request.similar for search in searches])) & usable[:, None]
        if not near.any():
            return []
        own, sent = {row for row, _ in chosen}, set[int]()
        more: list[Chosen] = []
        for row, number in np.argwhere(near).tolist():
            search, sketch = searches[number], sketches[row]
            novelty = search.novelty(sketch)
            if not search.is_new(novelty):
                continue
            if row in own:
                search.record.taken += 1
            elif row in sent:
                pass  # for another request
            elif search.left > 0 and pay():
                more.append(Chosen(row, search.selection(utility=float(scored.utility[row]), novelty=novelty)))
                sent.add(row)
                search.record.found += 1
            else:
                continue
            search.remember(sketch)
        return more

    def recall(
        self, request: Request, sketch: Floats, running: Running, *, utility: float, pay: Callable[[], bool]
    ) -> Selection | None:
        """Whether a recent sample, found near to what `request` asks for, is to be sent; None when it is not."""
        search = self._find(request)
        if search is None or search.idle(running):
            return None
        novelty = search.novelty(sketch)
        if not search.is_new(novelty) or not pay():
            return None
        selection = search.selection(utility=utility, novelty=novelty)
        search.record.found += 1
        search.record.recalled += 1
        search.remember(sketch)
        return selection

    def searched(self, request: Request, *, searched: int, unsearchable: int) -> None:
        """The recent samples were compared to what `request` asks for, so many of them."""
        if (search := self._find(request)) is not None:
            search.record.searched, search.record.unsearchable = searched, unsearchable

    def _find(self, request: Request) -> Search | None:
        """However it was changed since, as long as it looks for the same."""
        asked = request.id, request.sketch
        return next((s for s in self._searches if (s.request.id, s.request.sketch) == asked), None)

    def states(self, running: Running) -> tuple[RequestState, ...]:
        """What the heartbeat says."""
        found = []
        for search in self._searches:
            why = search.idle(running)
            state = RequestState(
                id=search.request.id,
                version=search.request.version,
                looking=not why,
                why=why,
                found=search.record.found,
                recalled=search.record.recalled,
                taken=search.record.taken,
                searched=search.record.searched,
                unsearchable=search.record.unsearchable,
            )
            found.append(state)
        return tuple(found)

    def save(self) -> bytes:
        """The state, for a new one to go on from."""
        return msgspec.msgpack.encode([search.save() for search in self._searches])


def strategy_of(request: int) -> str:
    """What stands in a selection for the request that it answers.

    >>> strategy_of(7)
    'request-7'
    """
    return f"request-{request}"


def pick(candidates: Floats, request: Request) -> list[int]:
    """Which of the sketches (N, SKETCH) are the best answers: rows, the most similar first, no near-duplicates."""
    search = Search(Record(request=request))
    cosine = candidates @ search.sketch
    picked: list[int] = []
    nearest = np.maximum(cosine, -1.0)  # to what was asked for, and to what is picked
    for row in np.argsort(-cosine, kind="stable").tolist():
        if len(picked) >= search.left or not cosine[row] >= request.similar:
            break
        if search.is_new(1.0 - float(nearest[row])):
            picked.append(row)
            nearest = np.maximum(nearest, candidates @ candidates[row])
    return picked
