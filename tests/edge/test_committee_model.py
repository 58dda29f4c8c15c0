"""Does a graph with several heads work as a committee, from the file to the selection?"""

from __future__ import annotations

import threading
from pathlib import Path

import graphs
import msgspec
import numpy as np
import pytest

from edge_agent.agent import Agent
from edge_agent.check import check_parts
from edge_agent.choose.acquisition import BUILT_IN, Scorer
from edge_agent.choose.committee import COMMITTEE, consensus
from edge_agent.choose.drift import Watch
from edge_agent.choose.quantile import NoveltyQuantile
from edge_agent.choose.rules import Rules
from edge_agent.choose.splitmix import SplitMix64
from edge_agent.choose.targets import EPIG, OF_COMMITTEES, Targets
from edge_agent.config import AgentConfig, Budget, Choose, Device, Source
from edge_agent.config import Model as ModelConfig
from edge_agent.contract.artifact import Manifest, Reference, Tensor
from edge_agent.contract.errors import ConfigError, IncompatibleError
from edge_agent.contract.types import Reading
from edge_agent.contract.wire import Desired
from edge_agent.intake import Intake
from edge_agent.loop import CURSOR, SELECTOR, TARGETS, Cursor, Loop
from edge_agent.model import Model, main
from edge_agent.orders import configured, desired_over
from edge_agent.outgoing import Identity
from edge_agent.send.writer import Handover

HEADS, CLASSES, HIDDEN = 3, 4, 8
BODY: list[graphs.Node] = [("MatMul", ["x", "w0"], ["h"], {}), ("Relu", ["h"], ["embedding"], {})]
TALK: list[graphs.Node] = [
    ("MatMul", ["embedding", "w1"], ["flat"], {}),
    ("Reshape", ["flat", "shape"], ["logits"], {}),
]


def committee(folder: Path, **changes: object) -> Manifest:
    """One body, three heads."""
    rng = np.random.default_rng(2)
    weights = {
        "w0": rng.normal(size=(graphs.WIDTH, HIDDEN)).astype(np.float32),
        "w1": rng.normal(size=(HIDDEN, HEADS * CLASSES)).astype(np.float32),
        "shape": np.array([-1, HEADS, CLASSES]),
    }
    outputs: dict[str, list[object]] = {"logits": ["n", HEADS, CLASSES], "embedding": ["n", HIDDEN]}
    known = {"members": HEADS, "embedding": "embedding", "temperature": 1.5, "reference": reference()}
    return graphs.artifact(folder, BODY + TALK, weights, outputs=outputs, classes=CLASSES, **(known | changes))


def reference() -> Reference:
    mean = Tensor.of(np.zeros(HIDDEN, np.float32))
    return Reference(
        embedding_mean=mean, embedding_sd=Tensor.of(np.ones(HIDDEN, np.float32)),
        class_centres=Tensor.of(np.zeros((CLASSES, HIDDEN), np.float32)),
        class_share=(1 / CLASSES,) * CLASSES, confidence_mean=0.5, utility_quantiles=(), samples=9,
    )  # fmt: skip


def stream(count: int) -> np.ndarray:
    return np.random.default_rng(3).normal(size=(count, graphs.WIDTH)).astype(np.float32)


def mean_probabilities(logits: np.ndarray) -> np.ndarray:
    """(N, T, C) to (N, C), in float64 from the definition."""
    z = logits.astype(np.float64) / 1.5
    p = np.exp(z - z.max(axis=2, keepdims=True))
    return (p / p.sum(axis=2, keepdims=True)).mean(axis=1)


