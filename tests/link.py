"""A network link that a test may cut, hold up and slow down, and that notes what goes up it: TCP on the loopback."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
import time

HOST = "127.0.0.1"
CHUNK_BYTES = 16_384
RESET = struct.pack("ii", 1, 0)  # SO_LINGER: close at once, by a reset; what was not delivered is lost


class Link:
    """Forwards connections to `port`. The verbs may come from any thread, at any time."""

    def __init__(self, port: int) -> None:
        self._to = (HOST, port)
        self._listener = socket.create_server((HOST, 0))
        self.host = HOST
        self.port: int = self._listener.getsockname()[1]
        self.went: list[tuple[float, int]] = []  # up: when, bytes
        self._flows = threading.Event()
        self._flows.set()
        self._broken = False
        self._delay_s = 0.0
        self._lock = threading.Lock()
        self._ends: set[socket.socket] = set()
        threading.Thread(target=self._accept, name="link", daemon=True).start()

    def cut(self) -> None:
        """Break every connection, with what is on its way, and let none through until `mend`."""
        self._broken = True
        with self._lock:
            ends = list(self._ends)
        for end in ends:
            _reset(end)
        self._flows.set()  # nobody waits for a connection that is no more

    def hang(self) -> None:
        """Let nothing pass, and say so to nobody, until `mend`: then it goes on as if nothing had been."""
        self._flows.clear()

    def slow(self, delay_s: float) -> None:
        """Let each piece wait that long, until `mend`."""
        self._delay_s = delay_s

    def mend(self) -> None:
        """As good as new."""
        self._broken, self._delay_s = False, 0.0
        self._flows.set()

    def close(self) -> None:
        self.cut()
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            try:
                far = socket.create_connection(self._to, timeout=2.0)
            except OSError:
                _reset(near)
                continue
            far.settimeout(None)
            with self._lock:
                self._ends |= {near, far}
            if self._broken:
                _reset(near)
                _reset(far)
            for way in ((near, far, self.went), (far, near, [])):
                threading.Thread(target=self._carry, args=way, name="link", daemon=True).start()

    def _carry(self, source: socket.socket, sink: socket.socket, went: list[tuple[float, int]]) -> None:
        """Until either end closes; then both do."""
        with contextlib.suppress(OSError):
            while data := source.recv(CHUNK_BYTES):
                time.sleep(self._delay_s)
                self._flows.wait()
                went.append((time.monotonic(), len(data)))
                sink.sendall(data)
        with self._lock:
            self._ends -= {source, sink}
        for end in (source, sink):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()


def _reset(end: socket.socket) -> None:
    with contextlib.suppress(OSError):
        end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        end.shutdown(socket.SHUT_RDWR)
