"""Does a detector work as a model of the agent, from the file to what is handed over?"""

from __future__ import annotations

import contextlib
import http.client
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import numpy as np
import pytest
import scenes
from hypothesis import given, settings
from hypothesis import strategies as st
from test_push import free_port, post

from edge_agent.agent import Agent
from edge_agent.check import check_parts
from edge_agent.choose import strategy
from edge_agent.choose.disagreement import Share
from edge_agent.choose.drift import Alarm, Watch
from edge_agent.choose.quantile import NoveltyQuantile
from edge_agent.choose.rules import Rules
from edge_agent.choose.splitmix import SplitMix64
from edge_agent.choose.tasks.frames import Frames
from edge_agent.choose.tasks.scoring import answer_of
from edge_agent.config import AgentConfig, Choose, Device, Source, load_config
from edge_agent.config import Model as ModelConfig
from edge_agent.contract.artifact import BOXES_MAX, Answer, Golden, Tensor, decode_manifest, encode_manifest
from edge_agent.contract.errors import ArtifactError, ConfigError, IncompatibleError
from edge_agent.contract.outputs import said_bytes
from edge_agent.contract.task import Applies, Box, Said, Value
from edge_agent.contract.types import Reading
from edge_agent.contract.wire import SampleHeader, decode_frame, encode_sample, sample_frames
from edge_agent.intake import Intake
from edge_agent.loop import CURSOR, DRIFT, FRAMES, SELECTOR, Cursor, Loop
from edge_agent.model import Model, main
from edge_agent.outgoing import Identity, sample_bytes
from edge_agent.send.writer import Handover

COUNT = 600
X = scenes.stream(COUNT)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("detector")
    scenes.detector(made)
    return made


def loop_over(
    model: Model, handed: list[Handover], *, state: dict[str, bytes] | None = None, chosen_by: str = "novelty_quantile"
) -> Loop:
    state = state or {}
    rules = Rules(label_share=0.1)
    return Loop(
        model,
        strategy.make(chosen_by, rules, SplitMix64(1), saved=state.get(SELECTOR, b"")),
        identity=Identity("cam", "main", 1),
        acquisition="margin",
        cursor=msgspec.json.decode(state[CURSOR], type=Cursor) if state else Cursor(),
        flush_s=10.0,
        hand_over=handed.append,
        watch=Watch(model.manifest, false_alarms_per_month=1.0, embedding=True, saved=state.get(DRIFT, b"")),
        frames=Frames(saved=state.get(FRAMES, b"")),
        log_predictions=True,
        wall_ms=lambda: 1_000_000,
    )


def readings(start: int = 0, end: int = COUNT) -> Iterator[Reading]:
    return (Reading(X[seq], seq) for seq in range(start, end))


def samples_of(handed: list[Handover]) -> list:
    return [sample for item in handed for sample in item.samples]


def test_every_frame_is_answered_and_what_is_sent_carries_its_boxes(folder: Path) -> None:
    model, handed = Model(folder), list[Handover]()
    model.check_golden()
    loop = loop_over(model, handed)
    Intake(loop).run(readings(), threading.Event())
    counts, samples = loop.record.counts(), samples_of(handed)
    assert (counts.read, counts.scored, counts.invalid) == (COUNT, COUNT, 0)
    assert 40 < len(samples) < 90
    assert len(counts.classes) == 3
    assert counts.classes[2] > 60  # nothing
    for sample in samples:
        x, said = X[sample.id.seq].astype(float), sample.prediction.said
        means = x.reshape(4, 4, 4, 4).mean(axis=(1, 3)).reshape(-1) / 255
        bright, dark = (1 / (1 + np.exp(-scenes.GAIN * z)) for z in (means - 0.75, 0.25 - means))
        score = np.maximum(bright, dark)
        shown = np.flatnonzero(score >= scenes.ANSWER.score_min)
        assert sorted(box.score for box in said.boxes) == pytest.approx(sorted(score[shown]), abs=1e-3)
        expected = int((dark > bright)[score.argmax()]) if len(shown) else 2
        assert sample.prediction.label == expected
        assert said.applies == said.values == ()
    assert any(not sample.prediction.said.boxes for sample in samples)  # asked about, although nothing was found


