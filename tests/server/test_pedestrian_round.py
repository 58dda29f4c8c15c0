"""The whole loop of a real detector, in processes of its own: a device watches dusk fall, and finds nobody any more.

    folder of images -> agent (int8) -> what is worth a label -> broker -> server -> boxes by an oracle
    -> its heads learn -> gates -> signed version -> shadow, trial and commit on the device

Minutes of a core, and a detector that `scripts/pedestrians.py` makes of 25 MB: `make soak` runs it.
"""

from __future__ import annotations

import itertools
import json
import os
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pedestrians
import pytest
from onnx import numpy_helper
from pedestrians_at_dusk import BY_DAY, evening, row_of
from PIL import Image
from processes import Programs, query
from task_worlds import World
from two_rounds import SERVER, mean_score
from whole_loop import check_answers, chosen, runs
from world import Served

from edge_agent.contract.wire import Heartbeat
from edge_agent.update.trust import STATE, load
from server.store import runs as rounds
from server.store.store import Store
from server.teach import champions
from server.teach.champions import Champion

COUNT, FRESH = 360, 60  # crops at dusk: of the evening that teaches, and behind it of one that nobody learns from
SHARE, DEPTH = 0.5, 20
MADE = pedestrians.folder() / pedestrians.FLOAT
ROOT = Path(__file__).parents[2]
TEACH = """
trainer = "pedestrian_heads:finetune"
epochs = 40
int8 = false  # its gate refuses it: 0.95 of the answers agree
"""
SETTINGS = """
[labeler]
kind = "pedestrians_at_dusk:ByDay"
files = ["by-day.json"]
[rollout]
rings = ["all"]
soak_s = 0.5
"""
AGENT = f"""
[device]
name = "cam-9"
fleet = "test"
data_dir = "cam-9"
[source]
kind = "folder"
path = "seen"
poll_s = 0.1
[choose]
floor_share = 0.4  # so much judges
[budget]
label_share = {SHARE}
depth_labels = {DEPTH}
[drift]
enabled = false  # its threshold goes by the clock, and an alarm would grant labels
[uplink]
broker = "{{broker}}"
heartbeat_s = 0.3
[update]
trust = "server/trust/root.json"
shadow_samples = 20
shadow_share = 1.0
probation_samples = 20
probation_s = 0.5
max_latency_ratio = 1000  # this is about answers
"""

pytestmark = [
    pytest.mark.long,
    pytest.mark.timeout(1800),
    pytest.mark.of_a_file,
    pytest.mark.of_shards,  # both are read while the server writes
    pytest.mark.skipif(not MADE.exists(), reason="no real detector: python scripts/pedestrians.py makes it"),
]


@dataclass(frozen=True)
class Round:
    """What came of it, its programs being stopped."""

    what: World
    first: list[dict[str, Any]]  # samples of the first version that the server has
    second: list[tuple]  # of the second
    beat: Heartbeat  # the device's last before the second
    run: rounds.Run
    before: Champion
    after: Champion
    bundles: tuple[str, str]  # what the device trusts, before and after


@pytest.fixture(scope="module")
def went_round(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Round]:
    folder, what = tmp_path_factory.mktemp("dusk"), evening(COUNT + FRESH)
    _write_truths(what, folder / "by-day.json")
    with pytest.MonkeyPatch.context() as patch, Programs() as programs:
        # where a server finds its labeler and its trainer
        patch.setenv("PYTHONPATH", os.pathsep.join(str(ROOT / part) for part in ("", "tests", "scripts")))
        yield _round(what, folder, programs)


def _round(what: World, folder: Path, programs: Programs) -> Round:
    first = ("model", "add", str(pedestrians.folder()), "--weights", str(MADE))
    served = Served(folder, programs, task=what.task, teach=TEACH, settings=SETTINGS, before=[("keys", "init"), first])
    camera = Camera(what, folder / "seen")
    served.start_agent("cam-9", AGENT.format(broker=served.broker_url))
    for row in range(BY_DAY + COUNT):
        camera.show(row)
    programs.wait_for("dusk was seen", lambda: _done(served, BY_DAY + COUNT), within_s=240)
    beat, seen, bundle = served.beat("cam-9"), _samples(served), _trusted(folder)
    programs.wait_for("every one has its boxes", lambda: _labelled(served) == len(seen), within_s=60)
    served.command("train", "--why", "it is dark")
    fresh = itertools.cycle(range(BY_DAY + COUNT, len(what.x)))
    programs.wait_for("a round", lambda: _round_ended(served) != "", within_s=1200)
    assert _round_ended(served) in ("passed", "published"), served.server.said()[-4000:]

    def arrived() -> bool:
        camera.show(next(fresh))
        return runs(served) == (2, "steady") and len(chosen(served, 2)) >= 20

    programs.wait_for("version 2 is committed and has chosen", arrived, within_s=120)
    second = chosen(served, 2)
    assert served.beat("cam-9").counts.invalid == 0
    for program in reversed(programs):
        program.stop()
    with closing(Store.open(folder / SERVER)) as store:
        with store.database.read() as connection:
            (run,) = rounds.latest(connection)
        before, after = champions.load(store, 1), champions.load(store, 2)
    assert before is not None
    assert after is not None
    return Round(what, seen, second, beat, run, before, after, (bundle, _trusted(folder)))


