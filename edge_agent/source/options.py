"""What can be set of a source?

`[source]` is what all kinds have; what one kind has beside it stands in tables of its own (`[source.camera]`), and only
those of the chosen kind may be there.
"""

# Annotations are not postponed here: msgspec would compile each of them at every start (docs/adr/0041).

from collections.abc import Callable
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from edge_agent.contract.errors import ConfigError

Keep = Literal["auto", "every", "newest"]
How = Literal["stretch", "crop", "letterbox"]
PICAMERA = "picamera2"  # the device of a Raspberry Pi's own camera
UNIX = "unix:"  # before the path of a socket
LIVE = ("camera", "stdin", "serial", "mqtt", "mic", "push")
"""Kinds of sensors that go on by themselves."""


class Options(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A table of the file."""


class Camera(Options, frozen=True, kw_only=True):
    """Of kind `camera`."""

    device: Annotated[
        str,
        Meta(
            description="`0`, `/dev/video0` (USB); `rtsp://...`, `http://...` (network); a video file; `picamera2`; or a GStreamer pipeline (anything with a `!`) that ends in `appsink`"
        ),
    ] = "0"
    username: Annotated[str, Meta(description="for a network camera; empty: none")] = ""
    password_file: Annotated[str, Meta(description="file with its password")] = ""
    width: Annotated[int, Meta(ge=0, description="pixels to ask the camera for; 0: as it comes")] = 0
    height: Annotated[int, Meta(ge=0, description="pixels to ask the camera for; 0: as it comes")] = 0
    frames_per_s: Annotated[
        float,
        Meta(ge=0.0, description="to ask the camera for; 0: as it comes; `[source] rate_per_s` thins what it gives"),
    ] = 0.0
    timeout_s: Annotated[
        float, Meta(gt=0.0, description="longest time without a frame until the camera is opened again")
    ] = 10.0
    frozen_s: Annotated[
        float,
        Meta(
            ge=0.0,
            description="seconds of frames that are the same to the last bit after which it is opened again; 0: never (compressed streams of a still scene repeat themselves)",
        ),
    ] = 0.0

    @property
    def is_a_pipeline(self) -> bool:
        """Whether the device is a pipeline of GStreamer."""
        return "!" in self.device

    @property
    def is_of_a_file(self) -> bool:
        """Whether the device has a place in the file system, by its spelling: no number, address or pipeline."""
        other = self.device.isdecimal() or self.device == PICAMERA
        return not other and "://" not in self.device and not self.is_a_pipeline


class Frame(Options, frozen=True, kw_only=True):
    """How a picture is brought to the model's size and channels; of `camera`, `folder` and `push`."""

    how: Annotated[
        How,
        Meta(
            description="`stretch` to its size; `crop` the middle, in its proportions; `letterbox`: all of it, in its own proportions, the rest filled"
        ),
    ] = "stretch"
    fill: Annotated[int, Meta(ge=0, le=255, description="grey level around a letterboxed picture")] = 114
    colour: Annotated[
        Literal["rgb", "bgr"], Meta(description="order of three channels that the model was trained with")
    ] = "rgb"


class Lines(Options, frozen=True, kw_only=True):
    """How text becomes numbers; of `stdin`, `serial` and `mqtt`. A line is CSV or JSON; each is seen by its first sign."""

    fields: Annotated[
        tuple[str, ...],
        Meta(
            description='names to take, in this order: keys of a JSON object (`"imu.ax"`: of one inside), or the names in the first line of CSV; empty: all numbers of a line'
        ),
    ] = ()
    columns: Annotated[
        tuple[Annotated[int, Meta(ge=0)], ...],
        Meta(description="positions to take, from 0, where nothing has a name; empty: all"),
    ] = ()


class Window(Options, frozen=True, kw_only=True):
    """How many values in a row are one sample; of `stdin`, `serial`, `mqtt`, `wav` and `mic`."""

    size: Annotated[
        int,
        Meta(
            ge=0,
            description="steps in time that are one sample; 1: every line is one; 0: as the model's input (T,), (T, channels) says",
        ),
    ] = 0
    hop: Annotated[
        int,
        Meta(ge=0, description="steps from one window to the next: less than `size` overlaps; 0: as many as `size`"),
    ] = 0
    channels_first: Annotated[bool, Meta(description="the model takes (channels, T), not (T, channels)")] = False
    rate_per_s: Annotated[
        float, Meta(ge=0.0, description="steps a second that the sensor gives; 0: not known, and pauses are not seen")
    ] = 0.0
    gap_steps: Annotated[
        float,
        Meta(gt=0.0, description="pause, in steps of that rate, after which a new window begins, and a gap is counted"),
    ] = 5.0


class Mqtt(Options, frozen=True, kw_only=True):
    """Of kind `mqtt`: sensors that publish on a broker of their own."""

    broker: Annotated[str, Meta(description="`mqtt://host:port` or `mqtts://host:port`")] = "mqtt://127.0.0.1:1883"
    topic: Annotated[str, Meta(description="topic or filter; each topic has windows of its own")] = ""
    qos: Annotated[int, Meta(ge=0, le=1, description="of the subscription")] = 0
    username: Annotated[str, Meta(description="for the broker; empty: none")] = ""
    password_file: Annotated[str, Meta(description="file with the password")] = ""
    ca_file: Annotated[str, Meta(description="certificates that the broker's is checked against, for mqtts")] = ""
    cert_file: Annotated[str, Meta(description="a certificate to show, for mqtts; empty: none")] = ""
    key_file: Annotated[str, Meta(description="its key; empty: in the same file")] = ""
    raw: Annotated[
        str,
        Meta(
            description="numpy's name of the numbers that a message holds as bytes (`<f4`, `<i2`), step by step; empty: text, as `[source.lines]` says"
        ),
    ] = ""


class Serial(Options, frozen=True, kw_only=True):
    """Of kind `serial`."""

    port: Annotated[str, Meta(description="of the serial line")] = "/dev/ttyUSB0"
    baud: Annotated[int, Meta(ge=50, description="bits a second")] = 115_200


class Mic(Options, frozen=True, kw_only=True):
    """Of kind `mic`. `[source.window] rate_per_s` is its rate."""

    device: Annotated[str, Meta(description="of ALSA: what `arecord -L` lists")] = "default"


class Push(Options, frozen=True, kw_only=True):
    """Of kind `push`: another program on the device sends samples and gets predictions back."""

    listen: Annotated[
        str, Meta(description='`"127.0.0.1:8765"`, or `"unix:push.sock"`: a socket that file rights protect')
    ] = "127.0.0.1:8765"
    token_file: Annotated[
        str, Meta(description="file with a secret that senders must show; needed beyond this machine")
    ] = ""
    max_bytes: Annotated[int, Meta(ge=1, description="of the body of one request")] = 32_000_000
    timeout_s: Annotated[float, Meta(gt=0.0, description="longest time that a sender waits for its prediction")] = 5.0


class Source(Options, frozen=True, kw_only=True):
    """Where samples come from: see [sources](../sources/README.md)."""

    kind: Annotated[
        str,
        Meta(
            description="`folder`, `replay`, `camera`, `stdin`, `serial`, `mqtt`, `wav`, `mic`, `push`, or `package.module:name`"
        ),
    ] = "folder"
    path: Annotated[str, Meta(description="the folder of `folder`, the .npz of `replay`, the .wav of `wav`")] = (
        "samples"
    )
    stream: Annotated[str, Meta(description="name of the stream, part of every sample id")] = "main"
    rate_per_s: Annotated[
        float,
        Meta(
            ge=0.0,
            description="samples a second at which `replay` and `wav` play, and that `camera` takes at most; 0: as fast as they come",
        ),
    ] = 0.0
    poll_s: Annotated[float, Meta(gt=0.0, description="seconds between two looks at the folder")] = 0.5
    stop_at_end: Annotated[bool, Meta(description="end the agent, outbox drained, when the source has no more")] = False
    keep: Annotated[
        Keep,
        Meta(
            description="when the sensor is faster than the model: `newest` takes the place of what waits, counted as skipped; `every`: the sensor's side waits; `auto`: `newest` of a camera, else `every`"
        ),
    ] = "auto"
    room: Annotated[
        int, Meta(ge=0, le=10_000, description="samples that may wait for the model; 0: 1 of `newest`, 64 of `every`")
    ] = 0
    camera: Camera | None = None
    frame: Frame | None = None
    lines: Lines | None = None
    window: Window | None = None
    mqtt: Mqtt | None = None
    serial: Serial | None = None
    mic: Mic | None = None
    push: Push | None = None


TABLES: dict[str, dict[str, type[Options]]] = {
    "folder": {"frame": Frame},
    "replay": {},
    "camera": {"camera": Camera, "frame": Frame},
    "stdin": {"lines": Lines, "window": Window},
    "serial": {"serial": Serial, "lines": Lines, "window": Window},
    "mqtt": {"mqtt": Mqtt, "lines": Lines, "window": Window},
    "wav": {"window": Window},
    "mic": {"mic": Mic, "window": Window},
    "push": {"push": Push, "frame": Frame},
}
"""The tables that each kind has."""

ALL_TABLES = frozenset(name for tables in TABLES.values() for name in tables)


def tables_of(source: Source) -> dict[str, Any]:
    """The tables of its kind; one that was not given has its defaults."""
    return {name: getattr(source, name) or make() for name, make in TABLES.get(source.kind, {}).items()}


def settle(source: Source, there: Callable[[str], str]) -> Source:
    """With the tables of its kind, defaults filled in, paths as `there` says; ConfigError for one of another kind."""
    tables = TABLES.get(source.kind, {})
    for name in sorted(ALL_TABLES - tables.keys()):
        if getattr(source, name) is not None:
            kinds = ", ".join(kind for kind, of_kind in TABLES.items() if name in of_kind)
            raise ConfigError(f"[source.{name}] is of kind {kinds}, and [source] kind is {source.kind!r}: take it out")
    filled = tables_of(source)
    if "camera" in filled:
        names = ("device", "password_file") if filled["camera"].is_of_a_file else ("password_file",)
        filled["camera"] = _there(filled["camera"], there, *names)
    if "mqtt" in filled:
        filled["mqtt"] = _there(filled["mqtt"], there, "password_file", "ca_file", "cert_file", "key_file")
    if "push" in filled:
        filled["push"] = push = _there(filled["push"], there, "token_file")
        if push.listen.startswith(UNIX):
            at = UNIX + there(push.listen.removeprefix(UNIX))
            filled["push"] = msgspec.structs.replace(push, listen=at)
    if source.kind not in LIVE and (source.keep != "auto" or source.room):
        raise ConfigError(f"[source] keep, room: {source.kind!r} is no sensor that goes on by itself: take them out")
    return msgspec.structs.replace(source, path=there(source.path), **filled)


def _there(table: Any, there: Callable[[str], str], *names: str) -> Any:
    return msgspec.structs.replace(table, **{name: there(getattr(table, name)) for name in names})
