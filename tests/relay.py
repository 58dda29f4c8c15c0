"""A wire between a device and its broker that tests may cut."""

from __future__ import annotations

import contextlib
import socket
import threading
import time

from broker import HOST


class Relay:
    """A wire that can be cut, and that notes what goes up it: TCP from a port of its own to the broker."""

    def __init__(self, to_port: int) -> None:
        self._to_port = to_port
        self.went: list[tuple[float, int]] = []  # when, bytes
        self._listener = socket.create_server((HOST, 0))
        self.host, self.port = self._listener.getsockname()
        self._open: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                near = self._listener.accept()[0]
                far = socket.create_connection((HOST, self._to_port))
                self._open += [near, far]
                for pair in ((near, far, self.went), (far, near, [])):
                    threading.Thread(target=self._pump, args=pair, daemon=True).start()

    @staticmethod
    def _pump(source: socket.socket, sink: socket.socket, went: list[tuple[float, int]]) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                went.append((time.monotonic(), len(data)))
                sink.sendall(data)

    def cut(self) -> None:
        for end in self._open:
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()
        self._open.clear()

    def close(self) -> None:
        self._listener.close()
        self.cut()
