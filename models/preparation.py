"""How does the preparation of samples become part of the graph?

A net that was taught on normalised floats is given what the sensor gives: bytes of an image, or a window of numbers.
What the training script did to them is described in a few words, and put in front of the net as ONNX nodes, so that
devices and training cannot disagree:

    (H, W, C) uint8 -> (C, H, W) while still bytes -> float -> (x / scale - mean) / sd, colours in the net's order

Constants that are one number stay one; those of channels become a convolution of 1x1, which turns colours as well. In
an int8 graph of .6 ms (224x224x3) it costs .45 ms, where multiplying and adding channel by channel cost 1.2; in a float
one it costs .35 ms, where that cost next to nothing. `Plan.apply` does the same in numpy; imports are held to it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

import msgspec
import numpy as np
from msgspec import Meta
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from edge_agent.contract.errors import did_you_mean
from models.errors import DataError
from models.graph import the_input

SAMPLE = "sample"
IMAGE_CHANNELS = (1, 3)
TURNS = {"NCHW": (0, 3, 1, 2), "NCT": (0, 2, 1)}  # from what a device gives: channels last
RANKS = {"NCHW": 4, "NHWC": 4, "NCT": 3, "NTC": 3}
Layout = Literal["NCHW", "NHWC", "NCT", "NTC"]


class Preparation(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is done to a sample before the net sees it: (x / scale - mean) / sd, in the net's order of axes."""

    layout: Literal["", "NCHW", "NHWC", "NCT", "NTC"] = ""  # of the net's input; "": told by its shape
    colour: Literal["RGB", "BGR"] = "RGB"  # order of the channels that the net takes
    scale: Annotated[float, Meta(gt=0.0)] = 1.0
    mean: tuple[float, ...] = (0.0,)  # one number, or one of each channel
    sd: tuple[Annotated[float, Meta(gt=0.0)], ...] = (1.0,)
    size: tuple[int, int] | None = None  # height, width, where the net leaves them open
    dtype: Literal["", "uint8", "float32"] = ""  # of a sample; "": bytes for images, else floats


PRESETS = {
    "bytes": Preparation(dtype="uint8"),
    "unit": Preparation(scale=255.0),
    "signed": Preparation(mean=(127.5,), sd=(127.5,)),
    "imagenet": Preparation(scale=255.0, mean=(0.485, 0.456, 0.406), sd=(0.229, 0.224, 0.225)),
}
"""0..255 as they are; 0..1; -1..1; as torchvision and timm do it."""


class Plan(NamedTuple):
    """A preparation for one net. shape, dtype: of a sample, without the batch axis."""

    said: Preparation
    layout: Layout | Literal[""]
    shape: tuple[int, ...]
    dtype: str
    gain: NDArray[np.float32]  # x * gain + shift; one number, or one of each channel
    shift: NDArray[np.float32]

    def apply(self, x: NDArray[Any]) -> NDArray[np.float32]:
        """What the net is given for samples x: (N, *shape); the reference that the graph is held against."""
        if self.layout in ("NCHW", "NHWC") and x.ndim == 3:
            x = x[..., None]
        if self.said.colour == "BGR":
            x = x[..., ::-1]
        made = x.astype(np.float32) * self.gain + self.shift
        return np.ascontiguousarray(made.transpose(TURNS[self.layout]) if self.layout in TURNS else made)

    def words(self) -> str:
        """For people."""
        colours = ", in BGR" if self.said.colour == "BGR" else ""
        numbers = f"x * {self.gain.round(6).tolist()} + {self.shift.round(6).tolist()}"
        return f"{self.dtype} {self.shape}{f' to {self.layout}' if self.layout else ''}{colours}, {numbers}"


def read(said: str) -> Preparation:
    """A preset by its name, or a TOML file of the same keys; DataError says what is wrong."""
    if said in PRESETS:
        return PRESETS[said]
    try:
        return msgspec.toml.decode(Path(said).read_bytes(), type=Preparation)
    except FileNotFoundError as error:
        known = ", ".join(PRESETS)
        raise DataError(
            f"--prepare {said!r}: no such file{did_you_mean(said, PRESETS)}; known: {known}, or a TOML file"
        ) from error
    except (OSError, msgspec.DecodeError, ValueError) as error:
        raise DataError(f"--prepare {said}: {error}") from error


def plan(model: ModelProto, said: Preparation) -> Plan:
    """How samples of a device become the net's input; DataError when the two do not fit."""
    entry = the_input(model.graph)
    if entry.type.tensor_type.elem_type != TensorProto.FLOAT:
        raise DataError(f"--prepare: the net's input {entry.name!r} takes whole numbers as they are: leave it out")
    sizes = [int(dim.dim_value) for dim in entry.type.tensor_type.shape.dim]
    layout = said.layout or _layout(sizes)
    if layout and RANKS[layout] != len(sizes):
        raise DataError(f"--prepare: layout {layout} has {RANKS[layout]} axes, the net's input has {len(sizes)}")
    image = layout in ("NCHW", "NHWC")
    rest = _sized(sizes, layout, said.size)[1:] if image else sizes[1:]
    shape = tuple(rest[1:] + rest[:1] if layout in TURNS else rest)
    if image and shape[2] == 1:
        shape = shape[:2]
    channels = shape[-1] if not image or len(shape) == 3 else 1
    if said.colour == "BGR" and (not image or channels != 3):
        raise DataError(f"--prepare: colour BGR needs images of three channels, the net takes {tuple(sizes[1:])}")
    gain, shift = (_constant(numbers, channels) for numbers in _affine(said))
    return Plan(said, layout, shape, said.dtype or ("uint8" if image else "float32"), gain, shift)


