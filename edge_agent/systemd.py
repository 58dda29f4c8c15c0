"""What does the service manager give the agent, and what does it want to hear?

The protocols of sd_notify(3), sd_watchdog_enabled(3) and LoadCredential= in systemd.exec(5): datagrams to a socket, and
a folder, both named by the environment. Nothing of the agent reads the environment but `read_environment`.
"""

from __future__ import annotations

import logging
import os
import threading

import msgspec

from edge_agent.pulse import STUCK_S, Pulse

log = logging.getLogger(__name__)

PINGS = 4  # to one WatchdogSec: one that is late by a busy machine must not be the end


class Manager(msgspec.Struct, frozen=True):
    """Of this process; all empty where there is none."""

    socket: str = ""
    watchdog_s: float = 0.0  # after so long without a ping it ends the agent; 0: it does not wait for any
    credentials: str = ""  # folder

    @property
    def stuck_s(self) -> float:
        """How long the stream may stand still: half of what the manager waits for a ping."""
        return self.watchdog_s / 2 or STUCK_S

    def tell(self, word: str) -> None:
        """Such as READY=1; lost where nobody listens."""
        if not self.socket:
            return
        import socket  # where there is one

        address = "\0" + self.socket[1:] if self.socket.startswith("@") else self.socket
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sender:
                sender.settimeout(1.0)
                sender.sendto(word.encode(), address)
        except OSError as error:
            log.debug("%s: %s: %s was not told", self.socket, error, word)


NOBODY = Manager()


def read_environment() -> Manager:
    """What systemd said when it started this process."""
    watched = os.environ.get("WATCHDOG_PID", str(os.getpid())) == str(os.getpid())
    usec = os.environ.get("WATCHDOG_USEC", "")
    return Manager(
        socket=os.environ.get("NOTIFY_SOCKET", ""),
        watchdog_s=int(usec) / 1e6 if watched and usec.isdecimal() else 0.0,
        credentials=os.environ.get("CREDENTIALS_DIRECTORY", ""),
    )


class Watchdog:
    """Pings the manager as long as the pulse is not overdue.

    In a thread of its own: housekeeping loads models, which may rightly take longer than a watchdog waits.
    """

    def __init__(self, manager: Manager, pulse: Pulse) -> None:
        """Begins with `start`."""
        self._manager = manager
        self._pulse = pulse
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="watchdog", daemon=True)

    def start(self) -> None:
        """Say that the agent is there, and from now on that it is alive."""
        self._pulse.beat()
        self._manager.tell("READY=1")
        if self._manager.watchdog_s:
            self._thread.start()

    def stop(self) -> None:
        """No more pings: what is left to be closed has until the next is due."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join()

    def _run(self) -> None:
        said = False
        while True:
            overdue_s = self._pulse.overdue_s()
            if overdue_s <= 0:
                self._manager.tell("WATCHDOG=1")
            elif not said:
                log.error("the stream has not gone on when it should have: the service manager will start it afresh")
            said = overdue_s > 0
            if self._stopping.wait(self._manager.watchdog_s / PINGS):
                return
