"""Versions with everything that a page shows of them: judged by the real gates, on answers that are made up."""

from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np
import quadrants
from device_words import FLEET, SELECTION, birth, frames, heartbeat, message

from edge_agent.contract.artifact import encode_manifest, read_artifact
from edge_agent.contract.wire import encode
from server.collect.ingest import Ingest
from server.config import Gates, Rollout, Teach
from server.release import commands
from server.release.registry import publish_passed
from server.store import curves, labels, rollouts, runs, trail, versions
from server.store.curves import CurvePoint
from server.store.labels import Label
from server.store.store import Store
from server.teach.gates.answers import Said
from server.teach.gates.budgets import Cost
from server.teach.gates.held import Held
from server.teach.gates.judge import Against, Evidence, Int8, judge
from server.teach.gates.portrait import portraits
from server.teach.judging import _figures
from server.teach.snapshot import freeze
from server.teach.training import Settings

NAMES = np.array(["bag", "boot", "coat", "shirt"])
DAY_MS = 86_400_000
SENT = 24  # samples of each device and version


def answered(seed: int, *, right: float, before: float, n: int = 400) -> tuple[Held, Said, Said]:
    """Held-out samples of three devices, and what a candidate and its champion said: right so often."""
    rng = np.random.default_rng(seed)
    label, origin = rng.choice(NAMES, n), rng.random(n) < 0.7
    confidence = rng.beta(6, 2, n) * 0.75 + 0.25

    def said(share: float) -> Said:
        sure = rng.random(n) < np.clip(confidence - 0.75 + share, 0, 1)
        other = NAMES[(np.searchsorted(NAMES, label) + rng.choice([1, 3], n)) % len(NAMES)]
        return Said(np.where(sure, label, other), confidence, 2 * (1 - confidence), 1 - confidence)

    ours, theirs = said(right), said(before)
    probability = np.where(origin, rng.choice([0.01, 0.02], n), 1.0)
    device = np.where(origin, rng.choice(["cam-1", "cam-2", "cam-3"], n), "import")
    held = Held(ours.predicted == label, theirs.predicted == label, origin, probability, device, label)
    return held, ours, theirs


def send(store: Store, *, first: int, at_ms: int) -> None:
    """Samples of two devices, labelled by two people."""
    ingest = Ingest(store, fleet=FLEET, offline_after_s=90.0)
    x, y = quadrants.images(first + SENT, seed=5)
    for name, labeler in (("cam-1", "ann"), ("cam-2", "bob")):
        sent = []
        for seq in range(first, first + SENT):
            chosen = msgspec.structs.replace(SELECTION, reason="random" if seq % 4 == 3 else "informative")
            sent += [
                message(name, "sample", frame, at_ms=at_ms)
                for frame in frames(name, seq, data=x[seq], selection=chosen)
            ]
        ingest.take(sent)
        with store.database.write() as connection:
            index = labels.ensure_names(connection, NAMES.tolist())
            numbers = range(first, first + SENT)
            labels.add(connection, [Label(f"{name}.main.1.{n}", index[NAMES[y[n]]], labeler, at_ms) for n in numbers])


def round_of(
    store: Store, folder: Path, *, champion: int, right: float, before: float, at_ms: int, state: str = ""
) -> int:
    """A round from `champion`, judged; its id. `state`: whatever the gates say."""
    send(store, first=SENT * runs_so_far(store), at_ms=at_ms)
    held, ours, theirs = answered(runs_so_far(store), right=right, before=before)
    rules = Gates(budgets=("pi=0.05 ms, 0.02 MB",)) if right < before else Gates()
    against = Against(NAMES, ours, theirs) if champion else None
    cost = Cost(0.04, 3_210, {})
    verdict = judge(Evidence(held=held, against=against, int8=Int8(0.995, -0.001, 400), cost=cost), rules=rules)
    figures = {"latency_ms": 0.04, "onnx_bytes": 3210.0} | _figures("candidate", held, held.candidate, ours)
    if champion:
        figures |= {"champion_latency_ms": 0.05} | _figures("champion", held, held.champion, theirs)
    frozen = freeze(store, now_ms=at_ms)
    quadrants.another(folder, version=1 + champion, seed=runs_so_far(store), noise=0.02)
    manifest, onnx = read_artifact(folder)
    metrics = {"accuracy": float(held.candidate.mean()), "samples": 400.0} | figures
    manifest = msgspec.structs.replace(manifest, parent=champion, snapshot=frozen.id, metrics=metrics, name="clothes")
    store.blobs.put(onnx)
    report = {
        "settings": msgspec.to_builtins(settings()),
        "environment": {"code": {"version": "0.1.0", "commit": "0123456789abcdef"}, "libraries": {"numpy": "2"}},
        "went_on_from": champion,
        "train": frozen.train_count,
        "holdout": frozen.holdout_count,
        "seconds": 73.4,
        "figures": figures,
        "verdict": msgspec.to_builtins(verdict),
        "answers": msgspec.to_builtins(portraits(held, ours)),
        "candidate": {
            "manifest_sha256": store.blobs.put(encode_manifest(manifest)),
            "weights_sha256": store.blobs.put(b"weights"),
        },
    }
    with store.database.write() as connection:
        number = runs.insert(
            connection, snapshot_id=frozen.id, champion=champion, recipe="small", report={}, now_ms=at_ms
        )
        trail.record(connection, "train", f"run {number}", why="96 new labels", now_ms=at_ms)
        curves.add(connection, number, learned(number))
        ended = state or ("passed" if verdict.passed else "rejected")
        runs.finish(connection, number, state=ended, report=report, now_ms=at_ms + 73_400)
    return number


