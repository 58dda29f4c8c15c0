"""What can be set of what is chosen, how much may be sent, and when the stream counts as changed?"""

# Annotations are not postponed here: msgspec would compile each of them at every start (docs/adr/0041).

from typing import Annotated, Literal

from msgspec import Meta

from edge_agent.contract.limits import ACQUISITION_MAX_CHARS
from edge_agent.contract.settings import Section, Share


class Choose(Section, frozen=True, kw_only=True):
    """Which samples are worth a label."""

    acquisition: Annotated[
        str,
        Meta(
            max_length=ACQUISITION_MAX_CHARS,
            description="`margin`, `least_confidence`, `entropy`, `energy`, or `package.module:name`; of a model with several heads also their disagreement: `vote_entropy`, `consensus_entropy`, `kl_max`, `bald`, or what a label tells about the stream of late: `epig`; what they mean of boxes, several classes and numbers: docs/tasks.md",
        ),
    ] = "margin"
    strategy: Annotated[
        Literal["novelty_quantile", "vessal"],
        Meta(
            description="utility, less for near-duplicates, against a running quantile; or gradients unlike those sent"
        ),
    ] = "novelty_quantile"
    floor_share: Annotated[
        Share,
        Meta(
            description="part of the label share that goes to every sample alike, the random arm included; 0 makes estimates impossible"
        ),
    ] = 0.1
    random_share: Annotated[
        Share,
        Meta(
            description="part of the label share, within the floor, that stands for labelling at random, so that `ours against random` can be shown; the floor is no less than that"
        ),
    ] = 0.05
    seed: Annotated[
        int,
        Meta(
            ge=0,
            description="of the generator that decides, with the names of device and stream; with the state saved, a run repeats",
        ),
    ] = 0


class Budget(Section, frozen=True, kw_only=True):
    """How much may be sent."""

    label_share: Annotated[Share, Meta(description="share of the stream that may be selected")] = 0.05
    depth_labels: Annotated[
        float,
        Meta(
            ge=1.0,
            description="labels the bucket holds: any window of n samples selects at most share*n + this many (+ drift_reserve_labels)",
        ),
    ] = 20.0
    over_selection: Annotated[
        float,
        Meta(
            ge=1.0,
            le=10.0,
            description="times label_share and depth_labels that are sent, for the server to choose from; its own budget decides what is labelled",
        ),
    ] = 1.0
    labels_per_day: Annotated[
        float,
        Meta(
            ge=0.0,
            description="hard limit of labels a day, of which a tenth may go at once: below 14 little is left to the random arm; 0: none",
        ),
    ] = 0.0
    bytes_per_day: Annotated[
        float,
        Meta(
            ge=0.0,
            description="hard limit of bytes a day, of samples as they are and a header each: at most so much is sent, and less where they can be compressed; 0: none",
        ),
    ] = 0.0
    energy_per_day_j: Annotated[
        float,
        Meta(
            ge=0.0,
            description="joules a day for inferring and sending together: inferring goes on regardless, nothing is sent beyond; 0: no limit",
        ),
    ] = 0.0
    energy_per_byte_j: Annotated[
        float, Meta(ge=0.0, description="joules to send a byte: watts while sending, less those at rest, over bytes/s")
    ] = 0.0
    energy_per_sample_j: Annotated[
        float,
        Meta(
            ge=0.0, description="joules to infer on a sample: watts while running, less those at rest, over samples/s"
        ),
    ] = 0.0
    drift_reserve_labels: Annotated[
        float,
        Meta(ge=0.0, description="labels kept back to be spent after an alarm of drift, on top of the bucket; 0: none"),
    ] = 20.0


class Drift(Section, frozen=True, kw_only=True):
    """When the stream counts as changed."""

    enabled: Annotated[bool, Meta(description="watch the stream for change")] = True
    false_alarms_per_month: Annotated[
        float, Meta(gt=0.0, description="alarms a month (30 days) on average while nothing changes; fewer come later")
    ] = 1.0
