"""Does the package install, run, upgrade and go, on a Debian that has nothing else? `make test-deb`.

What the agent's Dockerfile runs is run there as well, on a Debian in place of its image of Python.

A minimal Debian is unpacked by debootstrap (once: the cache folder keeps it), copied, and entered with chroot in mount
and process namespaces of its own, without a network. Needs root, debootstrap and dpkg. install.sh is tried there by
itself, too, from the same wheels.

    python tests/deploy/in_chroot.py [--deb FILE] [--suite bookworm]
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parent.parent.parent
sys.path[:0] = [str(ROOT / name) for name in ("scripts", "tests", "tests/deploy", "")]

import deb  # noqa: E402
from booted import Booted  # noqa: E402
from quadrants import ARTIFACT, images  # noqa: E402
from step import cache_dir  # noqa: E402

PYTHON = {"bookworm": "3.11", "trixie": "3.13"}
TOML = """
[device]
name = "board"
data_dir = "/var/lib/winnow"
[source]
kind = "replay"
path = "/srv/stream.npz"
stop_at_end = true
[model]
artifact = "/srv/model"
variant = "cpu-fp32"
"""
UNIT = "/etc/systemd/system/winnow-agent.service"
LEFT = ("/opt/winnow", "/etc/winnow", "/var/lib/winnow", "/usr/lib/winnow-agent", UNIT, f"{UNIT}.d")


class Board:
    """A Debian of our own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def sh(self, command: str, *, fails: bool = False) -> str:
        """Run it inside, without a network; what it printed."""
        inside = ["chroot", str(self.folder), "env", "-i", "PATH=/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL=C.UTF-8"]
        fenced = ["unshare", "--mount", "--pid", "--net", "--fork", f"--mount-proc={self.folder}/proc"]
        argv = [*fenced, *inside, "sh", "-c", command]
        done = subprocess.run(argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
        if (done.returncode != 0) != fails:
            raise SystemExit(f"in_chroot: `{command}` ended with {done.returncode}:\n{done.stdout}")
        return done.stdout

    def has(self, path: str) -> bool:
        """Whether it is there, a dangling link included."""
        return (self.folder / path.lstrip("/")).exists() or (self.folder / path.lstrip("/")).is_symlink()


def main() -> None:
    parser = argparse.ArgumentParser(description="Try the Debian package in a chroot; see the top of this file.")
    parser.add_argument("--deb", type=Path, help="package (default: it is built)")
    parser.add_argument("--suite", choices=sorted(PYTHON), default="bookworm")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        package = options.deb or deb.build(Path(name), arch=deb.wheelhouse.this_arch(), python=PYTHON[options.suite])
        board = unpacked(Path(name, "board"), options.suite)
        shutil.copy(package, board.folder / "srv/winnow-agent.deb")
        shutil.copytree(ARTIFACT, board.folder / "srv/model")
        np.savez(board.folder / "srv/stream.npz", x=images(300)[0])
        for step in STEPS:
            step(board)
            print(f"ok: {step.__name__.replace('_', ' ')}", flush=True)


def unpacked(folder: Path, suite: str) -> Board:
    """A fresh copy of a minimal Debian with Python."""
    kept = cache_dir() / f"debian-{suite}-systemd"
    if not (kept / "etc/debian_version").exists():
        shutil.rmtree(kept, ignore_errors=True)
        kept.parent.mkdir(parents=True, exist_ok=True)
        packages = "--include=python3,python3-venv,systemd,dbus"
        subprocess.run(["debootstrap", "--variant=minbase", packages, suite, str(kept)], check=True, stdout=sys.stderr)
    shutil.copytree(kept, folder, symlinks=True, ignore=lambda top, _: ["dev"] if Path(top) == kept else [])
    (folder / "dev").mkdir()
    for device in ("null", "zero", "urandom", "random"):
        subprocess.run(["cp", "-a", f"/dev/{device}", str(folder / "dev")], check=True)
    return Board(folder)


def installs(board: Board) -> None:
    said = board.sh("dpkg -i /srv/winnow-agent.deb")
    assert "systemctl enable --now winnow-agent" in said, said
    assert "yes" in board.sh("runuser -u winnow -- test -w /var/lib/winnow && echo yes")
    owners = board.sh("stat -c '%U:%G %a' /etc/winnow/agent.toml /etc/winnow/credentials /var/lib/winnow")
    assert owners.split("\n")[:3] == ["root:winnow 640", "root:root 700", "winnow:winnow 700"]
    board.sh("runuser -u winnow -- /opt/winnow/venv/bin/python -c 'import onnxruntime, PIL, zstandard, tuf'")


def runs(board: Board) -> None:
    (board.folder / "etc/winnow/agent.toml").write_text(TOML)
    agent = "runuser -u winnow -- /opt/winnow/venv/bin/winnow-agent"
    said = board.sh(f"{agent} check /etc/winnow/agent.toml")
    assert "golden test passed, runs on cpu" in said, said
    board.sh(f"{agent} run /etc/winnow/agent.toml")
    assert "300 read" in board.sh(f"{agent} status /etc/winnow/agent.toml")


def upgrades(board: Board) -> None:
    board.sh("dpkg -i /srv/winnow-agent.deb")
    assert (board.folder / "etc/winnow/agent.toml").read_text() == TOML
    assert "300 read" in board.sh("/opt/winnow/venv/bin/winnow-agent status /etc/winnow/agent.toml")


def is_removed(board: Board) -> None:
    board.sh("dpkg --remove winnow-agent")
    assert not board.has("/opt/winnow")
    assert not board.has("/usr/lib/winnow-agent")
    assert (board.folder / "etc/winnow/agent.toml").read_text() == TOML
    assert board.has("/var/lib/winnow/outbox.db")


def is_purged(board: Board) -> None:
    board.sh("dpkg --purge winnow-agent")
    assert not [path for path in LEFT if board.has(path)]
    board.sh("getent passwd winnow", fails=True)
    assert "winnow" not in board.sh("dpkg-query -W")


def is_installed_by_the_script(board: Board) -> None:
    """Twice, with a credential the second time; then removed, then purged."""
    board.sh("dpkg-deb -x /srv/winnow-agent.deb /srv/tree")
    for name in ("install.sh", "winnow-agent.service", "agent.toml"):
        shutil.copy(ROOT / "deploy/agent" / name, board.folder / "srv" / name)
    install = "sh /srv/install.sh --wheels /srv/tree/usr/lib/winnow-agent/wheels"
    board.sh(install)
    assert (board.folder / "etc/winnow/agent.toml").read_text() == (ROOT / "deploy/agent/agent.toml").read_text()
    (board.folder / "etc/winnow/agent.toml").write_text(TOML)
    (board.folder / "etc/winnow/credentials/broker.password").write_text("secret")
    board.sh(install)
    drop_in = (board.folder / "etc/systemd/system/winnow-agent.service.d/credentials.conf").read_text()
    assert "LoadCredential=broker.password:/etc/winnow/credentials/broker.password" in drop_in
    runs(board)
    board.sh("sh /srv/install.sh --uninstall")
    assert not board.has("/opt/winnow")
    assert board.has("/var/lib/winnow/outbox.db")
    board.sh("sh /srv/install.sh --purge")
    assert not [path for path in LEFT if board.has(path)]


def is_made_by_the_dockerfile(board: Board) -> None:
    """COPY and RUN of its two stages, in turn; then the agent that its CMD starts, as its USER."""
    lines = (ROOT / "deploy/agent/Dockerfile").read_text().replace("\\\n", " ").splitlines()
    where, setting, arguments = "/", "", ""
    fetch = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "-d", str(board.folder / "srv/wheels")]
    subprocess.run([*fetch, "setuptools"], check=True)
    board.sh("cp /srv/tree/usr/lib/winnow-agent/wheels/*.whl /srv/wheels && python3 -m venv /srv/base")
    for line in lines:
        word, _, rest = line.partition(" ")
        if word == "WORKDIR":
            where = rest
            board.sh(f"mkdir -p {where}")
        elif word == "COPY" and not rest.startswith("--from"):
            *sources, target = rest.split()
            for source in sources:
                subprocess.run(["cp", "-r", str(ROOT / source), str(board.folder / where[1:] / target)], check=True)
        elif word == "ARG":
            arguments += f"export {rest}; "
        elif word == "RUN":
            index = "export PATH=/srv/base/bin:$PATH PIP_NO_INDEX=1 PIP_FIND_LINKS=/srv/wheels"
            board.sh(f"{index}; {arguments}cd {where} && {rest}")
        elif word == "USER":
            setting = f"setpriv --reuid {rest.split(':')[0]} --regid {rest.split(':')[1]} --clear-groups"
    board.sh("install -d /etc/winnow")
    (board.folder / "etc/winnow/agent.toml").write_text(TOML)
    board.sh(f"{setting} /opt/winnow/venv/bin/winnow-agent run /etc/winnow/agent.toml")
    status = f"{setting} /opt/winnow/venv/bin/winnow-agent status"
    assert "300 read" in board.sh(f"{status} /etc/winnow/agent.toml")
    board.sh(f"{status} --healthy /etc/winnow/agent.toml", fails=True)  # it has ended


