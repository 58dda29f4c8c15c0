"""One device: what it said last, what happened to it, where it belongs."""

from __future__ import annotations

import msgspec
from fastapi import APIRouter
from pydantic import BaseModel, Field

from server.identity import revocation
from server.release import places
from server.store import devices, events, identities
from server.store.devices import Device
from server.web.access import Admin, Operator, Viewer
from server.web.api.answers import PLACE, After, Anything, Limit, Name, Order, cut, here
from server.web.frame import Frame
from server.web.problem import EITHER, MISSING


class OneDevice(BaseModel):
    """All that is known of it."""

    name: str
    channel: str
    ring: str | None = Field(description="where an operator put it")
    site: str
    online: bool
    revoked: bool
    certificate_until_ms: int | None
    first_seen_ms: int
    last_seen_ms: int
    messages_bad: int = Field(description="from it, undecodable")
    throttled: int = Field(description="from it, left for want of room; it sends them again")
    birth: Anything | None = Field(description="as it said last (docs/reference/wire.md)")
    heartbeat: Anything | None
    desired: Anything | None = Field(description="what it is told")


class Place(Order):
    """Where a device belongs; what is not named stays as it is."""

    channel: str | None = Field(None, pattern=PLACE)
    ring: str | None = Field(None, pattern=PLACE, description="`-`: drawn anew for every version")
    site: str | None = Field(None, pattern=PLACE, description="`-`: none")


class Revoke(Order):
    """Shut it out."""

    exclude_samples: bool = Field(False, description="leave out of every snapshot to come what it has sent so far")


class Revoked(BaseModel):
    """What came of it."""

    certificates: int = Field(description="that are good no more")
    samples: int = Field(description="of it, that are here")


class Event(BaseModel):
    """Something that happened."""

    id: int
    at_ms: int = Field(description="by its own clock")
    received_at_ms: int
    kind: str
    text: str
    model_version: int
    detail: Anything


class Events(BaseModel):
    """A page of them, the newest first."""

    events: list[Event]
    next: int | None


def router(frame: Frame) -> APIRouter:
    """Its routes."""
    made = APIRouter(tags=["devices"], prefix="/devices/{name}")

    def read(name: str) -> OneDevice:
        with frame.store.database.read() as connection:
            found = here(devices.get(connection, name), f"device {name!r}")
            until = identities.latest_certificate(connection, name)
            revoked = name in identities.revoked(connection)
        return _device(found, revoked=revoked, until_ms=until.not_after_ms if until else None)

    @made.get("", summary="All that is known of a device", responses=MISSING)
    def device(name: Name, _: Viewer) -> OneDevice:
        return read(name)

    @made.patch("", summary="Put a device into a channel, a ring, or at a site", responses=EITHER)
    def place(name: Name, wanted: Place, person: Operator) -> OneDevice:
        read(name)
        said = wanted.model_dump()
        places.put(frame.store, [name], who=person.name, now_ms=frame.now_ms(), **said)
        return read(name)

    @made.post("/revoke", summary="Shut a device out", responses=EITHER)
    def revoke(name: Name, wanted: Revoke, person: Admin) -> Revoked:
        left_out = wanted.exclude_samples
        done = revocation.revoke(
            frame.store, name, why=wanted.why, samples_left_out=left_out, who=person.name, now_ms=frame.now_ms()
        )
        return Revoked(**done._asdict())

    @made.get("/events", summary="What happened to a device", responses=MISSING)
    def happened(name: Name, _: Viewer, after: After = 0, limit: Limit = 100) -> Events:
        with frame.store.database.read() as connection:
            here(devices.get(connection, name), f"device {name!r}")
            found = events.of_device(connection, name, below=after, limit=limit + 1)
        page, more = cut([Event.model_validate(row, from_attributes=True) for row in found], limit)
        return Events(events=list(page), next=page[-1].id if more else None)

    return made


def _device(found: Device, *, revoked: bool, until_ms: int | None) -> OneDevice:
    said = {
        name: msgspec.to_builtins(getattr(found, name), str_keys=True) for name in ("birth", "heartbeat", "desired")
    }
    plain = ("name", "channel", "ring", "site", "online", "first_seen_ms", "last_seen_ms", "messages_bad", "throttled")
    return OneDevice(
        **{name: getattr(found, name) for name in plain}, **said, revoked=revoked, certificate_until_ms=until_ms
    )
