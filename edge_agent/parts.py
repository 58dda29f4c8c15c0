"""How are the parts made that follow from the configuration alone?

What the agent carries between them comes as an argument.
"""

from __future__ import annotations

import functools
import logging
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from edge_agent.choose.drift import Watch
from edge_agent.choose.splitmix import SplitMix64
from edge_agent.choose.wanted import pick
from edge_agent.config import AgentConfig
from edge_agent.contract.artifact import read_manifest
from edge_agent.contract.broker import TlsFiles, in_the_clear, parse_broker
from edge_agent.contract.errors import ConfigError, IncompatibleError
from edge_agent.contract.settings import read_secret
from edge_agent.contract.wire import Birth, BlockHeader, Desired, Heartbeat
from edge_agent.model import Model
from edge_agent.providers import PROCESSOR, Providers
from edge_agent.send.allowance import Allowance
from edge_agent.send.lull import Lulls, parse_hours
from edge_agent.send.outbox import Outbox
from edge_agent.send.privacy import Privacy
from edge_agent.send.recent import Recent
from edge_agent.send.uplink import Uplink
from edge_agent.update.trial import run_check

if TYPE_CHECKING:
    from edge_agent.identity.renewal import Renewal
    from edge_agent.update.https import Https
    from edge_agent.update.trust import Trust

log = logging.getLogger(__name__)

RECENT, ENGINES = "recent", "engines"


def make_chance(config: AgentConfig) -> SplitMix64:
    """By which the selector draws; no two streams of a fleet draw alike, or all would audit the same moments."""
    return SplitMix64(config.choose.seed, *f"{config.device.name}.{config.source.stream}".encode())


def make_recent(config: AgentConfig, folder: Path, *, privacy: Privacy) -> Recent | None:
    """None without a ring; what is left of one is deleted then."""
    recent, folder = config.recent, folder / RECENT
    try:
        made = Recent(
            folder,
            max_bytes=recent.max_bytes,
            bytes_per_day=recent.bytes_per_day,
            min_free_disk_bytes=config.outbox.min_free_disk_bytes,
            pick=pick,
            privacy=privacy,
        )
    except OSError as error:
        raise ConfigError(f"{folder}: {error.strerror}: expected a folder for recent samples") from error
    return made if recent.max_bytes else None


def make_trust(config: AgentConfig, folder: Path, *, stop: threading.Event) -> Trust | None:
    """None where unsigned models are taken; that is said where a server may send some."""
    update = config.update
    if update.trust:
        from edge_agent.update.trust import Trust  # signatures, for whoever asks for some

        ask = functools.partial(
            run_check, timeout_s=update.check_timeout_s, memory_bytes=update.check_memory_bytes, stop=stop
        )
        return Trust(folder / "trust", anchor=Path(update.trust), ask=ask)
    if update.enabled and config.uplink.broker:
        log.warning("[update] trust is empty: models are taken from the server unsigned")
    return None


def make_https(config: AgentConfig, *, may: Callable[[], bool], came: Callable[[int], None]) -> Https:
    """For servers that offer models that way."""
    import ssl  # with HTTP a tenth of the agent's start, for whoever has such a server

    from edge_agent.update.https import Https

    return Https(lambda: ssl.create_default_context(cafile=config.uplink.ca_file or None), may=may, came=came)


def make_providers(config: AgentConfig, folder: Path) -> Providers:
    """Engines and failures are kept in the data folder, of as many models as models are kept."""
    model, engines = config.model, folder / ENGINES
    providers = Providers(model.providers, engines=engines, precision=model.precision, threads=model.threads)
    providers.sweep(config.update.keep_versions)
    return providers


def check_in_child(
    folder: Path,
    *,
    variant: str,
    providers: Providers,
    timeout_s: float,
    memory_bytes: int,
    stop: threading.Event,
) -> None:
    """Golden test of an artifact, on the first chain that passes it, which is found so without risk to the agent.

    ArtifactError when it fails on the processor, too; CheckStoppedError when `stop` is set meanwhile.
    """
    sha256 = read_manifest(folder).variant(variant).sha256
    for chain, _ in providers.tries(sha256):
        if chain is None:
            continue
        argv = [sys.executable, "-m", "edge_agent.model", str(folder), variant, msgspec.json.encode(chain).decode()]
        try:
            run_check(argv, timeout_s=timeout_s, memory_bytes=0 if chain.on_a_gpu else memory_bytes, stop=stop)
        except IncompatibleError as error:
            if chain == PROCESSOR:
                raise
            log.warning("version %s does without %s: %s", folder.name, chain.names[0], error)
            providers.failed(chain.names[0], sha256, str(error))
        else:
            return


def make_uplink(
    config: AgentConfig,
    *,
    session: str,
    outbox: Outbox,
    birth: Callable[[], Birth],
    heartbeat: Callable[[], Heartbeat],
    on_desired: Callable[[Desired], None],
    on_block: Callable[[BlockHeader, bytes | memoryview], None],
    allowance: Allowance,
) -> Uplink:
    """ConfigError when the broker's address, a secret or the quiet hours cannot be read."""
    uplink = config.uplink
    address, password = parse_broker(uplink.broker), read_secret(uplink.password_file)
    if wrong := in_the_clear(address.host, tls=address.tls, password=password):
        log.warning("[uplink] broker: %s", wrong)
    return Uplink(
        host=address.host,
        port=address.port,
        tls=TlsFiles(uplink.ca_file, uplink.cert_file, uplink.key_file) if address.tls else None,
        username=uplink.username,
        password=password,
        fleet=config.device.fleet,
        device=config.device.name,
        session=session,
        outbox=outbox,
        window=uplink.window,
        retry_first_s=uplink.retry_first_s,
        retry_max_s=uplink.retry_max_s,
        keepalive_s=uplink.keepalive_s,
        heartbeat_s=uplink.heartbeat_s,
        birth=birth,
        heartbeat=heartbeat,
        on_desired=on_desired,
        on_block=on_block,
        uniform=SplitMix64().draw,
        allowance=allowance,
        lull=Lulls(parse_hours(uplink.quiet_hours), Path(uplink.metered_file) if uplink.metered_file else None).why,
    )


def make_renewal(config: AgentConfig, *, report: Callable[[str], None]) -> Renewal:
    """ConfigError when what the device was enrolled with cannot be renewed."""
    from edge_agent.identity.papers import Papers  # needs cryptography, a fifth of the agent's start
    from edge_agent.identity.portal import Portal
    from edge_agent.identity.renewal import Renewal

    uplink = config.uplink
    papers = Papers(ca_file=Path(uplink.ca_file), cert_file=Path(uplink.cert_file))
    papers.check(config.device.name)
    return Renewal(papers, Portal.parse(uplink.renewal), report=report, uniform=SplitMix64().draw)


def make_watch(config: AgentConfig, model: Model, *, saved: bytes) -> Watch:
    """ConfigError when `saved` cannot be read."""
    return Watch(
        model.manifest,
        false_alarms_per_month=config.drift.false_alarms_per_month,
        embedding=model.embedding is not None,
        saved=saved,
    )
