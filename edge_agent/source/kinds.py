"""How is a source of each kind made?

What a kind needs is imported when one is opened, never before.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Literal, cast

from edge_agent.contract.errors import ConfigError, SourceError, WinnowError, did_you_mean
from edge_agent.contract.settings import imported
from edge_agent.source import Counts, Fit, Source, options


def open_source(source: options.Source, *, fit: Fit, counts: Counts | None = None) -> Source:
    """Make it; ConfigError when there is no such kind or it lacks something, SourceError when the sensor fails."""
    if source.kind in MAKERS:
        return MAKERS[source.kind](source, fit, counts or Counts(), **options.tables_of(source))
    return _plug_in(source, fit)


def _plug_in(source: options.Source, fit: Fit) -> Source:
    """Somebody's own; what it raises while it is made is the sensor's failure, and it is made again."""
    if not source.kind.partition(":")[2]:
        known = ", ".join(MAKERS)
        raise ConfigError(
            f"[source] kind = {source.kind!r}: unknown{did_you_mean(source.kind, MAKERS)}; known: {known}"
        )
    make = imported(source.kind, where="[source] kind =")
    try:
        return cast(Source, make(path=Path(source.path), fit=fit, rate_per_s=source.rate_per_s))
    except WinnowError:
        raise
    except Exception as error:
        raise SourceError(f"{source.kind}: {type(error).__name__}: {error}") from error


def _folder(source: options.Source, fit: Fit, counts: Counts, *, frame: options.Frame) -> Source:
    from edge_agent.source.folder import Folder

    return Folder(Path(source.path), fit=fit, frame=frame, poll_s=source.poll_s, counts=counts)


def _replay(source: options.Source, _fit: Fit, _counts: Counts) -> Source:
    from edge_agent.source.replay import Replay

    return Replay(Path(source.path), rate_per_s=source.rate_per_s)


def _wav(source: options.Source, fit: Fit, _counts: Counts, *, window: options.Window) -> Source:
    from edge_agent.source.wav import Wav

    return Wav(Path(source.path), fit=fit, window=window, rate_per_s=source.rate_per_s)


def _camera(
    source: options.Source, fit: Fit, counts: Counts, *, camera: options.Camera, frame: options.Frame
) -> Source:
    from edge_agent.source.camera import Camera
    from edge_agent.source.live import Live

    opened = Camera(camera, fit=fit, frame=frame, rate_per_s=source.rate_per_s, counts=counts)
    keep = _keep(source, "every" if opened.is_file else "newest")
    return Live(opened, keep=keep, room=source.room, counts=counts)


def _stdin(source: options.Source, fit: Fit, counts: Counts, *, lines: options.Lines, window: options.Window) -> Source:
    from edge_agent.source.lines import LineReader
    from edge_agent.source.live import Live
    from edge_agent.source.port import Stdin

    reader = LineReader(Stdin(), fit=fit, lines=lines, window=window, counts=counts)
    return Live(reader, keep=_keep(source), room=source.room, counts=counts)


def _serial(
    source: options.Source,
    fit: Fit,
    counts: Counts,
    *,
    serial: options.Serial,
    lines: options.Lines,
    window: options.Window,
) -> Source:
    from edge_agent.source.lines import LineReader
    from edge_agent.source.live import Live
    from edge_agent.source.port import Serial

    reader = LineReader(Serial(serial), fit=fit, lines=lines, window=window, counts=counts)
    return Live(reader, keep=_keep(source), room=source.room, counts=counts)


def _mqtt(
    source: options.Source,
    fit: Fit,
    counts: Counts,
    *,
    mqtt: options.Mqtt,
    lines: options.Lines,
    window: options.Window,
) -> Source:
    from edge_agent.source.live import Live
    from edge_agent.source.mqtt import Mqtt

    sensors = Mqtt(mqtt, fit=fit, lines=lines, window=window, counts=counts)
    return Live(sensors, keep=_keep(source), room=source.room, counts=counts)


def _mic(source: options.Source, fit: Fit, counts: Counts, *, mic: options.Mic, window: options.Window) -> Source:
    from edge_agent.source.live import Live
    from edge_agent.source.mic import Mic

    return Live(Mic(mic, fit=fit, window=window, counts=counts), keep=_keep(source), room=source.room, counts=counts)


def _push(source: options.Source, fit: Fit, counts: Counts, *, push: options.Push, frame: options.Frame) -> Source:
    from edge_agent.source.push import Push

    return Push(push, fit=fit, frame=frame, keep=_keep(source), room=source.room, counts=counts)


def _keep(source: options.Source, usual: Literal["every", "newest"] = "every") -> Literal["every", "newest"]:
    return usual if source.keep == "auto" else source.keep


MAKERS: dict[str, Callable[..., Source]] = {
    "folder": _folder,
    "replay": _replay,
    "camera": _camera,
    "stdin": _stdin,
    "serial": _serial,
    "mqtt": _mqtt,
    "wav": _wav,
    "mic": _mic,
    "push": _push,
}
