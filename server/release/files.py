"""Which part of a file does a Range ask for?

RFC 9110, 14: one range of bytes, which is all that devices ask for; of anything else the whole file comes, as the RFC
allows. Pure; a route hands in what was asked and sends what comes back.
"""

from __future__ import annotations

import re
from typing import NamedTuple

_RANGE = re.compile(r"bytes=(\d{1,15})-(\d{0,15})")
_OK, _PARTIAL, _NOT_THERE = 200, 206, 416


class Part(NamedTuple):
    """What to answer."""

    status: int
    headers: dict[str, str]
    body: memoryview


def part(data: bytes, asked: str | None) -> Part:
    """The answer to a GET of `data` with the header `Range: asked`; None: without one.

    >>> answer = part(b"0123456789", "bytes=8-99")
    >>> answer.status, answer.headers["Content-Range"], bytes(answer.body)
    (206, 'bytes 8-9/10', b'89')
    >>> part(b"0123456789", "bytes=10-").status
    416
    """
    view, headers = memoryview(data), {"Accept-Ranges": "bytes"}
    found = _RANGE.fullmatch(asked or "")
    if found is None:
        return Part(_OK, headers, view)
    first, last = int(found[1]), min(int(found[2] or len(data)), len(data) - 1)
    if found[2] and int(found[2]) < first:  # no range at all
        return Part(_OK, headers, view)
    if first >= len(data):
        return Part(_NOT_THERE, headers | {"Content-Range": f"bytes */{len(data)}"}, view[:0])
    return Part(_PARTIAL, headers | {"Content-Range": f"bytes {first}-{last}/{len(data)}"}, view[first : last + 1])
