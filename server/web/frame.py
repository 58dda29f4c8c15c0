"""What do pages have in common?"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fastapi import Request, Response
from fastapi.templating import Jinja2Templates

from server.config import ServerConfig
from server.label.label_studio import project_of
from server.store.store import Store
from server.web.access import Access, Person
from server.web.fleet_table import FleetTable
from server.web.live import Pulse
from server.web.words import FILTERS

HERE = Path(__file__).parent


@dataclass(frozen=True)
class Place:
    """An entry of the navigation."""

    path: str
    title: str
    role: str = "viewer"


PLACES = (
    Place("/fleet", "Fleet"),
    Place("/label", "Label", "labeler"),
    Place("/data", "Data"),
    Place("/models", "Models"),
    Place("/rollouts", "Rollouts"),
    Place("/governance", "Governance"),
)


def nothing() -> None:
    """Nobody wants to know."""


class Frame:
    """What every page needs: the store, the configuration, the clock, templates, and who may what."""

    def __init__(
        self, store: Store, config: ServerConfig, *, now_ms: Callable[[], int], role: str, hint: Callable[[], None]
    ) -> None:
        """Nothing is read yet."""
        self.store, self.config, self.now_ms, self.role, self.hint = store, config, now_ms, role, hint
        self.pulse = Pulse(store)
        self.table = FleetTable(store, self.pulse, now_ms=now_ms)
        self.access = Access(store, config.web, now_ms=now_ms)
        self._templates = Jinja2Templates(HERE / "templates")
        self._templates.env.filters.update(FILTERS)
        self._templates.env.globals.update(places=PLACES, fleet=config.server.fleet, label_studio=project_of(config))

    def look(self, request: Request) -> None:
        """Before a page is made: how things stand, so that its scripts see what changes from now on (live.py)."""
        request.state.known = self.pulse.state()

    def page(
        self,
        request: Request,
        name: str,
        *,
        person: Person | None = None,
        status: int = 200,
        **values: object,
    ) -> Response:
        """A template, rendered; `person` is who looks at it."""
        context: Mapping[str, Any] = {
            "person": person,
            "path": request.url.path,
            "now_ms": self.now_ms(),
            "known": getattr(request.state, "known", None),
            **values,
        }
        return self._templates.TemplateResponse(request, name, dict(context), status_code=status)
