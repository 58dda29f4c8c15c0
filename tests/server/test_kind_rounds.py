"""Does a round teach tables, texts, sound and movements, from labels to what a device runs?"""

from __future__ import annotations

import calendar
import wave
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from kind_worlds import KINDS, Kind, fetched, world
from two_rounds import Taught, mean_score, two_rounds
from whole_loop import goes_round

from edge_agent.choose.acquisition import Scorer
from edge_agent.choose.drift import MONTH_S, Watch
from edge_agent.contract.artifact import Manifest, write_artifact
from edge_agent.model import Model
from edge_agent.source import Fit, Start
from edge_agent.source.options import Window
from edge_agent.source.wav import Wav
from models import evaluate
from models.package import package
from models.train import Settings, fit

JULY, LATER = ([calendar.timegm((2002, month, 1, 0, 0, 0)) for month in pair] for pair in ((7, 8), (8, 11)))
EPOCHS: dict[Kind, int] = {"table": 4, "text": 2, "sound": 5, "watch": 3}
"""Of the first training: a champion that can be beaten."""

pytestmark = [pytest.mark.of_a_file, pytest.mark.of_shards]  # what was taught is copied to a whole server


@pytest.fixture(scope="module", params=KINDS)
def taught(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Taught]:
    what = world(request.param)
    folder = tmp_path_factory.mktemp(request.param)
    with two_rounds(what, folder, champion_epochs=EPOCHS[request.param]) as made:
        yield made


def test_labels_become_a_better_model(taught: Taught) -> None:
    what, figures = taught.what, taught.report["figures"]
    manifest = taught.after.manifest
    assert (manifest.classes, tuple(manifest.input.shape)) == (what.names, what.x.shape[1:])
    assert manifest.input.dtype == what.x.dtype.name
    gates = {gate["name"] for gate in taught.report["verdict"]["gates"]}
    assert {"stream", "stream/negative flips", "robustness", "int8_agreement"} <= gates
    assert figures["candidate_stream_accuracy"] > figures["champion_stream_accuracy"]
    assert mean_score(taught.after, what, taught.fresh) > mean_score(taught.before, what, taught.fresh)


def test_a_device_runs_it_and_says_what_the_server_judged(taught: Taught, tmp_path: Path) -> None:
    """Of sound it comes out of a .wav."""
    what, made = taught.what, taught.after
    write_artifact(tmp_path, made.manifest, made.onnx)
    model = Model(tmp_path)
    model.check_golden()
    x = what.x[taught.fresh][:32]
    windows = list(_as_sensed(x, tmp_path, model))
    np.testing.assert_array_equal(windows, x)
    for place, window in enumerate(windows):
        model.run(place, window)
    scaled = model.logits[: len(x)]
    found, _ = evaluate.run_onnx(made.onnx, x)
    np.testing.assert_array_equal(scaled.argmax(axis=1), found.argmax(axis=1))


def _as_sensed(x: np.ndarray, folder: Path, model: Model) -> Iterator[np.ndarray]:
    if x.dtype != np.int16:
        yield from x
        return
    with wave.open(str(folder / "said.wav"), "wb") as file:
        file.setparams((1, 2, 8_000, 0, "NONE", ""))
        file.writeframes(x.astype("<i2").tobytes())
    fit = Fit(model.shape, model.dtype.name)
    source = Wav(folder / "said.wav", fit=fit, window=Window(rate_per_s=8_000.0))
    yield from (reading.data for reading in source.readings(Start()) if reading is not None)


def test_a_whole_agent_is_given_it_by_a_whole_server(taught: Taught, tmp_path: Path) -> None:
    goes_round(taught, tmp_path)


def test_a_device_tells_that_mail_is_no_longer_as_it_was_in_july() -> None:
    """Mixed, so that July has one level; then August to October as it came."""
    mails = fetched("mail")
    assert mails.t is not None
    july, rest = (np.flatnonzero((mails.t >= start) & (mails.t < stop)) for start, stop in (JULY, LATER))
    july = np.random.default_rng(0).permutation(july)
    x, known, ahead = mails.x[:, :256], july[:450], np.concatenate([july[450:], rest])
    net = fit(x[known], mails.y[known], classes=2, settings=Settings(recipe="text", epochs=6))
    held = (x[july[450:]], mails.y[july[450:]])
    made = package(net, name="mail", names=mails.names, version=1, calibration=x[known], holdout=held)
    logits, embedding = evaluate.run_onnx(made.onnx, x[ahead])
    told = list(_alarms(made.manifest, logits, embedding))
    assert told
    assert len(july) - 450 < told[0] < len(july) - 450 + 400


def _alarms(manifest: Manifest, logits: np.ndarray, embedding: np.ndarray, *, every: int = 32) -> Iterator[int]:
    """After which samples the watch told that something moved; stated: one false alarm in 20,000."""
    watch = Watch(manifest, false_alarms_per_month=MONTH_S / 20_000.0, embedding=True)
    scorer = Scorer("margin", temperature=manifest.temperature)
    for stop in range(every, len(logits) + 1, every):
        rows = slice(stop - every, stop)
        watch.pass_time(every)
        found = watch.look(scorer.score(logits[rows]), logits[rows], embedding[rows], count=every)
        if found is not None and found.kind == "moved":
            yield stop