def _affine(said: Preparation) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    mean, sd = np.atleast_1d(said.mean), np.atleast_1d(said.sd)
    if 1 not in (len(mean), len(sd)) and len(mean) != len(sd):
        raise DataError(f"--prepare: mean has {len(mean)} numbers, sd {len(sd)}: expected one, or one of each channel")
    return 1.0 / (said.scale * sd), -mean / sd


def _constant(numbers: NDArray[np.float64], channels: int) -> NDArray[np.float32]:
    if len(numbers) not in (1, channels):
        raise DataError(f"--prepare: {len(numbers)} numbers for {channels} channels: expected one, or one of each")
    same = bool((numbers == numbers[0]).all())
    return np.asarray(numbers[0] if same else numbers, np.float32)


def _layout(sizes: list[int]) -> Layout | Literal[""]:
    """By where an image's channels can be; "" of what is no image. DataError when they could be at either end."""
    if len(sizes) != 4:
        return ""
    first, last = sizes[1] in IMAGE_CHANNELS, sizes[3] in IMAGE_CHANNELS
    if first == last:
        raise DataError(f"--prepare: the net takes {tuple(sizes[1:])}: say layout = NCHW or NHWC in a TOML file")
    return "NCHW" if first else "NHWC"


def _sized(sizes: list[int], layout: str, size: tuple[int, int] | None) -> list[int]:
    """With height and width filled in; DataError when they are neither fixed nor said, or differ."""
    places = (2, 3) if layout == "NCHW" else (1, 2)
    for place, side in zip(places, size or (0, 0), strict=True):
        if side and sizes[place] not in (0, side):
            raise DataError(f"--prepare: size {size}, but the net takes {tuple(sizes[1:])}")
        sizes[place] = sizes[place] or side
    if 0 in sizes[1:]:
        raise DataError(f"--prepare: the net leaves {tuple(sizes[1:])} open: say size = [height, width]")
    return sizes


def put_in_front(model: ModelProto, plan: Plan) -> None:
    """Change the model to take raw samples; its own input is made of them."""
    graph, entry = model.graph, the_input(model.graph)
    name = SAMPLE if SAMPLE not in {entry.name for entry in graph.input} else f"{SAMPLE}_raw"
    dims = entry.type.tensor_type.shape.dim
    batch = dims[0].dim_value or dims[0].dim_param or "n"
    kind = TensorProto.UINT8 if plan.dtype == "uint8" else TensorProto.FLOAT
    nodes, weights = _front(plan, name, entry.name)
    graph.input.remove(entry)
    graph.input.append(helper.make_tensor_value_info(name, kind, [batch, *plan.shape]))
    body = list(graph.node)
    del graph.node[:]
    graph.node.extend([*nodes, *body])
    graph.initializer.extend(weights)


def _front(plan: Plan, name: str, out: str) -> tuple[list[NodeProto], list[TensorProto]]:
    """The nodes from the sample to what the net takes, and their constants."""
    weights: list[TensorProto] = []
    steps: list[tuple[str, list[TensorProto], dict[str, Any]]] = []
    if plan.layout in ("NCHW", "NHWC") and len(plan.shape) == 2:
        steps.append(("Unsqueeze", [_number(np.array([1 if plan.layout == "NCHW" else 3]), "axes")], {}))
    elif plan.layout in TURNS:
        steps.append(("Transpose", [], {"perm": TURNS[plan.layout]}))
    if plan.dtype == "uint8":
        steps.append(("Cast", [], {"to": TensorProto.FLOAT}))
    if plan.layout == "NCHW" and (plan.gain.ndim or plan.shift.ndim or plan.said.colour == "BGR"):
        steps.append(("Conv", _mixing(plan), {"kernel_shape": [1, 1]}))
    else:
        steps += _arithmetic(plan)
    nodes = []
    for place, (kind, constants, said) in enumerate(steps or [("Identity", [], {})]):
        after = out if place == max(len(steps) - 1, 0) else f"prepare_{place}"
        weights += constants
        inputs = [name, *(tensor.name for tensor in constants)]
        nodes.append(helper.make_node(kind, inputs, [after], name=f"prepare_{kind.lower()}", **said))
        name = after
    return nodes, weights


def _mixing(plan: Plan) -> list[TensorProto]:
    """Weights and bias of the convolution of 1x1 that does all that differs between channels."""
    places = [2, 1, 0] if plan.said.colour == "BGR" else list(range(plan.shape[-1]))
    weights = np.zeros((len(places), len(places), 1, 1), np.float32)
    weights[np.arange(len(places)), places, 0, 0] = plan.gain
    return [_number(weights, "mix"), _number(np.broadcast_to(plan.shift, len(places)).astype(np.float32), "shift")]


def _arithmetic(plan: Plan) -> list[tuple[str, list[TensorProto], dict[str, Any]]]:
    """The same where a convolution has no channels to mix, or would have to turn the image first."""
    steps: list[tuple[str, list[TensorProto], dict[str, Any]]] = []
    if plan.said.colour == "BGR":
        steps.append(("Gather", [_number(np.array([2, 1, 0]), "colours")], {"axis": 3}))
    for kind, constant, idle in (("Mul", plan.gain, 1.0), ("Add", plan.shift, 0.0)):
        if (constant != idle).any():
            along = constant.reshape(-1, 1) if constant.ndim and plan.layout == "NCT" else constant
            steps.append((kind, [_number(along, kind.lower())], {}))
    return steps


def _number(array: NDArray[Any], name: str) -> TensorProto:
    return numpy_helper.from_array(array, f"prepare_{name}")
