"""How does paho-mqtt come in without HTTP and e-mail?

It imports `urllib.request` at its top, and HTTP and e-mail with that (2.2 MB, 10 ms), to ask for a proxy where PySocks
is installed. Here a stand-in waits in its place, and loads it when something in it is asked for.
"""

from __future__ import annotations

import importlib
import sys
import urllib
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType

REQUEST = "urllib.request"


class _Deferred(ModuleType):
    def __getattr__(self, name: str) -> object:
        self.leave()
        return getattr(importlib.import_module(self.__name__), name)

    def leave(self) -> None:
        """Whoever imports it next gets the real one."""
        if sys.modules.get(self.__name__) is self:
            del sys.modules[self.__name__]


@contextmanager
def _without_http() -> Iterator[None]:
    """Whoever imports `urllib.request` afterwards gets the real one; so does paho, which looks for it in `urllib`."""
    if REQUEST in sys.modules:
        yield
        return
    sys.modules[REQUEST] = urllib.request = stands = _Deferred(REQUEST)
    try:
        yield
    finally:
        stands.leave()


with _without_http():
    import paho.mqtt.client as client
    from paho.mqtt.enums import CallbackAPIVersion
    from paho.mqtt.reasoncodes import ReasonCode

__all__ = ["CallbackAPIVersion", "ReasonCode", "client"]
