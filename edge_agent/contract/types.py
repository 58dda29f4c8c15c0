"""What do the parts of the agent, and both ends of the wire, mean by sample, prediction and selection?

Everything here is a value. Ids are derived, never random, so that a replay repeats them:

    cam-1.main.7.1204  =  device . stream . boot . sequence
"""

from __future__ import annotations

import functools
import re
from typing import Literal, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from edge_agent.contract.errors import MessageError
from edge_agent.contract.task import Said

NAME = r"[A-Za-z0-9][A-Za-z0-9_-]{0,62}"
"""Fleets, devices and streams: also safe as a topic level, a file name and a certificate's common name."""

NUMBER = r"0|[1-9][0-9]{0,17}"
"""Boots and sequences: one spelling of each, and it fits 64 bits."""

Reason = Literal["informative", "explore", "random", "drift", "disagreement", "requested"]
"""Why a sample was selected: the rule, the rule's floor, the random arm, an alarm's grant, a trial, a person."""


def is_name(text: str) -> bool:
    """Whether `text` may name a fleet, a device or a stream.

    >>> is_name("cam-1"), is_name("cam/1"), is_name("")
    (True, False, False)
    """
    return re.fullmatch(NAME, text) is not None


@functools.cache  # a start reads no id, and compiling this takes a millisecond
def _id_pattern() -> re.Pattern[str]:
    return re.compile(rf"({NAME})\.({NAME})\.({NUMBER})\.({NUMBER})")


class SampleId(NamedTuple):
    """Where a sample came from. Orders by (device, stream, boot, seq), never by a clock."""

    device: str
    stream: str
    boot: int
    seq: int

    def __str__(self) -> str:
        return f"{self.device}.{self.stream}.{self.boot}.{self.seq}"

    @classmethod
    def parse(cls, text: str) -> SampleId:
        """Read an id back.

        >>> SampleId.parse("cam-1.main.7.1204").seq
        1204
        """
        if found := _id_pattern().fullmatch(text):
            device, stream, boot, seq = found.groups()
            return cls(device, stream, int(boot), int(seq))
        raise MessageError(f"sample id: got {text[:80]!r}, expected device.stream.boot.sequence")


class Reading(NamedTuple):
    """What a source yields: one sample as the sensor gives it.

    data: array of the model's input shape and dtype, without the batch axis. The source may not write to it again.
    seq: position in the stream, growing; a source that can resume counts on from where it is told to start.
    ref: the source's own name for it (a file, a row), at most 200 characters; empty when it has none.
    mark: where the source could go on after this reading, in its own words; empty when `seq` says enough.
    """

    data: NDArray[np.generic]
    seq: int
    ref: str = ""
    mark: str = ""


class Prediction(NamedTuple):
    """What the model said of one sample.

    label: index of the top class, of the surest box, or of "nothing" (Manifest.outcomes). confidence: its probability
    after temperature, 0..1; of other tasks the score that the model expects of its answer. said: boxes, classes or
    numbers; None of a classifier.
    """

    label: int
    confidence: float
    said: Said | None = None


class Selection(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """Why a sample is worth a label, with everything an unbiased estimate needs later.

    probability: of being selected, given the past, in (0, 1].
    floor: the part of it by which every sample alike is taken. Those of reason "random" and "explore" came by it alone:
    with weights 1/floor they stand for the whole stream.
    utility: of the acquisition function, larger means ask. novelty: 0 (seen lately) .. 1+.
    threshold: the quantile the value was held against. tokens: labels left in the bucket before this one.
    strategy, acquisition: what chose it; "" where an older device does not say.

    "requested" and "disagreement" come on top of that design, without a floor: estimates by 1/probability leave them
    out. shadow_probability: that of being taken because a shadow model disagreed, whoever else took it too; None: it
    was not. These samples, whatever their reason, are a design of their own, with weights 1/shadow_probability.
    """

    reason: Reason
    probability: float
    floor: float = 0.0
    utility: float
    novelty: float
    threshold: float
    tokens: float
    strategy: str
    acquisition: str = ""
    shadow_probability: float | None = None


class Sample(NamedTuple):
    """A selected sample on its way to the server."""

    id: SampleId
    ref: str
    captured_at_ms: int  # wall clock, ms since 1970; a stamp for people, never an order
    data: NDArray[np.generic]
    prediction: Prediction
    selection: Selection
    model_version: int
    transforms: tuple[str, ...] = ()  # for privacy, that `data` went through since the model saw it
