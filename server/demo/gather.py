"""Which figures does a run leave behind?

From the server's catalogue and what was seen of the devices; nothing is assumed.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import sqlalchemy as sa
from numpy.typing import NDArray

from edge_agent.contract.types import Prediction, Sample, SampleId, Selection
from edge_agent.contract.wire import encode_sample, sample_frames
from server.demo.arms import accuracy
from server.demo.control import Picked
from server.demo.report import Accuracy, Bytes, DeviceReport, RoundReport, Timeline
from server.demo.scenario import Scenario, Stream
from server.demo.watch import Eye, Watch
from server.store import runs, versions
from server.store.runs import Run
from server.store.schema import sample, snapshot_member
from server.store.store import Store

WINDOW = 400  # samples of the rolling accuracy; fewer is noise, more smears the changes
POINTS = 240  # of a curve
NEAR = 0.05  # of the accuracy before the new classes: as close counts as recovered

Right = Sequence[NDArray[Any]]  # per stream, (N,) who was right, or the share of several models that were


def picks(store: Store, scenario: Scenario) -> list[Picked]:
    """For every version made from the fleet's labels: how many, and how far each stream had come."""
    with store.database.read() as connection:
        published = [one for one in versions.every(connection) if one.run_id is not None and one.parent]
        found = []
        for one in published:
            query = (
                sa.select(
                    sample.c.device,
                    sa.func.count(),
                    sa.func.sum(sa.case((snapshot_member.c.split == "train", 1), else_=0)),
                    sa.func.max(sample.c.seq),
                )
                .join(snapshot_member, snapshot_member.c.sample_id == sample.c.id)
                .where(snapshot_member.c.snapshot_id == one.snapshot_id, sample.c.origin == "device")
                .group_by(sample.c.device)
            )
            seen = {device: (count, trained, last) for device, count, trained, last in connection.execute(query)}
            until = [seen[stream.name][2] + 1 if stream.name in seen else 0 for stream in scenario.streams]
            labels = sum(count for count, _, _ in seen.values())
            found.append(Picked(one.number, labels, sum(trained for _, trained, _ in seen.values()), until))
    return found


def devices(store: Store, eyes: Sequence[Eye]) -> dict[str, DeviceReport]:
    """What each device did, by its last word and by what the server holds."""
    with store.database.read() as connection:
        query = sa.select(sample.c.id, sample.c.device).where(sample.c.origin == "device")
        stored: dict[str, set[str]] = {}
        for name, device in connection.execute(query):
            stored.setdefault(device, set()).add(name)
    found = {}
    for eye in eyes:
        beat = eye.beat
        if beat is not None:
            here = stored.get(eye.stream.name, set())
            found[eye.stream.name] = DeviceReport(
                versions=eye.order,
                read=beat.counts.read,
                invalid=beat.counts.invalid,
                selected=sum(beat.counts.selected.values()),
                stored=len(here),
                evicted=beat.outbox.evicted,
                pending=len(eye.waiting() - here),
                parked=beat.outbox.parked,
            )
    return found


def rounds(store: Store, watch: Watch) -> list[RoundReport]:
    """Every round of the server that set out from a champion."""
    with store.database.read() as connection:
        tried = [run for run in reversed(runs.latest(connection, limit=1000)) if run.champion]
        made = {one.run_id: one for one in versions.every(connection)}
        sizes = {
            run.id: connection.scalar(
                sa.select(sa.func.count())
                .select_from(snapshot_member.join(sample, sample.c.id == snapshot_member.c.sample_id))
                .where(snapshot_member.c.snapshot_id == run.snapshot_id, sample.c.origin == "device")
            )
            or 0
            for run in tried
        }
    begun_ms = (time.time() - time.monotonic() + watch.begun_s) * 1000.0
    found = []
    for run in tried:
        version = made[run.id].number if run.id in made else None
        everywhere = watch.everywhere_s.get(version) if version else None
        found.append(
            RoundReport(
                run=run.id,
                version=version,
                verdict=verdict(run),
                labels=sizes[run.id],
                started_s=round((run.started_at_ms - begun_ms) / 1000.0, 1),
                ended_s=round(((run.ended_at_ms or run.started_at_ms) - begun_ms) / 1000.0, 1),
                everywhere_s=None if everywhere is None else round(everywhere - watch.begun_s, 1),
            )
        )
    return found


def verdict(run: Run) -> str:
    """What the gates said, in a line."""
    if run.error:
        return f"failed: {run.error}"
    gates = (run.report or {}).get("verdict", {}).get("gates", [])
    failed = [gate for gate in gates if gate["state"] == "failed"]
    shown = failed or [gate for gate in gates if gate["name"] in ("stream", "import")]
    said = [f"{gate['name']} {gate['figure']:+.3f} {gate['state'].replace('_', ' ')}" for gate in shown]
    return "; ".join(said) or run.state


