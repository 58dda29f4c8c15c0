"""What leaves the loop of a scored block? Samples for the outbox, and records for the log of predictions."""

from __future__ import annotations

import time
from typing import NamedTuple

import msgspec
import numpy as np

from edge_agent.batch import Batch
from edge_agent.choose.acquisition import Scored
from edge_agent.choose.selector import Chosen
from edge_agent.contract.outputs import said_max_bytes
from edge_agent.contract.types import Reading, Sample, SampleId
from edge_agent.model import Model

HEADER_BYTES = 500  # of a sample's header and topic: what sending costs beside the data
PREDICTION = np.dtype([("seq", "<u8"), ("version", "<u4"), ("label", "<u2"), ("confidence", "<f4")])
INVALID_LABEL = 65535


class Identity(NamedTuple):
    """What the ids of this run's samples begin with."""

    device: str
    stream: str
    boot: int

    def of(self, reading: Reading) -> SampleId:
        """The id of a sample."""
        return SampleId(*self, reading.seq)


def sample_bytes(model: Model) -> int:
    """What sending a sample takes at most."""
    return int(np.prod(model.shape)) * model.dtype.itemsize + HEADER_BYTES + said_max_bytes(model.manifest)


def samples_of(
    batch: Batch, scored: Scored, chosen: list[Chosen], *, identity: Identity, acquisition: str, now_ms: int
) -> list[Sample]:
    """What was chosen of a block. The data are copied: whoever gave them may use the memory again."""
    now_s, made = time.perf_counter(), []
    for row, selection in chosen:
        reading = batch.readings[row]
        made.append(
            Sample(
                id=identity.of(reading),
                ref=reading.ref,
                captured_at_ms=now_ms - int(1000 * (now_s - batch.began_s[row])),
                data=reading.data.copy(),
                prediction=scored.prediction(row),
                selection=msgspec.structs.replace(selection, acquisition=acquisition),
                model_version=batch.model.version,
            )
        )
    return made


def records_of(batch: Batch, scored: Scored) -> bytes:
    """What the model said of each sample, as PREDICTION."""
    count = len(batch.readings)
    records = np.empty(count, PREDICTION)
    records["seq"] = [reading.seq for reading in batch.readings]
    records["version"] = batch.model.version
    records["label"] = np.where(np.isnan(scored.utility[:count]), INVALID_LABEL, scored.label[:count])
    records["confidence"] = scored.confidence[:count]
    return records.tobytes()
