"""What can be set on a device?

One file, `agent.toml`. Only `[device] name` has no default. `winnow-agent check agent.toml` prints what is in force.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from edge_agent.contract import settings
from edge_agent.contract.errors import ConfigError
from edge_agent.contract.types import is_name
from edge_agent.providers import Name, Precision
from edge_agent.source.options import Source as Source  # whoever writes a configuration finds all of it here
from edge_agent.source.options import settle

LEAST_BYTES_PER_S = 1_000  # of the link: below it, the smallest message is more than what 10 s may carry
LEAST_BYTES_PER_DAY = 100_000  # heartbeats alone take half of it
PORT_MAX = 65_535
CREDENTIAL = "credential:"  # before the name of one that systemd hands over (LoadCredential=), in place of a file's

Share = Annotated[float, Meta(ge=0.0, le=1.0)]


class Section(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A table of the file."""


class Device(Section, frozen=True, kw_only=True):
    """Who this is."""

    name: Annotated[str, Meta(description="name of the device, unique in the fleet: letters, digits, - and _")]
    fleet: Annotated[str, Meta(description="name of the fleet")] = "default"
    data_dir: Annotated[str, Meta(description="folder for the outbox, the models and the state")] = "winnow-data"


class Model(Section, frozen=True, kw_only=True):
    """What runs."""

    artifact: Annotated[
        str, Meta(description="artifact folder to start from; once the server sent a newer version, that one runs")
    ] = ""
    variant: Annotated[str, Meta(description="which file of the manifest: `cpu-int8` or `cpu-fp32`")] = "cpu-int8"
    providers: Annotated[
        tuple[Name, ...],
        Meta(
            description="what it runs on, best first, of `tensorrt`, `cuda`, `openvino`, `xnnpack`, `acl`; one that this onnxruntime lacks, that does not start or that fails the golden test is passed over, which is said; `cpu` is always last: see [boards.md](../boards.md)"
        ),
    ] = ("cpu",)
    precision: Annotated[
        Precision,
        Meta(description="that an engine of `tensorrt` may compute in; `int8` for files that are quantised for it"),
    ] = "fp32"
    threads: Annotated[
        int, Meta(ge=1, le=64, description="onnxruntime threads; more than 1 seldom pays below 5 ms a sample")
    ] = 1
    block: Annotated[
        int,
        Meta(
            ge=0,
            le=1024,
            description="samples scored in one pass: more is faster, and later; 0: as many as fit 16 MB, 8 to 256",
        ),
    ] = 0
    max_rate_per_s: Annotated[
        float,
        Meta(
            ge=0.0,
            description="most samples a second, evenly: the source is asked for the next one when its time has come, and what was read is never thrown away; 0: as many as come",
        ),
    ] = 0.0
    slow_when_hot: Annotated[
        bool,
        Meta(
            description="work for a half, a quarter or an eighth of the time while the machine is near a thermal limit or throttled: see [boards.md](../boards.md)"
        ),
    ] = True
    hot_c: Annotated[
        float,
        Meta(ge=0.0, description="that limit, degrees Celsius, for every thermal zone; 0: by the kernel's trip points"),
    ] = 0.0
    flush_ms: Annotated[
        float, Meta(gt=0.0, description="longest wait of a sample for its block to fill, milliseconds")
    ] = 200.0


