"""A camera on loopback that speaks RTSP: motion JPEG over RTP inside the connection (RFC 2326, 2435).

DESCRIBE   what it gives, as SDP; 401 until whoever looks has said who he is
SETUP      only interleaved, on the connection itself
PLAY       frame after frame, until it is told to end
"""

from __future__ import annotations

import base64
import contextlib
import socketserver
import struct
import threading
import time
from collections.abc import Callable

Jpeg = bytes
CLOCK_HZ = 90_000  # of RTP's times of video
PIECE_BYTES = 1_000
SDP = """v=0
o=- 0 0 IN IP4 127.0.0.1
s=camera
c=IN IP4 0.0.0.0
t=0 0
m=video 0 RTP/AVP 26
a=control:one
""".replace("\n", "\r\n")


class Rtsp:
    """`frame(n)` is the nth picture as JPEG, (width, height) its size in multiples of 16."""

    def __init__(self, frame: Callable[[int], Jpeg], size: tuple[int, int], *, word: str = "", port: int = 0) -> None:
        """`word`: user:password that it asks for; empty: none."""
        self.ending = threading.Event()
        self.word = word
        self.frame, self.size = frame, size
        camera = self

        class Handler(socketserver.StreamRequestHandler):
            def handle(self) -> None:
                with contextlib.suppress(OSError):  # who looked has gone
                    while not camera.ending.is_set() and camera.answered(self):
                        pass

        class Server(socketserver.ThreadingTCPServer):
            allow_reuse_address = daemon_threads = True

        self._server = Server(("127.0.0.1", port), Handler)
        self.port = int(self._server.server_address[1])
        self.url = f"rtsp://127.0.0.1:{self.port}/stream1"
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    def answered(self, request: socketserver.StreamRequestHandler) -> bool:
        """Whether there was one more request."""
        method = request.rfile.readline().split(b" ")[0].decode()
        said = dict(line.split(": ", 1) for line in iter(lambda: request.rfile.readline().decode().strip(), ""))
        if not method:
            return False
        status, headers, body = "200 OK", [f"CSeq: {said['CSeq']}", "Session: 1"], b""
        if method == "DESCRIBE" and self.word and not self._knows(said.get("Authorization", "")):
            status, headers = "401 Unauthorized", [*headers, 'WWW-Authenticate: Basic realm="camera"']
        elif method == "DESCRIBE":
            headers, body = [*headers, "Content-Type: application/sdp"], SDP.encode()
        elif method == "SETUP":
            headers.append("Transport: RTP/AVP/TCP;unicast;interleaved=0-1")
        elif method == "OPTIONS":
            headers.append("Public: DESCRIBE, SETUP, PLAY, TEARDOWN")
        head = [f"RTSP/1.0 {status}", *headers, f"Content-Length: {len(body)}", "", ""]
        request.wfile.write("\r\n".join(head).encode() + body)
        if method == "PLAY":
            self._play(request)
        return method != "PLAY"

    def _knows(self, said: str) -> bool:
        return said == f"Basic {base64.b64encode(self.word.encode()).decode()}"

    def _play(self, request: socketserver.StreamRequestHandler) -> None:
        number = sequence = 0
        began_s = time.monotonic()
        while not self.ending.wait(0.01):
            at = int((time.monotonic() - began_s) * CLOCK_HZ)
            for piece, is_last in pieces(self.frame(number), self.size):
                head = struct.pack(">BBHII", 0x80, 26 | is_last << 7, sequence & 0xFFFF, at, 1)
                request.wfile.write(b"$\0" + struct.pack(">H", len(head + piece)) + head + piece)
                sequence += 1
            number += 1

    def close(self) -> None:
        """Pull it out: whoever looks is cut off, and nobody gets in."""
        self.ending.set()
        self._server.shutdown()
        self._server.server_close()


def pieces(jpeg: Jpeg, size: tuple[int, int]) -> list[tuple[bytes, bool]]:
    """Payloads of RTP for a JPEG with its colours at half the size, and whether it is the last: RFC 2435, 3.1."""
    tables, at = b"", 2
    while jpeg[at : at + 2] != b"\xff\xda":
        length = int.from_bytes(jpeg[at + 2 : at + 4], "big")
        if jpeg[at + 1] == 0xDB:  # one table or two, each after a byte that numbers it
            segment = jpeg[at + 4 : at + 2 + length]
            tables += b"".join(segment[start + 1 : start + 65] for start in range(0, len(segment), 65))
        at += 2 + length
    scan = jpeg[at + 2 + int.from_bytes(jpeg[at + 2 : at + 4], "big") : -2]
    found = []
    for start in range(0, len(scan), PIECE_BYTES):
        head = struct.pack(">IBBBB", start, 1, 255, size[0] // 8, size[1] // 8)  # 4:2:0, tables inside
        quantisation = struct.pack(">BBH", 0, 0, len(tables)) + tables if start == 0 else b""
        found.append((head + quantisation + scan[start : start + PIECE_BYTES], start + PIECE_BYTES >= len(scan)))
    return found
