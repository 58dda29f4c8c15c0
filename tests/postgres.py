"""How does a test come to a real PostgreSQL?

One server to a session, in a folder and on a port of its own, that ends with the session however that ends. Each test
has a database of its own, made from a template that is migrated once. Without `fsync`, unless a test asks for a server
that is `durable`: what survives when the machine loses its power is not what they look at.
"""

from __future__ import annotations

import ctypes
import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg

from server import config

USER = "postgres"  # the server refuses to run as root
START_S = 60.0
SETTINGS = (
    "listen_addresses=127.0.0.1",
    "shared_buffers=16MB",
    "max_connections=200",
    "max_wal_size=256MB",
    "autovacuum=off",  # it would come when it likes
    "max_worker_processes=2",
)
HASTE = ("fsync=off", "synchronous_commit=off", "full_page_writes=off")


def binaries() -> Path | None:
    """The folder of the newest server here; None: there is none."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"), key=lambda path: int(path.parts[-3]))
    if found:
        return found[-1].parent
    there = shutil.which("postgres")
    return Path(there).resolve().parent if there else None


WHY_NOT = "" if binaries() else "no PostgreSQL here: install Debian's postgresql, or run `make setup` as root"


class Server:
    """One running server."""

    def __init__(self, folder: Path, *, durable: bool = False) -> None:
        """Its data go into `folder`, which is made."""
        found = binaries()
        assert found is not None, WHY_NOT
        self._binaries, self.folder = found, folder
        self._settings = SETTINGS if durable else (*SETTINGS, *HASTE)
        self._process: subprocess.Popen[bytes] | None = None
        self.port = _free_port()
        folder.mkdir(parents=True)
        if os.geteuid() == 0:
            shutil.chown(folder, USER, pwd.getpwnam(USER).pw_gid)
        options = [
            "--auth=trust",
            "--username=postgres",
            "--encoding=UTF8",
            "--locale=C",
            "--no-sync",
            "--no-instructions",
        ]
        self._run("initdb", *options, "-D", str(folder / "data"))

    def start(self) -> None:
        """Start it, and wait until it answers."""
        command = [str(self._binaries / "postgres"), "-D", str(self.folder / "data"), "-p", str(self.port)]
        command += ["-k", str(self.folder)]
        for setting in self._settings:
            command += ["-c", setting]
        log = (self.folder / "log").open("ab")
        self._process = subprocess.Popen(
            command, stdout=log, stderr=log, stdin=subprocess.DEVNULL, preexec_fn=_end_with_us, **_as_user()
        )
        until = time.monotonic() + START_S
        while subprocess.run([self._binaries / "pg_isready", "-q", "-h", "127.0.0.1", "-p", str(self.port)]).returncode:
            if self._process.poll() is not None or time.monotonic() > until:
                raise AssertionError((self.folder / "log").read_text())
            time.sleep(0.05)

    def stop(self, *, kill: bool = False) -> None:
        """End it at once: whoever is connected is cut off. kill: as if the machine had lost its power."""
        if self._process is not None:
            self._process.send_signal(signal.SIGQUIT if kill else signal.SIGINT)  # immediate, or fast, shutdown
            self._process.wait(START_S)
            self._process = None

    def settings(self, name: str) -> config.Store:
        """For a catalogue in the database of that name."""
        return config.Store(url=f"postgresql://{USER}@127.0.0.1:{self.port}/{name}")

    def create(self, name: str, *, template: str = "template0", more: str = "") -> None:
        """Make a database."""
        self.say(f'CREATE DATABASE "{name}" TEMPLATE "{template}" {more}')

    def drop(self, name: str) -> None:
        """It is needed no more, whoever is connected."""
        self.say(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')

    def admit(self, line: str) -> None:
        """Put a line before the others that say who may come in, and how."""
        rules = self.folder / "data" / "pg_hba.conf"
        rules.write_text(f"{line}\n{rules.read_text()}")
        self.say("SELECT pg_reload_conf()")

    def say(self, statement: str, *, database: str = "postgres") -> list[tuple[object, ...]]:
        """Have one statement done, outside a transaction."""
        with self.connect(database) as connection:
            done = connection.execute(statement)
            return done.fetchall() if done.description else []

    def connect(self, database: str) -> psycopg.Connection[tuple[object, ...]]:
        """To a database, without transactions."""
        address = f"host=127.0.0.1 port={self.port} user={USER} dbname={database}"
        return psycopg.connect(address, autocommit=True)

    def _run(self, program: str, *arguments: str) -> None:
        done = subprocess.run(
            [self._binaries / program, *arguments], capture_output=True, text=True, cwd="/", **_as_user()
        )
        assert done.returncode == 0, done.stdout + done.stderr


@contextmanager
def running(*, durable: bool = False) -> Iterator[Server]:
    """A server, in a folder that its user may enter (those of pytest he may not), which goes at the end."""
    place = Path(tempfile.mkdtemp(prefix="winnow-postgres-"))
    place.chmod(0o755)
    try:
        server = Server(place / "server", durable=durable)
        server.start()
        try:
            yield server
        finally:
            server.stop(kill=True)  # nobody needs what is in it
    finally:
        shutil.rmtree(place, ignore_errors=True)


def _as_user() -> dict[str, object]:
    if os.geteuid() != 0:
        return {}
    user = pwd.getpwnam(USER)
    return {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}


def _end_with_us() -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, int(signal.SIGQUIT), 0, 0, 0)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
