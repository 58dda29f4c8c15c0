"""What can be set of how a new model is taken?"""

# Annotations are not postponed here: msgspec would compile each of them at every start (docs/adr/0041).

from typing import Annotated

from msgspec import Meta

from edge_agent.contract.settings import Section, Share


class Update(Section, frozen=True, kw_only=True):
    """How a new model is taken."""

    enabled: Annotated[bool, Meta(description="take models from the server")] = True
    shadow_samples: Annotated[
        int,
        Meta(
            ge=0,
            description="samples that a new model sees beside the running one before it runs live; 0: it runs at once",
        ),
    ] = 200
    shadow_share: Annotated[
        float,
        Meta(gt=0.0, le=1.0, description="share of the stream that it sees; each costs a run of it, in the loop"),
    ] = 0.2
    shadow_s: Annotated[
        float, Meta(gt=0.0, description="longest time of that, seconds; then it runs live whatever it has seen")
    ] = 120.0
    shadow_label_share: Annotated[
        Share,
        Meta(
            description="share of the stream that may be sent meanwhile because the two models disagree, at most label_share; on top of it"
        ),
    ] = 0.01
    probation_samples: Annotated[
        int, Meta(ge=1, description="samples a new model must see live before it is committed")
    ] = 200
    probation_s: Annotated[float, Meta(gt=0.0, description="or so many seconds, whichever is later")] = 5.0
    max_invalid_share: Annotated[
        Share, Meta(description="share of samples without finite logits above which a new model is reverted")
    ] = 0.01
    max_latency_ratio: Annotated[
        float, Meta(gt=0.0, description="p95 latency over the old model's above which a new model is reverted")
    ] = 3.0
    max_confidence_shift: Annotated[
        float,
        Meta(
            ge=0.0,
            description="a new model is reverted whose mean confidence is farther from its manifest's than the old model's from its own, by more than this, in log-odds; 0: not looked at",
        ),
    ] = 1.5
    max_memory_ratio: Annotated[
        float,
        Meta(
            ge=0.0,
            description="memory that a new model adds over what the old one added (and 64 MB), above which it is refused; 0: not looked at",
        ),
    ] = 3.0
    min_agreement: Annotated[
        Share,
        Meta(
            description="least share of the samples on which a new model agrees with the old one: the same label, mostly the same boxes, each class decided alike, or numbers less than half a scale apart; 0: any"
        ),
    ] = 0.0
    max_starts: Annotated[
        int, Meta(ge=1, description="starts of the agent within a trial, or a shadow, before it is reverted")
    ] = 3
    check_timeout_s: Annotated[float, Meta(gt=0.0, description="longest golden test, in its own process")] = 60.0
    check_memory_bytes: Annotated[int, Meta(ge=0, description="address space of that process; 0: no limit")] = (
        4_000_000_000
    )
    keep_versions: Annotated[int, Meta(ge=2, description="artifact folders kept on disk")] = 3
    trust: Annotated[
        str,
        Meta(
            description="file with the fleet's root of trust (`root.json` of the server): only models that it vouches for are run; empty: unsigned ones are run too"
        ),
    ] = ""
