"""What belongs together in a backup?

DIR/backup.json             this: replaced last and in one step, so that a backup is whole or is the one before
DIR/catalogue-<ms>.db       the rows, as they were at one moment
DIR/blobs/                  the bytes, in shards; there may be more of them than the rows name
DIR/files-<ms>/             server.toml; trust/, what devices check models by; where somebody asked for them
                            identity/ and keys/: the fleet's CA, and what signs models
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

import msgspec

from edge_agent.contract.artifact import write_durably
from server.errors import StoreError

FILE = "backup.json"
BLOBS = "blobs"
FORMAT = 1
_READ_BYTES = 1 << 20


class Manifest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One backup."""

    format: int = FORMAT
    winnow: str  # version of the program that made it
    schema: str  # of the catalogue
    fleet: str
    made_at_ms: int  # of the server's clock: the rows are as they were then
    catalogue: str  # name of the file
    catalogue_sha256: str
    catalogue_bytes: int
    rows: dict[str, int]  # table -> rows
    blobs: int  # that rows name; the files of models are named in manifests, and are there too
    blob_bytes: int  # of the shards
    damaged: tuple[str, ...] = ()  # or lost: blobs that the server itself could not read any more
    erasures: int = 0  # the newest that it knows of
    files_in: str  # name of their folder
    files: dict[str, str] = {}  # path below that -> sha256

    @property
    def has_keys(self) -> bool:
        """Whether those of the CA or of the signatures are among the files."""
        return any(name.startswith(("identity/", "keys/")) for name in self.files)


def read(folder: Path) -> Manifest:
    """The one in `folder`; StoreError when there is none, or it is of a later format."""
    path = folder / FILE
    try:
        said = path.read_bytes()
    except OSError as error:
        raise StoreError(f"{path}: {error.strerror}: no backup was completed here") from error
    try:
        made = msgspec.json.decode(said, type=Manifest)
    except msgspec.MsgspecError as error:
        raise StoreError(f"{path}: {error}: no backup.json of this version of Winnow") from error
    if made.format != FORMAT:
        raise StoreError(f"{path}: format {made.format}, this program knows {FORMAT}: install a newer Winnow")
    return made


def write(folder: Path, made: Manifest) -> None:
    """Put it in force, durably."""
    data = msgspec.json.format(msgspec.json.encode(made), indent=2)
    write_durably(folder / FILE, data, mode=0o600)


def sha256_of(path: Path) -> str:
    """Of a file that may be larger than the memory."""
    found = hashlib.sha256()
    for chunk in chunks(path):
        found.update(chunk)
    return found.hexdigest()


def chunks(path: Path) -> Iterator[bytes]:
    """The bytes of a file, some at a time. StoreError when it cannot be read."""
    try:
        with open(path, "rb") as file:
            while chunk := file.read(_READ_BYTES):
                yield chunk
    except OSError as error:
        raise StoreError(f"{path}: {error.strerror}") from error
