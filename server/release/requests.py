"""What does each device hear of the requests that are open?

A request points at a sample. What travels is the sketch of that sample as the model on the device would make it, so a
device is told anew when it runs another version. The model's file is taken by the hash that the device says it
executes: the int8 and the fp32 file of one version see a sample a little differently.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import sqlalchemy as sa

from edge_agent.choose.wanted import Sketcher
from edge_agent.contract import wire
from edge_agent.contract.artifact import Manifest, decode_manifest
from edge_agent.contract.errors import ArtifactError, did_you_mean
from edge_agent.contract.wire import ModelState
from server.errors import RequestError, StoreError
from server.store import devices, requests, samples, trail, versions
from server.store.devices import Device
from server.store.requests import Request
from server.store.schema import sample
from server.store.store import Store
from server.store.text import begins

log = logging.getLogger(__name__)

DAY_MS = 86_400_000
DECIMALS = 6  # of a number of a sketch: float32 holds no more

Sketch = tuple[float, ...]


class Model(NamedTuple):
    """What a device executes."""

    version: int
    sha256: str


class Sketches:
    """Of stored samples, as published models see them; each is made once."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._made: dict[tuple[str, Model], Sketch | RequestError] = {}

    def of(self, sample_id: str, model: Model) -> Sketch:
        """RequestError says why there is none."""
        key = (sample_id, model)
        if key not in self._made:
            try:
                self._made[key] = self._make(sample_id, model)
            except RequestError as error:
                self._made[key] = error
        made = self._made[key]
        if isinstance(made, RequestError):
            raise made
        return made

    def keep(self, sample_ids: Iterable[str]) -> None:
        """Forget those of all other samples, and the failures: a version may have been published since."""
        wanted = set(sample_ids)
        self._made = {key: made for key, made in self._made.items() if key[0] in wanted and isinstance(made, tuple)}

    def _make(self, sample_id: str, model: Model) -> Sketch:
        from models.evaluate import run_onnx  # onnxruntime, needed only once somebody asks

        try:
            manifest = self._manifest(model)
        except (StoreError, ArtifactError) as error:
            raise RequestError(f"version {model.version}: {error}") from error
        if not manifest.embedding:
            raise RequestError(f"version {model.version} has no embedding to compare samples by")
        with self._store.database.read() as connection:
            row = connection.execute(sa.select(sample).where(sample.c.id == sample_id)).one()
        spec = manifest.input
        if tuple(row.shape) != tuple(spec.shape) or row.dtype != spec.dtype:
            raise RequestError(
                f"sample {sample_id} is {tuple(row.shape)} {row.dtype}, "
                f"version {model.version} takes {tuple(spec.shape)} {spec.dtype}"
            )
        try:
            onnx, data = self._store.blobs.get(model.sha256), samples.sample_array(self._store, row)
            _, embedding = run_onnx(onnx, data[None], logits=manifest.logits, embedding=manifest.embedding)
        except (StoreError, ArtifactError) as error:
            raise RequestError(f"version {model.version}, sample {sample_id}: {error}") from error
        unit = Sketcher(manifest.reference.embedding_mean.array())(embedding)[0]
        return tuple(round(float(number), DECIMALS) for number in unit)

    def _manifest(self, model: Model) -> Manifest:
        with self._store.database.read() as connection:
            version = versions.get(connection, model.version)
        if version is not None:
            manifest = decode_manifest(self._store.blobs.get(version.manifest_sha256), where=f"version {model.version}")
            if model.sha256 in {file.sha256 for file in manifest.files.values()}:
                return manifest
        raise RequestError(
            f"version {model.version} as the device runs it is not in the registry: publish it with `model add`"
        )


def wanted_of(device: Device, open_ones: Sequence[Request], sketches: Sketches) -> tuple[wire.Request, ...]:
    """What a device is to be told, given what it executes; `listed` says what it cannot be told."""
    model = executing(device)
    told = []
    for request in open_ones:
        if model is None or not request.concerns(device.name):
            continue
        try:
            sketch = sketches.of(request.sample_id, model)
        except RequestError as error:
            log.debug("request %d, device %s: %s", request.id, device.name, error)
            continue
        told.append(
            wire.Request(
                id=request.id,
                version=model.version,
                sketch=sketch,
                similar=request.similar,
                count=request.count,
                until_ms=request.until_ms,
            )
        )
    return tuple(told)


def executing(device: Device) -> Model | None:
    """The model that a device said it executes, in its present session; None before it said so."""
    state = executing_state(device)
    return Model(state.version, state.sha256) if state and state.version else None


def executing_state(device: Device) -> ModelState | None:
    """What a device last said of its model, in its present session.

    A heartbeat outweighs a birth, which may be repeated: by their stamps they cannot be told apart, a clock may jump.
    """
    said = [word for word in (device.heartbeat, device.birth) if word and word.session == device.session]
    return said[0].model if said else None


# --- for people -------------------------------------------------------------------------------------------------------


