"""What does lineage look like?

Columns from what comes in, on the left, to where it runs, on the right, each thing a box, each step an arrow.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.text import Text

from server.errors import GovernError

View = dict[str, Any]
ROWS = 12  # boxes in a column; what is beyond is one box
COLUMN_INCHES, ROW_INCHES = 2.6, 0.62
COLOURS = {"source": "#dbe9f6", "made": "#f3ead3", "version": "#d8efd9", "device": "#eadcf2", "more": "#eeeeee"}


class Box(NamedTuple):
    """One thing. Boxes of one name are one."""

    name: str
    text: str
    kind: str  # of COLOURS


class Picture(NamedTuple):
    """columns: from left to right. arrows: (from, to) by name."""

    columns: list[list[Box]]
    arrows: list[tuple[str, str]]


def of(view: View) -> Picture:
    """The boxes and arrows of a view, as `lineage.trace` gives it."""
    return _of_version(view) if "version" in view else _of_origin(view)


def draw(view: View, path: Path) -> None:
    """Write it, as SVG, PNG or PDF by the name's ending. GovernError when it cannot be written."""
    columns, arrows = _bounded(of(view))
    tallest = max(map(len, columns))
    size = (COLUMN_INCHES * len(columns), max(2.0, ROW_INCHES * (tallest + 1)))
    figure = Figure(figsize=size, layout="constrained")
    axes = figure.add_subplot()
    axes.set_axis_off()
    axes.set_xlim(-0.55, len(columns) - 0.45)
    axes.set_ylim(-tallest / 2 - 0.5, tallest / 2 + 0.5)
    _arrows(axes, _boxes(axes, columns), arrows)
    try:
        figure.savefig(path)
    except (OSError, ValueError) as error:
        raise GovernError(f"{path}: {error}: expected a file to write that ends in .svg, .png or .pdf") from error


def _of_version(view: View) -> Picture:
    own, made, run = f"version {view['version']}", view["snapshot"], view["run"]
    sources = [
        Box(
            f"{row['device']}/{row['stream']}",
            f"{row['device']}/{row['stream']}\n{row['train']}+{row['holdout']}",
            "source",
        )
        for row in view["sources"]
    ]
    labelers = [Box(f"labeler {name}", f"labeler {name}\n{n} labels", "source") for name, n in view["labelers"].items()]
    snapshot = [] if made is None else [Box("snapshot", f"snapshot\n{made['snapshot'][:12]}", "made")]
    parents = [Box(f"version {number}", f"version {number}", "version") for number in view["parents"][:1]]
    trained = [] if run is None else [Box("run", f"run {run['run']}\n{run['recipe'] or 'by shape'}", "made")]
    children = [Box(f"version {number}", f"version {number}", "version") for number in view["children"]]
    runs = [Box(f"on {name}", name, "device") for name in view["runs_on"]]
    into = "run" if trained else own
    arrows = [(box.name, "snapshot") for box in (*sources, *labelers) if snapshot]
    arrows += [(box.name, into) for box in (*snapshot, *parents)]
    arrows += [("run", own)] if trained else []
    arrows += [(own, box.name) for box in (*children, *runs)]
    return Picture(
        [
            [*sources, *labelers],
            [*snapshot, *parents],
            trained,
            [Box(own, f"{own}\n{view['name']}", "version")],
            [*children, *runs],
        ],
        arrows,
    )


def _of_origin(view: View) -> Picture:
    name = view.get("device") or view.get("labeler") or view["sample"]["id"]
    taught = view["versions"]
    both = sorted({*taught["learned"], *taught["judged"]})
    first = [Box(f"version {number}", f"version {number}\n{_what(taught, number)}", "version") for number in both]
    later = [Box(f"version {n}", f"version {n}\nby going on", "version") for n in taught["inherited"] if n not in both]
    runs = sorted({device for names in taught["runs_on"].values() for device in names})
    arrows = [("own", box.name) for box in first]
    arrows += [(f"version {parent}", f"version {n}") for n, parent in taught["inherited"].items()]
    arrows += [(f"version {n}", f"on {one}") for n, names in taught["runs_on"].items() for one in names]
    own = Box("own", str(name).replace(".", ".\n", 1), "source")
    return Picture([[own], first, later, [Box(f"on {one}", one, "device") for one in runs]], arrows)


def _what(taught: View, number: int) -> str:
    said = [f"{word} {taught[word][number]}" for word in ("learned", "judged") if number in taught[word]]
    return ", ".join(said)


def _bounded(picture: Picture) -> Picture:
    """No more than ROWS boxes in a column, and arrows of the others at one that stands for them."""
    columns: list[list[Box]] = []
    stands_for: dict[str, str] = {}
    for number, column in enumerate(column for column in picture.columns if column):
        left = len(column) - ROWS
        more = Box(f"more {number}", f"and {left} more", "more")
        stands_for |= {box.name: more.name for box in column[ROWS:]}
        columns.append(column if left <= 0 else [*column[:ROWS], more])
    arrows = [(stands_for.get(start, start), stands_for.get(end, end)) for start, end in picture.arrows]
    return Picture(columns, list(dict.fromkeys(arrows)))


def _boxes(axes: Axes, columns: Sequence[list[Box]]) -> dict[str, Text]:
    """Draw them; returns each by its name."""
    drawn: dict[str, Text] = {}
    for x, column in enumerate(columns):
        for row, box in enumerate(column):
            y = (len(column) - 1) / 2 - row
            style = {"boxstyle": "round,pad=0.35", "facecolor": COLOURS[box.kind], "edgecolor": "#666666"}
            text = axes.text(x, y, box.text, ha="center", va="center", fontsize=8, bbox=style, zorder=2)
            drawn.setdefault(box.name, text)
    return drawn


def _arrows(axes: Axes, drawn: dict[str, Text], arrows: Sequence[tuple[str, str]]) -> None:
    for start, end in arrows:
        if start in drawn and end in drawn:
            one, other = drawn[start], drawn[end]
            style = {"arrowstyle": "->", "color": "#888888", "linewidth": 0.8, "shrinkA": 1, "shrinkB": 1}
            ends = {"patchA": one.get_bbox_patch(), "patchB": other.get_bbox_patch()}
            axes.annotate("", other.get_position(), one.get_position(), arrowprops=style | ends, zorder=1)
