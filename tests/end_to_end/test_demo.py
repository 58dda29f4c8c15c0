"""The quick demo, as `make demo-quick` runs it: the whole loop in processes of its own, on real images."""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from processes import alive, children_of, wait_for
from quadrants import images

pytestmark = [pytest.mark.end_to_end, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> dict:
    out = tmp_path_factory.mktemp("demo") / "report"
    run = subprocess.run(
        [sys.executable, "-m", "server", "demo", "--quick", "--out", str(out)],
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
    )
    assert run.returncode == 0, run.stdout[-3000:] + run.stderr[-3000:]
    found = json.loads((out / "report.json").read_text())
    found["page"] = (out / "report.html").read_text()
    assert "pages: http://127.0.0.1:" in run.stdout
    return found


def test_nothing_selected_was_lost(report: dict) -> None:
    for device in report["devices"].values():
        assert device["read"] == 2400
        assert device["selected"] > 0
        kept = device["stored"] + sum(device["evicted"].values()) + device["pending"] + device["parked"]
        assert device["selected"] == kept


def test_versions_advanced_on_every_device(report: dict) -> None:
    published = [one["version"] for one in report["rounds"] if one["version"]]
    assert published
    for device in report["devices"].values():
        assert device["versions"][0] == 1
        assert device["versions"] == sorted(set(device["versions"]))
        assert device["versions"][-1] == max(published)


def test_the_loop_paid(report: dict) -> None:
    accuracy = report["accuracy"]
    assert accuracy["winnow"]["value"] > accuracy["frozen"]["value"] + 0.10
    # Not below random: the run is a draw, so the interval decides.
    assert accuracy["winnow"]["interval"][1] > accuracy["random"]["value"]
    assert report["bytes"]["sent"] < 0.1 * report["bytes"]["everything"]
    assert report["labels"] > 0


def test_the_report_says_what_it_must(report: dict) -> None:
    for key in ("seed", "machine", "devices", "rounds", "labels", "bytes", "accuracy", "recovery_s", "overhead_ratio"):
        assert key in report
    assert 0 < report["overhead_ratio"] < 2
    assert set(report["accuracy"]) == {"winnow", "frozen", "random"}
    draws = report["random_draws"]
    assert len(draws) == 3
    assert report["accuracy"]["random"]["value"] == pytest.approx(sum(draws) / 3)
    assert all(f"{draw:.1%}" in report["page"] for draw in draws)
    for arm, whole in report["accuracy"].items():  # one of the test's samples in four
        assert report["accuracy_degraded"][arm]["samples"] == whole["samples"] / 4
    page = report["page"]
    assert page.count("data:image/png;base64,") == 2
    assert "http://" not in page.replace("http://www.w3.org", "")
    assert "https://" not in page


def test_interrupted_demos_end_within_five_seconds_and_leave_nobody(tmp_path: Path) -> None:
    x, y = images(4000, seed=1)  # as many processes as with the demo's own, which takes longer to learn
    np.savez(tmp_path / "own.npz", x=x, y=y)
    numbers = (signal.SIGINT, signal.SIGTERM)
    with contextlib.ExitStack() as left:  # both start in the time of one
        demos = [left.enter_context(_running(tmp_path / number.name, tmp_path / "own.npz")) for number in numbers]
        last = [tmp_path / number.name / "run" / "cam-2" / "outbox.db" for number in numbers]
        wait_for("the agents have started", lambda: all(file.exists() for file in last), within_s=90)
        for number, demo in zip(numbers, demos, strict=True):
            family = children_of(demo.pid)
            assert len(family) >= 3
            asked = time.monotonic()
            demo.send_signal(number)
            demo.wait(10)
            assert time.monotonic() - asked < 5
            wait_for("everybody has gone", lambda of=family: not any(_there(pid) for pid in of), within_s=5)


@contextlib.contextmanager
def _running(out: Path, data: Path) -> Iterator[subprocess.Popen]:
    """A demo that is killed if it has not ended."""
    words = ("--quick", "--data", str(data), "--devices", "2", "--out", str(out))
    demo = subprocess.Popen(
        [sys.executable, "-m", "server", "demo", *words], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        yield demo
    finally:
        demo.kill()
        demo.wait()


def _there(pid: int) -> bool:
    try:
        return alive(pid)
    except FileNotFoundError:
        return False