def is_kept_alive_by_systemd(board: Board) -> None:
    """The unit as it is, but for a shorter watchdog: a credential, notifications, a source that hangs, a restart."""
    board.sh("rm -rf /opt/winnow /etc/winnow /var/lib/winnow; userdel winnow; dpkg -i /srv/winnow-agent.deb")
    hung = TOML.replace('"replay"', '"stuck:Stuck"').replace("stop_at_end = true", "").replace("stream.npz", "hold")
    uplink = '[uplink]\nbroker = "mqtt://127.0.0.1:1883"\nusername = "board"\npassword_file = "credential:password"\n'
    (board.folder / "etc/winnow/agent.toml").write_text(hung + uplink)
    (board.folder / "etc/winnow/credentials/password").write_text("secret")
    board.sh("chmod 600 /etc/winnow/credentials/password && dpkg -i /srv/winnow-agent.deb")  # which notes it
    drop_in = "[Service]\nWatchdogSec=8\nEnvironment=PYTHONPATH=/srv\n"
    (board.folder / "etc/systemd/system/winnow-agent.service.d/test.conf").write_text(drop_in)
    shutil.copy(ROOT / "tests/edge/stuck.py", board.folder / "srv")
    board.sh("systemctl enable winnow-agent")
    count = "systemctl show --value -p NRestarts winnow-agent"
    with Booted(board.folder) as machine:
        machine.until("systemctl is-active winnow-agent", lambda said: said == "active", within_s=60.0)
        time.sleep(20.0)  # more than twice what the watchdog waits
        assert machine.sh(count) == "0", machine.sh("journalctl -u winnow-agent")
        (board.folder / "srv/hold").touch()
        machine.until(count, lambda said: said != "0", within_s=60.0)
        (board.folder / "srv/hold").unlink()
        machine.until("systemctl is-active winnow-agent", lambda said: said == "active", within_s=60.0)
        journal = machine.sh("journalctl --no-pager -u winnow-agent")
        assert "the stream has not gone on" in journal, journal
        assert 'File "/srv/stuck.py"' in journal, journal
        machine.sh("systemctl stop winnow-agent")
        assert machine.sh("systemctl show --value -p Result winnow-agent") == "success"


STEPS = (
    installs,
    runs,
    upgrades,
    is_removed,
    is_purged,
    is_installed_by_the_script,
    is_made_by_the_dockerfile,
    is_kept_alive_by_systemd,
)

if __name__ == "__main__":
    main()
