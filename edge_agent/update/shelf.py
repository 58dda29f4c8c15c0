"""Where do a device's artifacts lie?

    models/slots.json                     which of them runs
    models/7/manifest.json, model.onnx    complete and tested; a numbered folder appears in one step
    models/incoming/8/                    blocks on their way, and in `artifact/` what is being tested
    models/bad-parcels.json               parcels that did not unpack here, by hash

Always true: a folder with a number passed its golden test on this device once.
"""

from __future__ import annotations

import os
from collections.abc import Collection
from pathlib import Path

import msgspec

from edge_agent.contract.artifact import MANIFEST, MODEL, read_manifest, write_durably
from edge_agent.contract.errors import ArtifactError

INCOMING = "incoming"
UNPACKED = "artifact"
BAD_PARCELS = "bad-parcels.json"
BAD_PARCELS_KEPT = 100  # newest ones


class Shelf:
    """The artifact folders under one folder. OSError from any method when the disk will not."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._incoming = folder / INCOMING
        folder.mkdir(parents=True, exist_ok=True)

    def path(self, version: int) -> Path:
        """Where `version` lies, or would."""
        return self._folder / str(version)

    def versions(self) -> list[int]:
        """The complete ones, newest first."""
        found = (entry.parent.name for entry in self._folder.glob(f"*/{MANIFEST}"))
        return sorted((int(name) for name in found if name.isascii() and name.isdigit()), reverse=True)

    def model_sha256(self, version: int, variant: str) -> str:
        """Hash of the ONNX file of `version`. ArtifactError when its manifest cannot be read."""
        return read_manifest(self.path(version)).variant(variant).sha256

    def file(self, sha256: str, variant: str) -> Path | None:
        """An ONNX file that should have that hash (nobody has looked); None when no version here has one."""
        for version in self.versions():
            try:
                if self.model_sha256(version, variant) == sha256:
                    return self.path(version) / MODEL
            except ArtifactError:  # of that version: whoever runs it will say so
                continue
        return None

    def bad_parcels(self) -> list[str]:
        """Hashes of the parcels that must not be tried again, newest last."""
        try:
            return msgspec.json.decode((self._folder / BAD_PARCELS).read_bytes(), type=list[str])
        except (FileNotFoundError, msgspec.DecodeError):  # at worst one is tried again
            return []

    def note_bad_parcel(self, sha256: str) -> None:
        """That parcel must not be tried again."""
        known = [*self.bad_parcels(), sha256][-BAD_PARCELS_KEPT:]
        write_durably(self._folder / BAD_PARCELS, msgspec.json.encode(known))

    def arrival(self, version: int) -> Path:
        """The folder in which `version` arrives. Whatever else was arriving is deleted: only one thing is wanted."""
        if self._incoming.is_dir():
            for other in self._incoming.iterdir():
                if other.name != str(version):
                    _delete(other)
        return self._incoming / str(version)

    def clear_arrivals(self) -> None:
        """Nothing is wanted any more."""
        if self._incoming.is_dir():
            _delete(self._incoming)

    def unpack(self, arrival: Path, manifest: bytes, onnx: bytes) -> Path:
        """An artifact folder to be tested. The manifest goes in last, and byte for byte as it was hashed."""
        folder = arrival / UNPACKED
        folder.mkdir(parents=True, exist_ok=True)
        write_durably(folder / MODEL, onnx)
        write_durably(folder / MANIFEST, manifest)
        return folder

    def admit(self, folder: Path, version: int) -> None:
        """Give a tested artifact its number. An older folder of that number was given up, and makes way."""
        target = self.path(version)
        if target.exists():
            _delete(target)
        folder.rename(target)
        top = os.open(self._folder, os.O_RDONLY)
        try:
            os.fsync(top)
        finally:
            os.close(top)

    def sweep(self, *, needed: Collection[int], useless: Collection[int], keep: int) -> None:
        """Delete the `useless` versions, and the oldest past `keep`; never one that is `needed`."""
        versions = self.versions()
        kept = [version for version in versions if version not in useless][:keep]
        for version in versions:
            if version not in kept and version not in needed:
                _delete(self.path(version))


def _delete(folder: Path) -> None:
    import shutil  # brings compression along, which no start needs

    shutil.rmtree(folder)
