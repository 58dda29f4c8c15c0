"""A whole agent against a whole server, both processes: what was taught arrives, and what it then says is stored."""

from __future__ import annotations

import json
import shutil
import wave
from collections.abc import Iterable
from pathlib import Path

import msgspec
import numpy as np
from processes import Programs, query
from two_rounds import SERVER, Taught
from world import Served

from edge_agent.choose.acquisition import Scored
from edge_agent.choose.tasks.scoring import scoring
from edge_agent.contract.artifact import write_artifact
from models.kinds.kind import run
from server.teach.champions import Champion

TIMES = 100  # that the stream repeats itself: longer than any test waits
RATE_PER_S = 200.0
SETTINGS = """
[rollout]
rings = ["all"]
soak_s = 0.5
"""
AGENT = """
[device]
name = "cam-9"
fleet = "test"
data_dir = "cam-9"
[source]
kind = "{kind}"
path = "stream.{kind}"
rate_per_s = {rate}
[model]
artifact = "first"
[budget]
label_share = 0.3
[uplink]
broker = "{broker}"
heartbeat_s = 0.3
[update]
shadow_samples = 20
shadow_share = 1.0
probation_samples = 20
probation_s = 0.5
max_latency_ratio = 1000  # this is about answers
"""


def goes_round(taught: Taught, folder: Path, *, samples: int = 40, within_s: float = 60.0) -> None:
    """An agent with the first version is given the second, and tells the server what that makes of so many samples.

    Sound is played out of a .wav.
    """
    made, x = taught.after, taught.what.x[taught.fresh]
    with Programs() as programs:
        folder.mkdir(exist_ok=True)
        shutil.copytree(taught.folder / SERVER, folder / SERVER)  # the fixture goes on with its own
        served = Served(folder, programs, task=taught.what.task, settings=SETTINGS)
        write_artifact(folder / "first", taught.before.manifest, taught.before.onnx)
        kind = recorded(x, folder)
        served.start_agent("cam-9", AGENT.format(kind=kind, rate=RATE_PER_S, broker=served.broker_url))
        programs.wait_for("version 2 is committed", lambda: runs(served) == (2, "steady"), within_s=within_s)
        programs.wait_for("samples that it chose", lambda: len(chosen(served, 2)) >= samples, within_s=within_s)
        assert served.beat("cam-9").counts.invalid == 0
        rows = chosen(served, 2)
    check_answers(made, x, [(seq % len(x), *said) for seq, _, *said in rows])


def check_answers(made: Champion, x: np.ndarray, rows: Iterable[tuple]) -> None:
    """What a device said by that version of rows of x (row, class, confidence, what it said beside) is what it says."""
    found = run(made.onnx, made.manifest, x)
    scored = scoring(made.manifest, "margin").score(found.logits, found.more)
    for row, predicted, confidence, said in rows:
        assert predicted == scored.label[row]
        assert abs(confidence - scored.confidence[row]) < 1e-3
        assert said == answered(scored, row)


def answered(scored: Scored, row: int) -> dict[str, object] | None:
    """What a sample carries to the server beside its class: None of a classifier."""
    return None if scored.answers is None else json.loads(msgspec.json.encode(scored.answers.said(row)))


def recorded(x: np.ndarray, folder: Path) -> str:
    """Write the stream; the kind of source that plays it."""
    if x.dtype != np.int16:
        np.savez(folder / "stream.npz", x=np.tile(x, (TIMES, *[1] * (x.ndim - 1))))
        (folder / "stream.npz").rename(folder / "stream.replay")
        return "replay"
    with wave.open(str(folder / "stream.wav"), "wb") as file:
        file.setparams((1, 2, 8_000, 0, "NONE", ""))
        for _ in range(TIMES):
            file.writeframes(x.astype("<i2").tobytes())
    return "wav"


def runs(served: Served) -> tuple[int, str]:
    """The version on the device, and its slot."""
    if not (served.folder / "cam-9" / "status.json").exists():
        return 0, ""
    model = served.beat("cam-9").model
    return model.version, model.slot


def chosen(served: Served, version: int) -> list[tuple]:
    """What the server has by that version: number, the source's name, class, confidence, and what it said beside."""
    columns = "seq, ref, predicted, confidence, said"
    rows = query(
        served.catalogue,
        f"select {columns} from sample where device = 'cam-9' and model_version = {version} order by seq",
    )
    return [(*row, None if said is None else json.loads(said)) for *row, said in rows]
