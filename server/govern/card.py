"""What should somebody know before they rely on a version?

A model card (Mitchell et al., "Model Cards for Model Reporting", FAT* 2019) and a data card (Pushkarna et al., "Data
Cards", FAccT 2022; after Gebru et al., "Datasheets for Datasets", 2021), made of what the store knows and of what
`[govern]` states. What nobody stated is said to be missing, never made up.
"""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import jinja2
import sqlalchemy as sa

from edge_agent.contract.artifact import Manifest, decode_manifest
from server import config
from server.audit.interval import limits
from server.errors import GovernError
from server.govern.lineage import of_version
from server.store import cards, erasures, labels, runs, snapshots, versions
from server.store.naming import named_in
from server.store.schema import label, sample, snapshot_member
from server.store.store import Store

View = dict[str, Any]
FEW = 30  # samples of a class or a slice; below it a figure says little
NOT_STATED = "not stated"


def card(store: Store, number: int, stated: config.Govern, *, now_ms: int, fresh: bool = False) -> View:
    """Both cards: {"model": ..., "data": ...}; as they were kept, unless `fresh`. GovernError: no such version."""
    if not fresh and (kept := cards.get(store, number)) is not None:
        return kept
    with store.database.read() as connection:
        version = versions.get(connection, number)
        if version is None:
            raise GovernError(f"version {number} is not in the registry: winnow-server models lists them")
        manifest = decode_manifest(store.blobs.get(version.manifest_sha256), where=f"version {number}")
        run = runs.get(connection, version.run_id) if version.run_id is not None else None
        data = _data(connection, version.snapshot_id, stated)
        model = _model(of_version(connection, version), manifest, run.report if run else {}, stated)
    model["limits"] = _limits(model, data)
    return {"at_ms": now_ms, "model": model, "data": data}


def keep(store: Store, stated: config.Govern, *, now_ms: int) -> list[int]:
    """Make and keep the cards of every version that has none; returns which."""
    with store.database.read() as connection:
        numbers = list(cards.missing(connection))
    for number in numbers:
        cards.put(store, number, card(store, number, stated, now_ms=now_ms, fresh=True), now_ms=now_ms)
    return numbers