@pytest.mark.parametrize("acquisition", [*COMMITTEE, "margin"])
def test_disagreement_is_asked_for_and_the_mean_of_the_heads_is_the_prediction(
    tmp_path: Path, acquisition: str
) -> None:
    committee(tmp_path)
    model = Model(tmp_path)
    model.check_golden()
    x, handed = stream(600), list[Handover]()
    loop = Loop(
        model,
        NoveltyQuantile(Rules(label_share=0.1), SplitMix64(0)),
        identity=Identity("d", "s", 1),
        acquisition=acquisition,
        cursor=Cursor(),
        flush_s=10.0,
        hand_over=handed.append,
        watch=Watch(model.manifest, false_alarms_per_month=1.0, embedding=True),
    )
    Intake(loop).run((Reading(row, seq) for seq, row in enumerate(x)), threading.Event())
    samples = [sample for item in handed for sample in item.samples]
    assert len(samples) > 40
    assert loop.record.counts().scored == 600
    logits = model.predict(x)
    assert logits.shape == (600, HEADS, CLASSES)
    p = mean_probabilities(logits)
    ordered = np.sort(p, axis=1)
    members = np.ascontiguousarray((logits / np.float32(1.5)).transpose(1, 0, 2))
    expected = COMMITTEE[acquisition](members) if acquisition in COMMITTEE else 1 - ordered[:, -1] + ordered[:, -2]
    for sample in samples:
        seq = sample.id.seq
        assert sample.prediction.label == p[seq].argmax()
        assert sample.prediction.confidence == pytest.approx(p[seq].max(), abs=1e-5)
        assert sample.selection.utility == pytest.approx(expected[seq], abs=1e-5)


def epig_loop(folder: Path, handed: list[Handover], saved: dict[str, bytes]) -> Loop:
    return Loop(
        Model(folder),
        NoveltyQuantile(Rules(label_share=0.1), SplitMix64(0), saved=saved.get(SELECTOR, b"")),
        identity=Identity("d", "s", 1),
        acquisition=EPIG,
        cursor=msgspec.json.decode(saved[CURSOR], type=Cursor) if saved else Cursor(),
        flush_s=10.0,
        hand_over=handed.append,
        targets=Targets(saved=saved.get(TARGETS, b"")),
    )


@pytest.mark.parametrize("runs", [(1,), (170, 3), (5, 300, 40)])
def test_epig_decides_alike_in_any_blocks_and_after_restarts(tmp_path: Path, runs: tuple[int, ...]) -> None:
    """The loop flushes at the end of a run, and goes on in another loop from what was saved."""
    committee(tmp_path)
    x, whole, parts, saved, at = stream(600), list[Handover](), list[Handover](), dict[str, bytes](), 0
    Intake(epig_loop(tmp_path, whole, {})).run((Reading(row, seq) for seq, row in enumerate(x)), threading.Event())
    for end in (*np.cumsum(runs).tolist(), len(x)):
        rows = range(at, end)
        Intake(epig_loop(tmp_path, parts, saved)).run((Reading(x[seq], seq) for seq in rows), threading.Event())
        saved, at = parts[-1].state, end
    chosen, again = ([sample for item in each for sample in item.samples] for each in (whole, parts))
    assert len(chosen) > 40
    assert [(s.id.seq, s.selection) for s in again] == [(s.id.seq, s.selection) for s in chosen]
    assert {s.selection.acquisition for s in chosen} == {EPIG}


