"""What did the run show?

`report.json` holds every figure; `report.html` shows them on one page that needs nothing else. Both say nothing that
the run did not measure: what could not be measured is null, and said so.
"""

from __future__ import annotations

import base64
import io
import math
from pathlib import Path
from typing import Any

import jinja2
import msgspec

ARMS = {"winnow": "#0b6e4f", "random": "#8a6d3b", "frozen": "#8a8f98"}  # in the order of the legend
CHANGE = "#b3261e"


class Accuracy(msgspec.Struct, kw_only=True):
    """A share of right answers with its 95 % interval (Wilson)."""

    value: float
    interval: tuple[float, float]
    samples: int


class DeviceReport(msgspec.Struct, kw_only=True):
    """What one device did. selected = stored + evicted + pending + parked, or something was lost."""

    versions: list[int]  # executed, in order
    read: int
    invalid: int
    selected: int
    stored: int
    evicted: dict[str, int]
    pending: int
    parked: int


class RoundReport(msgspec.Struct, kw_only=True):
    """One pass of the loop on the server. Seconds since the streams began."""

    run: int
    version: int | None  # None: not published
    verdict: str
    labels: int  # from devices, of the snapshot
    started_s: float
    ended_s: float
    everywhere_s: float | None  # when every device executed it


class Bytes(msgspec.Struct, kw_only=True):
    """Samples as sent, headers included, against sending every sample."""

    sent: int
    everything: int


class Timeline(msgspec.Struct, kw_only=True):
    """Rolling accuracy on the streams, as the devices executed it."""

    at_s: list[float]
    arms: dict[str, list[float]]
    window: int  # samples


class Report(msgspec.Struct, kw_only=True):
    """The whole of report.json."""

    task: str
    quick: bool
    seed: int
    machine: dict[str, str]
    versions: dict[str, str]
    story: list[str]
    devices: dict[str, DeviceReport]
    rounds: list[RoundReport]
    labels: int
    random_draws: list[float]  # accuracy at the end of each draw of as many labels at random; `accuracy` has their mean
    label_share: float
    bytes: Bytes
    accuracy: dict[str, Accuracy]  # on held-out data of the late stream: winnow, frozen, random
    accuracy_degraded: dict[str, Accuracy]  # on that part of it which is as the degraded device sees it; empty: none is
    accuracy_stream: dict[str, Accuracy]  # on the streams themselves after the change
    selected: int
    late_at_s: float | None
    degraded_at_s: float | None
    recovery_s: float | None
    overhead_ratio: float | None  # None: the machine was too busy to tell
    late_share: dict[str, float]  # share of the late classes among: stream, selected
    timeline: Timeline
    wall_s: float
    notes: list[str]


def write(report: Report, folder: Path) -> tuple[Path, Path]:
    """Write report.json and report.html into `folder`; returns both paths."""
    folder.mkdir(parents=True, exist_ok=True)
    as_json, as_html = folder / "report.json", folder / "report.html"
    as_json.write_bytes(msgspec.json.format(msgspec.json.encode(report), indent=2))
    as_html.write_text(_page(report), encoding="utf-8")
    return as_json, as_html


def summary(report: Report) -> list[tuple[str, str]]:
    """The figures in words, for the terminal and the page."""
    accuracy, sent = report.accuracy, report.bytes
    gain = accuracy["winnow"].value - accuracy["frozen"].value
    ahead = accuracy["winnow"].value - accuracy["random"].value
    draws = ", ".join(f"{value:.1%}" for value in report.random_draws)
    rows = [
        ("accuracy, late stream", _interval(accuracy["winnow"])),
        ("  frozen first model", f"{_interval(accuracy['frozen'])}   Winnow is {gain * 100:+.1f} points"),
        (
            "  random, as many labels",
            f"{_interval(accuracy['random'])}   Winnow is {ahead * 100:+.1f} points (mean of draws: {draws})",
        ),
        *_degraded(report.accuracy_degraded),
        (
            "labels used",
            f"{report.labels:,} of {report.selected:,} selected; budget {report.label_share:.0%} of the stream",
        ),
        (
            "bytes sent",
            f"{sent.sent / 1e6:.2f} MB of {sent.everything / 1e6:.2f} MB ({sent.sent / sent.everything:.1%})",
        ),
        ("rounds", f"{len(report.rounds)}, {sum(r.version is not None for r in report.rounds)} published"),
    ]
    if report.late_at_s is not None:
        back = "not within the run" if report.recovery_s is None else f"{report.recovery_s:.0f} s"
        rows.append(("recovered after new classes", back))
    ratio = report.overhead_ratio
    cost = "the machine was too busy to tell" if ratio is None else f"{ratio:.2f} of its samples/s"
    rows.append(("agent / bare onnxruntime loop", cost))
    lost = sum(unaccounted(device) for device in report.devices.values())
    rows.append(("selected samples lost", f"{lost} of {sum(d.selected for d in report.devices.values()):,}"))
    rows.append(("wall time", f"{report.wall_s:.0f} s"))
    return rows


