"""What a process that stays does without."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

THREADS = """
import ctypes, sys, threading
from edge_agent import memory

libc = ctypes.CDLL(None)
libc.malloc.restype = libc.fdopen.restype = ctypes.c_void_p
met = threading.Barrier(4)

def allocate():
    met.wait()  # all four are there, so none takes over the arena of one that has ended
    libc.malloc(1000)
    met.wait()

def arenas():
    threads = [threading.Thread(target=allocate) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    libc.malloc_info(0, ctypes.c_void_p(libc.fdopen(1, b"w")))
    libc.fflush(None)

if sys.argv[1] == "one":
    with memory.starting():
        arenas()
else:
    arenas()
"""


def said_by(code: str, *words: str) -> str:
    done = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="arenas are glibc's")
@pytest.mark.parametrize(("how", "fewest", "most"), [("one", 1, 1), ("many", 2, 99)])
def test_threads_of_the_agent_share_one_arena(how, fewest, most):
    assert fewest <= said_by(THREADS, how).count("<heap ") <= most


def test_paho_comes_without_http_and_whoever_wants_it_has_it():
    code = (
        "import sys, edge_agent.send.connection\n"
        "print(*[name for name in ('http', 'email', 'urllib.request') if name in sys.modules])\n"
    )
    assert said_by(code).split() == []
    code += "import urllib.request; print(urllib.request.Request('http://a/').host)"
    assert said_by(code).split() == ["a"]


def test_paho_finds_the_proxies_that_it_asks_for():
    code = (
        "import edge_agent.mqtt, os\n"
        "os.environ['mqtt_proxy'] = 'socks://p:1'\n"
        "print(edge_agent.mqtt.client.urllib.request.getproxies()['mqtt'])"
    )
    assert said_by(code).split() == ["socks://p:1"]


def test_what_was_loaded_before_stays_as_it_is():
    code = (
        "import sys, urllib.request as first, edge_agent.mqtt, urllib\n"
        "print(sys.modules['urllib.request'] is first is urllib.request)"
    )
    assert said_by(code).split() == ["True"]


def test_who_imports_it_meanwhile_in_another_thread_gets_the_real_one():
    code = (
        "import sys, edge_agent.mqtt as mqtt\n"
        "with mqtt._without_http():\n"
        "    from urllib.request import Request\n"
        "print(Request('http://a/').host, sys.modules['urllib.request'].__file__ is not None)"
    )
    assert said_by(code).split() == ["a", "True"]