class Made(NamedTuple):
    """A request that was made. silent: devices that it cannot be told to as yet, and why."""

    id: int
    devices: list[str]
    silent: dict[str, str]


def make(
    store: Store,
    sample_id: str,
    *,
    devices_named: Sequence[str] | None,
    count: int,
    similar: float,
    days: float,
    now_ms: int,
    who: str = trail.SERVER,
    why: str = "",
) -> Made:
    """Ask devices (None: all) for more samples like one; a running server tells them.

    RequestError when there is no such sample or device, or when no device could answer.
    """
    if devices_named is not None and not devices_named:
        raise RequestError("no device is named: expected names such as cam-1,cam-2, or all")
    with store.database.read() as connection:
        _check_sample(connection, sample_id)
        fleet = _named(connection, devices_named)
        if len(requests.open_ones(connection, now_ms=now_ms)) >= wire.REQUESTS_MAX:
            raise RequestError(f"{wire.REQUESTS_MAX} requests are open, no more can be: cancel one first")
    sketches = Sketches(store)
    silent = {device.name: why for device in fleet if (why := _why_not(device, sample_id, sketches))}
    if len(silent) == len(fleet):
        raise RequestError("no device could answer: " + "; ".join(f"{name}: {why}" for name, why in silent.items()))
    made = Request(
        id=0,
        sample_id=sample_id,
        devices=None if devices_named is None else [device.name for device in fleet],
        similar=similar,
        count=count,
        created_at_ms=now_ms,
        until_ms=now_ms + int(days * DAY_MS),
    )
    with store.database.write() as connection:
        number = requests.insert(connection, made)
        detail = {"devices": made.devices or "all", "count": count, "days": days}  # not of which: it may be erased
        trail.record(connection, "request", f"request {number}", why=why, who=who, detail=detail, now_ms=now_ms)
    return Made(number, [device.name for device in fleet if device.name not in silent], silent)


def _check_sample(connection: sa.Connection, sample_id: str) -> None:
    if connection.execute(sa.select(sample.c.id).where(sample.c.id == sample_id)).first() is None:
        near = sa.select(sample.c.id).where(begins(sample.c.id, sample_id.rpartition(".")[0] + ".")).limit(1000)
        hint = did_you_mean(sample_id, connection.execute(near).scalars())
        raise RequestError(f"sample {sample_id!r} is not here{hint}; expected an id such as cam-1.main.7.1204")


def _named(connection: sa.Connection, names: Sequence[str] | None) -> list[Device]:
    fleet = {device.name: device for device in devices.devices(connection)}
    if not fleet:
        raise RequestError("no device has been seen yet: start an agent first")
    for name in names or ():
        if name not in fleet:
            raise RequestError(f"device {name!r} has never been seen{did_you_mean(name, fleet)}")
    return list(fleet.values()) if names is None else [fleet[name] for name in dict.fromkeys(names)]


def _why_not(device: Device, sample_id: str, sketches: Sketches) -> str:
    model = executing(device)
    if model is None:
        return "it has not said which model it executes"
    try:
        sketches.of(sample_id, model)
    except RequestError as error:
        return str(error)
    return ""


def cancel(store: Store, number: int, *, now_ms: int, who: str = trail.SERVER, why: str = "") -> None:
    """End a request before its time; RequestError when there is none to end."""
    with store.database.write() as connection:
        if not requests.cancel(connection, number, now_ms=now_ms):
            known = ", ".join(str(one.id) for one in requests.open_ones(connection, now_ms=now_ms)) or "none"
            raise RequestError(f"request {number} is not open; open: {known}")
        trail.record(connection, "cancel", f"request {number}", why=why, who=who, now_ms=now_ms)


def listed(store: Store, *, now_ms: int) -> list[dict[str, Any]]:
    """The open requests, one row for each device that one concerns."""
    with store.database.read() as connection:
        fleet = devices.devices(connection)
        open_ones = [
            (one, requests.stored(connection, one.id)) for one in requests.open_ones(connection, now_ms=now_ms)
        ]
    sketches = Sketches(store)
    return [
        _row(request, device, stored[device.name], sketches, now_ms)
        for request, stored in open_ones
        for device in fleet
        if request.concerns(device.name)
    ]


def _row(request: Request, device: Device, stored: int, sketches: Sketches, now_ms: int) -> dict[str, Any]:
    states = {state.id: state for state in (device.heartbeat.requests if device.heartbeat else ())}
    state = states.get(request.id)
    unheard = "" if state else _why_not(device, request.sample_id, sketches) or "not heard of it yet"
    return {
        "request": request.id,
        "sample": request.sample_id,
        "similar": request.similar,
        "device": device.name,
        "found": state.found if state else 0,
        "of": request.count,
        "recalled": state.recalled if state else 0,
        "stored": stored,
        "searched": state.searched if state else None,
        "unsearchable": state.unsearchable if state else 0,
        "days_left": round((request.until_ms - now_ms) / DAY_MS, 1),
        "state": (state.why or "looking out") if state else unheard,
    }
