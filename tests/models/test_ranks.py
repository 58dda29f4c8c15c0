"""Do several processes learn what one does, and does it change nothing when one of them is killed?"""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import signal
import socket
import subprocess
import sys
from functools import partial
from pathlib import Path

import in_ranks
import msgspec
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from models import augment, launch, node
from models import rank as rank_program
from models.checkpoint import FILE
from models.curve import Point
from models.errors import DataError, RankError
from models.launch import Death, Launch
from models.ranks import WHOLE, Draw, Ranks, even
from models.train import Settings, fit

APART = 2e-5  # of losses of 0.1 to 2: what other orders of addition leave after a dozen steps

# --- parts ---


@given(st.integers(0, 100), st.integers(1, 12))
def test_every_place_is_in_one_part_and_parts_are_alike(count: int, parts: int) -> None:
    places = [range(count)[even(count, part, parts)] for part in range(parts)]
    assert [place for part in places for place in part] == list(range(count))
    assert max(map(len, places)) - min(map(len, places)) <= 1


@given(st.lists(st.integers(0, 59), max_size=40), st.integers(1, 4), st.integers(1, 3), st.booleans())
def test_every_row_of_a_batch_is_one_rank_s_and_of_its_node_s_shard(
    rows: list[int], beside: int, nodes: int, sharded: bool
) -> None:
    batch, taken = torch.tensor(rows, dtype=torch.long), []
    for rank in range(beside * nodes):
        shard = (60 * (rank // beside) // nodes, 60 * (rank // beside + 1) // nodes) if sharded else None
        ranks = Ranks(rank=rank, world=beside * nodes, together=True, local=rank % beside, beside=beside, shard=shard)
        places = torch.arange(len(batch))[ranks.part(batch).own].tolist()
        if shard:
            assert all(shard[0] <= rows[place] < shard[1] for place in places)
        taken += places
    assert sorted(taken) == list(range(len(batch)))


def test_alone_it_has_all_and_asks_nobody() -> None:
    alone = Ranks()
    assert alone.first
    assert alone.part(torch.arange(5)) is WHOLE
    assert alone.total(value := torch.ones(2)) is value
    assert alone.told(value) is value


@pytest.mark.parametrize("layout", ["image", "series", "vector"])
@given(world=st.integers(1, 4), count=st.integers(1, 9))
@settings(max_examples=6)
def test_what_becomes_of_a_sample_is_the_same_whichever_rank_has_it(layout: str, world: int, count: int) -> None:
    shape = {"image": (9, 7), "series": (12, 3), "vector": (4,)}[layout]
    x = torch.tensor(np.random.default_rng(0).normal(100, 20, (count, *shape)), dtype=torch.float32)
    for name, change in augment.BY_LAYOUT[layout].items():
        torch.manual_seed(1)
        wanted = change(x)
        asked: list[torch.Tensor] = []  # by every rank, of the noise that is in proportion to the batch's spread
        for place in range(world):
            _changed(change, x, even(count, place, world), partial(_noted, asked))
        total = partial(_summed, asked)
        parts = [_changed(change, x, even(count, place, world), total) for place in range(world)]
        torch.testing.assert_close(torch.cat(parts), wanted, rtol=1e-5, atol=1e-3, msg=name)


def _noted(asked: list[torch.Tensor], own: torch.Tensor) -> torch.Tensor:
    asked.append(own)
    return own


def _summed(asked: list[torch.Tensor], own: torch.Tensor) -> torch.Tensor:
    return torch.stack(asked).sum(0) if asked else own


def _changed(change: augment.Augmentation, x: torch.Tensor, own: slice, total: object) -> torch.Tensor:
    torch.manual_seed(1)
    return change(x[own], Draw(len(x), own, total))  # type: ignore[arg-type]


# --- two processes ---


@pytest.fixture(scope="module")
def learned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What two processes made of every job."""
    folder = tmp_path_factory.mktemp("ranks")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        (folder / "port").write_text(str(free.getsockname()[1]))
    root = Path(__file__).resolve().parents[2]
    command = [sys.executable, in_ranks.__file__, str(folder)]
    environment = {**os.environ, "PYTHONPATH": str(root)}
    both = [subprocess.Popen([*command, str(rank), "2"], cwd=root, env=environment) for rank in range(2)]
    assert [one.wait(200) for one in both] == [0, 0]
    return folder


@pytest.mark.parametrize("name", [one.__name__ for one in in_ranks.ALIKE])
def test_two_processes_learn_what_one_does(name: str, learned: Path) -> None:
    points: list[Point] = []
    weights = in_ranks.learn(in_ranks.JOBS[name](), Ranks(), points)
    first, second = ((learned / f"{name}.{rank}").read_bytes() for rank in range(2))
    assert first == second
    curves = [msgspec.json.decode((learned / f"{name}.{rank}.json").read_bytes(), type=list[Point]) for rank in (0, 1)]
    assert curves[0] == curves[1]
    for own, theirs in zip(points, curves[0], strict=True):
        assert (own.epoch, own.learning_rate) == (theirs.epoch, theirs.learning_rate)
        for figure in ("loss", "held_loss", "held_accuracy"):
            assert getattr(own, figure) == pytest.approx(getattr(theirs, figure), abs=APART), figure
    _alike(weights, first)


def _alike(one: bytes, other: bytes) -> None:
    """As far as adding up in another order leaves them: a step of Adam is as long for the smallest slope."""
    first, second = (torch.load(io.BytesIO(weights))["state"] for weights in (one, other))
    for name, tensor in first.items():
        apart = (tensor.double() - second[name].double()).abs()
        assert float(apart.max()) < 4e-3, name
        assert float(apart.mean()) < 1e-4 * max(1.0, float(tensor.double().abs().mean())), name


# --- launched ---


@pytest.mark.long
def test_a_rank_that_is_killed_changes_nothing(learned: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    job, said = in_ranks.long(), []
    killed: list[int] = []

    def listen(share: float, text: str, _point: Point | None = None, /) -> None:
        said.append(text)
        if not killed and (tmp_path / FILE).exists():
            assert share < 0.9
            killed.append(_pid_of_a_rank(tmp_path))
            os.kill(killed[0], signal.SIGKILL)

    told = Launch(kind="torchrun", processes=2)
    net = fit(job.x, job.y, classes=3, settings=job.settings, folder=tmp_path, progress=listen, launch=told)
    assert net.weights() == (learned / "long.0").read_bytes()
    (again,) = [line for line in said if "begin again" in line]
    assert again in [f"rank {k} was killed by SIGKILL: all ranks begin again from the last checkpoint" for k in (0, 1)]
    (logged,) = [line for line in caplog.messages if "was killed by SIGKILL" in line]
    assert "; its last lines:\n" in logged
    assert said[-1].startswith("epoch 12/12")
    assert "epoch 1/12" not in "\n".join(said[said.index(again) :])
    assert [path.name for path in tmp_path.iterdir()] == [FILE]
    assert not _ranks(tmp_path)


def _ranks(folder: Path) -> list[int]:
    """Processes that learn what is in the folder."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            words = (process / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if b"models.rank" in words and b"models.node" not in words and str(folder / launch.FOLDER).encode() in words:
            found.append(int(process.name))
    return found


def _pid_of_a_rank(folder: Path) -> int:
    return max(_ranks(folder))


def test_the_death_that_is_told_is_the_one_that_came_first(tmp_path: Path) -> None:
    left = Death(0, 0, -signal.SIGTERM), Death(2, 2, 1)
    (tmp_path / launch.DIED).write_bytes(msgspec.json.encode([*left, Death(1, 1, -signal.SIGKILL)]))
    log = tmp_path / launch.LOGS / "none" / "attempt_0" / "1" / "stderr.log"
    log.parent.mkdir(parents=True)
    log.write_text("\n".join(f"line {k}" for k in range(40)))
    told = launch.obituary(tmp_path, 1)
    assert told.startswith("rank 1 was killed by SIGKILL; its last lines:\nline 28\n")
    assert told.endswith("line 39")
    (tmp_path / launch.DIED).unlink()
    (tmp_path / launch.LOGS / "launcher.log").write_text("no such option")
    assert launch.obituary(tmp_path, 2) == "what starts the ranks ended with 2; its last lines:\nno such option"


def test_what_dies_each_time_is_told_after_the_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launch, "command", lambda *_: [sys.executable, "-c", "import sys; sys.exit('no network')"])
    said: list[str] = []
    x, y = np.zeros((4, 5), np.float32), np.arange(4) % 2
    told = {"classes": 2, "settings": Settings(), "launch": Launch(kind="torchrun"), "folder": tmp_path}
    with pytest.raises(
        RankError, match="died 3 times, the last time because what starts the ranks ended with 1;.*\nno network"
    ):
        fit(x, y, progress=lambda _, text, *_more: said.append(text), **told)
    assert len(said) == 2
    assert not list(tmp_path.iterdir())


def test_a_job_that_a_rank_refuses_is_not_begun_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    refuses = "import pathlib, sys; pathlib.Path(sys.argv[1], 'refused.txt').write_text('no such recipe'); sys.exit(1)"
    monkeypatch.setattr(launch, "command", lambda place, _: [sys.executable, "-c", refuses, str(place)])
    x, y = np.zeros((4, 5), np.float32), np.arange(4) % 2
    with pytest.raises(DataError, match="^no such recipe$"):
        fit(x, y, classes=2, settings=Settings(), launch=Launch(kind="torchrun"), folder=tmp_path)


def test_why_another_machine_refuses_a_job_is_said_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def refuse(*_: object) -> None:
        raise DataError("no such recipe")

    monkeypatch.setattr(rank_program, "group", contextlib.nullcontext)
    monkeypatch.setattr(rank_program, "die_with_parent", lambda *_, **__: None)
    monkeypatch.setattr(rank_program, "take_part", refuse)
    assert rank_program.main([str(tmp_path)]) == 1
    assert capfd.readouterr().err == "no such recipe\n"
    monkeypatch.setattr(node, "_run", lambda folder, _: rank_program.main([str(folder)]))
    assert node._joined(argparse.Namespace()) == "it was refused: no such recipe"
