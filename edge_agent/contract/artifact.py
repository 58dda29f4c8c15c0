"""What is a model, once it may travel?

A version is a folder of two kinds of file: `manifest.json`, and the ONNX files that it names by hash. The manifest's
own hash stands in the device's assignment, so one hash vouches for everything. A manifest decodes for ever.

    models/7/manifest.json
    models/7/model.onnx        the variant this device runs
"""

# Annotations are not postponed here: msgspec would compile each of them at every start (docs/adr/0041).

import base64
import hashlib
import os
import zlib
from pathlib import Path
from typing import Annotated

import msgspec
import numpy as np
from msgspec import Meta
from numpy.typing import NDArray

from edge_agent.contract.errors import ArtifactError, IntegrityError
from edge_agent.contract.task import NOTHING, Task

MANIFEST = "manifest.json"
MODEL = "model.onnx"
MANIFEST_MAX_BYTES = 8 * 1024 * 1024
FORMAT = 1
BOXES_MAX = 200  # that a detector may say of a sample: a header on the wire has room for no more


class Tensor(msgspec.Struct, frozen=True, kw_only=True):
    """An array inside a manifest: zlib, then base64."""

    dtype: str
    shape: tuple[int, ...]
    data: str

    @classmethod
    def of(cls, array: NDArray[np.generic]) -> "Tensor":
        """Pack an array."""
        packed = zlib.compress(np.ascontiguousarray(array).tobytes(), 9)
        return cls(dtype=str(array.dtype), shape=tuple(array.shape), data=base64.b64encode(packed).decode())

    def array(self) -> NDArray[np.generic]:
        """Unpack; ArtifactError when the bytes are not what dtype and shape say."""
        try:
            expected = int(np.prod(self.shape, dtype=np.int64)) * np.dtype(self.dtype).itemsize
            if not 0 <= expected <= 64 * MANIFEST_MAX_BYTES:
                raise ValueError(f"{self.shape} of {self.dtype} is too large for a manifest")
            raw = zlib.decompressobj().decompress(base64.b64decode(self.data), expected + 1)
            return np.frombuffer(raw, dtype=self.dtype).reshape(self.shape)
        except (ValueError, TypeError, OverflowError, SyntaxError, zlib.error) as error:  # numpy parses dtype as Python
            raise ArtifactError(f"manifest tensor {self.shape} {self.dtype}: {error}") from error


class InputSpec(msgspec.Struct, frozen=True, kw_only=True):
    """What the graph is fed: one sample as the sensor gives it. Preprocessing is inside the graph."""

    name: str
    shape: tuple[int, ...]  # without the batch axis
    dtype: str
    unit: str = ""  # e.g. "grey level 0..255", "g, deg/s at 50 Hz"


class OnnxFile(msgspec.Struct, frozen=True, kw_only=True):
    """One ONNX file, its weights inside."""

    sha256: str
    bytes: int


class Golden(msgspec.Struct, frozen=True, kw_only=True):
    """Inputs with the logits that this artifact must give for them, on any machine."""

    inputs: Tensor  # (K, *shape)
    logits: Tensor  # (K, C) float32; (K, T, C) of T members; (K, A, C) of a detector's A anchors
    tolerance: float  # largest absolute difference of a logit; int8 kernels differ a little between processors
    outputs: dict[str, Tensor] = {}  # what else it must give, by the output's name: (K, ...) float32, as near


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """How what the graph gives is read, where a sample is answered by more than one class.

    multilabel: logits (N, K), a sigmoid each. detection: logits (N, A, C), a sigmoid each, and boxes (N, A, 4) of left,
    top, right and bottom in 0..1, not yet suppressed. regression: logits (N, K) are means and `spread` (N, K) their log
    variances, or logits (N, T, K) are the means of T heads, whose spread is their standard deviation.
    """

    boxes: str = ""  # name of the output
    spread: str = ""  # name of the output; empty where heads say it
    score_min: Annotated[float, Meta(gt=0.0, lt=1.0)] = 0.3  # of a box that counts
    overlap_max: Annotated[float, Meta(ge=0.0, le=1.0)] = 0.5  # of two boxes of a class, above which the surer stays
    most: Annotated[int, Meta(ge=1, le=BOXES_MAX)] = 100  # boxes of one sample
    scale: tuple[Annotated[float, Meta(gt=0.0)], ...] = ()  # (K,) the target's sd on training data; empty: 1 each
    units: tuple[str, ...] = ()  # (K,) of the targets