class Choose(Section, frozen=True, kw_only=True):
    """Which samples are worth a label."""

    acquisition: Annotated[
        str,
        Meta(
            description="`margin`, `least_confidence`, `entropy`, `energy`, or `package.module:name`; of a model with several heads also their disagreement: `vote_entropy`, `consensus_entropy`, `kl_max`, `bald`, or what a label tells about the stream of late: `epig`; what they mean of boxes, several classes and numbers: docs/tasks.md"
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
            description="part of the floor that stands for labelling at random, so that `ours against random` can be shown"
        ),
    ] = 0.05
    seed: Annotated[
        int, Meta(ge=0, description="of the generator that decides; with the state saved, a run repeats")
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
    labels_per_day: Annotated[float, Meta(ge=0.0, description="hard limit of labels a day; 0: none")] = 0.0
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


class Log(Section, frozen=True, kw_only=True):
    """What is written down."""

    level: Annotated[Literal["debug", "info", "warning", "error"], Meta(description="of the log on stderr")] = "info"
    predictions: Annotated[
        bool, Meta(description="append (seq, version, label, confidence) of every sample to predictions.bin")
    ] = False


class Metrics(Section, frozen=True, kw_only=True):
    """Figures for a monitoring program on the device's own network: see [monitoring.md](../monitoring.md)."""

    listen: Annotated[
        str,
        Meta(
            description='address and port at which `/metrics` is served in the text format of Prometheus, as `"127.0.0.1:9464"`; whoever reaches it may read it; empty: nowhere'
        ),
    ] = ""


class AgentConfig(Section, frozen=True, kw_only=True):
    """The whole of agent.toml."""

    device: Device
    source: Source = Source()
    model: Model = Model()
    choose: Choose = Choose()
    budget: Budget = Budget()
    drift: Drift = Drift()
    outbox: Outbox = Outbox()
    recent: Recent = Recent()
    privacy: Privacy = Privacy()
    uplink: Uplink = Uplink()
    update: Update = Update()
    metrics: Metrics = Metrics()
    log: Log = Log()


def load_config(path: Path, *, credentials: str | None = None) -> AgentConfig:
    """Read and check agent.toml; relative paths are meant from its folder. ConfigError says what to mend.

    `credentials`: folder of what the service manager hands over, "" where it does not; None: nothing will be read.
    """
    config = settings.load(path, AgentConfig)
    for key, value in (("name", config.device.name), ("fleet", config.device.fleet)):
        if not is_name(value):
            raise ConfigError(f"{path}: [device] {key} = {value!r}: expected letters, digits, - and _, at most 63")
    uplink = config.uplink
    if uplink.renewal and (uplink.key_file or not (uplink.ca_file and uplink.cert_file)):
        raise ConfigError(
            f"{path}: [uplink] renewal: expected ca_file, and cert_file with key and certificate in one file, "
            "as `winnow-agent enrol` writes them, and no key_file"
        )
    budget = config.budget
    if budget.energy_per_day_j and not (budget.energy_per_byte_j or budget.energy_per_sample_j):
        raise ConfigError(
            f"{path}: [budget] energy_per_day_j: expected energy_per_byte_j or energy_per_sample_j as well"
        )
    _check_limits(path, config.uplink)
    if config.metrics.listen:
        parse_listen(config.metrics.listen)
    if not is_name(config.source.stream):
        raise ConfigError(f"{path}: [source] stream = {config.source.stream!r}: expected letters, digits, - and _")

    def there(value: str) -> str:
        return _place(value, path.resolve(), credentials)

    try:
        source = settle(config.source, there)
    except ConfigError as error:
        raise ConfigError(str(error) if str(error).startswith(str(path)) else f"{path}: {error}") from error
    return _anchor(msgspec.structs.replace(config, source=source), there)


def parse_listen(text: str) -> tuple[str, int]:
    """Address and port of `[metrics] listen`; ConfigError when they are none.

    >>> parse_listen("127.0.0.1:9464"), parse_listen("[::1]:9464")
    (('127.0.0.1', 9464), ('::1', 9464))
    """
    host, _, port = text.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not host or not port.isdecimal() or int(port) > PORT_MAX:
        raise ConfigError(f"[metrics] listen = {text!r}: expected an address and a port: 127.0.0.1:9464")
    return host, int(port)


def _check_limits(path: Path, uplink: Uplink) -> None:
    limits = (
        ("bytes_per_s", uplink.bytes_per_s, LEAST_BYTES_PER_S),
        ("bytes_per_day", uplink.bytes_per_day, LEAST_BYTES_PER_DAY),
    )
    for key, limit, least in limits:
        if not (limit == 0 or least <= limit < math.inf):
            raise ConfigError(f"{path}: [uplink] {key} = {limit:g}: expected 0 (no limit), or {least} at least")


def _place(value: str, path: Path, credentials: str | None) -> str:
    """Where a file is that `path` names: from its folder, or by its name among the credentials."""
    name = value.removeprefix(CREDENTIAL)
    if not value or name == value:
        return str(path.parent / value) if value else ""
    if "/" in name or name in ("", ".", ".."):
        raise ConfigError(f"{path}: {value!r}: expected {CREDENTIAL}NAME, as LoadCredential=NAME:FILE of the unit says")
    if credentials == "":
        raise ConfigError(
            f"{path}: {value!r}: the service manager hands over no credentials: start it by its unit, with "
            f"LoadCredential={name}:FILE there"
        )
    return str(Path(credentials, name)) if credentials else value


def _anchor(config: AgentConfig, there: Callable[[str], str]) -> AgentConfig:
    replace = msgspec.structs.replace
    uplink, update = config.uplink, config.update
    return replace(
        config,
        device=replace(config.device, data_dir=there(config.device.data_dir)),
        model=replace(config.model, artifact=there(config.model.artifact)),
        uplink=replace(
            uplink,
            password_file=there(uplink.password_file),
            ca_file=there(uplink.ca_file),
            cert_file=there(uplink.cert_file),
            key_file=there(uplink.key_file),
            metered_file=there(uplink.metered_file),
        ),
        update=replace(update, trust=there(update.trust)),
    )