def test_one_answer_alone_is_what_the_stream_gets(folder: Path) -> None:
    model, handed = Model(folder), list[Handover]()
    Intake(loop_over(model, handed)).run(readings(0, 200), threading.Event())
    for sample in samples_of(handed):
        model.run(0, sample.data)
        assert answer_of(model.manifest, model.logits[0], model.further[0]) == sample.prediction


def test_the_boxes_are_where_the_cells_are(folder: Path) -> None:
    model, handed = Model(folder), list[Handover]()
    loop = loop_over(model, handed)
    loop.change(Rules(label_share=1.0), "margin")
    Intake(loop).run(iter([]), threading.Event())
    Intake(loop).run(iter([Reading(scenes.picture({6: 1.0, 9: 0.0}), 0)]), threading.Event())
    (sample,) = samples_of(handed)
    at = scenes.corners()
    said = [(box.label, (box.left, box.top, box.right, box.bottom)) for box in sample.prediction.said.boxes]
    assert sorted(said) == [(k, pytest.approx(at[cell].tolist(), abs=1e-4)) for k, cell in enumerate((6, 9))]


@settings(deadline=None, max_examples=4)
@given(st.lists(st.integers(1, 90), min_size=1, max_size=5), st.sampled_from([1, 8]))
def test_the_same_decisions_for_any_blocks_in_any_company_and_after_a_restart(
    folder: Path, sizes: list[int], together: int
) -> None:
    few, whole, parts = 300, list[Handover](), list[Handover]()
    Intake(loop_over(Model(folder, together=1), whole)).run(readings(0, few), threading.Event())
    model, at, turn = Model(folder, together=together, clock=lambda: 0.0), 0, 0
    assert model.together == together
    state: dict[str, bytes] = {}
    while at < few:
        end = min(few, at + sizes[turn % len(sizes)] * 4)
        Intake(loop_over(model, parts, state=state)).run(readings(at, end), threading.Event())
        state = {key: value for item in parts for key, value in item.state.items()}
        at, turn = end, turn + 1
    assert [(s.id.seq, s.selection, s.prediction) for s in samples_of(parts)] == [
        (s.id.seq, s.selection, s.prediction) for s in samples_of(whole)
    ]
    assert [item.predictions for item in parts if item.predictions] != []
    assert b"".join(i.predictions for i in parts) == b"".join(i.predictions for i in whole)


def test_gradients_choose_among_detections_as_well(folder: Path) -> None:
    handed = list[Handover]()
    Intake(loop_over(Model(folder), handed, chosen_by="vessal")).run(readings(), threading.Event())
    assert 30 < len(samples_of(handed)) < 90
    assert {sample.selection.strategy for sample in samples_of(handed)} == {"vessal-1"}


def test_a_stream_of_which_other_things_are_found_raises_an_alarm(folder: Path) -> None:
    """Halfway the scene is mostly empty: what is found changes, and with it confidence and the mix with "nothing"."""
    x = scenes.stream(2400, seed=3)
    rng = np.random.default_rng(4)
    x[1400:] = np.stack([scenes.picture({5: 0.55} if rng.random() < 0.3 else {}) for _ in range(1000)])
    told: list[Alarm] = []
    model = Model(folder)
    loop = Loop(
        model,
        NoveltyQuantile(Rules(label_share=0.01), SplitMix64(1)),
        identity=Identity("cam", "main", 1),
        acquisition="margin",
        cursor=Cursor(),
        flush_s=10.0,
        hand_over=[].append,
        watch=Watch(model.manifest, false_alarms_per_month=1.0, embedding=True),
        on_alarm=lambda alarm, _labels: told.append(alarm),
    )
    Intake(loop).run((Reading(one, seq) for seq, one in enumerate(x)), threading.Event())
    moved = [alarm for alarm in told if alarm.kind == "moved"]
    assert len(moved) == 1
    assert moved[0].since < 1000
    counts = loop.record.counts()
    assert counts.signals[0] == counts.scored == 2400
    assert counts.classes[2] > 1000


def beside(folder: Path, **changes: object) -> tuple[Loop, list[Handover]]:
    """A loop, in which another detector saw every frame."""
    (folder / "2").mkdir()
    scenes.detector(folder / "1")
    scenes.detector(folder / "2", version=2, **changes)
    handed = list[Handover]()
    loop = loop_over(Model(folder / "1"), handed)
    loop.shadow(Model(folder / "2"), Share(1.0, 0.1), SplitMix64(0))
    Intake(loop).run(iter([]), threading.Event())
    Intake(loop).run(readings(), threading.Event())
    return loop, handed


