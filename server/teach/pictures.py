"""How do pictures in a folder, and what a document says of them, become labelled samples?

    COCO      FILE.json beside --images DIR: images, annotations with bbox, categories (cocodataset.org/#format-data)
    a table   FILE.csv beside --images DIR: a column `file`, and one for each target with its numbers

Pictures are kept as they are (JPEG, PNG, WebP), and decoded only in the sandbox. What is wrong is refused, with its
place in the document, before anything is taken in. Pure, but for the reading.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from edge_agent.contract.images import KINDS, Kind
from edge_agent.contract.task import Task
from server.errors import StoreError
from server.store.truth_arrays import box_of

_BEGINS: tuple[tuple[bytes, Kind], ...] = ((b"\xff\xd8\xff", "jpeg"), (b"\x89PNG\r\n\x1a\n", "png"), (b"RIFF", "webp"))
HEAD = 8  # bytes that tell the kind
OUTSIDE = 1.0  # pixels that a box may stick out of its picture: annotation tools round so; it is cut there


class Picture(NamedTuple):
    """One, and what is said of it."""

    number: int  # its place in the document
    path: Path
    size: tuple[int, int] | None  # height, width, as the document has them
    said: dict[str, Any]  # by names


class Document(NamedTuple):
    """All that a file says."""

    task: Task
    names: tuple[str, ...]
    pictures: list[Picture]
    crowds: int  # annotations of crowds, which are no single box: left out


class _Image(msgspec.Struct):
    id: int
    file_name: str
    height: int
    width: int


class _Annotation(msgspec.Struct):
    image_id: int
    category_id: int
    bbox: tuple[float, float, float, float]
    iscrowd: int = 0


class _Category(msgspec.Struct):
    id: int
    name: str


class _Coco(msgspec.Struct):
    images: list[_Image]
    annotations: list[_Annotation]
    categories: list[_Category]


def read(file: Path, folder: Path) -> Document:
    """Of a COCO document, or of a table. StoreError says where it is wrong."""
    if not folder.is_dir():
        raise StoreError(f"{folder}: no such folder: --images is where the pictures of {file} are")
    try:
        return _table(file, folder) if file.suffix.lower() == ".csv" else _coco(file, folder)
    except OSError as error:
        raise StoreError(f"{file}: {error.strerror or error}") from error


def look(picture: Picture, where: Path) -> tuple[Kind, tuple[int, ...]]:
    """(kind, shape of its array) by its first bytes alone.

    StoreError when it is not there, no picture of a kind that is known, or not what the document says.
    """
    from PIL import Image, UnidentifiedImageError

    here = _place(picture, where)
    try:
        with open(picture.path, "rb") as file:
            kind = _kind(file.read(HEAD), here)
            file.seek(0)
            with Image.open(file, formats=[kind.upper()]) as image:
                (width, height), mode = image.size, image.mode
    except (UnidentifiedImageError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise StoreError(f"{here}: {error}") from error
    except OSError as error:
        raise StoreError(f"{here}: {error.strerror or error}") from error
    if picture.size not in (None, (height, width)):
        said = f"{picture.size[1]} x {picture.size[0]}" if picture.size else ""
        raise StoreError(f"{here}: {width} x {height} pixels, and the document says {said}")
    if mode not in ("RGB", "L"):
        raise StoreError(f"{here}: pixels are {mode}, expected RGB or L (grey): convert it first")
    return kind, (height, width, 3) if mode == "RGB" else (height, width)


def body_of(picture: Picture, where: Path) -> bytes:
    """Of its file; StoreError when it cannot be read."""
    try:
        return picture.path.read_bytes()
    except OSError as error:
        raise StoreError(f"{_place(picture, where)}: {error.strerror}") from error


def _place(picture: Picture, where: Path) -> str:
    return f"{where}: image {picture.number}: {picture.path}"


def _kind(head: bytes, where: str) -> Kind:
    for begins, kind in _BEGINS:
        if head.startswith(begins):
            return kind
    raise StoreError(f"{where}: expected {', '.join(KINDS)}")


def _coco(file: Path, folder: Path) -> Document:
    try:
        found = msgspec.json.decode(file.read_bytes(), type=_Coco)
    except msgspec.MsgspecError as error:
        raise StoreError(f"{file}: {error}: expected COCO: images, annotations with bbox, categories") from None
    names = {one.id: one.name for one in found.categories}
    if len(set(names.values())) < len(found.categories):
        raise StoreError(f"{file}: categories: expected different ids and names")
    places = {one.id: place for place, one in enumerate(found.images)}
    if len(places) < len(found.images):
        raise StoreError(f"{file}: images: expected different ids")
    boxes: list[list[Any]] = [[] for _ in found.images]
    for place, one in enumerate(found.annotations):
        here = f"{file}: annotations[{place}]"
        if one.image_id not in places or one.category_id not in names:
            raise StoreError(f"{here}: image {one.image_id}, category {one.category_id}: not both are in the document")
        if not one.iscrowd:
            image = found.images[places[one.image_id]]
            boxes[places[one.image_id]].append(_box(one, image, names[one.category_id], here))
    pictures = [
        Picture(
            place, _inside(folder, one.file_name, f"{file}: images[{place}]"), (one.height, one.width), {"boxes": said}
        )
        for place, (one, said) in enumerate(zip(found.images, boxes, strict=True))
    ]
    return Document("detection", tuple(names.values()), pictures, sum(bool(one.iscrowd) for one in found.annotations))


def _box(one: _Annotation, image: _Image, name: str, where: str) -> list[Any]:
    """By shares of the picture; cut at its edges where it hardly sticks out."""
    x, y, across, down = one.bbox
    corners = (x, y, x + across, y + down)
    size = (image.width, image.height, image.width, image.height)
    if min(size) < 1:
        raise StoreError(f"{where}: its image is {image.width} x {image.height} pixels")
    shares = []
    for value, most in zip(corners, size, strict=True):
        if not -OUTSIDE <= value <= most + OUTSIDE:
            raise StoreError(f"{where}: bbox {list(one.bbox)} in a picture of {image.width} x {image.height} pixels")
        shares.append(min(max(value, 0.0), float(most)) / most)
    return box_of(name, *shares, where=where)


def _table(file: Path, folder: Path) -> Document:
    with open(file, newline="", encoding="utf-8-sig") as lines:
        rows = csv.reader(lines)
        head = next(rows, [])
        if len(head) < 2 or head[0] != "file" or len(set(head)) < len(head):
            raise StoreError(f"{file}: first line {head}: expected file, and a column for each target")
        pictures = list(_lines(file, folder, head, rows))
    return Document("regression", tuple(head[1:]), pictures, 0)


def _lines(file: Path, folder: Path, head: list[str], rows: Any) -> Iterator[Picture]:
    for place, row in enumerate(row for row in rows if row):
        where = f"{file}: row {place + 1}"
        if len(row) != len(head):
            raise StoreError(f"{where}: {len(row)} cells, expected {len(head)}")
        values = [[name, _number(cell, where)] for name, cell in zip(head[1:], row[1:], strict=True) if cell.strip()]
        if not values:
            raise StoreError(f"{where}: no number: leave the line out where nothing is known")
        yield Picture(place, _inside(folder, row[0], where), None, {"values": values})


def _number(cell: str, where: str) -> float:
    try:
        found = float(cell)
    except ValueError:
        found = math.nan
    if not math.isfinite(found):
        raise StoreError(f"{where}: got {cell!r}, expected a number, or nothing where it is not known")
    return found


def _inside(folder: Path, name: str, where: str) -> Path:
    """A document is somebody else's: it names no file outside."""
    path = (folder / name).resolve()
    if not path.is_relative_to(folder.resolve()):
        raise StoreError(f"{where}: {name!r} is not inside {folder}")
    return path
