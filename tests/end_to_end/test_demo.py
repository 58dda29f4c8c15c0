"""The quick demo, as `make demo-quick` runs it: the whole loop in processes of its own, on real images."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from processes import alive, children_of, wait_for

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
    page = report["page"]
    assert page.count("data:image/png;base64,") == 2
    assert "http://" not in page.replace("http://www.w3.org", "")
    assert "https://" not in page


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_demo_ends_within_five_seconds_and_leaves_nobody(tmp_path: Path, number: int) -> None:
    demo = subprocess.Popen(
        [sys.executable, "-m", "server", "demo", "--quick", "--devices", "2", "--out", str(tmp_path / "out")],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    started = tmp_path / "out" / "run" / "cam-2"
    wait_for("the agents have started", lambda: (started / "outbox.db").exists(), within_s=90)
    family = children_of(demo.pid)
    assert len(family) >= 3
    asked = time.monotonic()
    demo.send_signal(number)
    demo.wait(10)
    assert time.monotonic() - asked < 5
    wait_for("everybody has gone", lambda: not any(_there(pid) for pid in family), within_s=5)


def _there(pid: int) -> bool:
    try:
        return alive(pid)
    except FileNotFoundError:
        return False
