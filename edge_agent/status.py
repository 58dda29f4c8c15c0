"""What is the agent doing?

The running agent writes its heartbeat to status.json as often as it says it, every 30 s at least; this reads it and
says it in words.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import NamedTuple

from edge_agent.contract.errors import ConfigError
from edge_agent.contract.wire import Budgets, Heartbeat, ModelState, decode
from edge_agent.history import Step, read
from edge_agent.lock import is_held

STATUS = "status.json"
HELD = {
    "quiet": "quiet hours",
    "metered": "the link is metered",
    "budget": "the day's bytes are spent",
    "paused": "an operator paused them",
}
STEPS_SAID = 8  # of updates: the last two, as a rule
STALE_S = 100.0  # the agent writes every 30 s at least; a running one that is silent for longer is in trouble


class Status(NamedTuple):
    """The last heartbeat as written, how long ago that was, whether an agent runs now, and the steps of its updates."""

    raw: str
    heartbeat: Heartbeat
    age_s: float
    running: bool
    steps: Sequence[Step] = ()

    @property
    def healthy(self) -> bool:
        """Whether an agent runs and was heard of lately."""
        return self.running and self.age_s < STALE_S


def read_status(folder: Path) -> Status:
    """Read status.json from the data folder; ConfigError when no agent has run there."""
    path = folder / STATUS
    try:
        raw, age_s = path.read_bytes(), max(0.0, time.time() - path.stat().st_mtime)
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}: has the agent run with this configuration?") from error
    return Status(raw.decode(), decode(Heartbeat, raw), age_s, is_held(folder), read(folder))


def describe(status: Status) -> str:
    """The status in words."""
    beat = status.heartbeat
    counts, model, outbox = beat.counts, beat.model, beat.outbox
    selected = sum(counts.selected.values())
    share = selected / counts.scored if counts.scored else 0.0
    reasons = ", ".join(f"{count} {reason}" for reason, count in sorted(counts.selected.items())) or "none"
    evicted = ", ".join(f"{count} {reason}" for reason, count in sorted(outbox.evicted.items())) or "none"
    lines = [
        f"agent      {_state(status)}, boot {beat.boot}, up {beat.uptime_s:.0f} s, {beat.rss_bytes / 1e6:.0f} MB",
        f"model      version {model.version}, {model.slot}"
        + (f", {_trial(model)}" if model.trying else "")
        + (f", fetching {model.fetching} ({model.fetched_share:.0%})" if model.fetching else ""),
        f"stream     {counts.read} read, {counts.invalid} invalid, {beat.samples_per_s:.1f}/s, "
        f"{beat.latency_p50_ms:.2f} ms (p95 {beat.latency_p95_ms:.2f})"
        + (f" on {model.provider}" if model.provider else ""),
        f"selected   {selected} ({share:.1%}): {reasons}",
        f"outbox     {outbox.rows} waiting ({outbox.bytes / 1e6:.1f} MB), oldest {outbox.oldest_age_s:.0f} s, "
        f"{outbox.acked_total} delivered, evicted: {evicted}, parked: {outbox.parked}"
        + ("" if outbox.storing else ", NOT STORING: the disk is full"),
        f"budget     {beat.label_tokens:.1f} labels at once"
        + ("" if beat.byte_tokens is None else f", {beat.byte_tokens:.0f} bytes at once")
        + _budgets(beat.budgets),
    ]
    if (link := beat.link) is not None:
        lines.append(
            f"link       {link.sent_bytes / 1e6:.1f} MB sent, {link.received_bytes / 1e6:.1f} MB received"
            + ("" if link.day_tokens is None else f", {max(0.0, link.day_tokens):.0f} bytes of the day at once")
            + (f"; samples wait: {HELD[link.held]}" if link.held else "")
        )
    if beat.pace is not None and beat.pace.share < 1.0:
        lines.append(f"heat       works {beat.pace.share:.1%} of the time: {beat.pace.why}")
    lines += [f"parked     {id_}: {reason}" for id_, reason in outbox.refusals.items()]
    lines += [
        f"request    {one.id}: {one.found} found, {one.recalled} of them among recent samples; "
        + (one.why or "looking out")
        for one in beat.requests
    ]
    lines += [f"refused    version {version}: {reason}" for version, reason in sorted(model.refused.items())]
    lines += [f"update     {_stamp(step.at_ms)} {step.kind}: {step.text}" for step in status.steps[-STEPS_SAID:]]
    return "\n".join(lines)


def _trial(model: ModelState) -> str:
    if model.trying == model.version:
        return f"on probation for {model.tried} samples ({model.tried_share:.0%})"
    return f"version {model.trying} in its shadow for {model.tried} samples ({model.tried_share:.0%})"


def _budgets(said: Budgets | None) -> str:
    if said is None:
        return ""
    limits = ((said.labels_per_day, "labels a day"), (said.bytes_per_day, "bytes a day"))
    parts = [f"; {said.label_share:.1%} of the stream", *(f"{limit:.0f} {what}" for limit, what in limits if limit)]
    return ", ".join(parts) + (f"; {said.complaint}" if said.complaint else "")


def _stamp(at_ms: int) -> str:
    return datetime.fromtimestamp(at_ms / 1000, timezone.utc).isoformat(timespec="seconds")


def _state(status: Status) -> str:
    if not status.running:
        return f"not running since {status.age_s:.0f} s"
    return "running" if status.age_s < STALE_S else f"running, but silent for {status.age_s:.0f} s"
