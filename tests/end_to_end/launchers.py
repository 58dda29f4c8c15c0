"""Do rounds, several machines and a real Ray learn what one process does?

    make test-ray

Not a part of `make test`: starting Ray takes a minute. tests/models/test_ranks.py has what is quick.
"""

from __future__ import annotations

import importlib.util
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import numpy as np
import pytest
import quadrants

from models.curve import Point
from models.job import Rows
from models.launch import FOLDER, Launch
from models.train import fit
from server import config
from server.store import runs
from server.store.store import Store
from server.teach.imports import import_file
from server.teach.run import CHECKPOINTS
from server.teach.training import Settings

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests" / "models"))
import in_ranks  # noqa: E402

TWO = Launch(kind="torchrun", processes=2)


def processes(*words: str) -> list[int]:
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            said = (process / "cmdline").read_bytes().decode().split("\0")
        except OSError:
            continue
        if all(any(word in one for one in said) for word in words):
            found.append(int(process.name))
    return found


def gone(*words: str, within_s: float = 30.0) -> bool:
    deadline = time.monotonic() + within_s
    while processes(*words) and time.monotonic() < deadline:
        time.sleep(0.1)
    return not processes(*words)


# --- a round ---


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Of a store that has something to learn from."""
    store = Store.open(tmp_path / "store")
    for split, count, seed in (("train", 160, 1), ("holdout", 80, 2)):
        x, y = quadrants.images(count, seed=seed)
        np.savez(tmp_path / f"{split}.npz", x=x, y=y, names=np.array(["a", "b", "c", "d"]))
        import_file(store, tmp_path / f"{split}.npz", split=split, now_ms=1_800_000_000_000)
    store.close()
    return tmp_path / "store"


def round_of(folder: Path, **told: object) -> subprocess.Popen[bytes]:
    teach = config.Teach(**({"epochs": 6, "batch_size": 16} | told))
    settings = Settings(teach=teach, gates=config.Gates())
    command = [sys.executable, "-m", "server.teach.run", f"--data-dir={folder}", "--why=a test"]
    command.append(f"--settings={msgspec.json.encode(settings).decode()}")
    return subprocess.Popen(command, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, stdout=subprocess.PIPE)


def figures(folder: Path) -> dict[str, float]:
    store = Store.open(folder)
    try:
        with store.database.read() as connection:
            found: dict[str, float] = runs.latest(connection)[0].report["figures"]
    finally:
        store.close()
    return {name: value for name, value in found.items() if "latency" not in name}


def test_a_round_in_ranks_is_judged_as_one_in_place(folder: Path) -> None:
    judged = []
    for told in ({}, {"launch": "torchrun", "processes": 2}):
        child = round_of(folder, **told)
        said = child.communicate(timeout=300)[0].decode()
        assert child.returncode == 0, said
        assert "epoch 6/6" in said
        judged.append(figures(folder))
    assert judged[0].keys() == judged[1].keys()
    for name, value in judged[0].items():
        assert value == pytest.approx(judged[1][name], abs=0.02), name


def test_a_round_that_is_killed_takes_its_ranks_along(folder: Path) -> None:
    child = round_of(folder, launch="torchrun", processes=2, epochs=500)
    deadline = time.monotonic() + 120
    while not list((folder / CHECKPOINTS).glob("*/checkpoint.pt")) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert len(processes("models.rank", str(folder))) >= 2
    os.kill(child.pid, signal.SIGKILL)
    child.wait(30)
    assert gone("models.rank", str(folder))
    assert gone("models.node", str(folder))


# --- several machines ---


def free_port() -> int:
    """Below those that connections are given: one that looks for a port where nobody listens may meet itself there."""
    for port in range(21_000 + os.getpid() % 5_000, 32_000):
        with socket.socket() as tried:
            if tried.connect_ex(("127.0.0.1", port)):
                return port
    raise AssertionError("no port is free")


@pytest.fixture
def second(tmp_path: Path) -> Iterator[Launch]:
    """A second machine, as far as torchrun knows."""
    meeting = f"127.0.0.1:{free_port()}"
    told = ["--join", "--node=1", "--nodes=2", f"--rendezvous={meeting}", "--processes=2"]
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}"}
    with (tmp_path / "second.log").open("wb") as log:
        command = [sys.executable, "-m", "models.node", *told]
        machine = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=log, stderr=log)
    try:
        yield Launch(kind="torchrun", processes=2, nodes=2, rendezvous=meeting)
    finally:
        machine.terminate()
        assert machine.wait(30) in (0, -signal.SIGTERM)


def read(told: str, start: int, stop: int) -> np.ndarray:
    """A machine's own way to its samples."""
    return np.load(told)[start:stop]


def test_two_machines_learn_one_training_after_the_other(second: Launch, tmp_path: Path) -> None:
    np.save(tmp_path / "elsewhere.npy", in_ranks.champion().x)
    by_itself = Rows(reader="end_to_end.launchers:read", told=str(tmp_path / "elsewhere.npy"))
    for job, rows in ((in_ranks.cnn(), None), (in_ranks.champion(), by_itself)):
        curves: list[list[float]] = []
        for launch in (Launch(), second):
            losses: list[float] = []

            def listen(_share: float, _text: str, point: Point | None = None, /, to: list[float] = losses) -> None:
                if point is not None:
                    to.append(point.loss)

            told = {"settings": job.settings, "parent": job.parent, "beside": job.beside, "progress": listen}
            fit(job.x, job.y, classes=3, launch=launch, rows=rows, **told)
            curves.append(losses)
        assert np.allclose(*curves, atol=2e-5)


# --- Ray ---


@pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="Ray is not installed: make test-ray")
def test_workers_of_ray_learn_what_torchrun_s_ranks_do(tmp_path: Path) -> None:
    job = in_ranks.champion()
    told = {"classes": 3, "settings": job.settings, "parent": job.parent, "beside": job.beside, "folder": tmp_path}
    said: list[str] = []
    by_ray = fit(
        job.x, job.y, launch=Launch(kind="ray", processes=2), progress=lambda _, text, *_more: said.append(text), **told
    )
    assert said[-1].startswith("epoch 2/2")
    assert by_ray.weights() == fit(job.x, job.y, launch=TWO, **{**told, "folder": None}).weights()
    assert gone("models.on_ray", str(tmp_path / FOLDER))
