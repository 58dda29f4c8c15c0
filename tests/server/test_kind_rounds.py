"""Does a round teach tables, texts and sound, from labels to what a device runs?"""

from __future__ import annotations

import wave
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from kind_worlds import KINDS, world
from two_rounds import Taught, mean_score, two_rounds

from edge_agent.contract.artifact import write_artifact
from edge_agent.model import Model
from edge_agent.source import Fit, Start
from edge_agent.source.options import Window
from edge_agent.source.wav import Wav
from models import evaluate


@pytest.fixture(scope="module", params=KINDS)
def taught(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Taught]:
    with two_rounds(world(request.param), tmp_path_factory.mktemp(request.param)) as made:
        yield made


def test_labels_become_a_better_model(taught: Taught) -> None:
    what, figures = taught.what, taught.report["figures"]
    manifest = taught.after.manifest
    assert (manifest.classes, tuple(manifest.input.shape)) == (what.names, what.x.shape[1:])
    assert manifest.input.dtype == what.x.dtype.name
    gates = {gate["name"] for gate in taught.report["verdict"]["gates"]}
    print(sorted(gates), figures, mean_score(taught.after, what, taught.fresh) , mean_score(taught.before, what, taught.fresh), len(taught.after.onnx), manifest.notes)
    assert {"stream", "stream/negative flips", "robustness", "int8_agreement"} <= gates
    assert figures["candidate_stream_accuracy"] > figures["champion_stream_accuracy"]
    assert mean_score(taught.after, what, taught.fresh) > mean_score(taught.before, what, taught.fresh)
