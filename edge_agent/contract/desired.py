"""What does a server say to its devices?"""

from __future__ import annotations

import msgspec


class Parcel(msgspec.Struct, frozen=True, kw_only=True):
    """Fewer bytes that unpack to one of a version's files; what comes out is held against the file's own hash."""

    file_sha256: str  # that it unpacks to
    packing: str  # "zstd", or "bsdiff4" against `base_sha256`; one that a device does not know is passed over
    sha256: str  # of the bytes that travel
    bytes: int
    base_sha256: str = ""  # the file that is needed to unpack it; empty: none


class Assignment(msgspec.Struct, frozen=True, kw_only=True):
    """The model a device should run: its manifest, by hash. The manifest names the rest."""

    version: int
    manifest_sha256: str
    manifest_bytes: int
    trust_sha256: str = ""  # of the bundle that vouches for the manifest (contract/trust.py); empty: it is not signed
    trust_bytes: int = 0
    url: str = ""  # https: its files can be had at <url>/<sha256>, with Range, as well; empty: as blocks alone
    parcels: tuple[Parcel, ...] = ()  # cheaper ways to its files, for whoever can use them

    def is_for_same(self, other: Assignment | None) -> bool:
        """Whether both want the same model, by whatever way it comes."""
        mine = (self.version, self.manifest_sha256, self.manifest_bytes)
        return other is not None and mine == (other.version, other.manifest_sha256, other.manifest_bytes)


class Request(msgspec.Struct, frozen=True, kw_only=True):
    """Somebody wants more samples like one; on top of the labels that the device may spend, within a day's limits."""

    id: int
    version: int  # of the model that the sketch belongs to; under another it means nothing
    sketch: tuple[float, ...]  # of the sample's embedding, as choose/wanted.py makes it
    similar: float  # least cosine
    count: int  # samples at most, of each device
    until_ms: int  # wall clock, ms since 1970


class Purge(msgspec.Struct, frozen=True, kw_only=True):
    """Somebody wants something forgotten: it goes from the outbox, and the recent ring is emptied."""

    id: int  # only grows; the device says in its outbox's state up to which it has obeyed
    samples: tuple[str, ...] = ()  # ids; empty: all that the device has


class Pause(msgspec.Struct, frozen=True, kw_only=True):
    """Somebody wants samples to stay on the device for now. They go on being selected, into the outbox."""

    by: str
    at_ms: int  # wall clock of the server, ms since 1970; the device says by it which pause it obeys
    why: str = ""


class Desired(msgspec.Struct, frozen=True, kw_only=True):
    """Retained. What the server wants of a device; None leaves the device's own configuration in force."""

    revision: int  # only grows; a device ignores an older one
    model: Assignment | None = None
    label_share: float | None = None
    labels_per_day: float | None = None
    bytes_per_day: float | None = None
    acquisition: str | None = None
    strategy: str | None = None
    requests: tuple[Request, ...] = ()
    purges: tuple[Purge, ...] = ()
    pause: Pause | None = None


class Receipt(msgspec.Struct, frozen=True, kw_only=True):
    """What became of samples. Only this empties the outbox: a PUBACK speaks for the broker alone.

    refused: id -> reason; permanent, the device parks it and does not send it again. erased: those of them that are to
    be forgotten, and so are not kept parked either.
    """

    accepted: tuple[str, ...] = ()
    duplicate: tuple[str, ...] = ()
    refused: dict[str, str] = {}
    erased: tuple[str, ...] = ()


class BlockHeader(msgspec.Struct, frozen=True, kw_only=True):
    """One block of an artifact, or the reason why there is none."""

    sha256: str
    index: int
    total_bytes: int  # of the whole artifact
    error: str = ""


class ServerState(msgspec.Struct, frozen=True, kw_only=True):
    """Retained; the will says offline."""

    online: bool
    at_ms: int
