"""What can programs ask, and who may ask it? The description of the API, as OpenAPI 3.1.

FastAPI makes it of the routes; here it is said beside that which role an operation takes, how programs prove who they
are, and that refusals are problem details.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from fastapi import APIRouter, FastAPI
from fastapi.dependencies.models import Dependant
from fastapi.openapi.utils import get_openapi
from fastapi.routing import APIRoute

from server.web.problem import MEDIA_TYPE

ABOUT = """\
What the pages and `winnow-server` do, for programs.

Send `Authorization: Bearer TOKEN`; `winnow-server user token NAME` makes one, and it may do what its user may. What
changes something says `why`, which stays in the audit trail with who it was. Lists come in pages: ask again with
`after` = what `next` said, until that is null. Times are ms since 1970, UTC. What cannot be done is told as problem
details (RFC 9457).
"""
TAGS = {
    "status": "How the loop is doing.",
    "devices": "Who belongs to the fleet, how each is, and where it belongs.",
    "samples": "What devices sent, and more like it.",
    "labels": "Questions, answers, classes.",
    "models": "Versions, what the gates said of them, their cards and where they come from.",
    "rollouts": "How versions reach the fleet.",
    "snapshots": "What models learned from.",
    "people": "Who may do what, and who did.",
}
BEARER = "token"


def describe(app: FastAPI, routers: Sequence[APIRouter], prefix: str) -> None:
    """Have `app` describe what `routers` gave it under `prefix`."""
    roles = {
        (prefix + route.path, method): role_of(route)
        for router in routers
        for route in router.routes
        if isinstance(route, APIRoute)
        for method in route.methods or ()
    }

    def openapi() -> dict[str, Any]:
        if not app.openapi_schema:
            app.openapi_schema = _made(app, roles)
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]


def _made(app: FastAPI, roles: Mapping[tuple[str, str], str]) -> dict[str, Any]:
    tags = [{"name": name, "description": about} for name, about in TAGS.items()]
    made = get_openapi(title=app.title, version=app.version, description=ABOUT, routes=app.routes, tags=tags)
    made["components"]["securitySchemes"] = {BEARER: {"type": "http", "scheme": "bearer"}}
    for name in ("HTTPValidationError", "ValidationError"):
        made["components"]["schemas"].pop(name, None)
    for path, operations in made["paths"].items():
        for method, operation in operations.items():
            operation["x-role"] = roles[path, method.upper()]
            operation["security"] = [{BEARER: []}]
            for status, answer in operation["responses"].items():
                if not status.startswith("2") and "content" in answer:
                    answer["content"] = {MEDIA_TYPE: answer["content"].pop("application/json")}
    return made


def role_of(route: APIRoute) -> str:
    """The least role that may ask for it; "": anybody may."""
    return next((role for one in _within(route.dependant) if (role := getattr(one.call, "role", ""))), "")


def _within(dependant: Dependant) -> Iterator[Dependant]:
    for one in dependant.dependencies:
        yield one
        yield from _within(one)