class Reference(msgspec.Struct, frozen=True, kw_only=True):
    """What this model expects of a stream, from samples that training has not seen: what drift is held against.

    C is the number of outcomes: of a detector one more than of classes, the last being that it finds nothing.
    """

    embedding_mean: Tensor  # (D,) float32
    embedding_sd: Tensor  # (D,) float32, floored away from 0
    class_centres: Tensor  # (C, D) float32; a class never seen has the mean
    class_share: tuple[float, ...]  # of predictions
    confidence_mean: float
    utility_quantiles: tuple[float, ...]  # of the margin utility at 0, 5, .. 100 %
    samples: int
    energy_mean: float | None = None  # -logsumexp of the logits over the temperature
    whitening: Tensor | None = None  # (D, K) float32: (embedding - mean) @ it has variance 1 in K directions


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """Everything a device must know of a version, and a person may ask."""

    name: str
    version: int
    files: dict[str, OnnxFile]  # variant -> file; "cpu-int8", "cpu-fp32", "trt-int8"
    input: InputSpec
    classes: tuple[str, ...]
    golden: Golden
    reference: Reference
    temperature: float = 1.0  # fitted after quantisation; a regressor's spread is multiplied by it
    logits: str = "logits"  # name of the output: (N, C), or (N, T, C) of T members
    members: int = (
        1  # heads of the graph, each with logits of its own: a committee; the mean of their probabilities counts
    )
    embedding: str = "embedding"  # name of the output; empty when the graph has none
    task: Task = "classification"
    answer: Answer | None = None  # None: of a classifier, or as Answer's defaults
    parent: int = 0  # version it was trained from, 0 when none
    snapshot: str = ""  # id of the data it was trained on
    opset: int = 17
    ir_version: int = 8
    metrics: dict[str, float] = {}
    created_at: str = ""  # RFC 3339
    licence: str = ""
    notes: tuple[str, ...] = ()  # of whoever made it, for people: why it is float, what is in front of the net
    format: int = FORMAT

    @property
    def outcomes(self) -> tuple[str, ...]:
        """What the label of a sample indexes: the classes and, of a detector, that it says of nothing there.

        As many shares and class centres has its reference.
        """
        return (*self.classes, NOTHING) if self.task == "detection" else self.classes

    def variant(self, wanted: str) -> OnnxFile:
        """The file to run: `wanted`, else the first CPU variant."""
        for name in (wanted, "cpu-int8", "cpu-fp32"):
            if name in self.files:
                return self.files[name]
        raise ArtifactError(f"version {self.version} has no CPU variant, only {', '.join(self.files) or 'nothing'}")


def encode_manifest(manifest: Manifest) -> bytes:
    """Deterministic JSON: the same manifest gives the same hash."""
    return msgspec.json.format(msgspec.json.encode(manifest, order="deterministic"), indent=1)


def decode_manifest(data: bytes, *, where: str = "manifest") -> Manifest:
    """Read a manifest; ArtifactError when it is none."""
    if len(data) > MANIFEST_MAX_BYTES:
        raise ArtifactError(f"{where}: {len(data)} bytes, at most {MANIFEST_MAX_BYTES}")
    try:
        manifest = msgspec.json.decode(data, type=Manifest)
    except (msgspec.DecodeError, ValueError, RecursionError) as error:
        raise ArtifactError(f"{where}: {error}") from error
    if manifest.format > FORMAT:
        raise ArtifactError(f"{where}: format {manifest.format}, this program knows up to {FORMAT}")
    return manifest


def sha256_hex(data: bytes | memoryview) -> str:
    """Hex digest of bytes."""
    return hashlib.sha256(data).hexdigest()


def check_bytes(data: bytes, file: OnnxFile, *, where: str) -> None:
    """IntegrityError unless length and hash are the promised ones."""
    if len(data) != file.bytes:
        raise IntegrityError(f"{where}: {len(data)} bytes, expected {file.bytes}")
    if (got := sha256_hex(data)) != file.sha256:
        raise IntegrityError(f"{where}: sha256 {got[:12]}..., expected {file.sha256[:12]}...")


def read_artifact(folder: Path, *, variant: str = "cpu-int8") -> tuple[Manifest, bytes]:
    """Read and check an artifact folder; returns the manifest and the ONNX bytes."""
    manifest = read_manifest(folder)
    data = _read(folder, MODEL)
    check_bytes(data, manifest.variant(variant), where=str(folder / MODEL))
    return manifest, data


def read_manifest(folder: Path) -> Manifest:
    """What an artifact folder says of itself; its model is not looked at. ArtifactError."""
    return decode_manifest(_read(folder, MANIFEST), where=str(folder / MANIFEST))


def _read(folder: Path, name: str) -> bytes:
    try:
        return (folder / name).read_bytes()
    except OSError as error:
        message = f"{folder}: {error.strerror}: expected an artifact folder with {MANIFEST} and {MODEL}"
        raise ArtifactError(message) from error


def write_durably(path: Path, data: bytes, *, mode: int = 0o666) -> None:
    """Replace `path` in one step that survives a power cut: write beside it, flush, rename, flush the folder.

    `mode`: of the new file, less the umask; 0o600 for a secret.
    """
    beside = path.with_name(path.name + ".new")
    beside.unlink(missing_ok=True)  # one that is left of a power cut has a mode of its own
    with open(beside, "wb", opener=lambda name, flags: os.open(name, flags, mode)) as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    beside.replace(path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def write_artifact(folder: Path, manifest: Manifest, onnx: bytes) -> None:
    """Write an artifact folder: the model first, so that a manifest never stands without it."""
    folder.mkdir(parents=True, exist_ok=True)
    write_durably(folder / MODEL, onnx)
    write_durably(folder / MANIFEST, encode_manifest(manifest))
