"""Where was a training when it was killed?

One file in the folder of a training, replaced as a whole: at any moment it holds the last complete state, or none. It
belongs to one training, by a digest of all that determines it; of another, or damaged, it counts as none.
"""

from __future__ import annotations

import hashlib
import io
import os
import pickle
import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import torch
from numpy.typing import NDArray

FILE = "checkpoint.pt"


class Checkpoint:
    """The state of one training on disk."""

    def __init__(self, folder: Path, digest: str) -> None:
        """`folder` is made when there is something to keep."""
        self._file = folder / FILE
        self._digest = digest

    def load(self) -> dict[str, Any] | None:
        """The last state, its tensors on the CPU; None: begin at the beginning.

        Who takes them over copies them to where they belong. (On a GPU, counters of steps would be waited for.)
        """
        try:
            found = torch.load(self._file, weights_only=True, map_location="cpu")
        except (OSError, RuntimeError, pickle.UnpicklingError, EOFError, ValueError, KeyError, zipfile.BadZipFile):
            return None
        is_ours = isinstance(found, dict) and found.get("digest") == self._digest
        state: dict[str, Any] | None = found["state"] if is_ours else None
        return state

    def save(self, state: dict[str, Any]) -> None:
        """Replace the last state; on disk when this returns. OSError when it cannot be written."""
        buffer = io.BytesIO()
        torch.save({"digest": self._digest, "state": state}, buffer)
        self._file.parent.mkdir(parents=True, exist_ok=True)
        new = self._file.with_suffix(".new")
        with new.open("wb") as file:
            file.write(buffer.getbuffer())
            file.flush()
            os.fsync(file.fileno())
        new.replace(self._file)
        folder = os.open(self._file.parent, os.O_RDONLY)
        try:
            os.fsync(folder)  # else the new name may be lost with the power, though its content is not
        finally:
            os.close(folder)


def digest_of(*parts: msgspec.Struct | NDArray[Any] | bytes | int | None) -> str:
    """Sha256, in hex, of settings, arrays and bytes, in order."""
    digest = hashlib.sha256()
    for part in parts:
        for piece in _pieces(part):
            digest.update(len(piece).to_bytes(8, "big"))
            digest.update(piece)  # not joined: samples may be most of the memory
    return digest.hexdigest()


def _pieces(part: msgspec.Struct | NDArray[Any] | bytes | int | None) -> Iterable[bytes | memoryview]:
    if isinstance(part, np.ndarray):
        return f"{part.dtype} {part.shape}".encode(), np.ascontiguousarray(part).reshape(-1).view(np.uint8).data
    return (part if isinstance(part, bytes) else msgspec.json.encode(part),)
