"""What does the champion make of the samples that wait?

Choosing needs an embedding and probabilities of every candidate, by one model: what devices said comes from different
versions, and holds no embedding. So the server runs the champion's own file over what waits, and over what was labelled
last, in the thread that labels: a few rows at a time, each few committed, so that a killed server goes on where it was.
A new champion does it anew for what still waits.

What the champion cannot be run on (another sensor, a damaged body, a file that onnxruntime refuses) is remembered as
such and complained of once; there, what the device said decides.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from edge_agent.contract.artifact import Manifest, decode_manifest
from edge_agent.contract.errors import IncompatibleError, WinnowError
from server.errors import StoreError
from server.store import embeddings, samples, versions
from server.store.embeddings import Embedding
from server.store.samples import sample_arrays
from server.store.store import Store
from server.store.versions import Version

if TYPE_CHECKING:
    import onnxruntime as ort

log = logging.getLogger(__name__)

T = TypeVar("T")
_Halves = tuple[NDArray[np.float16], NDArray[np.float16]]  # vector, logits

COMMIT_ROWS = 64  # fewer makes commits dear, more loses more to a kill
BATCH_BYTES = 4_000_000  # of raw samples run at once: more takes memory and gains nothing on one thread
HALF_MAX = 65504.0  # largest float16


class Encoder:
    """Keeps the table `embedding` up with the champion."""

    def __init__(self, store: Store, *, waiting: int, labelled: int) -> None:
        """Over the newest `waiting` samples that wait, and the last `labelled` that were answered."""
        self._store = store
        self._waiting = waiting
        self._labelled = labelled
        self._model: _Model | None = None
        self._failed = 0  # version that cannot be opened
        self._said: set[object] = set()

    def catch_up(self, *, stopped: Callable[[], bool]) -> Manifest | None:
        """Run the champion over all it was not run on, until done or `stopped`; None when there is none to run.

        The manifest has the number that the rows in the store are of.
        """
        with self._store.database.read() as connection:
            champion = versions.champion(connection)
        model = self._open(champion) if champion else None
        if model is None:
            return None
        with self._store.database.read() as connection:
            ids = embeddings.missing(connection, version=model.number, waiting=self._waiting, labelled=self._labelled)
        for some in _batches(ids, COMMIT_ROWS):
            if stopped():
                break
            with self._store.database.read() as connection:
                rows = samples.rows(connection, some)
            made = [self._encode(model, batch) for batch in _batches(rows, model.at_once)]
            with self._store.database.write() as connection:
                embeddings.put(connection, [one for batch in made for one in batch])
        return model.manifest

    def _open(self, champion: Version) -> _Model | None:
        number = champion.number
        if number == self._failed or (self._model is not None and number == self._model.number):
            return None if number == self._failed else self._model
        from models.evaluate import open_session  # onnxruntime, needed only once there is something to choose

        self._model, self._failed = None, 0
        try:
            manifest = decode_manifest(self._store.blobs.get(champion.manifest_sha256), where=f"version {number}")
            data = self._store.blobs.get(manifest.variant("cpu-int8").sha256)
            self._model = _Model(number, manifest, open_session(data))
        except WinnowError as error:
            self._failed = number
            self._complain(number, f"version {number} cannot be run here: {_first_line(error)}")
            return None
        with self._store.database.write() as connection:
            embeddings.delete_others(connection, version=number)
        return self._model

    def _encode(self, model: _Model, rows: Sequence[Any]) -> list[Embedding]:
        """All of `rows`, those without an outcome too."""
        fitting = list(self._arrays([row for row in rows if self._fits(model, row)]))
        outcome = self._outcomes(model, fitting) if fitting else {}
        return [Embedding(row.id, model.number, *outcome.get(row.id, (None, None))) for row in rows]

    def _outcomes(self, model: _Model, fitting: Sequence[tuple[Any, NDArray[np.generic]]]) -> dict[str, _Halves]:
        """By id; what onnxruntime refuses costs only itself its place, not the others that are run with it."""
        try:
            vectors, logits = model.run(np.stack([x for _, x in fitting]))
        except IncompatibleError as error:
            if len(fitting) > 1:
                alone = [self._outcomes(model, [one]) for one in fitting]
                return {name: found for one in alone for name, found in one.items()}
            said = f"version {model.number} does not run on {fitting[0][0].id}: {_first_line(error)}"
            self._complain((model.number, type(error)), said)
            return {}
        usable: NDArray[np.bool_] = np.asarray(np.isfinite(np.hstack((vectors, logits))).all(axis=1))
        halves = [np.clip(part, -HALF_MAX, HALF_MAX).astype(np.float16) for part in (vectors, logits)]
        return {row.id: (halves[0][i], halves[1][i]) for i, (row, _) in enumerate(fitting) if usable[i]}

    def _fits(self, model: _Model, row: Any) -> bool:
        spec = model.manifest.input
        fits = (tuple(row.shape), row.dtype) == (tuple(spec.shape), spec.dtype)
        if not fits:
            got = f"{tuple(row.shape)} {row.dtype}"
            said = f"{row.id}: is {got}, version {model.number} takes {tuple(spec.shape)} {spec.dtype}"
            self._complain((model.number, got), said)
        return fits

    def _arrays(self, rows: Sequence[Any]) -> Iterator[tuple[Any, NDArray[np.generic]]]:
        """Of those that can be read."""
        for row, array in sample_arrays(self._store, rows):
            if isinstance(array, StoreError):
                self._complain(StoreError, f"{row.id}: {array}")
            else:
                yield row, array

    def _complain(self, kind: object, what: str) -> None:
        if kind not in self._said:
            self._said.add(kind)
            log.warning("choosing: %s; there, and where it is the same, what the device said decides", what)


class _Model(NamedTuple):
    """The champion, ready to run."""

    number: int
    manifest: Manifest
    session: ort.InferenceSession

    @property
    def at_once(self) -> int:
        """Samples to a run."""
        fixed = self.session.get_inputs()[0].shape[0]
        spec = self.manifest.input
        size = max(1, int(np.prod(spec.shape)) * np.dtype(spec.dtype).itemsize)
        return fixed if isinstance(fixed, int) else min(max(BATCH_BYTES // size, 1), COMMIT_ROWS)

    def run(self, x: NDArray[Any]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Embedding (N, D), or the logits again where the graph has none, and logits (N, C) over the temperature.

        Of another task than classification the logits are (N, 0): they are of no classes that exclude each other. Of a
        committee they are what its heads say as one. x: (N, *shape). IncompatibleError when it cannot be run, or gives
        something else.
        """
        from models.evaluate import as_one, run_session

        manifest = self.manifest
        if manifest.task != "classification" and not manifest.embedding:
            raise IncompatibleError("the graph has no embedding output")
        heads = () if manifest.members == 1 else (manifest.members,)
        logits, vectors = run_session(
            self.session, x, logits=manifest.logits, embedding=manifest.embedding or manifest.logits
        )
        if manifest.task != "classification":
            return np.asarray(vectors, np.float32).reshape(len(x), -1), np.zeros((len(x), 0), np.float32)
        if logits.shape != (len(x), *heads, len(manifest.classes)):
            raise IncompatibleError(f"logits are {logits.shape}, expected {(len(x), *heads, len(manifest.classes))}")
        return np.asarray(vectors, np.float32).reshape(len(x), -1), as_one(logits, manifest.temperature)


def _batches(rows: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    for start in range(0, len(rows), size):
        yield rows[start : start + size]


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0][:300] if str(error).strip() else type(error).__name__
