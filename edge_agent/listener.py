"""Where does the agent listen, for HTTP on the device's own network or within the device?"""

from __future__ import annotations

import os
import socket
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from socketserver import TCPServer


class Listener(ThreadingHTTPServer):
    """A thread to each connection. `at`: (host, port), or the path of a socket in the file system."""

    daemon_threads = True

    def __init__(self, at: tuple[str, int] | str, handler: type[BaseHTTPRequestHandler]) -> None:
        """Listen, from now on; OSError when that cannot be. The file of a socket is its owner's alone."""
        self.at = at
        if isinstance(at, str):
            self.address_family = socket.AF_UNIX
            _remove(at)  # one that is left of an agent that was killed
        else:
            self.address_family = socket.AF_INET6 if ":" in at[0] else socket.AF_INET
        super().__init__(at, handler)  # type: ignore[arg-type]

    def server_bind(self) -> None:
        """Without asking DNS for our own name, as HTTPServer does: out of reach, that holds up the agent's start."""
        if isinstance(self.at, str):
            before = os.umask(0o077)
            try:
                TCPServer.server_bind(self)
            finally:
                os.umask(before)
        else:
            TCPServer.server_bind(self)

    def handle_error(self, request: object, client_address: object) -> None:
        """Whoever asked is gone before the answer: usual, and no traceback to print."""
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(request, client_address)  # type: ignore[arg-type]

    def server_close(self) -> None:
        """And take the socket's file away."""
        super().server_close()
        if isinstance(self.at, str):
            _remove(self.at)


def _remove(at: str) -> None:
    """A socket's file; what else has that name is somebody's."""
    if Path(at).is_socket():
        Path(at).unlink(missing_ok=True)
