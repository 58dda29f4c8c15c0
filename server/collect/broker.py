"""Which broker, when none is configured?

One of our own: mosquitto as a child process, with a configuration written here. It lets in who shows a certificate of
the fleet, over TLS, as whom the certificate says; or, only where that is asked for, anybody on this machine. It keeps
nothing on disk, because durability is end to end. It is started again whenever it dies, on the same port, and it dies
with the server, however that ends.

The last is the kernel's doing (see server/child.py): the supervising thread starts it, and lives as long as it does.
"""

from __future__ import annotations

import errno
import logging
import os
import pwd
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from edge_agent.contract.wire import BODY_MAX_BYTES, HEADER_MAX_BYTES
from server.child import spawn
from server.collect.access import Audience, Client, rules
from server.errors import ServerError, StoreError

HOST = "127.0.0.1"
EVERYWHERE = {"0.0.0.0": HOST, "::": "::1"}  # noqa: S104 - words for all addresses, and where we are among them
OLDEST = (2, 0)
START_S = 10.0
STOP_S = 3.0
BACKOFF_MIN_S = 0.1
BACKOFF_MAX_S = 5.0
STEADY_S = 10.0  # after so long a run, the next restart is at once again
POLL_S = 0.02
LOG_LOOK_S = 5.0
LOG_MAX_BYTES = 4 * 1024 * 1024  # any stranger writes a line of it by a failed handshake: more, and he fills the disk

_PACKET_BYTES = 2 + HEADER_MAX_BYTES + BODY_MAX_BYTES + 1024  # the largest message, its topic and framing
_INSTALL = (
    "install it (Debian, Ubuntu, Raspberry Pi OS: apt install mosquitto; macOS: brew install mosquitto), "
    'or name a running broker: [broker] url = "mqtt://host:port"'
)

_log = logging.getLogger(__name__)


class Entry(NamedTuple):
    """How clients prove who they are: the files of the broker's side of TLS, and what they may do then."""

    listen: str  # address
    ca_file: Path  # whose certificates are let in
    cert_file: Path  # the broker's own, with its key
    crl_file: Path  # whose are not, any more
    fleet: str
    server: str  # the server's name as a client
    audience: Audience | None = None  # who may listen beside it
    workers: Sequence[Client] = ()  # who takes in for it


class Mosquitto(NamedTuple):
    """An installed mosquitto."""

    binary: Path
    version: tuple[int, ...]  # such as (2, 0, 11)


def find_mosquitto(configured: str = "") -> Mosquitto:
    """The mosquitto to run: the configured one, or the first of the usual places that is new enough.

    ServerError says what to install when there is none.
    """
    places = [Path(configured)] if configured else _usual_places()
    binaries = [place for place in places if os.access(place, os.X_OK) and place.is_file()]
    if not binaries:
        raise ServerError(f"mosquitto not found at {', '.join(str(place) for place in places)}: {_INSTALL}")
    found = [Mosquitto(binary, _version(binary)) for binary in binaries]
    for mosquitto in found:
        if mosquitto.version >= OLDEST:
            return mosquitto
    versions = ", ".join(f"{binary}: version {'.'.join(map(str, version))}" for binary, version in found)
    raise ServerError(f"{versions}, expected {'.'.join(map(str, OLDEST))} or newer: {_INSTALL}")


def _usual_places() -> list[Path]:
    on_path = shutil.which("mosquitto")
    folders = ["/usr/sbin", "/usr/local/sbin", "/opt/homebrew/sbin"]
    folders.append(f"{sys.prefix}/bin")  # where `make setup` links the one that it unpacks without rights
    return [*([Path(on_path)] if on_path else []), *(Path(folder, "mosquitto") for folder in folders)]


def _version(binary: Path) -> tuple[int, ...]:
    try:
        said = subprocess.run([str(binary), "-h"], capture_output=True, text=True, timeout=START_S).stdout
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ServerError(f"{binary}: {error}: {_INSTALL}") from error
    found = re.search(r"version (\d+(?:\.\d+)+)", said)
    if found is None:
        raise ServerError(f"{binary}: is not mosquitto, it says {said[:80]!r}: {_INSTALL}")
    return tuple(int(number) for number in found[1].split("."))


def configuration(port: int, *, user: str, entry: Entry | None = None, acl_file: Path | None = None) -> str:
    """mosquitto.conf: one listener, nothing kept, everything bounded by what the wire allows.

    Without an `entry` it lets in anybody, and listens on loopback only.
    """
    return "\n".join(
        [
            *(_guarded(port, entry, acl_file) if entry else [f"listener {port} {HOST}", "allow_anonymous true"]),
            "persistence false",
            f"user {user}",  # as root it would change its user, and by that lose the signal of our death
            f"max_packet_size {_PACKET_BYTES}",
            "max_inflight_messages 100",
            "max_queued_messages 50000",  # to one client: births of a fleet when the server comes back; more is lost
            f"max_queued_bytes {64 * 1024 * 1024}",
            "set_tcp_nodelay true",
            "sys_interval 0",
            "connection_messages false",
            "log_dest stderr",
            *(f"log_type {kind}" for kind in ("error", "warning", "notice")),
            "",
        ]
    )


def _guarded(port: int, entry: Entry, acl_file: Path | None) -> list[str]:
    return [
        f"listener {port} {entry.listen}",
        "allow_anonymous false",
        "require_certificate true",
        f"cafile {entry.ca_file}",
        f"certfile {entry.cert_file}",
        f"keyfile {entry.cert_file}",
        f"crlfile {entry.crl_file}",
        "use_identity_as_username true",
        "use_username_as_clientid true",  # whatever else a client calls itself: nobody ends another's session
        f"acl_file {acl_file}",
    ]


