"""Would the agent work with this configuration?

Tries the model and the source without running, and holds one against the other.
"""

from __future__ import annotations

import itertools
from pathlib import Path

from edge_agent.choose.acquisition import known_or_plug_in
from edge_agent.choose.purse import Purse, Tokens
from edge_agent.choose.tasks.scoring import scoring
from edge_agent.config import AgentConfig, Source
from edge_agent.contract import images
from edge_agent.contract.artifact import Manifest
from edge_agent.contract.broker import TlsFiles, in_the_clear, parse_broker, tls_context
from edge_agent.contract.errors import ArtifactError, ConfigError
from edge_agent.contract.settings import read_secret
from edge_agent.contract.types import Reading
from edge_agent.identity.papers import Papers
from edge_agent.identity.portal import Portal
from edge_agent.loader import load
from edge_agent.model import Model, misfit
from edge_agent.orders import configured
from edge_agent.outgoing import sample_bytes
from edge_agent.providers import Providers
from edge_agent.send.lull import parse_hours
from edge_agent.send.privacy import Privacy
from edge_agent.source import Fit, Start, let_go
from edge_agent.source.kinds import open_source
from edge_agent.update.trust import check_anchor

LOOKS = 30  # at the source, before it counts as empty
CAMERA_LOOKS = 200  # some take seconds to open


def check_parts(config: AgentConfig) -> list[str]:
    """What was found, in words; raises what is wrong."""
    known_or_plug_in(config.choose.acquisition)
    said = [*_uplink(config), _trust(config)]
    privacy = Privacy(config.privacy.transforms)
    if not config.model.artifact:
        if not config.uplink.broker:
            raise ConfigError("no model: set [model] artifact to an artifact folder, or [uplink] broker to get one")
        return [*said, "no [model] artifact: the agent waits for the server to send one"]
    model, without = _model(config)
    privacy.check(model.shape, str(model.dtype))
    scorer = scoring(model.manifest, config.choose.acquisition)
    if scorer.complaint:
        raise ConfigError(f"[choose] {scorer.complaint}")
    Purse(configured(config).rules, Tokens(tokens=0.0)).check(sample_bytes(model))
    manifest, source = model.manifest, config.source
    first = _first_reading(config, Fit(model.shape, str(model.dtype)))
    if first is not None and first.data.size and (text := misfit(manifest, first.data)):
        raise ConfigError(f"[source] {text}: choose a source and a model that fit each other")
    return [
        *said,
        f"model {manifest.name} version {manifest.version}: {_of(manifest)}, golden test passed, "
        f"runs on {model.provider}",
        *(f"it does without {why}" for why in without),
        f"source {_named(source)}: {'a sample fits' if first else 'nothing there yet'}",
    ]


def _first_reading(config: AgentConfig, fit: Fit) -> Reading | None:
    readings = open_source(config.source, fit=fit).readings(Start())
    looks = CAMERA_LOOKS if config.source.kind == "camera" else LOOKS
    try:
        return next((reading for reading in itertools.islice(readings, looks) if reading is not None), None)
    finally:
        let_go(readings)


def _named(source: Source) -> str:
    """The kind, and where it looks."""
    where = {
        "camera": source.camera and source.camera.device,
        "serial": source.serial and source.serial.port,
        "mqtt": source.mqtt and source.mqtt.topic,
        "push": source.push and source.push.listen,
        "mic": source.mic and source.mic.device,
        "stdin": "",
    }.get(source.kind, source.path)
    return f"{source.kind} {where or ''}".rstrip()


def _of(manifest: Manifest) -> str:
    what = f"{len(manifest.classes)} {'targets' if manifest.task == 'regression' else 'classes'}"
    return what if manifest.task == "classification" else f"{manifest.task} of {what}"


def _uplink(config: AgentConfig) -> list[str]:
    """What should be otherwise, though it works."""
    uplink, wrong = config.uplink, ""
    images.codec(uplink.images, uplink.image_quality)
    parse_hours(uplink.quiet_hours)
    if uplink.broker:
        address = parse_broker(uplink.broker)
        wrong = in_the_clear(address.host, tls=address.tls, password=read_secret(uplink.password_file))
        if address.tls:
            tls_context(TlsFiles(uplink.ca_file, uplink.cert_file, uplink.key_file))
    if uplink.renewal:
        Portal.parse(uplink.renewal)
        Papers(ca_file=Path(uplink.ca_file), cert_file=Path(uplink.cert_file)).check(config.device.name)
    return [f"[uplink] broker: {wrong}"] if wrong else []


def _trust(config: AgentConfig) -> str:
    if not config.update.trust:
        return "models: unsigned ones are run too, [update] trust is empty"
    return f"models: only what root {check_anchor(Path(config.update.trust))} of the fleet vouches for"


def _model(config: AgentConfig) -> tuple[Model, list[str]]:
    """Loaded, and the providers that it does without."""
    model, without = config.model, list[str]()
    providers = Providers(model.providers, precision=model.precision, threads=model.threads)
    try:
        found = load(
            Path(model.artifact),
            providers,
            variant=model.variant,
            threads=model.threads,
            block=1,
            passed_over=without.append,
        )
        found.check_golden()
    except ArtifactError as error:
        raise ConfigError(f"[model] artifact: {error}") from error
    return found, without