def sent_bytes(scenario: Scenario, store: Store) -> Bytes:
    """Every sample as its message would be, and those that were sent. Each counted once, repeats left out."""
    with store.database.read() as connection:
        rows = connection.execute(sa.select(sample.c.device, sample.c.seq).where(sample.c.origin == "device")).all()
    sizes = {stream.name: _frame_bytes(stream) for stream in scenario.streams}
    sent = sum(int(sizes[device][seq]) for device, seq in rows)
    return Bytes(sent=sent, everything=sum(int(size.sum()) for size in sizes.values()))


def _frame_bytes(stream: Stream) -> NDArray[np.int64]:
    selection = Selection(
        reason="informative",
        probability=0.123456789,
        floor=0.123456789,
        utility=0.123456789,
        novelty=0.123456789,
        threshold=0.123456789,
        tokens=12.3456789,
        strategy="novelty-quantile-4",
    )
    sizes = np.zeros(len(stream.y), np.int64)
    for row, data in enumerate(stream.x):
        whole = Sample(
            SampleId(stream.name, "main", 1, row), f"{stream.name}:{row}", 0, data, Prediction(1, 0.5), selection, 1
        )
        sizes[row] = sum(len(frame) for frame in sample_frames(*encode_sample(whole)))
    return sizes


def late_share(store: Store, scenario: Scenario) -> dict[str, float]:
    """How common the late classes are after they appear: in the stream, and among what was selected then."""
    late = len(scenario.base.names)
    if late == len(scenario.names):
        return {}
    streams = {stream.name: stream for stream in scenario.streams}
    with store.database.read() as connection:
        rows = connection.execute(sa.select(sample.c.device, sample.c.seq).where(sample.c.origin == "device")).all()
    chosen = [streams[device].y[seq] >= late for device, seq in rows if seq >= streams[device].late_from]
    there = np.concatenate([stream.y[stream.late_from :] >= late for stream in scenario.streams])
    return {"stream": float(there.mean()), "selected": float(np.mean(chosen)) if chosen else 0.0}


class Timelines:
    """Rolling accuracy over all streams, in the order of time."""

    def __init__(self, scenario: Scenario, watch: Watch, arms: Mapping[str, Right]) -> None:
        """`arms`: per arm and stream, who was right."""
        streams = scenario.streams
        begun = [(eye.begun_s or watch.begun_s) - watch.begun_s for eye in watch.eyes]
        rate = watch.rate_per_s
        at_s = np.concatenate([start + np.arange(len(s.y)) / rate for start, s in zip(begun, streams, strict=True)])
        self._order = np.argsort(at_s, kind="stable")
        sound = np.concatenate([np.full(len(s.y), s.degraded_from is None) for s in streams])
        self._at_s = at_s[self._order]
        self._right = {arm: np.concatenate(list(right))[self._order] for arm, right in arms.items()}
        self._sound = sound[self._order]
        pairs = list(zip(begun, streams, strict=True))
        self.late_at_s = min((start + s.late_from / rate for start, s in pairs if s.late_from), default=None)
        degraded = [start + s.degraded_from / rate for start, s in pairs if s.degraded_from is not None]
        self.degraded_at_s = min(degraded, default=None)

    def after_the_change(self) -> dict[str, Accuracy]:
        """Accuracy of each arm on the streams, from the new classes on."""
        late = self._at_s >= (self.late_at_s or 0.0)
        return {arm: accuracy(right[late]) for arm, right in self._right.items()}

    def timeline(self) -> Timeline:
        """The curves of the report."""
        window = self._window(len(self._at_s))
        points = np.unique(np.linspace(window, len(self._at_s), POINTS).astype(int))
        return Timeline(
            at_s=np.round(self._at_s[points - 1], 1).tolist(),
            arms={
                arm: np.round(self._rolling(right, window)[points], 4).tolist() for arm, right in self._right.items()
            },
            window=window,
        )

    def recovery_s(self) -> float | None:
        """From the new classes until Winnow's rolling accuracy is back for good; None when it is not, or never fell.

        Of the devices whose sensor stays sound: the other is a second misfortune, with a time of its own.
        """
        if self.late_at_s is None:
            return None
        at_s, right = self._at_s[self._sound], self._right["winnow"][self._sound]
        rolling = self._rolling(right, self._window(len(at_s)))[1:]
        late = int(np.searchsorted(at_s, self.late_at_s))
        fallen = np.flatnonzero(rolling[late:] < float(right[:late].mean()) - NEAR)
        if not len(fallen) or late + fallen[-1] + 1 == len(rolling):
            return None
        return round(float(at_s[late + fallen[-1] + 1] - self.late_at_s), 1)

    @staticmethod
    def _window(samples: int) -> int:
        return min(WINDOW, max(20, samples // 20))

    def _rolling(self, right: NDArray[Any], window: int) -> NDArray[np.float64]:
        """[i]: mean of the `window` samples before i; shorter at the start."""
        total = np.concatenate([[0], np.cumsum(right)])
        first = np.maximum(np.arange(len(total)) - window, 0)
        mean: NDArray[np.float64] = (total - total[first]) / np.maximum(np.arange(len(total)) - first, 1)
        return mean
