"""The check in a process of its own, against real processes."""

import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from edge_agent.contract.errors import ArtifactError, DowngradeError, IncompatibleError, IntegrityError
from edge_agent.update.trial import CheckStoppedError, run_check


def check(script, *, timeout_s=20.0, memory_bytes=0, stop=None):
    run_check([sys.executable, "-c", script], timeout_s=timeout_s, memory_bytes=memory_bytes, stop=stop)


def refusing(line):
    return f"import sys; print('loading'); print('''{line}'''); sys.exit(3)"


def test_a_checker_that_ends_with_0_lets_the_model_pass():
    check("import sys; assert sys.stdin.read() == ''; print('x' * 1_000_000)")


@pytest.mark.parametrize("kind", [IncompatibleError, IntegrityError, DowngradeError, ArtifactError])
def test_a_refusal_keeps_its_class_and_message(kind):
    with pytest.raises(kind, match="golden input 3 is off") as caught:
        check(refusing(f'{{"error": "{kind.__name__}", "message": "golden input 3 is off"}}'))
    assert type(caught.value) is kind


@pytest.mark.parametrize("name", ["ConfigError", "annotations", "Nonsense"])
def test_a_class_that_is_no_artifact_error_is_incompatible(name):
    with pytest.raises(IncompatibleError, match=f"{name}: so it is"):
        check(refusing(f'{{"error": "{name}", "message": "so it is"}}'))


def test_a_refusal_without_json_is_quoted():
    with pytest.raises(IncompatibleError, match="ended with 3: what now"):
        check(refusing("what now"))


def test_a_crash_is_told_with_its_last_line():
    with pytest.raises(IncompatibleError, match=r"ended with 1: ZeroDivisionError"):
        check("1 / 0")
    with pytest.raises(IncompatibleError, match="killed by SIGSEGV: it said nothing"):
        check("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)")


def test_memory_is_capped():
    with pytest.raises(IncompatibleError, match="MemoryError"):
        check("import time; time.sleep(0.2); bytearray(2_000_000_000)", memory_bytes=500_000_000)


def test_time_on_the_processor_is_capped_and_no_core_is_left():
    check(
        "import resource as r, time; time.sleep(0.3)\n"
        "assert r.getrlimit(r.RLIMIT_CPU) == (21, 21), r.getrlimit(r.RLIMIT_CPU)\n"
        "assert r.getrlimit(r.RLIMIT_CORE) == (0, 0)",
        timeout_s=20.0,
    )


@pytest.mark.parametrize("more", [0, 15])
def test_the_stream_goes_first_and_nobody_goes_below_the_niceness_that_he_was_started_with(more):
    """What root may do, the agent's user may not."""
    checker = "import os, time; time.sleep(0.3); print(os.nice(0)); raise SystemExit(3)"
    agent = (
        f"import os, sys; from edge_agent.update.trial import run_check; print(own := os.nice({more}))\n"
        f"try: run_check([sys.executable, '-c', {checker!r}], timeout_s=20.0, memory_bytes=0)\n"
        "except Exception as error: print(str(error).split()[-1])"
    )
    done = subprocess.run([sys.executable, "-c", agent], capture_output=True, text=True, check=True)
    own, of_the_checker = map(int, done.stdout.split())
    assert of_the_checker == max(own, 10)


def test_a_checker_that_hangs_is_killed_with_its_children(tmp_path):
    pids = tmp_path / "pids"
    script = (
        "import os, pathlib, subprocess, sys, time\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'])\n"
        f"pathlib.Path({str(pids)!r}).write_text(f'{{os.getpid()}} {{child.pid}}')\n"
        "time.sleep(60)"
    )
    with pytest.raises(IncompatibleError, match="did not end within 2 s"):
        check(script, timeout_s=2.0)
    assert [pid for pid in pids.read_text().split() if alive(pid)] == []


def alive(pid):
    """A zombie waits for somebody to read its status, but runs no more."""
    for _ in range(50):
        try:
            if Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == "Z":
                return False
        except (FileNotFoundError, ProcessLookupError):
            return False
        time.sleep(0.05)
    return True


def test_stopping_the_agent_ends_the_check_without_a_verdict():
    stop = threading.Event()
    stop.set()
    with pytest.raises(CheckStoppedError):
        check("import time; time.sleep(60)", stop=stop)


def test_a_program_that_cannot_be_started_says_nothing_of_the_model(tmp_path):
    with pytest.raises(FileNotFoundError):
        run_check([str(tmp_path / "nothing")], timeout_s=1.0, memory_bytes=0)


def test_a_long_refusal_keeps_its_class():
    with pytest.raises(IntegrityError, match="^x{5000}$"):
        check("import json, sys; print(json.dumps({'error': 'IntegrityError', 'message': 'x' * 5000})); sys.exit(3)")
