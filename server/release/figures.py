"""Does a version do worse than the one before it, on the devices that run it?

Two figures for the gates of a rollout, read from the store:

    confidence   mean over every sample that the devices scored, less what the version's manifest expects
    accuracy     by labels, as `winnow-server accuracy` estimates it (server/audit), where there are enough

Both are compared with the version before on the same devices, so that what their streams are like cancels out.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Collection, Sequence

import sqlalchemy as sa

from edge_agent.contract.artifact import decode_manifest
from server.audit.estimators import Estimate, post_stratified
from server.audit.evidence import Evidence, gather
from server.errors import RolloutError
from server.release.gate import Change, Figures
from server.store import stretches, versions
from server.store.store import Store

DAYS = 30  # of the version before; more would compare with another season
DAY_MS = 86_400_000
Z = 1.96  # of 95 %
SD_MAX = 0.5  # no share in 0..1 varies more; a stream's samples resemble each other, so that none smaller is known


class Compared:
    """Figures of `version` against `previous`; read when asked for."""

    def __init__(self, store: Store, version: int, previous: int, *, now_ms: int) -> None:
        self._store = store
        self._version, self._previous = version, previous
        self._since_day = stretches.day_of(now_ms - DAYS * DAY_MS)

    def __call__(self, devices: Sequence[str]) -> Figures:
        """Of the devices named; StoreError when the store cannot be read."""
        if not self._previous or not devices:
            return Figures()
        with self._store.database.read() as connection:
            return Figures(self._confidence(connection, devices), self._accuracy(connection, set(devices)))

    def _confidence(self, connection: sa.Connection, devices: Sequence[str]) -> Change | None:
        before, after = (
            stretches.confidence(connection, version, since_day=self._since_day)
            for version in (self._previous, self._version)
        )
        promised = self._expected(connection, self._version) - self._expected(connection, self._previous)
        return confidence_change(
            [(before[name], after[name]) for name in devices if name in before and name in after], promised=promised
        )

    def _expected(self, connection: sa.Connection, number: int) -> float:
        version = versions.get(connection, number)
        if version is None:
            raise RolloutError(f"version {number} is not in the registry any more")
        manifest = decode_manifest(self._store.blobs.get(version.manifest_sha256), where=f"version {number}")
        return manifest.reference.confidence_mean

    def _accuracy(self, connection: sa.Connection, devices: Collection[str]) -> Change | None:
        evidence = gather(connection, since_day=self._since_day)
        mine = evidence.where(lambda one: one.device in devices)
        before, after = (_of_version(mine, version) for version in (self._previous, self._version))
        return accuracy_change(before, after)


def _of_version(evidence: Evidence, version: int) -> Estimate:
    found = evidence.where(lambda one: one.model_version == version)
    return post_stratified(found.right, found.confidence, found.probability, found.bins, stream=found.stream())


def confidence_change(said: Sequence[tuple[tuple[int, float], tuple[int, float]]], *, promised: float) -> Change | None:
    """The mean change of the devices, each against itself, less the `promised` one; None when none said both.

    Args:
        said: of each device, (samples, sum of confidences) under the version before and under this one.
        promised: by how much the manifests' held-out confidences differ.

    The interval is as wide as for samples that vary as much as a share can, which makes up for their resemblance; and
    as wide as the devices differ, which makes up for streams that changed meanwhile (one camera's night falls). For two
    or three devices the latter is short (Student's t would be 12.7 and 4.3 times the error, not 1.96): nothing could be
    shown with it, and a halt too many costs somebody a look.

    >>> change = confidence_change([((10_000, 9_000.0), (10_000, 7_000.0))], promised=0.05)
    >>> f"{change.low:.3f} {change.high:.3f}"
    '-0.264 -0.236'
    """
    pairs = [(before, after) for before, after in said if before[0] and after[0]]
    if not pairs:
        return None
    count = len(pairs)
    means = [(before[1] / before[0], after[1] / after[0]) for before, after in pairs]
    was, now = (statistics.fmean(side) for side in zip(*means, strict=True))
    of_samples = sum(SD_MAX**2 * (1.0 / before[0] + 1.0 / after[0]) for before, after in pairs) / count**2
    of_devices = statistics.variance(after - before for before, after in means) / count if count > 1 else 0.0
    changed, margin = now - was - promised, Z * math.sqrt(max(of_samples, of_devices))
    return Change(was, now, changed - margin, changed + margin, f"{sum(after[0] for _, after in pairs)} samples")


def accuracy_change(before: Estimate, after: Estimate) -> Change | None:
    """The difference of two estimates, with the interval of Zou and Donner (Statistics in Medicine 2008) from theirs.

    None when either has too few labels to be believed.

    >>> change = accuracy_change(Estimate(0.9, 0.85, 0.94, 200, 150.0), Estimate(0.7, 0.6, 0.79, 90, 60.0))
    >>> f"{change.low:.3f} {change.high:.3f}"
    '-0.308 -0.097'
    """
    if not (before.enough and after.enough):
        return None
    changed = after.value - before.value
    low = changed - math.hypot(after.value - after.low, before.high - before.value)
    high = changed + math.hypot(after.high - after.value, before.value - before.low)
    return Change(before.value, after.value, low, high, f"{after.labels} labels")
