"""What do the rules of `when` see?

New labels since the last round, how old the version is, what the audit's labels say of it, and what people asked for.
"""

from __future__ import annotations

import numpy as np
import sqlalchemy as sa

from server import config
from server.store import erasures, labels, runs, scores, snapshots, training_orders, versions
from server.store.versions import Version
from server.teach.gates.paired import effective
from server.teach.harm import Harm, allowed_error, bet
from server.teach.when import Look

LEARNED = 100  # labels under a version from which its usual error is learned, where nobody judged it on the stream
DAY_MS = 86_400_000


def look(connection: sa.Connection, rules: config.Teach, *, now_ms: int) -> Look:
    """All of it, of now."""
    champion = versions.champion(connection)
    order = training_orders.waiting(connection)
    return Look(
        new_labels=new_labels(connection),
        age_days=(now_ms - champion.created_at_ms) / DAY_MS if champion else 0.0,
        harm=harm(connection, champion, rules) if champion and rules.harm_labels else None,
        tried=tried(connection, champion) if champion else False,
        erased=erased(connection, champion) if champion else "",
        asked_by=order.who if order else "",
        asked_why=order.why if order else "",
    )


def new_labels(connection: sa.Connection) -> int:
    """Labels from devices that the last round did not know."""
    last = runs.latest(connection)
    return snapshots.count_new(connection, last[0].snapshot_id if last else "")


def tried(connection: sa.Connection, version: Version) -> bool:
    """Whether the last round set out from this version; where it is in force, nothing came of that."""
    last = runs.latest(connection)
    return bool(last) and last[0].champion == version.number


def erased(connection: sa.Connection, version: Version) -> str:
    """That a version learned from what was erased since, if no round has begun after that; empty: it did not."""
    mine = erasures.learned(connection).get(version.number)
    if not mine:
        return ""
    at_ms = max(one.at_ms for one in erasures.every(connection) if one.id in mine)
    last = runs.latest(connection)
    if last and last[0].started_at_ms > at_ms:
        return ""
    return f"version {version.number} learned from what erasure {mine[-1]} took away: it is taught anew, from scratch"


def harm(connection: sa.Connection, version: Version, rules: config.Teach) -> Harm:
    """What the audit's labels say of a version, against what it was when it was judged."""
    rows = labels.audited(connection, version.number)
    errors = 1.0 - scores.Scorer(connection).of(list(rows))
    floor = np.array([row.floor for row in rows], np.float64)
    accuracy = version.metrics.get("candidate_stream_accuracy")
    if accuracy is None:
        weight = 1.0 / floor[:LEARNED]
        error = float(np.average(errors[:LEARNED], weights=weight)) if len(weight) else 0.0
        errors, floor = errors[LEARNED:], floor[LEARNED:]
    else:
        weight = 1.0 / np.array(snapshots.held_out_probabilities(connection, version.snapshot_id), np.float64)
        error = 1.0 - accuracy
    allowed = allowed_error(error, effective(weight), rules.harm_tolerance)
    return bet(version.number, errors, floor, allowed=allowed, threshold=rules.harm_labels)