def _degraded(accuracy: dict[str, Accuracy]) -> list[tuple[str, str]]:
    if not accuracy:
        return []
    others = f"random {accuracy['random'].value:.1%}, frozen {accuracy['frozen'].value:.1%}"
    return [("  of the degraded sensor", f"{_interval(accuracy['winnow'])}   {others}")]


def unaccounted(device: DeviceReport) -> int:
    """Selected samples of which nobody knows where they are."""
    return device.selected - device.stored - sum(device.evicted.values()) - device.pending - device.parked


def _interval(accuracy: Accuracy) -> str:
    low, high = accuracy.interval
    return f"{accuracy.value:.1%} ({low:.1%} to {high:.1%})"


# --- the page ---


def _page(report: Report) -> str:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("server.demo", "."), autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    return environment.get_template("report.html.j2").render(
        report=report,
        summary=summary(report),
        timeline=_as_image(_draw_timeline(report)),
        bars=_as_image(_draw_bars(report)),
    )


def _draw_timeline(report: Report) -> Any:
    figure, axes = _figure(9.0, 3.4)
    timeline = report.timeline
    for arm, colour in ARMS.items():
        if arm in timeline.arms:
            axes.plot(
                timeline.at_s, timeline.arms[arm], color=colour, label=arm, linewidth=2 if arm == "winnow" else 1.3
            )
    for at_s, what in ((report.late_at_s, " new classes"), (report.degraded_at_s, " one camera fogged")):
        if at_s is not None:
            axes.axvline(at_s, color=CHANGE, linestyle=":", linewidth=1.2)
            axes.annotate(what, (at_s, 0.02), xycoords=("data", "axes fraction"), color=CHANGE)
    for one in report.rounds:
        if one.everywhere_s is not None:
            axes.axvline(one.everywhere_s, color=ARMS["winnow"], linestyle="--", linewidth=0.8)
            where = (one.everywhere_s, 0.94)
            axes.annotate(f" v{one.version}", where, xycoords=("data", "axes fraction"), color=ARMS["winnow"])
    axes.set_xlabel("seconds since the streams began")
    axes.set_ylabel(f"accuracy, last {timeline.window} samples")
    axes.set_ylim(max(0.0, _lowest(timeline) - 0.05), 1.0)
    axes.legend(loc="lower left", frameon=False)
    return figure


def _lowest(timeline: Timeline) -> float:
    values = [value for arm in timeline.arms.values() for value in arm if not math.isnan(value)]
    return min(values, default=0.0)


def _draw_bars(report: Report) -> Any:
    figure, axes = _figure(9.0, 1.9)
    arms = [arm for arm in ARMS if arm in report.accuracy][::-1]
    for row, arm in enumerate(arms):
        accuracy = report.accuracy[arm]
        low, high = accuracy.interval
        axes.barh(row, accuracy.value, color=ARMS[arm], height=0.6)
        axes.plot([low, high], [row, row], color="black", linewidth=1.5)
        axes.annotate(f" {accuracy.value:.1%}", (high, row), va="center")
    axes.set_yticks(range(len(arms)), arms)
    axes.set_xlim(0, 1)
    axes.set_xlabel("accuracy on held-out data of the late stream, with 95 % intervals")
    return figure


def _figure(width: float, height: float) -> tuple[Any, Any]:
    from matplotlib.figure import Figure  # not pyplot: no global state, no window

    figure = Figure(figsize=(width, height), layout="constrained")
    axes = figure.add_subplot()
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def _as_image(figure: Any) -> str:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110)
    return base64.b64encode(buffer.getvalue()).decode()
