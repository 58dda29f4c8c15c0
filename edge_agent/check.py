"""Would the agent work with this configuration?

Tries the model and the source without running, and holds one against the other.
"""

from __future__ import annotations

import itertools
from pathlib import Path

from edge_agent.config import AgentConfig
from edge_agent.contract.errors import ConfigError
from edge_agent.model import Model, misfit
from edge_agent.source import Fit, Start, open_source

LOOKS = 30  # at the source, before it counts as empty


def check_parts(config: AgentConfig) -> list[str]:
    """What was found, in words; raises what is wrong."""
    if not config.model.artifact:
        if not config.uplink.broker:
            raise ConfigError("no model: set [model] artifact to an artifact folder, or [uplink] broker to get one")
        return ["no [model] artifact: the agent waits for the server to send one"]
    model = Model(Path(config.model.artifact), variant=config.model.variant, threads=config.model.threads, block=1)
    model.check_golden()
    manifest, source = model.manifest, config.source
    opened = open_source(source.kind, path=Path(source.path), fit=Fit(model.shape, str(model.dtype)))
    looks = itertools.islice(opened.readings(Start()), LOOKS)
    first = next((reading for reading in looks if reading is not None), None)
    if first is not None and first.data.size and (text := misfit(manifest, first.data)):
        raise ConfigError(f"[source] {text}: choose a source and a model that fit each other")
    return [
        f"model {manifest.name} version {manifest.version}: {len(manifest.classes)} classes, golden test passed",
        f"source {source.kind} {source.path}: {'a sample fits' if first else 'nothing there yet'}",
    ]
