"""Which server is driven?

One of its own (`winnow-server run` on a folder made for it, with the broker it starts), of which everything can be
measured; or a broker that runs already, and whoever listens there: then what devices see is all that is known.
"""

from __future__ import annotations

import os
import secrets
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import sqlalchemy as sa

from edge_agent.contract import settings
from edge_agent.contract.broker import parse_broker
from server import launch
from server.child import end
from server.config import Autonomy, Broker, Collect, Rollout, Server, ServerConfig, Teach, Web
from server.errors import ServerError
from server.release import commands
from server.release.registry import add_artifact
from server.simulate import artifact, meter, tables
from server.simulate.meter import Cost
from server.simulate.options import Options
from server.simulate.session import CONNECT_S, Wire
from server.store import rollouts, users
from server.store.schema import device, sample
from server.store.store import Store
from server.web.access import digest

FLEET = "simulated"
VISITOR = "simulate"
STOP_S = 10.0
START_S = 60.0
NONE = Cost()


class Host:
    """The server of a simulation; its own one is ended on the way out."""

    def __init__(self, folder: Path, options: Options) -> None:
        """Nothing is started yet. `folder`: empty, or not there; it stays when all is over."""
        self._options, self._folder = options, folder.resolve()
        self._data, self._log = self._folder / "server", self._folder / "server.log"
        self._toml = self._folder / "server.toml"
        self._process: subprocess.Popen[bytes] | None = None
        self._store: Store | None = None
        self._rng = np.random.default_rng(options.seed)
        self.pages, self.token = "", ""
        self.wire = Wire("", 0)
        self.version, self.sha256 = 1, "0" * 64
        # Of the devices: to a server that runs, later than what it may have heard of them in an earlier simulation.
        self.boot = 1 if self.ours else time.time_ns() // 1_000_000

    @property
    def ours(self) -> bool:
        """Whether it is of our own, so that it can be measured and its broker be killed."""
        return not self._options.broker

    @property
    def fleet(self) -> str:
        """The fleet whose devices are played."""
        return FLEET if self.ours else self._options.fleet

    def __enter__(self) -> Host:
        """Start it."""
        if not self.ours:
            address = parse_broker(self._options.broker, key="--broker")
            if address.tls:
                raise ServerError("--broker: expected mqtt://: each device would need a certificate for mqtts://")
            self.wire = Wire(address.host, address.port)
            _reach(self.wire)
            return self
        self._prepare()
        self._process = launch.start(self._toml, self._log)
        broker, self.pages = launch.wait(self._data, self._log, check=self.check, within_s=START_S)
        address = parse_broker(broker)
        self.wire = Wire(address.host, address.port)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End it."""
        if self._process is not None:
            end([self._process], within_s=STOP_S)
        if self._store is not None:
            self._store.close()

    def check(self) -> None:
        """ServerError when it has died."""
        if self._process is not None and (code := self._process.poll()) is not None:
            raise ServerError(f"the server ended with {code}: {launch.tail(self._log)} (see {self._log})")

    def _prepare(self) -> None:
        """Configuration, a first version, and somebody who may look at the pages."""
        if self._data.exists():
            raise ServerError(f"--folder: {self._data} is there already: name another")
        try:
            self._data.mkdir(parents=True)
        except OSError as error:
            raise ServerError(f"--folder: {self._data}: {error.strerror}") from error
        self._toml.write_text(settings.show(_config(self._data, self._options)), encoding="utf-8")
        self._store = Store.open(self._data)
        self.sha256 = self._publish(1)
        self.token, now_ms = secrets.token_urlsafe(24), _now_ms()
        with self._store.database.write() as connection:
            users.add(connection, VISITOR, "operator", password_hash="", by=VISITOR, now_ms=now_ms)
            key = digest(self.token)
            users.add_token(
                connection, VISITOR, "simulate", secret_sha256=key, expires_at_ms=None, by=VISITOR, now_ms=now_ms
            )

    def _publish(self, version: int) -> str:
        folder = self._folder / f"version-{version}"
        sha256 = artifact.write(folder, version, size_bytes=self._options.model_bytes, rng=self._rng)
        add_artifact(self.store, folder, weights=None, now_ms=_now_ms(), why="a simulation")
        return sha256

    @property
    def store(self) -> Store:
        """Its catalogue, read beside it."""
        assert self._store is not None  # noqa: S101 - asked for where it is ours
        return self._store

    # --- what can be done to it ---

    def roll_out(self) -> int:
        """Publish the next version, and begin to roll it out; returns its number."""
        self.version += 1
        self._publish(self.version)
        default = _config(self._data, self._options).rollout
        commands.start(
            self.store, self.version, channel="stable", rings=(), rules=(), default=default, now_ms=_now_ms()
        )
        return self.version

    def rollout_state(self) -> str:
        """`running`, `done`, or `halted: ` and why; empty: there is none."""
        with self.store.database.read() as connection:
            found = rollouts.current(connection)
        if found is None:
            return ""
        return f"halted: {found.brief.reason}" if found.status == "halted" else found.status

    def kill_broker(self) -> None:
        """Kill -9; the server starts another one on the same port."""
        for pid in meter.broker_pids(self._pid):
            os.kill(pid, signal.SIGKILL)

    # --- what is seen of it ---

    def online(self) -> int:
        """Devices that it counts as connected."""
        return self._count(sa.select(sa.func.count()).select_from(device).where(device.c.online))

    def heard(self) -> int:
        """Devices whose birth it has."""
        return self._count(sa.select(sa.func.count()).select_from(device).where(device.c.birth.is_not(None)))

    def stored(self) -> int:
        """Samples that it has."""
        return self._count(sa.select(sa.func.count()).select_from(sample))

    def cost(self) -> tuple[Cost, Cost]:
        """Of the server, and of its broker."""
        return (meter.server(self._pid), meter.broker(self._pid)) if self.ours else (NONE, NONE)

    def sizes(self) -> dict[str, tables.Size]:
        """Of its tables."""
        return tables.sizes(self._data / "catalogue.db")

    @property
    def _pid(self) -> int:
        assert self._process is not None  # noqa: S101
        return self._process.pid

    def _count(self, query: sa.Select[Any]) -> int:
        with self.store.database.read() as connection:
            return int(connection.scalar(query) or 0)


def _reach(wire: Wire) -> None:
    """ServerError when nobody listens there: devices would try for minutes, as they should, and say nothing."""
    try:
        socket.create_connection(wire[:2], timeout=CONNECT_S).close()
    except OSError as error:
        raise ServerError(f"--broker: {wire.host}:{wire.port}: {error.strerror or error}: is it running?") from error


@contextmanager
def own_store(folder: Path) -> Iterator[Store]:
    """A store that nobody else works on."""
    store = Store.open(folder)
    try:
        yield store
    finally:
        store.close()


def _config(data: Path, options: Options) -> ServerConfig:
    return ServerConfig(
        server=Server(fleet=FLEET, data_dir=str(data)),
        broker=Broker(plain=True),
        collect=Collect(offline_after_s=max(90.0, 3 * options.heartbeat_s)),
        teach=Teach(enabled=False),
        rollout=Rollout(
            rings=("canary=1%", "all"),
            soak_s=options.soak_s,
            bytes_per_s=options.bytes_per_s,
            timeout_s=max(600.0, 20 * options.heartbeat_s),
            success_share=1.0,
        ),
        autonomy=Autonomy(dial="propose"),
        web=Web(port=0),
    )


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