def test_a_detector_agrees_with_itself(tmp_path: Path) -> None:
    loop, handed = beside(tmp_path)
    seen = loop.extras.shadowed()
    assert (seen.samples, seen.invalid, seen.agreed) == (COUNT, 0, COUNT)
    assert {s.selection.reason for s in samples_of(handed)} <= {"informative", "explore", "random"}


def test_labels_go_where_two_detectors_differ(tmp_path: Path) -> None:
    loop, handed = beside(tmp_path, shift=-2.0)
    seen = loop.extras.shadowed()
    assert seen.samples == COUNT
    assert 0.5 * COUNT < seen.agreed < 0.95 * COUNT
    taken = [s for s in samples_of(handed) if s.selection.reason == "disagreement"]
    assert len(taken) > 20
    few, many = (Model(tmp_path / name, block=1) for name in "21")
    for sample in taken:
        x = X[sample.id.seq]
        shown = [(model.predict(x[None])[0].max(axis=1) > np.log(0.3 / 0.7)).sum() for model in (few, many)]
        assert shown[0] < shown[1]  # the one that is less sure misses something


def test_a_model_of_another_task_cannot_be_the_shadow(tmp_path: Path, folder: Path) -> None:
    scenes.detector(tmp_path / "boxes")
    loop = loop_over(Model(folder), [])
    other = Model(tmp_path / "boxes")
    other.manifest = msgspec.structs.replace(other.manifest, task="multilabel")
    with pytest.raises(IncompatibleError, match="multilabel.*for detection: they cannot be compared"):
        loop.shadow(other, Share(1.0, 0.1), SplitMix64(0))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"answer": Answer()}, "names no output for its boxes"),
        ({"answer": None}, "names no output for its boxes"),
        ({"members": 3}, "a detector of 3 members"),
        ({"classes": ("bright",)}, r"expected \(N, A, 1\)"),
        ({"logits": "embedding"}, r"'embedding' is \['n', 16\], expected \(N, A, 2\)"),
        ({"answer": Answer(boxes="not there")}, "cannot bind"),
    ],
)
def test_what_is_no_detector_is_refused(tmp_path: Path, changes: dict, message: str) -> None:
    scenes.detector(tmp_path, **changes)
    with pytest.raises(IncompatibleError, match=message):
        Model(tmp_path)