class Camera:
    """Writes what it sees into a folder, one file a frame."""

    def __init__(self, what: World, folder: Path) -> None:
        folder.mkdir()
        self._what, self._folder, self._numbers = what, folder, itertools.count()

    def show(self, row: int) -> None:
        file = self._folder / f"{next(self._numbers):06d}-{row}.png"
        Image.fromarray(self._what.x[row]).save(file.with_suffix(".part"), "png")
        file.with_suffix(".part").rename(file)


def test_the_device_asks_about_what_it_lost_within_its_budget(went_round: Round) -> None:
    rows, counts = went_round.first, went_round.beat.counts
    assert len(rows) == sum(counts.selected.values()) == went_round.beat.outbox.acked_total
    assert len(rows) <= SHARE * counts.read + DEPTH
    by_reason = {reason: [row for row in rows if row["reason"] == reason] for reason in counts.selected}
    chosen_for, anyway = by_reason["informative"], by_reason["random"] + by_reason["explore"]
    assert len(chosen_for) >= 60
    assert len(anyway) >= 40
    assert np.mean([row["utility"] for row in chosen_for]) > np.mean([row["utility"] for row in anyway]) + 0.05
    gone = next(row for row in rows if row["seq"] >= BY_DAY)  # who was followed by day is not found any more
    assert "boxes" not in gone["said"]


def test_its_heads_learn_dusk_and_it_passes_the_gates(went_round: Round) -> None:
    assert went_round.run.state == "published"
    assert went_round.run.report["went_on_from"] == 1
    gates = {gate["name"] for gate in went_round.run.report["verdict"]["gates"]}
    assert {"stream/mAP", "stream/class person"} <= gates
    fresh = slice(BY_DAY + COUNT, None)
    before, after = (mean_score(made, went_round.what, fresh) for made in (went_round.before, went_round.after))
    assert before < 0.6
    assert after > before + 0.2


def test_its_body_is_as_it_was(went_round: Round) -> None:
    before, after = (_weights(data) for data in (MADE.read_bytes(), went_round.after.weights))
    assert {name for name in before if not np.array_equal(before[name], after[name])} == {
        f"BoxPredictor_{level}/ClassPredictor/BiasAdd/{part}"
        for level in range(len(pedestrians.MAPS))
        for part in ("kernel", "bias")
    }


def test_the_device_runs_what_was_signed_and_says_what_the_server_says(went_round: Round) -> None:
    before, after = went_round.bundles
    assert before != after
    check_answers(went_round.after, went_round.what.x, [(row_of(ref), *said) for _, ref, *said in went_round.second])
    assert any("boxes" in said for *_, said in went_round.second)


def _weights(data: bytes) -> dict[str, np.ndarray]:
    return {one.name: numpy_helper.to_array(one) for one in onnx.load_model_from_string(data).graph.initializer}


def _write_truths(what: World, file: Path) -> None:
    said = [{"boxes": [[what.names[label], *at] for label, *at in truth["boxes"]]} for truth in what.truths]
    file.write_text(json.dumps(said))


def _done(served: Served, frames: int) -> bool:
    """So many were read, and all that was chosen is with the server."""
    if not (served.folder / "cam-9" / "status.json").exists():
        return False
    beat = served.beat("cam-9")
    return beat.counts.read == frames and beat.outbox.acked_total == sum(beat.counts.selected.values())


def _round_ended(served: Served) -> str:
    """How; "": it did not yet."""
    rows = query(served.catalogue, "select state from run where ended_at_ms is not null")
    return str(rows[0][0]) if rows else ""


def _labelled(served: Served) -> int:
    ((count,),) = query(served.catalogue, "select count(*) from label")
    return count


def _samples(served: Served) -> list[dict[str, Any]]:
    columns = ("seq", "reason", "utility", "said")
    rows = query(served.catalogue, f"select {', '.join(columns)} from sample order by seq")
    return [dict(zip(columns, row, strict=True)) | {"said": json.loads(row[-1])} for row in rows]


def _trusted(folder: Path) -> str:
    found = load(folder / "cam-9" / "trust" / STATE)
    assert found is not None
    return str(found.bundle.targets)
