"""Which metadata still waits for signatures?

    trust/pending-targets.json, trust/pending-root.json

Files, so that they can be carried to where the keys are, signed there (`winnow-server keys sign FILE --key KEY`) and
carried back: the server takes one over once it has signatures enough.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tuf.api.metadata import Metadata, Root, Targets

from edge_agent.contract.artifact import write_durably
from edge_agent.contract.trust import Bundle
from server.errors import SigningError
from server.release import keys, metadata

ROLES = ("root", "targets")  # whose keys may lie elsewhere


class Pending:
    """What waits in one folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def path(self, role: str) -> Path:
        """Its file, there or not."""
        return self._folder / f"pending-{role}.json"

    def root(self) -> Metadata[Root] | None:
        """The next root."""
        return self._read("root")

    def targets(self) -> Metadata[Targets] | None:
        """The next targets."""
        return self._read("targets")

    def _read(self, role: str) -> Metadata[Any] | None:
        path = self.path(role)
        try:
            found = metadata.unpack(path.read_bytes(), where=str(path))
        except FileNotFoundError:
            return None
        if found.signed.type != role:
            raise SigningError(f"{path}: {found.signed.type} metadata, expected {role}")
        return found

    def keep(self, waiting: Metadata[Root] | Metadata[Targets]) -> None:
        """Put it there; the same again is not written."""
        path, data = self.path(waiting.signed.type), bytes(metadata.pack(waiting))
        if not path.exists() or path.read_bytes() != data:
            write_durably(path, data)

    def none_of(self, role: str) -> None:
        """SigningError when one waits already: two would be signed past each other."""
        if (path := self.path(role)).exists():
            raise SigningError(f"{path} waits for signatures: sign it (winnow-server keys sign), or delete it, first")

    def lacking(self, bundle: Bundle) -> dict[Path, int]:
        """Files that wait, and how many signatures each lacks to follow what is in force."""
        root = metadata.root_of(bundle)
        found: dict[Path, int] = {}
        if (new := self.root()) is not None:
            found[self.path("root")] = metadata.lacking(new, root) + metadata.lacking(new, new.signed)
            root = new.signed
        if (targets := self.targets()) is not None:
            found[self.path("targets")] = metadata.lacking(targets, root)
        return found

    def forget(self, bundle: Bundle) -> None:
        """Delete what was taken over, or has been overtaken."""
        root, targets = self.root(), self.targets()
        if root is not None and root.signed.version <= metadata.root_of(bundle).version:
            self.path("root").unlink()
        if targets is not None and targets.signed.version <= metadata.targets_of(bundle).version:
            self.path("targets").unlink()


def add_signatures(path: Path, files: Sequence[Path]) -> list[str]:
    """Sign a waiting file with keys out of `files`; returns their ids. Whether they count, the server says."""
    try:
        waiting = metadata.unpack(path.read_bytes(), where=str(path))
    except OSError as error:
        raise SigningError(f"{path}: {error.strerror}: expected a file that waits for signatures") from error
    signers = [keys.read(file) for file in files]
    for signer in signers:
        waiting.sign(signer, append=True)
    write_durably(path, bytes(metadata.pack(waiting)))
    return [signer.public_key.keyid[: keys.ID_CHARS] for signer in signers]
