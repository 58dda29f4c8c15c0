"""Which versions is a candidate held against, and what does the store know beside the data?"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from edge_agent.contract.artifact import Manifest, decode_manifest
from edge_agent.contract.errors import ArtifactError
from server.errors import StoreError
from server.store import devices, labels, snapshots, versions
from server.store.store import Store
from server.teach.gates.held import Names

log = logging.getLogger(__name__)

ELDERS_MOST = 2  # the first of its line, and the one before the champion: each costs a run over what is held out


@dataclass(frozen=True)
class Champion:
    """The model to beat, and to go on from."""

    number: int
    manifest: Manifest
    onnx: bytes
    weights: bytes  # empty: none to go on from


class Elder(NamedTuple):
    """A version before the champion, and the samples of its snapshot."""

    version: Champion
    samples: set[str]


class Answers(NamedTuple):
    """Every answer to the samples of a snapshot; (N,) each."""

    sample: Names
    label: Names
    labeler: Names


@dataclass(frozen=True, kw_only=True)
class Known:
    """What the store knows that the arrays of a snapshot do not say; all of it may be missing."""

    elders: Sequence[Elder] = ()
    answers: Answers | None = None
    latency_ms: Mapping[str, float] = field(default_factory=dict)  # device -> of the champion, as it says itself
    sites: Mapping[str, str] = field(default_factory=dict)  # device -> where it is now, as an operator said


def load(store: Store, number: int) -> Champion | None:
    """The version of that number; None when there is none."""
    with store.database.read() as connection:
        version = versions.get(connection, number)
    if version is None:
        return None
    manifest = decode_manifest(store.blobs.get(version.manifest_sha256), where=f"version {number}")
    onnx = store.blobs.get(manifest.variant("cpu-int8").sha256)
    weights = store.blobs.get(version.weights_sha256) if version.weights_sha256 else b""
    return Champion(number, manifest, onnx, weights)


def known(store: Store, snapshot_id: str, champion: Champion | None) -> Known:
    """What there is beside a snapshot's arrays."""
    with store.database.read() as connection:
        names = np.array(labels.names(connection), dtype=np.str_)
        rows = labels.answers_of(connection, snapshot_id)
        said = devices.devices(connection)
    answers = None
    if rows:
        ids, indices, labelers = zip(*rows, strict=True)
        answers = Answers(np.array(ids), names[np.array(indices)], np.array(labelers))
    sites = {one.name: one.site for one in said if one.site}
    if champion is None:
        return Known(answers=answers, sites=sites)
    times = {
        one.name: one.heartbeat.latency_p50_ms
        for one in said
        if one.heartbeat and one.heartbeat.model.version == champion.number and one.heartbeat.latency_p50_ms > 0.0
    }
    return Known(elders=_elders(store, champion), answers=answers, latency_ms=times, sites=sites)


def _elders(store: Store, champion: Champion) -> list[Elder]:
    """The first of the champion's line, and the newest before it, that were made of a snapshot."""
    with store.database.read() as connection:
        line, parent = [], champion.manifest.parent
        while parent and (version := versions.get(connection, parent)):
            line.append(version)
            parent = version.parent
        taught = [version for version in line if version.snapshot_id]
        chosen = {version.number: version for version in (*taught[: ELDERS_MOST - 1], *taught[-1:])}
        samples = {number: snapshots.sample_ids(connection, one.snapshot_id) for number, one in chosen.items()}
    return [Elder(elder, samples[number]) for number in sorted(chosen) if (elder := _readable(store, number))]


def _readable(store: Store, number: int) -> Champion | None:
    """An elder that cannot be read any more is one gate less, and no reason to teach nothing."""
    try:
        return load(store, number)
    except (StoreError, ArtifactError) as error:
        log.warning("version %d is left out of the judging: %s", number, error)
        return None
