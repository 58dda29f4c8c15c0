"""How is a long list worked through by several threads, in order?"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, Future, wait
from typing import TypeVar

from server.errors import StoreError

Item = TypeVar("Item")
Result = TypeVar("Result")


def in_order(
    pool: Executor, function: Callable[[Item], Result], items: Iterable[Item], *, ahead: int
) -> Iterator[Result]:
    """What `function` gives of each item, in their order, with up to `ahead` of them begun.

    What it raises is raised when its turn comes; the others are then not begun, and when this ends none runs any more.
    StoreError when the pool was shut down.
    """
    begun: deque[Future[Result]] = deque()
    try:
        for item in items:
            begun.append(_submitted(pool, function, item))
            if len(begun) >= ahead:
                yield begun.popleft().result()
        while begun:
            yield begun.popleft().result()
    finally:
        wait([future for future in begun if not future.cancel()])


def _submitted(pool: Executor, function: Callable[[Item], Result], item: Item) -> Future[Result]:
    try:
        return pool.submit(function, item)
    except RuntimeError as error:
        raise StoreError("nothing is read or written any more: we are stopping") from error