def words(view: View, which: str, stamp: Any) -> str:
    """A card as Markdown; `which`: "model" or "data"."""
    made = jinja2.Environment(
        loader=jinja2.PackageLoader("server.govern", "."),
        autoescape=False,  # noqa: S701 - Markdown
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters["stamp"] = stamp
    return made.get_template(f"{which}_card.md.j2").render(card=view[which], at_ms=view["at_ms"], not_stated=NOT_STATED)


# --- the model --------------------------------------------------------------------------------------------------------


def _model(lineage: View, manifest: Manifest, report: View, stated: config.Govern) -> View:
    spec = manifest.input
    return {
        "version": lineage["version"],
        "name": manifest.name,
        "published_at_ms": lineage["published_at_ms"],
        "manifest_sha256": lineage["manifest_sha256"],
        "files": {name: {"sha256": file.sha256, "bytes": file.bytes} for name, file in manifest.files.items()},
        "task": manifest.task,
        "input": {"shape": list(spec.shape), "dtype": spec.dtype, "unit": spec.unit or NOT_STATED},
        "classes": list(manifest.classes),
        "intended_use": stated.intended_use or NOT_STATED,
        "out_of_scope": stated.out_of_scope or NOT_STATED,
        "contact": stated.contact or NOT_STATED,
        "licence": manifest.licence or stated.model_licence or NOT_STATED,
        "metrics": _metrics(manifest),
        "figures": {name: value for name, value in report.get("figures", {}).items() if isinstance(value, float | int)},
        "gates": _gates(report),
        "lineage": lineage,
    }


def _metrics(manifest: Manifest) -> list[View]:
    """What the manifest says it measured, on `samples` held-out ones; 95 % interval where it is a share of those."""
    n = int(manifest.metrics.get("samples", 0))
    found = []
    for name, value in manifest.metrics.items():
        of_all = name == "accuracy" and n > 0
        interval = limits(value, value * (1.0 - value) / n, 1.0 / n, confidence_level=0.95) if of_all else None
        found.append({"name": name, "value": value, "interval": None if interval is None else list(interval)})
    return found


def _gates(report: View) -> list[View]:
    names = ("name", "state", "figure", "interval", "limit", "n")
    return [{name: gate.get(name) for name in names} for gate in report.get("verdict", {}).get("gates", ())]


def _limits(model: View, data: View | None) -> list[str]:
    """What is known to be weak; from figures alone."""
    found = []
    unsure = [gate["name"] for gate in model["gates"] if gate["state"] not in ("passed", "failed")]
    if unsure:
        found.append(f"too little evidence to judge: {', '.join(unsure)}")
    failed = [gate["name"] for gate in model["gates"] if gate["state"] == "failed"]
    if failed:
        found.append(f"released although these gates failed: {', '.join(failed)}")
    if not model["gates"]:
        found.append("no gates were held here: it was given by hand, or is an earlier version again")
    if model["lineage"]["erased_since"]:
        found.append("it learned from samples that were erased since, and is to be trained again")
    if data is None:
        return [*found, "what it was trained on is not known here"]
    few = [row["class"] for row in data["classes"] if row["train"] < FEW]
    if few:
        found.append(f"fewer than {FEW} samples to learn from: {', '.join(few)}")
    unjudged = [row["class"] for row in data["classes"] if row["holdout"] < FEW]
    if unjudged:
        found.append(f"fewer than {FEW} samples to judge by: {', '.join(unjudged)}")
    return found


# --- the data ---------------------------------------------------------------------------------------------------------


def _data(connection: sa.Connection, snapshot_id: str, stated: config.Govern) -> View | None:
    frozen = snapshots.get(connection, snapshot_id)
    if frozen is None:
        return None
    mine = snapshot_member.join(sample, sample.c.id == snapshot_member.c.sample_id)
    where = snapshot_member.c.snapshot_id == snapshot_id
    span = sa.select(sa.func.min(sample.c.captured_at_ms), sa.func.max(sample.c.captured_at_ms)).select_from(mine)
    first_ms, last_ms = connection.execute(span.where(where, sample.c.origin == "device")).one()
    return {
        "snapshot": frozen.id,
        "created_at_ms": frozen.created_at_ms,
        "licence": stated.data_licence or NOT_STATED,
        "personal_data": stated.personal_data or NOT_STATED,
        "contact": stated.contact or NOT_STATED,
        "train": frozen.train_count,
        "holdout": frozen.holdout_count,
        "from_devices": frozen.device_label_count,
        "erased": erasures.lost(connection, snapshot_id),
        "captured_ms": [first_ms, last_ms],
        "classes": _classes(connection, frozen.id, frozen.classes),
        "selection": _selection(connection, mine, where),
        "labelers": _answered(connection, snapshot_id, frozen.created_at_ms),
        "disputed": _disputed(connection, snapshot_id, frozen.created_at_ms),
    }


def _classes(connection: sa.Connection, snapshot_id: str, names: tuple[str, ...]) -> list[View]:
    counts: dict[int, dict[str, int]] = defaultdict(dict)
    query = (
        sa.select(snapshot_member.c.class_index, snapshot_member.c.split, sa.func.count())
        .where(snapshot_member.c.snapshot_id == snapshot_id)
        .group_by(snapshot_member.c.class_index, snapshot_member.c.split)
    )
    truths, named = named_in(snapshot_member)
    each = sa.select(named, snapshot_member.c.split, sa.func.count(snapshot_member.c.sample_id.distinct()))
    mine = (snapshot_member.c.snapshot_id == snapshot_id, snapshot_member.c.class_index == labels.VALUED)
    more = each.select_from(truths).where(*mine)
    rows = [*connection.execute(query), *connection.execute(more.group_by(named, snapshot_member.c.split))]
    for index, split, number in rows:
        counts[index][split] = number
    return [
        {"class": name, "train": counts[index].get("train", 0), "holdout": counts[index].get("holdout", 0)}
        for index, name in enumerate(names)
    ]


def _selection(connection: sa.Connection, mine: sa.Join, where: sa.ColumnElement[bool]) -> list[View]:
    """How the samples came to be chosen: by reason, with the probabilities that were recorded."""
    reason = sa.func.coalesce(sample.c.reason, sample.c.origin)
    probability = snapshot_member.c.probability
    query = (
        sa.select(
            reason.label("reason"),
            snapshot_member.c.split.label("split"),
            sa.func.count().label("samples"),
            sa.func.min(probability).label("least"),
            sa.func.avg(probability).label("mean"),
        )
        .select_from(mine)
        .where(where)
        .group_by(reason, snapshot_member.c.split)
        .order_by(reason, snapshot_member.c.split)
    )
    return [row._asdict() for row in connection.execute(query)]


def _answered(connection: sa.Connection, snapshot_id: str, at_ms: int) -> list[View]:
    """Who answered, how often, and in how many seconds a label where a person was timed."""
    timed = sa.func.avg(sa.func.nullif(label.c.seconds, 0.0))
    query = (
        sa.select(label.c.labeler.label("labeler"), sa.func.count().label("labels"), timed.label("seconds"))
        .select_from(snapshot_member.join(label, label.c.sample_id == snapshot_member.c.sample_id))
        .where(snapshot_member.c.snapshot_id == snapshot_id, labels.stood(label, at_ms))
        .group_by(label.c.labeler)
        .order_by(label.c.labeler)
    )
    return [row._asdict() for row in connection.execute(query)]


def _disputed(connection: sa.Connection, snapshot_id: str, at_ms: int) -> int:
    """Samples of which different things were said."""
    said, truth = label.c.class_index, sa.cast(label.c.truth, sa.Text)
    query = (
        sa.select(label.c.sample_id)
        .select_from(snapshot_member.join(label, label.c.sample_id == snapshot_member.c.sample_id))
        .where(
            snapshot_member.c.snapshot_id == snapshot_id,
            labels.stood(label, at_ms),
            said != labels.CANNOT_TELL,
        )
        .group_by(label.c.sample_id)
        .having(sa.or_(sa.func.min(said) != sa.func.max(said), sa.func.min(truth) != sa.func.max(truth)))
    )
    return connection.scalar(sa.select(sa.func.count()).select_from(query.subquery())) or 0
