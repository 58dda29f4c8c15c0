"""What can be set of the outbox, of what is remembered, and of the link?"""

# Annotations are not postponed here: msgspec would compile each of them at every start (docs/adr/0041).

import math
from typing import Annotated, Literal

from msgspec import Meta

from edge_agent.contract.errors import ConfigError
from edge_agent.contract.settings import Section

LEAST_BYTES_PER_S = 1_000  # of the link: below it, the smallest message is more than what 10 s may carry
LEAST_BYTES_PER_DAY = 100_000  # heartbeats alone take half of it


class Outbox(Section, frozen=True, kw_only=True):
    """What waits on disk for its receipt."""

    max_bytes: Annotated[int, Meta(ge=1_000_000, description="bodies kept; past it the least useful is evicted")] = (
        256_000_000
    )
    max_rows: Annotated[int, Meta(ge=1, description="samples kept; past it the least useful is evicted")] = 100_000
    min_free_disk_bytes: Annotated[int, Meta(ge=0, description="free disk below which the outbox does not grow")] = (
        100_000_000
    )
    commit_rows: Annotated[int, Meta(ge=1, le=1000, description="samples to one commit at most")] = 10
    commit_ms: Annotated[float, Meta(gt=0.0, description="longest wait of a selected sample for its commit")] = 200.0


class Recent(Section, frozen=True, kw_only=True):
    """What is remembered of samples that were not selected, to be searched when somebody asks for more like one."""

    max_bytes: Annotated[
        int, Meta(ge=0, description="on disk; a sample may have an eighth of it; 0: nothing is remembered")
    ] = 32_000_000
    bytes_per_day: Annotated[
        float,
        Meta(
            gt=0.0,
            description="most that is written in 24 hours, evenly, so that a flash card lasts; thins the samples",
        ),
    ] = 100_000_000.0


class Privacy(Section, frozen=True, kw_only=True):
    """What is taken out of samples before they are stored to be sent, or kept among the recent ones."""

    transforms: Annotated[
        tuple[str, ...],
        Meta(
            description='in this order, after the model has seen the sample: `"crop TOP LEFT HEIGHT WIDTH"` (the rest becomes 0), `"blur TOP LEFT HEIGHT WIDTH"`, `"downscale N"`, `"drop_channel N"`, or `"package.module:name"`; the server trains on what is sent: see [data.md](../data.md)'
        ),
    ] = ()


class Uplink(Section, frozen=True, kw_only=True):
    """How the server is reached, and what the link may carry: see [delivery.md](../delivery.md)."""

    broker: Annotated[
        str, Meta(description="`mqtt://host:port` or `mqtts://host:port`; empty: work without a server")
    ] = ""
    username: Annotated[str, Meta(description="for the broker; empty: none")] = ""
    password_file: Annotated[
        str,
        Meta(
            description="file with the password; like the other files of this table, `credential:NAME` is one that systemd hands over"
        ),
    ] = ""
    ca_file: Annotated[str, Meta(description="certificates that the broker's is checked against, for mqtts")] = ""
    cert_file: Annotated[str, Meta(description="the device's certificate, for mqtts")] = ""
    key_file: Annotated[str, Meta(description="its key; empty: in the same file")] = ""
    renewal: Annotated[
        str, Meta(description="`https://host:port` that renews the certificate after half of its time; empty: nobody")
    ] = ""
    window: Annotated[
        int,
        Meta(
            ge=1,
            le=1000,
            description="most samples sent and not yet receipted; how many at a time follows the receipts",
        ),
    ] = 512
    retry_first_s: Annotated[
        float, Meta(gt=0.0, description="wait before a sample is sent again; doubles, with jitter")
    ] = 2.0
    retry_max_s: Annotated[float, Meta(gt=0.0, description="longest such wait")] = 300.0
    heartbeat_s: Annotated[
        float, Meta(gt=0.0, description="seconds between heartbeats; 300 at least in quiet hours and on a metered link")
    ] = 30.0
    keepalive_s: Annotated[int, Meta(ge=5, le=3600, description="MQTT keep-alive")] = 30
    images: Annotated[
        Literal["raw", "png", "jpeg", "webp"],
        Meta(
            description="how uint8 samples of shape (H, W), (H, W, 1) or (H, W, 3) are sent: `raw`, as arrays are, without loss; `png`, without loss; `jpeg`, `webp`: with loss, and what is labelled and trained on is then what was sent; all but `raw` need Pillow"
        ),
    ] = "raw"
    image_quality: Annotated[
        int, Meta(ge=1, le=100, description="of `jpeg` and `webp`: higher is larger and nearer to what the sensor gave")
    ] = 90
    bytes_per_s: Annotated[
        float,
        Meta(ge=0.0, description="sent, over any 10 s at most 1.05 times as much; at least 1000, or 0: no limit"),
    ] = 0.0
    bytes_per_day: Annotated[
        float,
        Meta(
            ge=0.0,
            description="of the link, both ways, repeats and heartbeats included, over any 24 hours (what may be selected is `[budget] bytes_per_day`); at least 100000, or 0: no limit",
        ),
    ] = 0.0
    quiet_hours: Annotated[
        tuple[str, ...],
        Meta(
            description='local times such as `"22:00-06:00"` in which samples wait; events and a heartbeat every 300 s go'
        ),
    ] = ()
    metered_file: Annotated[
        str, Meta(description="while this file exists the link costs, and samples wait as in quiet hours; empty: never")
    ] = ""


def check_limits(uplink: Uplink, where: str) -> None:
    """ConfigError, which says `where`, when what the link may carry is less than what it takes to be heard."""
    limits = (
        ("bytes_per_s", uplink.bytes_per_s, LEAST_BYTES_PER_S),
        ("bytes_per_day", uplink.bytes_per_day, LEAST_BYTES_PER_DAY),
    )
    for key, limit, least in limits:
        if not (limit == 0 or least <= limit < math.inf):
            raise ConfigError(f"{where}: [uplink] {key} = {limit:g}: expected 0 (no limit), or {least} at least")
