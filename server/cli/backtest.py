"""winnow-server backtest: the device's choosing, replayed."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from server.cli.options import listed
from server.errors import ServerConfigError

commands = typer.Typer()
Strategies = Annotated[
    str,
    typer.Option(
        help="who chooses: random, winnow, vessal, margin, entropy, least_confidence; published: split, variable, "
        "random_variable, fixed, biqf, density, pals; portfolio: arms in competition"
    ),
]
Drifts = Annotated[
    list[str] | None,
    typer.Option(
        "--drift",
        help="a change from that share of the stream on; may be given more than once: fog@0.5, noise@0.5, dark@0.5, "
        "rotate@0.5, class:NAME@0.25 (a class appears), mix@0.5 (half of the classes become rare)",
    ),
]


@commands.command(
    "backtest", epilog="Example: winnow-server backtest --data FILE.npz --budgets 0.01,0.05 --out backtest"
)
def backtest(
    file: Annotated[
        Path,
        typer.Option(
            "--data",
            help="labelled samples: an .npz of x, y, and if you like t, device, names; or a folder of such files, or "
            "with a folder of images for each class",
        ),
    ],
    net: Annotated[
        Path | None,
        typer.Option(
            "--model",
            help="ONNX classifier that runs first, or model.onnx of what `model import` made; without it one is taught",
        ),
    ] = None,
    strategies: Strategies = "random,margin,winnow,vessal",
    budgets: Annotated[str, typer.Option(help="shares of the stream that may be labelled: 0.01,0.05")] = "0.05",
    drifts: Drifts = None,
    seeds: Annotated[int, typer.Option(min=1, help="repetitions; intervals need two")] = 5,
    base: Annotated[int, typer.Option(min=10, help="labelled samples that the first model is taught with")] = 100,
    samples: Annotated[int, typer.Option(min=0, help="longest stream; 0: all there is")] = 10_000,
    rounds: Annotated[int, typer.Option(min=1, help="models taught along the stream")] = 10,
    delay: Annotated[int, typer.Option(min=0, help="samples until a label arrives")] = 200,
    epochs: Annotated[int, typer.Option(min=1, help="of training, at least")] = 20,
    steps: Annotated[int, typer.Option(min=1, help="of training, at least: few labels get more epochs")] = 300,
    threads: Annotated[int, typer.Option(min=1, help="of training; another number gives slightly other figures")] = 1,
    size: Annotated[
        int, typer.Option(min=0, help="side of the squares that images become; 0: 64, where their sizes differ")
    ] = 0,
    out: Annotated[Path, typer.Option(help="folder for the report, and for finished cells to go on from")] = Path(
        "backtest"
    ),
) -> None:
    """Replay labelled data as devices would see it: how many labels would selecting save?"""
    from server import status as views
    from server.backtest.replay import Settings
    from server.backtest.run import Options
    from server.backtest.run import backtest as run_backtest

    run_backtest(
        Options(
            data=file,
            model=net,
            strategies=listed(strategies),
            budgets=[_number(text, "--budgets") for text in listed(budgets)],
            seeds=seeds,
            base=base,
            samples=samples,
            out=out,
            settings=Settings(rounds=rounds, delay=delay, epochs=epochs, steps=steps, threads=threads),
            drifts=drifts or (),
            side=size,
        ),
        views.console(),
    )


def _number(text: str, option: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise ServerConfigError(f"{option}: got {text!r}, expected numbers: 0.01,0.05") from None
