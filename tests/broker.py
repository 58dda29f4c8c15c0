"""A real mosquitto on a loopback port that tests may kill and start again."""

from __future__ import annotations

import os
import pwd
import signal
import socket
import subprocess
import time
from pathlib import Path

from server.collect.broker import find_mosquitto

HOST = "127.0.0.1"
START_S = 10.0


class Broker:
    """Anonymous, nothing kept on disk. `kill` is -9; `start` after it listens on the same port, knowing nothing."""

    def __init__(self, folder: Path, *, options: str = "") -> None:
        """`options`: further lines of mosquitto.conf, for the one listener."""
        self.host = HOST
        with socket.socket() as probe:
            probe.bind((HOST, 0))
            self.port: int = probe.getsockname()[1]
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None
        (folder / "mosquitto.conf").write_text(
            f"listener {self.port} {HOST}\n"
            "allow_anonymous true\n"
            "persistence false\n"
            f"user {pwd.getpwuid(os.geteuid()).pw_name}\n"  # as root it would become a user who cannot read tmp_path
            "max_queued_messages 0\n"
            "set_tcp_nodelay true\n" + options
        )

    def start(self) -> None:
        """Returns once it accepts connections."""
        binary = find_mosquitto().binary
        log = self._folder / "mosquitto.log"
        with open(log, "ab") as out:
            command = [str(binary), "-c", str(self._folder / "mosquitto.conf")]
            self._process = subprocess.Popen(command, stdout=out, stderr=out)
        deadline = time.monotonic() + START_S
        while not self._accepts():
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"mosquitto does not start on {HOST}:{self.port}: {log.read_text()[-500:]}")
            time.sleep(0.01)

    def kill(self) -> None:
        """Without a word to anybody."""
        if self._process is not None:
            self._process.send_signal(signal.SIGKILL)
            self._process.wait()
            self._process = None

    def _accepts(self) -> bool:
        try:
            socket.create_connection((HOST, self.port), timeout=1.0).close()
        except OSError:
            return False
        return True
