"""winnow-server model import | inspect: a model of somebody's own, made an artifact; and what is in one."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from edge_agent.contract.errors import ConfigError, did_you_mean
from edge_agent.contract.task import TASKS, Task
from server.cli.options import AsJson, listed
from server.config import load_config

commands = typer.Typer()


Net = Annotated[
    str,
    typer.Argument(
        metavar="NET", help="an ONNX classifier, regressor or detector, or a ready body to put a head on: lite0, minilm"
    ),
]
Data = Annotated[
    Path,
    typer.Option(
        help="a folder of images by class, images alone, or an .npz with x, y, names; of a regressor x, values, names"
    ),
]
Labels = Annotated[
    str, typer.Option(help="its classes in the order of its logits: a .txt, one a line, or a,b,c; empty: the data's")
]
Prepare = Annotated[str, typer.Option(help="done to a sample first: bytes, unit, signed, imagenet or a TOML file")]
Forms = Annotated[
    Literal["auto", "int8", "float"], typer.Option(help="auto: int8 unless that hurts, and why not is kept")
]
Agreement = Annotated[
    float, typer.Option(min=0.0, max=1.0, help="of int8 with float, in top classes, below which float ships")
]
Loss = Annotated[float, typer.Option(min=0.0, max=1.0, help="of accuracy by int8, above which float ships")]
Number = Annotated[int, typer.Option(min=1, help="of the artifact; devices only take a higher one")]


@commands.command(
    "import",
    epilog="Example: winnow-server model import net.onnx --data photos --labels labels.txt --prepare imagenet --out my",
)
def model_import(
    net: Net,
    data: Data,
    out: Annotated[Path, typer.Option(help="folder to write")],
    labels: Labels = "",
    prepare: Prepare = "",
    logits: Annotated[str, typer.Option(help="name of the tensor, where it cannot be found")] = "",
    embedding: Annotated[str, typer.Option(help="likewise; none: it is to have none")] = "",
    boxes: Annotated[str, typer.Option(help="of a detector: name of its corners (N, A, 4), which are in 0..1")] = "",
    spread: Annotated[str, typer.Option(help="of a regressor: name of its log variances (N, K), if it has any")] = "",
    precision: Forms = "auto",
    min_agreement: Agreement = 0.97,
    max_loss: Loss = 0.01,
    task: Annotated[str, typer.Option(help="what it says of a sample: classification, multilabel ...")] = TASKS[0],
    name: Annotated[str, typer.Option(help="of the model; empty: the file's")] = "",
    version: Number = 1,
    size: Annotated[int, typer.Option(min=0, help="side of the images that a ready body is given; 0: its own")] = 0,
    unit: Annotated[str, typer.Option(help="of the input, for people")] = "",
    licence: Annotated[str, typer.Option(help="of the model, as an SPDX expression")] = "",
    as_json: AsJson = False,
) -> None:
    """Make an artifact folder of a model from elsewhere: taps, preparation, int8 or not, golden inputs, manifest."""
    from server import status as views
    from server.teach import bringing

    done = bringing.bring_folder(
        bringing.Wanted(
            net=net,
            data=data,
            out=out,
            labels=_labels(labels),
            name=name,
            version=version,
            task=_task(task),
            prepare=prepare,
            logits=logits,
            embedding=embedding,
            boxes=boxes,
            spread=spread,
            precision=precision,
            limits=(min_agreement, max_loss),
            size=size,
            unit=unit,
            licence=licence,
        )
    )
    typer.echo(views.as_json(bringing.plain(done)) if as_json else "\n".join(bringing.lines(done, out)))


@commands.command("inspect", epilog="Example: winnow-server model inspect my-model")
def model_inspect(
    what: Annotated[
        str, typer.Argument(metavar="FOLDER|NET.onnx|VERSION", help="an artifact folder, an ONNX file, or a number")
    ],
    path: Annotated[
        Path | None, typer.Argument(metavar="[server.toml]", help="the configuration file, for a number")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Say what is in a model: input, outputs, operators, sizes, who can run it; and what its manifest states."""
    from server import status as views
    from server.teach import inspecting

    if path is None:
        found = inspecting.look(what, None)
    else:
        with views.opened(load_config(path)) as store:
            found = inspecting.look(what, store)
    if as_json:
        typer.echo(views.as_json(found))
    else:
        typer.echo("\n".join(inspecting.lines(found)))


def _labels(said: str) -> tuple[str, ...]:
    """A file of names, one a line, or names between commas."""
    file = Path(said)
    if said and file.suffix == ".txt":
        try:
            return tuple(line.strip() for line in file.read_text(encoding="utf-8").splitlines() if line.strip())
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"--labels {file}: {error}: expected a text file, one class a line") from error
    return tuple(listed(said))


def _task(said: str) -> Task:
    for task in TASKS:
        if said == task:
            return task
    raise ConfigError(f"--task {said!r}: unknown{did_you_mean(said, TASKS)}; known: {', '.join(TASKS)}")
