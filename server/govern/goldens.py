"""Does a model carry with it what somebody wants forgotten?

A manifest's golden inputs are real samples, so that devices can see whether a model runs as it should. One that is
erased is taken out of every manifest here; the others stay. The version goes on under another hash of its manifest, and
is signed anew; devices that hold the old one keep it until they take a newer version.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np
import sqlalchemy as sa

from edge_agent.contract.artifact import Golden, Manifest, Tensor, decode_manifest, encode_manifest, sha256_hex
from edge_agent.contract.errors import ArtifactError
from server.errors import StoreError
from server.store.samples import sample_array
from server.store.schema import run, version
from server.store.store import Store


def redact(store: Store, connection: sa.Connection, going: Sequence[Any]) -> list[str]:
    """Take samples (rows of `sample`) out of all manifests; returns the hashes of the old.

    Of all: one that was given by hand says of no snapshot here that it was made of it.
    """
    if not going:
        return []
    versions = connection.execute(sa.select(version)).all()
    runs = connection.execute(sa.select(run.c.id, run.c.report).where(run.c.report.is_not(None))).all()
    hashes: dict[tuple[tuple[int, ...], str], set[str]] = {}
    redacted: dict[str, str] = {}
    for row in versions:
        if new := _replaced(store, row.manifest_sha256, going, hashes, redacted):
            values = {"manifest_sha256": new, "manifest_bytes": len(store.blobs.get(new))}
            connection.execute(sa.update(version).where(version.c.number == row.number).values(values))
    for run_id, report in runs:
        candidate = (report or {}).get("candidate", {})
        if new := _replaced(store, candidate.get("manifest_sha256", ""), going, hashes, redacted):
            changed = report | {"candidate": candidate | {"manifest_sha256": new}}
            connection.execute(sa.update(run).where(run.c.id == run_id).values(report=changed))
    return list(redacted)


def _replaced(
    store: Store,
    sha256: str,
    going: Sequence[Any],
    hashes: dict[tuple[tuple[int, ...], str], set[str]],
    redacted: dict[str, str],
) -> str:
    """The hash of the manifest without them; "" when it holds none of them, or cannot be read."""
    if sha256 in redacted:
        return redacted[sha256]
    try:
        manifest = decode_manifest(store.blobs.get(sha256)) if sha256 else None
    except (StoreError, ArtifactError):
        return ""
    if manifest is None:
        return ""
    kind = (tuple(manifest.input.shape), manifest.input.dtype)
    if kind not in hashes:
        hashes[kind] = _hashes(store, going, kind)
    keep = [sha256_hex(np.ascontiguousarray(x).tobytes()) not in hashes[kind] for x in manifest.golden.inputs.array()]
    if all(keep):
        return ""
    redacted[sha256] = store.blobs.put(encode_manifest(_without(manifest, np.array(keep))))
    return redacted[sha256]


def _without(manifest: Manifest, keep: np.ndarray[Any, np.dtype[np.bool_]]) -> Manifest:
    old = manifest.golden
    golden = Golden(
        inputs=Tensor.of(old.inputs.array()[keep]),
        logits=Tensor.of(old.logits.array()[keep]),
        tolerance=old.tolerance,
        outputs={name: Tensor.of(one.array()[keep]) for name, one in old.outputs.items()},
    )
    return msgspec.structs.replace(manifest, golden=golden)


def _hashes(store: Store, going: Sequence[Any], kind: tuple[tuple[int, ...], str]) -> set[str]:
    """Of the arrays of those samples that are of this shape and dtype and can be read."""
    found = set()
    for row in going:
        if (tuple(row.shape), row.dtype) != kind:
            continue
        try:
            found.add(sha256_hex(np.ascontiguousarray(sample_array(store, row)).tobytes()))
        except StoreError:  # damaged: no model can have been made of it either
            continue
    return found
