"""How does a folder become labelled data?

    DIR/cat/1.jpg, DIR/dog/2.png     a folder of each class, images inside: its name is the class
    DIR/cam-1.npz, DIR/cam-2.npz     files as `load_npz` takes them: each is a device, unless it names its own

Images become one shape: grey when all are grey, else colour; their own size when all have the same, else squares. A
file that is no image is left out and named, as long as most are sound.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from models.data import Labelled, load_npz
from models.errors import DataError

IMAGES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp"})
SIDE = 64  # pixels of the squares; fewer loses what small things are, more costs time with its square
LARGEST = 224  # images that all have one size keep it up to here
BROKEN_SHARE = 0.1  # of the files: with more, something else is wrong
EXPECTED = "expected a folder of each class with images inside, or .npz files with x and y"


class Loaded(NamedTuple):
    """Data, and what a person should know of how they were read."""

    data: Labelled
    notes: tuple[str, ...]


class Seen(NamedTuple):
    """x: (N, *shape). y: (N,) index into names, or (N, K) a number of each.

    None when nobody told, and names are none.
    """

    x: NDArray[Any]
    y: NDArray[Any] | None
    names: tuple[str, ...]
    notes: tuple[str, ...]


def load(path: Path, *, side: int = 0) -> Loaded:
    """Labelled data from an .npz, or from a folder of either kind.

    Args:
        path: file or folder.
        side: of the squares that images are made; 0: SIDE, and only where their sizes differ or are too large.

    Raises:
        DataError: says which file, what was got and what was expected.
    """
    if not path.is_dir():
        return Loaded(load_npz(path), ())
    files = sorted(path.glob("*.npz"))
    classes = {folder.name: _images(folder) for folder in sorted(path.iterdir()) if folder.is_dir()}
    classes = {name: images for name, images in classes.items() if images}
    if files and classes:
        raise DataError(f"{path}: holds {files[0].name} and images in {next(iter(classes))}/: {EXPECTED}, not both")
    if files:
        return Loaded(_joined(files), (f"{len(files)} files were joined.",))
    if len(classes) < 2:
        found = f"images of {len(classes)} class" if classes else "no images and no .npz"
        raise DataError(f"{path}: {found}; {EXPECTED}; at least two classes")
    return _from_images(path, classes, side)


def look(path: Path, *, shape: tuple[int, ...], dtype: str) -> Seen:
    """Data as a model takes them: an .npz, a folder of either kind, or images of classes that nobody has told.

    Args:
        path: file or folder.
        shape: of one sample; images are brought to it as devices do.
        dtype: of it.

    Raises:
        DataError: says which file, what was got and what was expected.
    """
    if not path.is_dir() or any(path.glob("*.npz")):
        data = load(path).data
        return Seen(data.x, data.y, data.names, ())
    classes = {folder.name: _images(folder) for folder in sorted(path.iterdir()) if folder.is_dir()}
    classes = {name: images for name, images in classes.items() if images} or {"": _images(path)}
    if not any(classes.values()):
        raise DataError(f"{path}: no images and no .npz; {EXPECTED}, or images alone")
    if dtype != "uint8" or len(shape) not in (2, 3) or (len(shape) == 3 and shape[2] not in (1, 3)):
        raise DataError(
            f"{path}: images are bytes (H, W) or (H, W, 3), the model takes {dtype} {shape}: say how they are prepared "
            "for it (--prepare imagenet, unit, signed, bytes, or a TOML file), or give arrays in an .npz"
        )
    kinds, broken = _sound(path, classes)
    grey = len(shape) == 2 or shape[2] == 1
    x, y = _read(classes, kinds, shape[1], shape[0], grey=grey)
    truth = None if "" in classes else y
    return Seen(x.reshape(len(x), *shape), truth, tuple(name for name in classes if name), _left_out(broken))


def _images(folder: Path) -> list[Path]:
    return sorted(file for file in folder.rglob("*") if file.suffix.lower() in IMAGES and file.is_file())


# --- .npz -------------------------------------------------------------------------------------------------------------


def _joined(files: list[Path]) -> Labelled:
    parts = [load_npz(file) for file in files]
    first = parts[0]
    for file, part in zip(files[1:], parts[1:], strict=True):
        if (part.x.shape[1:], part.x.dtype) != (first.x.shape[1:], first.x.dtype):
            raise DataError(
                f"{file}: x is {part.x.dtype} {part.x.shape[1:]}, but in {files[0].name} {first.x.dtype} "
                f"{first.x.shape[1:]}; expected the same in all"
            )
        if (part.t is None) != (first.t is None):
            has, lacks = (file, files[0]) if first.t is None else (files[0], file)
            raise DataError(f"{has} has an array t, {lacks.name} has none; expected it in all or in none")
    names = max((part.names for part in parts), key=len)
    for file, part in zip(files, parts, strict=True):
        if part.names != names[: len(part.names)]:
            raise DataError(f"{file}: names {part.names[:5]}, but elsewhere {names[:5]}; expected the same in all")
    device = [
        np.full(len(part.y), file.stem) if part.device is None else part.device.astype(np.str_)
        for file, part in zip(files, parts, strict=True)
    ]
    t = None if first.t is None else np.concatenate([part.t for part in parts if part.t is not None])
    x, y = np.concatenate([part.x for part in parts]), np.concatenate([part.y for part in parts])
    return Labelled(x, y, names, np.concatenate(device), t)


# --- images -----------------------------------------------------------------------------------------------------------


def _from_images(path: Path, classes: dict[str, list[Path]], side: int) -> Loaded:
    kinds, broken = _sound(path, classes)
    sizes = Counter(size for size, _ in kinds.values())
    grey = all(mode in ("1", "L") for _, mode in kinds.values())
    (width, height), _ = sizes.most_common(1)[0]
    if side or len(sizes) > 1 or max(width, height) > LARGEST:
        width = height = side or SIDE
    x, y = _read(classes, kinds, width, height, grey=grey)
    said = f"Images became {width} x {height} pixels, {'grey' if grey else 'in colour'}."
    return Loaded(Labelled(x, y, tuple(classes)), (said, *_left_out(broken)))


Kinds = dict[Path, tuple[tuple[int, int], str]]


def _read(
    classes: dict[str, list[Path]], kinds: Kinds, width: int, height: int, *, grey: bool
) -> tuple[NDArray[Any], NDArray[np.int64]]:
    """x: (N, height, width) or (N, height, width, 3) uint8 of those that can be read; y: (N,) number of its class."""
    found = [(label, image) for label, images in enumerate(classes.values()) for image in images if image in kinds]
    x = np.stack([_pixels(image, width, height, grey=grey) for _, image in found])
    return x, np.array([label for label, _ in found], np.int64)


def _left_out(broken: list[str]) -> tuple[str, ...]:
    if not broken:
        return ()
    return (f"{len(broken)} files could not be read as images and were left out: {', '.join(broken[:3])}.",)


def _sound(path: Path, classes: dict[str, list[Path]]) -> tuple[Kinds, list[str]]:
    """The images that can be read, as long as most can."""
    kinds, broken = _look(classes)
    total = sum(map(len, classes.values()))
    if len(broken) > BROKEN_SHARE * total:
        raise DataError(f"{path}: {len(broken)} of {total} files are no images that can be read, such as {broken[0]}")
    return kinds, broken


def _look(classes: dict[str, list[Path]]) -> tuple[Kinds, list[str]]:
    """Size and mode of every image that can be read to its end, and the names of the others."""
    from PIL import Image, UnidentifiedImageError

    kinds, broken = {}, []
    for file in (file for images in classes.values() for file in images):
        try:
            with Image.open(file) as image:
                image.load()
                kinds[file] = (image.size, image.mode)
        except (UnidentifiedImageError, OSError, SyntaxError, ValueError, Image.DecompressionBombError):
            broken.append(f"{file.parent.name}/{file.name}")
    return kinds, broken


def _pixels(file: Path, width: int, height: int, *, grey: bool) -> NDArray[Any]:
    """(H, W) or (H, W, 3) uint8."""
    from PIL import Image

    with Image.open(file) as image:
        made = image.convert("L" if grey else "RGB")
        if made.size != (width, height):
            made = made.resize((width, height), Image.Resampling.BILINEAR)
        return np.asarray(made, np.uint8)