def test_boxes_elsewhere_fail_the_golden_test(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    good = scenes.detector(tmp_path).golden
    boxes = good.outputs["boxes"].array() + np.float32(0.06)
    off = Golden(inputs=good.inputs, logits=good.logits, tolerance=5.0, outputs={"boxes": Tensor.of(boxes)})
    scenes.detector(tmp_path, golden=off)
    with pytest.raises(IncompatibleError, match="golden input 0 in 'boxes' is off by 0.06, at most 0.05"):
        Model(tmp_path).check_golden()
    assert main([str(tmp_path), "cpu-fp32"]) == 3
    assert "IncompatibleError" in capsys.readouterr().out
    elsewhere = good.outputs["boxes"].array().copy()
    unsure = good.logits.array().max(axis=2) < -4.0  # of these boxes nobody asks
    assert unsure.any()
    elsewhere[unsure] = 0.5
    scenes.detector(tmp_path, golden=msgspec.structs.replace(good, outputs={"boxes": Tensor.of(elsewhere)}))
    Model(tmp_path).check_golden()
    scenes.detector(tmp_path, golden=msgspec.structs.replace(good, outputs={}))
    with pytest.raises(IncompatibleError, match="say nothing of output 'boxes'"):
        Model(tmp_path).check_golden()


def test_what_a_sample_costs_counts_its_boxes(folder: Path) -> None:
    model = Model(folder)
    assert sample_bytes(model) == 256 + 500 + 49 * 20
    most = Said(boxes=(Box(65535, 0.1, 0.1, 0.2, 0.2, 0.3),) * 20)
    assert len(msgspec.msgpack.encode(most)) <= said_bytes(most) + 20 == 49 * 20 + 20
    several, numbers = Said(applies=(Applies(65535, 0.3),) * 20), Said(values=(Value(65535, 0.1, 0.3),) * 20)
    assert len(msgspec.msgpack.encode(several)) <= said_bytes(several) + 20 == 14 * 20 + 20
    assert len(msgspec.msgpack.encode(numbers)) <= said_bytes(numbers) + 20 == 22 * 20 + 20
    assert said_bytes(None) == 0


def test_the_most_boxes_that_a_detector_may_say_fit_on_the_wire(folder: Path) -> None:
    said = Said(boxes=(Box(65535, 0.1, 0.1, 0.2, 0.2, 0.3),) * BOXES_MAX)
    handed = list[Handover]()
    Intake(loop_over(Model(folder), handed)).run(readings(0, 200), threading.Event())
    sample = samples_of(handed)[0]
    widest = sample._replace(
        prediction=sample.prediction._replace(said=said),
        ref="\N{PILE OF POO}" * 200,
        transforms=("\N{LATIN SMALL LETTER E WITH ACUTE}" * 120,) * 16,
    )
    header, body = encode_sample(widest)
    (frame,) = sample_frames(header, body)
    assert decode_frame(SampleHeader, frame)[0] == header
    with pytest.raises(ArtifactError, match="most"):
        decode_manifest(encode_manifest(scenes.detector(folder / "x", answer=Answer(boxes="boxes", most=201))))


def test_a_detector_says_nothing_after_its_classes(folder: Path) -> None:
    assert decode_manifest((folder / "manifest.json").read_bytes()).outcomes == ("bright", "dark", "nothing")


def test_an_agent_goes_on_with_its_frames(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    scenes.detector(tmp_path / "model")
    np.savez(tmp_path / "x.npz", x=X[:100])
    config = AgentConfig(
        device=Device(name="d", data_dir=str(tmp_path / "data")),
        source=Source(kind="replay", path=str(tmp_path / "x.npz"), stop_at_end=True),
        model=ModelConfig(artifact=str(tmp_path / "model")),
    )
    assert any("detection of 2 classes, golden test passed" in line for line in check_parts(config))
    Agent(config).run()
    agent = Agent(config)
    kept = agent.outbox.state(FRAMES) or b""
    assert Frames(saved=kept).save() == kept != b""
    assert any(waiting.header.said.boxes for waiting in agent.outbox.peek(100))
    agent.outbox.put([], state={FRAMES: b"\xc1 nonsense"})
    agent.run()
    assert "saved frames cannot be read, it begins afresh" in caplog.text
    bald = msgspec.structs.replace(config, choose=Choose(acquisition="bald"))
    with pytest.raises(ConfigError, match="a detector has 1: margin stands in"):
        check_parts(bald)


def test_whoever_sends_a_frame_gets_its_boxes_back(tmp_path: Path, folder: Path) -> None:
    port = free_port()
    (tmp_path / "agent.toml").write_text(
        f'[device]\nname = "cam"\ndata_dir = "data"\n[model]\nartifact = "{folder}"\n'
        f'[source]\nkind = "push"\n[source.push]\nlisten = "127.0.0.1:{port}"\n'
    )
    agent = Agent(load_config(tmp_path / "agent.toml"))
    running = threading.Thread(target=agent.run)
    running.start()
    frames = [scenes.picture({1: scenes.brightness(0.9)}), scenes.picture({})]
    try:
        until_s = time.monotonic() + 20.0
        while time.monotonic() < until_s:
            with contextlib.suppress(ConnectionRefusedError):
                link = http.client.HTTPConnection("127.0.0.1", port, timeout=20.0)
                link.connect()
                break
            time.sleep(0.05)
        found, empty = (post(link, frame.tobytes())[1] for frame in frames)
        link.close()
    finally:
        agent.stop()
        running.join()
    ((label, *_, score),) = found["said"]["boxes"]
    assert (found["label"], found["name"], found["version"]) == (label, "bright", 1)
    assert score == pytest.approx(0.9, abs=0.05)
    assert (empty["label"], empty["name"], empty["said"]) == (2, "nothing", {})
    with Agent.open(tmp_path / "agent.toml") as own:
        said = [own.process(frame) for frame in frames]
        assert [own.classes[one.label] for one in said] == ["bright", "nothing"]
    assert [list(box) for box in msgspec.to_builtins(said[0].said)["boxes"]] == found["said"]["boxes"]