class BrokerChild:
    """A mosquitto of our own."""

    def __init__(self, folder: Path, *, port: int = 0, binary: str = "", entry: Entry | None = None) -> None:
        """Its files go to `folder`. `port` 0: the one of the last time, at first one that the system chooses.

        `entry`: who is let in; None: anybody on this machine.
        """
        self.port = port
        self.host = EVERYWHERE.get(entry.listen, entry.listen) if entry else HOST
        """Where this machine reaches it."""
        self._entry = entry
        self._folder = folder
        self._wanted = binary
        self._command: list[str] = []
        self._process: subprocess.Popen[bytes] | None = None
        self._accepting = threading.Event()
        self._failed = threading.Event()  # ended before it ever accepted a connection
        self._stopping = threading.Event()
        self._supervisor = threading.Thread(target=self._supervise, name="broker", daemon=True)

    @property
    def pid(self) -> int:
        """Of the process that runs now, or ran last; 0 before the first."""
        return self._process.pid if self._process else 0

    def start(self) -> None:
        """Start it, and return when it accepts connections; ServerError when it cannot be had."""
        mosquitto = find_mosquitto(self._wanted)
        self._prepare(mosquitto)
        self._supervisor.start()
        deadline = time.monotonic() + START_S
        while not self._accepting.wait(POLL_S):
            if self._failed.is_set() or time.monotonic() > deadline:
                self.stop()
                said = self._log_path.read_text(errors="replace").strip()[-500:]
                raise ServerError(
                    f"{mosquitto.binary} does not start on {self.host}:{self.port}; it says: {said or 'nothing'}"
                )

    def reload(self) -> None:
        """Have it read the list of revoked certificates and its own certificate again; connections go on."""
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(signal.SIGHUP)

    def stop(self) -> None:
        """End it; it is not started again."""
        self._stopping.set()
        if self._process is not None:
            self._process.terminate()
        if self._supervisor.is_alive():
            self._supervisor.join(STOP_S)
        if self._supervisor.is_alive() and self._process is not None:
            self._process.kill()
            self._supervisor.join()

    @property
    def _log_path(self) -> Path:
        return self._folder / "broker.log"

    def _prepare(self, mosquitto: Mosquitto) -> None:
        file = self._folder / "broker.conf"
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            listen = self._entry.listen if self._entry else HOST
            self.port = self.port or _remembered_port(self._folder / "broker.port", listen)
            _await_free(listen, self.port)
            acl_file = self._folder / "broker.acl"
            if self._entry:
                acl_file.write_text(_rules(self._entry))
            user = pwd.getpwuid(os.geteuid()).pw_name
            file.write_text(configuration(self.port, user=user, entry=self._entry, acl_file=acl_file))
            self._log_path.write_bytes(b"")
        except OSError as error:
            raise StoreError(f"{error.filename}: {error.strerror}") from error
        self._command = [str(mosquitto.binary), "-c", str(file)]

    def _supervise(self) -> None:
        backoff_s = BACKOFF_MIN_S
        while not self._stopping.is_set():
            started = time.monotonic()
            code = self._run()
            if self._stopping.is_set():
                return
            if not self._accepting.is_set():
                self._failed.set()
            backoff_s = BACKOFF_MIN_S if time.monotonic() - started > STEADY_S else min(2 * backoff_s, BACKOFF_MAX_S)
            _log.warning("mosquitto ended with %d, starting it again; see %s", code, self._log_path)
            self._stopping.wait(backoff_s)

    def _run(self) -> int:
        """Run it to its end; returns the exit status."""
        with open(self._log_path, "ab") as log:
            process = spawn(self._command, output=log, death_signal=signal.SIGKILL, many_files=True)  # one a device
        self._process = process
        if self._stopping.is_set():
            process.terminate()
        while process.poll() is None and not self._accepting.is_set():
            if _accepts(self.host, self.port):
                self._accepting.set()
            self._stopping.wait(POLL_S)
        while True:
            try:
                return process.wait(LOG_LOOK_S)
            except subprocess.TimeoutExpired:
                _bound(self._log_path)


def _rules(entry: Entry) -> str:
    return rules(entry.fleet, server=entry.server, workers=entry.workers, audience=entry.audience)


def _bound(log: Path) -> None:
    """Begin the log anew when it is too long: who writes to it appends."""
    try:
        if log.stat().st_size > LOG_MAX_BYTES:
            os.truncate(log, 0)
    except OSError as error:
        _log.debug("%s: %s", log, error)


def _remembered_port(file: Path, host: str) -> int:
    """The port in `file`; else a free one, written to it: devices must find the same after a restart."""
    try:
        return int(file.read_text())
    except (FileNotFoundError, ValueError):
        with _server(host, 0) as probe:
            port = int(probe.getsockname()[1])
        file.write_text(f"{port}\n")
        return port


def _server(host: str, port: int) -> socket.socket:
    return socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)


def _await_free(host: str, port: int) -> None:
    """Wait a moment for the broker of a server that was just killed; ServerError when the port stays taken."""
    deadline = time.monotonic() + STOP_S
    while True:
        try:
            _server(host, port).close()
            return
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise ServerError(f"{host}:{port}: {error.strerror}: see [server] listen and [broker] port") from error
            if time.monotonic() > deadline:
                message = f"{host}:{port}: {error.strerror}: another winnow-server may be running on the same data_dir"
                raise ServerError(f"{message}; otherwise set [broker] port") from error
            time.sleep(POLL_S)


def _accepts(host: str, port: int) -> bool:
    try:
        socket.create_connection((host, port), timeout=1.0).close()
    except OSError:
        return False
    return True
