"""The pages, on their socket, in a thread of their own."""

from __future__ import annotations

import logging
import socket
import threading
from collections.abc import Callable
from pathlib import Path

import uvicorn

from edge_agent.contract.artifact import write_durably
from server.config import ServerConfig
from server.errors import ServerError
from server.store.store import Store
from server.web.app import make_app
from server.web.frame import nothing

ADDRESS = "web.url"
"""File in the data folder with the address, for whoever starts a browser."""
STOP_S = 3.0

log = logging.getLogger(__name__)


class Pages:
    """Serves them until it is stopped."""

    def __init__(
        self,
        store: Store,
        config: ServerConfig,
        *,
        now_ms: Callable[[], int],
        role: str = "web",
        hint: Callable[[], None] = nothing,
    ) -> None:
        """Nothing happens before `start`; the others: of `make_app`."""
        web = config.web
        self._web, self._folder = web, Path(config.server.data_dir)
        self._app = make_app(store, config, now_ms=now_ms, role=role, hint=hint)
        self._server = uvicorn.Server(
            uvicorn.Config(
                self._app,
                ssl_certfile=web.cert_file or None,
                ssl_keyfile=web.key_file or web.cert_file or None,
                log_config=None,
                access_log=False,
                lifespan="off",
                server_header=False,
                proxy_headers=False,  # the peer's address is whom we believe a header from
                timeout_graceful_shutdown=2,
            )
        )
        self._thread = threading.Thread(target=self._run, name="pages", daemon=True)

    def start(self) -> str:
        """Listen; returns the address for a browser. ServerError when that cannot be had."""
        try:
            self._server.config.load()
        except OSError as error:  # an ssl.SSLError too
            files = " and ".join(file for file in (self._web.cert_file, self._web.key_file) if file)
            raise ServerError(
                f"[web] {files}: {error}: expected a certificate with its chain, and its key, as PEM"
            ) from error
        try:
            self._socket = socket.create_server((self._web.listen, self._web.port))
        except OSError as error:
            raise ServerError(
                f"[web] cannot listen at {self._web.listen}:{self._web.port}: {error.strerror}: name "
                "another port, 0 for any, or set enabled = false"
            ) from error
        # asyncio does so for sockets that name their protocol, and this one does not; accepted ones inherit it. Without
        # it an answer's second segment waits for the reader's delayed acknowledgement: 40 ms.
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        port = self._socket.getsockname()[1]
        url = f"{'https' if self._web.cert_file else 'http'}://{self._web.listen}:{port}/"
        write_durably(self._folder / ADDRESS, url.encode())
        self._thread.start()
        return url

    def stop(self) -> None:
        """End it."""
        self._app.state.pulse.ended = True
        self._server.should_exit = True
        if self._thread.is_alive():
            self._thread.join(STOP_S)

    def _run(self) -> None:
        with self._socket:
            self._server.run(sockets=[self._socket])
