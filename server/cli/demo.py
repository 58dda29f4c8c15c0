"""winnow-server demo: the whole loop on one machine."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

commands = typer.Typer()


@commands.command("demo", epilog="Example: winnow-server demo --quick --out demo-report")
def demo(
    quick: Annotated[bool, typer.Option("--quick", help="a short run, to see that it works")] = False,
    task: Annotated[
        Literal["fashion", "watch"], typer.Option(help="images of clothes, or smartwatch recordings")
    ] = "fashion",
    own: Annotated[
        Path | None, typer.Option("--data", help="your own .npz instead: x, y, and if you like device, t, names")
    ] = None,
    devices: Annotated[int, typer.Option(min=1, help="number of agents")] = 4,
    seed: Annotated[int, typer.Option(min=0, help="of everything that is drawn")] = 0,
    out: Annotated[Path, typer.Option(help="folder for report.html and report.json")] = Path("demo-report"),
    late: Annotated[
        str | None, typer.Option("--late-classes", help="classes that appear part way: a,b; empty: none")
    ] = None,
    degraded: Annotated[
        int | None,
        typer.Option("--degraded-device", min=0, help="number of the device whose sensor gets worse part way; 0: none"),
    ] = None,
) -> None:
    """Run the whole loop on this machine: a server, a broker, agents, real data; and report what it was worth."""
    from server.demo.options import Options
    from server.demo.run import demo as run_demo

    run_demo(
        Options(
            quick=quick,
            task="own" if own else task,
            data=own,
            devices=devices,
            seed=seed,
            out=out,
            late_classes=None if late is None else tuple(name.strip() for name in late.split(",") if name.strip()),
            degraded=degraded,
        )
    )
