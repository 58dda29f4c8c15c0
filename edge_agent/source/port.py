"""Where do lines come from: the standard input, or a serial port?"""

from __future__ import annotations

import os
import select
import sys
from typing import Any

from edge_agent.contract.errors import ConfigError, SourceError
from edge_agent.source import IDLE_S
from edge_agent.source.options import Serial as SerialOptions

READ_BYTES = 65_536


class Stdin:
    """What another program writes into ours: `sensor | winnow-agent run agent.toml`."""

    name = "standard input"

    def __init__(self, handle: int | None = None) -> None:
        """`handle`: a file descriptor; None: the standard input."""
        self._handle = handle

    def open(self) -> None:
        """It is open already, or was closed by whoever started us."""
        if self._handle is None and (sys.stdin is None or sys.stdin.closed):
            raise SourceError("standard input: closed: expected a program that writes into it")
        self._fd = sys.stdin.fileno() if self._handle is None else self._handle

    def read(self) -> bytes | None:
        """None when the other program has ended."""
        try:
            if not select.select([self._fd], [], [], IDLE_S)[0]:
                return b""
            return os.read(self._fd, READ_BYTES) or None
        except OSError as error:
            raise SourceError(f"standard input: {error.strerror}") from error

    def close(self) -> None:
        """Not ours to close."""


class Serial:
    """A serial port, through pyserial."""

    def __init__(self, options: SerialOptions) -> None:
        """ConfigError when pyserial is not installed."""
        try:
            import serial
        except ImportError as error:
            raise ConfigError("[source] kind = 'serial' needs pyserial: pip install 'winnow-edge[serial]'") from error
        self._serial: Any = serial
        self._options = options
        self.name = options.port

    def open(self) -> None:
        """SourceError when there is no such port, or it is another's."""
        try:
            self._port = self._serial.Serial(self._options.port, self._options.baud, timeout=IDLE_S, exclusive=True)
        except (OSError, ValueError) as error:  # pyserial's own is an OSError
            raise SourceError(f"{self.name}: {error}") from error

    def read(self) -> bytes:
        """It never ends; pulled out, it is a SourceError."""
        try:
            data: bytes = self._port.read(max(1, min(self._port.in_waiting, READ_BYTES)))
        except (OSError, TypeError) as error:  # TypeError: pyserial, of a port that was closed under it
            raise SourceError(f"{self.name}: {error}") from error
        return data

    def close(self) -> None:
        """Let others have it."""
        if hasattr(self, "_port"):
            self._port.close()
