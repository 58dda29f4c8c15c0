"""Which pages are there, and what holds for all of them?

One FastAPI application: pages (HTML, a few fragments for htmx), the JSON API under /api/v1 that the pages use as well,
one stream of news (live.py), and static files. It keeps nothing: all is in the store, so that it may as well be a
process of its own.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from urllib.parse import quote

from fastapi import Depends, FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import RedirectResponse
from fastapi.staticfiles import StaticFiles
from starlette.datastructures import MutableHeaders
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from edge_agent.contract.errors import WinnowError
from server.config import ServerConfig
from server.errors import AwayError
from server.store.store import Store
from server.web import api, metrics, openapi, pages
from server.web.access import SignInNeeded, who
from server.web.api.answers import nothing_else
from server.web.body import Bounded
from server.web.frame import HERE, Frame, nothing
from server.web.problem import EVERYWHERE, problem

log = logging.getLogger(__name__)

API = "/api/v1"
FOR_PROGRAMS = ("/healthz", "/metrics")
HEADERS = {
    # Nothing from elsewhere, nothing inline: a label or a device's name that carries a script stays text.
    "Content-Security-Policy": "default-src 'self'; img-src 'self' data: blob:; "
    "frame-ancestors 'none'; form-action 'self'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
}


def make_app(
    store: Store,
    config: ServerConfig,
    *,
    now_ms: Callable[[], int],
    role: str = "web",
    hint: Callable[[], None] = nothing,
) -> FastAPI:
    """The application, without its socket.

    `now_ms`: the wall clock, ms since 1970. `role`: what the process calls itself. `hint`: to be told that something
    was answered elsewhere.
    """
    frame = Frame(store, config, now_ms=now_ms, role=role, hint=hint)
    app = FastAPI(
        title="Winnow",
        version="1",
        openapi_url="/api/openapi.json",
        docs_url=None,  # it would load its scripts from elsewhere
        redoc_url=None,
    )
    app.state.access, app.state.pulse = frame.access, frame.pulse
    app.mount("/static", StaticFiles(directory=HERE / "static"), name="static")
    app.include_router(metrics.router(frame), include_in_schema=False)
    for module in pages.MODULES:
        app.include_router(module.router(frame), include_in_schema=False, dependencies=[Depends(frame.look)])
    routers = [module.router(frame) for module in api.MODULES]
    for router in routers:
        app.include_router(router, prefix=API, responses=EVERYWHERE, dependencies=[Depends(nothing_else)])
    openapi.describe(app, routers, API)
    _answer_errors(app, frame)

    app.add_middleware(Bounded)
    app.add_middleware(Headed)
    return app


class Headed:
    """What stands at the head of every answer (ASGI)."""

    def __init__(self, app: ASGIApp) -> None:
        """`app`: whose answers."""
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on."""
        kept = scope["type"] == "http" and scope["path"].startswith("/static")

        async def headed(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers.update(HEADERS)
                if not kept:
                    headers.setdefault("Cache-Control", "no-store")
            await send(message)

        await self._app(scope, receive, headed)


def _answer_errors(app: FastAPI, frame: Frame) -> None:
    """JSON to programs, pages to people."""

    def wants_page(request: Request) -> bool:
        return not request.url.path.startswith("/api/") and "HX-Request" not in request.headers

    async def refuse(request: Request, status: int, why: str, headers: Mapping[str, str] | None = None) -> Response:
        if wants_page(request):
            return frame.page(request, "refused.html", person=await who(request), status=status, why=why)
        return problem(status, why, headers)

    @app.exception_handler(SignInNeeded)
    async def sign_in(request: Request, _: SignInNeeded) -> Response:
        if wants_page(request) and request.method == "GET":
            return RedirectResponse(f"/sign-in?next={quote(request.url.path)}", status_code=303)
        return problem(401, "sign in, or send Authorization: Bearer TOKEN", {"WWW-Authenticate": "Bearer"})

    @app.exception_handler(HTTPException)
    async def refused(request: Request, error: HTTPException) -> Response:
        return await refuse(request, error.status_code, str(error.detail), error.headers)

    @app.exception_handler(RequestValidationError)
    async def malformed(request: Request, error: RequestValidationError) -> Response:
        said = [f"{'.'.join(str(part) for part in one['loc'][1:])}: {one['msg']}" for one in error.errors()]
        return await refuse(request, 422, "; ".join(said))

    @app.exception_handler(AwayError)
    async def away(request: Request, error: AwayError) -> Response:
        log.warning("%s: %s", request.url.path, error)
        known = getattr(request.state, "person", None)  # nobody can be looked up now, and strangers are told no address
        why = str(error) if known else "nothing can be looked up now: try again in a moment; the server's log says why"
        if wants_page(request) and request.url.path not in FOR_PROGRAMS:
            return frame.page(request, "refused.html", person=known, status=503, why=why)
        return problem(503, why, {"Retry-After": "5"})

    @app.exception_handler(WinnowError)
    async def cannot(request: Request, error: WinnowError) -> Response:
        return await refuse(request, 409, str(error))