def learned(seed: int, *, epochs: int = 8) -> list[CurvePoint]:
    """A curve as they are: less and less, and in the end more again on what is kept back."""
    rng = np.random.default_rng(seed)
    made = []
    for n in range(1, epochs + 1):
        loss, held = 1.4 * 0.7**n + 0.05 * rng.random(), 0.4 + 0.9 * 0.6**n + 0.02 * max(0, n - 5)
        rate = 4e-3 * np.sin(np.pi * n / (epochs + 1))
        made.append(CurvePoint(n, round(loss, 4), round(held, 4), round(0.9 - 0.4 * 0.6**n, 4), float(rate), 9.1 * n))
    return made


def settings() -> Settings:
    return Settings(teach=Teach(epochs=8), gates=Gates())


def runs_so_far(store: Store) -> int:
    with store.database.read() as connection:
        return runs.last_id(connection)


def roll(store: Store, number: int, *, previous: int, status: str, at_ms: int, channel: str = "stable") -> int:
    """A rollout that came so far."""
    with store.database.write() as connection:
        made = rollouts.insert(
            connection, number=number, previous=previous, plan={}, state={}, now_ms=at_ms, channel=channel
        )
        (found,) = [one for one in rollouts.every(connection) if one.id == made]
        rollouts.save(connection, found, state={}, status=status, now_ms=at_ms)
    return made


def plant(store: Store, folder: Path, *, now_ms: int) -> None:
    """Versions 1 to 5 and a round that was rejected: 3 was halted, 4 (of 2) is tried in beta, 5 (of 4) is rolling out.

    cam-1 and cam-2 execute version 2, cam-3 version 4.
    """
    history = (
        (0, 0.72, 0.0, "stable", "done"),
        (1, 0.8, 0.72, "stable", "done"),
        (2, 0.81, 0.8, "stable", "halted"),
        (2, 0.84, 0.8, "beta", "done"),
        (4, 0.87, 0.84, "", ""),
    )
    for at, (champion, right, before, channel, status) in enumerate(history, 1):
        at_ms = now_ms - (7 - at) * DAY_MS
        round_of(store, folder / f"v{at}", champion=champion, right=right, before=before, at_ms=at_ms, state="passed")
        (made,) = publish_passed(store, now_ms=at_ms + 80_000)
        assert made.number == at
        if channel:
            roll(store, at, previous=champion, status=status, at_ms=at_ms + 90_000, channel=channel)
    round_of(store, folder / "bad", champion=2, right=0.55, before=0.8, at_ms=now_ms - DAY_MS // 2)
    begun_ms = now_ms - 3_600_000
    default = Rollout(rings=("canary=1", "all"))
    commands.start(store, 5, channel="stable", rings=(), rules=(), default=default, now_ms=begun_ms, who="ada")
    ingest = Ingest(store, fleet=FLEET, offline_after_s=90.0)
    for name, number in (("cam-1", 2), ("cam-2", 2), ("cam-3", 4)):
        beat = heartbeat("a")
        model = msgspec.structs.replace(beat.model, version=number, refused={})
        beat = msgspec.structs.replace(beat, model=model, latency_p95_ms=3.5 + number)
        ingest.take([message(name, "birth", encode(birth("a")), at_ms=now_ms)])
        ingest.take([message(name, "heartbeat", encode(beat), at_ms=now_ms)])
    with store.database.read() as connection:
        assert versions.next_number(connection) == 6
