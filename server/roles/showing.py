"""What shows people how things are, and takes their word?"""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import ExitStack

from server.config import ServerConfig
from server.store.store import Store
from server.web.frame import nothing
from server.web.service import Pages

log = logging.getLogger(__name__)


def show(
    stack: ExitStack,
    config: ServerConfig,
    store: Store,
    *,
    role: str,
    now_ms: Callable[[], int],
    hint: Callable[[], None] = nothing,
) -> None:
    """The pages, until the stack ends. `role`: what this process calls itself; `hint`: of make_app."""
    pages = Pages(store, config, role=role, now_ms=now_ms, hint=hint)
    log.info("pages at %s", pages.start())
    stack.callback(pages.stop)
