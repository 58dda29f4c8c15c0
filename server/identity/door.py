"""How many may stand at the door at once?

So many of one address, and so many in all. Who comes beyond is turned away before a byte of his is read, and so before
TLS: a connection that says nothing costs a file descriptor, and the store, the broker's client and the decoder of
images need theirs.
"""

from __future__ import annotations

import functools
import ipaddress
import socket
import threading
from collections import Counter
from collections.abc import Callable
from typing import Any

ALL = 100  # at once; fewer, and a fleet that renews together is sent away; more, and silent ones cost memory
OF_ONE_ADDRESS = 20  # fewer, and a fleet behind one router waits for itself; more, and five addresses keep others out
_IPV6_HOME = 8  # bytes of an address that tell one customer from another (RFC 6177): the rest is his to choose


class Door(socket.socket):
    """A listening socket that counts who is in."""

    def __init__(self, *args: Any, **options: Any) -> None:
        """As any socket: see `at`."""
        super().__init__(*args, **options)
        self._inside: Counter[str | bytes] = Counter()
        self._counting = threading.Lock()

    @classmethod
    def at(cls, address: str, port: int) -> Door:
        """Listen; OSError when that cannot be had."""
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        return cls(fileno=socket.create_server((address, port), family=family).detach())

    def accept(self) -> tuple[socket.socket, Any]:
        """The next who finds room; BlockingIOError when nobody waits."""
        while True:
            plain, address = super().accept()
            home = _home(address[0])
            with self._counting:
                full = self._inside[home] >= OF_ONE_ADDRESS or self._inside.total() >= ALL
                self._inside[home] += not full
                self._inside += Counter()  # forgets who is gone
            if not full:
                return _Guest(plain, functools.partial(self._left, home)), address
            plain.close()

    def _left(self, home: str | bytes) -> None:
        with self._counting:
            self._inside[home] -= 1


class _Guest(socket.socket):
    """A connection that tells when it ends."""

    def __init__(self, plain: socket.socket, left: Callable[[], None]) -> None:
        super().__init__(fileno=plain.detach())
        self._left: Callable[[], None] | None = left

    def close(self) -> None:
        """End it."""
        super().close()
        left, self._left = self._left, None
        if left is not None:
            left()


def _home(address: str) -> str | bytes:
    try:
        found = ipaddress.ip_address(address)
    except ValueError:
        return address
    return found.packed[:_IPV6_HOME] if isinstance(found, ipaddress.IPv6Address) and not found.ipv4_mapped else address
