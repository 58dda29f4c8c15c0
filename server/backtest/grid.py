"""Which cells are done, and which are left?

A cell is written to disk the moment it is finished, under a name that tells what it is and a digest of everything that
decides it. Started again after a kill, the run goes on where it was; with other data or settings it starts afresh.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import NamedTuple, TypeVar

import msgspec

from models.data import Labelled
from server.backtest import strategies
from server.backtest.material import Material
from server.backtest.replay import Cell, Classifier, Reference, Settings, play, reference, teach
from server.errors import ServerConfigError

ENGINE = 4  # raised with every change to how cells are made: older ones are then not gone on with
Done = Callable[[str], None]
"""Called after each cell with a line for people."""
MadeT = TypeVar("MadeT", Cell, Reference)


class Grid(NamedTuple):
    """What is to be run. `random` is always among the strategies: the others are held against it."""

    strategies: tuple[str, ...]
    budgets: tuple[float, ...]
    seeds: int
    settings: Settings

    @property
    def cells(self) -> int:
        """How many, the references among them."""
        return self.seeds * (1 + len(self.strategies) * len(self.budgets))


class Results(NamedTuple):
    """Everything that was run."""

    cells: list[Cell]
    references: list[Reference]


def make(names: Iterable[str], budgets: Iterable[float], seeds: int, settings: Settings) -> Grid:
    """A grid with `random` in it; ServerConfigError names an unknown strategy."""
    wanted = tuple(dict.fromkeys(["random", *names]))
    for name in wanted:
        strategies.check(name)
    return Grid(wanted, tuple(sorted(set(budgets))), seeds, settings)


def digest_of(data: Labelled, *more: object) -> str:
    """Stands for the data and whatever else decides the outcome of a cell."""
    sha = hashlib.sha256(data.x.tobytes())
    sha.update(repr((data.x.shape, str(data.x.dtype), data.names)).encode())
    for array in (data.y, data.device, data.t):
        sha.update(repr(None if array is None else array.tolist()).encode())
    return _short(sha.hexdigest(), *more)


def _short(*parts: object) -> str:
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:12]


def run(
    grid: Grid,
    material: Callable[[int], Material],
    *,
    folder: Path,
    digest: str,
    done: Done,
    first: Classifier | None = None,
) -> Results:
    """Run what is not in `folder` yet.

    Args:
        grid: what to run.
        material: what a seed sees.
        folder: of the finished cells.
        digest: of what decides them, the grid's settings aside.
        done: told of every cell.
        first: the model that runs first; None: one taught with the base of the seed.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ServerConfigError(f"--out {folder.parent}: {error.strerror}; expected a folder to write in") from error
    cells, references = [], []
    stamp = _short(ENGINE, digest, grid.settings)
    for seed in range(grid.seeds):
        one = _Seed(seed, grid, material, first)
        path = folder / f"reference-{seed}-{_short(stamp, grid.budgets)}.json"
        references.append(_once(path, Reference, one.reference))
        done(f"seed {seed}: reference")
        for budget in grid.budgets:
            for name in grid.strategies:
                path = folder / f"{name}-{budget:g}-{seed}-{stamp}.json"
                cells.append(_once(path, Cell, partial(one.cell, name, budget)))
                done(f"seed {seed}: {name} at {budget:.2%}")
    return Results(cells, references)


class _Seed:
    """Material and first model of one seed, made when the first cell asks for them."""

    def __init__(self, seed: int, grid: Grid, material: Callable[[int], Material], first: Classifier | None) -> None:
        self._seed, self._grid, self._make, self._first = seed, grid, material, first
        self._material: Material | None = None

    def _seen(self) -> Material:
        if self._material is None:
            self._material = self._make(self._seed)
        return self._material

    def reference(self) -> Reference:
        return reference(self._seen(), budgets=self._grid.budgets, seed=self._seed, settings=self._grid.settings)

    def cell(self, strategy: str, budget: float) -> Cell:
        material, settings = self._seen(), self._grid.settings
        if self._first is None:
            self._first = teach(material, [], seed=self._seed, settings=settings)
        return play(material, self._first, strategy=strategy, budget=budget, seed=self._seed, settings=settings)


def _once(path: Path, kind: type[MadeT], work: Callable[[], MadeT]) -> MadeT:
    """What `path` holds, or else what `work` makes; half a file is never left there, and two runs may share it."""
    if path.exists():
        with suppress(msgspec.DecodeError):  # as a power cut may leave it
            return msgspec.json.decode(path.read_bytes(), type=kind)
    made = work()
    beside = path.with_suffix(f".{os.getpid()}.new")
    beside.write_bytes(msgspec.json.encode(made))
    beside.replace(path)
    return made
