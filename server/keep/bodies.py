"""How do bytes get from one place to another, each once and whole?"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import tee
from typing import NamedTuple

from server.errors import StoreError
from server.store.blobs import Blobs

BATCH_BYTES = 16_000_000  # to one commit: less makes more flushes, more takes memory


class Copied(NamedTuple):
    """What was copied just now."""

    blobs: int
    bytes: int
    damaged: tuple[str, ...]  # cannot be read where they are


def absent(wanted: Iterable[str], here: Iterable[str]) -> Iterator[str]:
    """Those of `wanted` that are not `here`; both in order.

    >>> list(absent(["a", "c", "d"], ["b", "c"]))
    ['a', 'd']
    """
    each = iter(here)
    found = next(each, None)
    for name in wanted:
        while found is not None and found < name:
            found = next(each, None)
        if found != name:
            yield name


def copy(source: Blobs, target: Blobs, *, told: Callable[[Copied], None] = lambda _: None) -> Copied:
    """Copy what is not there; every body is checked against its hash as it is read. StoreError: the target fails.

    What is deleted meanwhile is passed over: whoever needs it finds it missing. `told` hears how far it is.
    """
    count = total = 0
    damaged: list[str] = []
    batch: dict[str, bytes] = {}
    held = 0
    names, wanted = tee(absent(source.names(), target.names()))
    for name, body in zip(names, source.get_many(wanted), strict=True):
        if isinstance(body, StoreError):
            if source.has(name):
                damaged.append(name)
            continue
        batch[name] = body
        held += len(body)
        count, total = count + 1, total + len(body)
        if held >= BATCH_BYTES:
            target.put_named(batch)
            batch, held = {}, 0
            told(Copied(count, total, tuple(damaged)))
    target.put_named(batch)
    return Copied(count, total, tuple(damaged))


def damaged(blobs: Blobs) -> Iterator[str]:
    """Every body is read: the names of those that are not what they were."""
    names, wanted = tee(blobs.names())
    for name, body in zip(names, blobs.get_many(wanted), strict=True):
        if isinstance(body, StoreError):
            yield name
