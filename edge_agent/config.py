"""What can be set on a device?

One file, `agent.toml`. Only `[device] name` has no default. `winnow-agent check agent.toml` prints what is in force.
"""

# Annotations are not postponed here: msgspec would compile each of them at every start (docs/adr/0041).

import math
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

# Whoever writes a configuration finds all of it here.
from edge_agent.choose.options import Budget as Budget
from edge_agent.choose.options import Choose as Choose
from edge_agent.choose.options import Drift as Drift
from edge_agent.contract import settings
from edge_agent.contract.errors import ConfigError
from edge_agent.contract.settings import Section
from edge_agent.contract.types import is_name
from edge_agent.providers import Name, Precision
from edge_agent.send.options import Outbox as Outbox
from edge_agent.send.options import Privacy as Privacy
from edge_agent.send.options import Recent as Recent
from edge_agent.send.options import Uplink as Uplink
from edge_agent.send.options import check_limits
from edge_agent.source.options import Source as Source
from edge_agent.source.options import settle
from edge_agent.update.options import Update as Update

PORT_MAX = 65_535
CREDENTIAL = "credential:"  # before the name of one that systemd hands over (LoadCredential=), in place of a file's


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
    for key, amount in msgspec.structs.asdict(budget).items():
        if math.isinf(amount):
            raise ConfigError(f"{path}: [budget] {key}: got {amount}, expected a finite number")
    check_limits(config.uplink, str(path))
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
