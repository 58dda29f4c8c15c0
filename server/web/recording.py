"""What does a sample hold, and in which unit?"""

from __future__ import annotations

from typing import Any

from fastapi import HTTPException
from numpy.typing import NDArray

from edge_agent.contract.artifact import decode_manifest
from edge_agent.contract.errors import WinnowError
from server.store import samples, versions
from server.web.frame import Frame

KEPT = {"Cache-Control": "private, max-age=600"}
"""A sample never changes; for longer, and a browser shows, or plays, what was erased here."""


def read(frame: Frame, sample_id: str) -> tuple[NDArray[Any], str, Any]:
    """Its array, the unit of the input of the model that chose it ("": not known), its row. 404 when it is not here."""
    with frame.store.database.read() as connection:
        found = samples.rows(connection, [sample_id])
        chosen_by = versions.get(connection, found[0].model_version) if found and found[0].model_version else None
    if not found:
        raise HTTPException(404, f"sample {sample_id!r} is not here")
    array = samples.sample_array(frame.store, found[0])
    unit = ""
    if chosen_by is not None:
        try:
            manifest = decode_manifest(frame.store.blobs.get(chosen_by.manifest_sha256))
        except WinnowError:  # its chart is as good without
            return array, unit, found[0]
        unit = manifest.input.unit if tuple(manifest.input.shape) == array.shape else ""
    return array, unit, found[0]