def test_an_agent_goes_on_with_its_targets_and_says_where_it_cannot(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    committee(tmp_path)
    np.savez(tmp_path / "x.npz", x=stream(100))
    config = AgentConfig(
        device=Device(name="d", data_dir=str(tmp_path / "data")),
        source=Source(kind="replay", path=str(tmp_path / "x.npz"), stop_at_end=True),
        model=ModelConfig(artifact=str(tmp_path)),
        choose=Choose(acquisition=EPIG),
    )
    Agent(config).run()
    agent = Agent(config)
    kept = agent.outbox.state(TARGETS) or b""
    assert Targets(saved=kept).save() == kept != b""
    agent.run()  # the stream has ended: nothing new is met
    agent = Agent(config)
    assert agent.outbox.state(TARGETS) == kept
    agent.outbox.put([], state={TARGETS: b"\xc1 nonsense"})
    agent.run()
    assert "saved targets cannot be read, it begins afresh" in caplog.text


def test_a_committee_prefers_what_its_members_dispute(tmp_path: Path) -> None:
    committee(tmp_path)
    toml = AgentConfig(
        device=Device(name="d", data_dir=str(tmp_path / "data")),
        source=Source(kind="replay", path=str(tmp_path / "x.npz"), stop_at_end=True),
        model=ModelConfig(artifact=str(tmp_path)),
        choose=Choose(acquisition="bald"),
        budget=Budget(label_share=0.1),
    )
    x = stream(1000)
    np.savez(tmp_path / "x.npz", x=x)
    assert any("golden test passed" in line for line in check_parts(toml))
    agent = Agent(toml)
    agent.run()
    assert main([str(tmp_path), "cpu-fp32"]) == 0
    bald = COMMITTEE["bald"](np.ascontiguousarray(Model(tmp_path).predict(x).transpose(1, 0, 2) / np.float32(1.5)))
    agent = Agent(toml)
    chosen = [waiting.header for waiting in agent.outbox.peek(1000) if waiting.header.selection.reason == "informative"]
    agent.outbox.close()
    assert len(chosen) > 20
    assert np.mean([header.selection.utility for header in chosen]) > np.quantile(bald, 0.7)


@pytest.mark.parametrize("name", [*OF_COMMITTEES, *BUILT_IN])
def test_a_member_that_is_not_usable_spoils_its_sample_alone(name: str) -> None:
    logits = np.random.default_rng(0).normal(size=(5, HEADS, CLASSES)).astype(np.float32)
    logits[1, 2, 0], logits[2, 0], logits[3, :, 1] = np.nan, -np.inf, -np.inf  # the last: a class is masked
    scored = Scorer(name, members=HEADS).score(logits)
    assert np.isnan(scored.utility).tolist() == [False, True, True, False, False]
    assert np.isnan(scored.confidence).tolist() == [False, True, True, False, False]


def test_the_consensus_of_equals_is_each_of_them() -> None:
    one = np.random.default_rng(0).normal(0, 4, (6, CLASSES)).astype(np.float32)
    together = Scorer("energy", members=HEADS).score(np.repeat(one[:, None], HEADS, axis=1))
    alone = Scorer("energy").score(one)
    np.testing.assert_allclose(together.utility, alone.utility, atol=1e-5)
    np.testing.assert_allclose(together.confidence, alone.confidence, atol=1e-6)
    np.testing.assert_allclose(consensus(one[None]), one, atol=1e-5)


def test_disagreement_asked_of_one_head_is_complained_of_and_margin_stands_in(tmp_path: Path) -> None:
    logits = np.random.default_rng(0).normal(size=(5, CLASSES)).astype(np.float32)
    scorer = Scorer("bald", members=1)
    assert (scorer.score(logits).utility == Scorer("margin").score(logits).utility).all()
    assert "margin stands in" in scorer.complaint
    desired = Desired(revision=1, acquisition="bald")
    own = configured(AgentConfig(device=Device(name="d")))
    assert desired_over(own, desired, members=1).acquisition == "bald"  # for when a committee comes
    assert "has 1" in desired_over(own, desired, members=1).complaint
    assert desired_over(own, desired, members=3).complaint == desired_over(own, desired).complaint == ""
    single = ("MatMul", ["x", "w"], ["logits"], {})
    weights = {"w": np.ones((graphs.WIDTH, CLASSES), np.float32)}
    graphs.artifact(tmp_path, [single], weights, outputs={"logits": ["n", CLASSES]}, classes=CLASSES)
    config = AgentConfig(
        device=Device(name="d"), model=ModelConfig(artifact=str(tmp_path)), choose=Choose(acquisition="bald")
    )
    with pytest.raises(ConfigError, match=r"\[choose\] acquisition 'bald' asks a model of several heads"):
        check_parts(config)


@pytest.mark.parametrize("members", [0, 1, 2, 4])
def test_a_manifest_that_miscounts_the_heads_is_refused(tmp_path: Path, members: int) -> None:
    committee(tmp_path, members=members)
    with pytest.raises(IncompatibleError):
        Model(tmp_path).check_golden()
