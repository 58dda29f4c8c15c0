"""winnow-server models | model: versions, those that come by hand, and their signatures."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edge_agent.contract.artifact import read_artifact
from edge_agent.contract.errors import WinnowError
from server.cli.keys import KeyFiles, note, say
from server.cli.options import AsJson, By, Config, Why, now_ms, show
from server.config import load_config
from server.errors import SigningError

commands = typer.Typer()
model = typer.Typer(
    help="Versions: shown, added by hand, signed.", epilog="Example: winnow-server model add my-model server.toml"
)
commands.add_typer(model, name="model")


@commands.command("models", epilog="Example: winnow-server models server.toml")
def models(path: Config, as_json: AsJson = False) -> None:
    """List the published versions: where each came from, how good, how far rolled out, until when it is signed."""
    from server import inventory
    from server import status as views
    from server.release.signing import Signing

    config = load_config(path)
    with views.opened(config) as store:
        rows = inventory.models(store, Signing(Path(config.server.data_dir)))
    show(rows, as_json)


@model.command("show", epilog="Example: winnow-server model show 7 --json server.toml")
def model_show(
    number: Annotated[int, typer.Argument(metavar="VERSION", help="its number, as `models` lists it")],
    path: Config,
    as_json: AsJson = False,
) -> None:
    """Say what a version is, how good it was found, and where it runs; `card`, `gates` and `lineage` say all of it."""
    from server import inventory
    from server import status as views
    from server.release.signing import Signing

    config = load_config(path)
    with views.opened(config) as store:
        view = inventory.model(store, number, Signing(Path(config.server.data_dir)))
    if as_json:
        typer.echo(views.as_json(view))
    else:
        views.print_lines(view)


@model.command("add", epilog="Example: winnow-server model add my-model --weights my-model/weights.pt server.toml")
def model_add(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="artifact folder: manifest.json and model.onnx")],
    path: Config,
    weights: Annotated[Path | None, typer.Option(help="weights to train on from, as a run leaves them")] = None,
    why: Why = "",
    by: By = "",
) -> None:
    """Publish an artifact folder under the number in its manifest; a running server rolls it out by itself."""
    from server.release.registry import add_artifact
    from server.store.store import open_store
    from server.store.trail import person
    from server.teach.reference import learn

    config = load_config(path)
    with open_store(config) as store:
        version = add_artifact(
            store,
            folder,
            weights=weights,
            now_ms=now_ms(),
            who=by or person(),
            why=why,
            task=config.server.task,
        )
        typer.echo(f"{folder}: version {version.number}, manifest {version.manifest_sha256[:12]}")
        if config.server.task != "classification":  # of which drift has a reference
            return
        try:  # the version is out: what follows is only said
            why = "" if learn(store, *read_artifact(folder), now_ms=now_ms()) else "no held-out import fits it"
        except WinnowError as error:
            why = f"no reference could be made of it ({error})"
    if why:
        typer.echo(
            f"{why}, so drift can be seen but not told apart: "
            "winnow-server data import FILE.npz --split holdout, then add it again"
        )


@model.command("sign", epilog="Example: winnow-server model sign 7 --key safe/targets-0a1b.pem server.toml")
def model_sign(
    number: Annotated[int, typer.Argument(metavar="VERSION", help="its number")],
    path: Config,
    more: KeyFiles = None,
    by: By = "",
) -> None:
    """Vouch for a published version by hand: with the keys that are here, and those given."""
    from server.release.signing import Signing
    from server.store import versions
    from server.store.store import open_store

    config = load_config(path)
    signing = Signing(Path(config.server.data_dir))
    with open_store(config) as store, store.database.read() as connection:
        version = versions.get(connection, number)
    if version is None:
        raise SigningError(f"version {number} is not in the registry: winnow-server models lists them")
    signing.sign([version], more=more or (), now_ms=now_ms())
    note(path, "sign", f"version {number}", by, {"covered": signing.covers(version)})
    say(signing, f"version {number} is signed" if signing.covers(version) else f"version {number}: not signed yet")


@model.command("export", epilog="Example: winnow-server model export 7 --out model-7 server.toml")
def model_export(
    number: Annotated[int, typer.Argument(metavar="VERSION", help="its number")],
    path: Config,
    out: Annotated[Path, typer.Option(help="folder to write")],
    variant: Annotated[str, typer.Option(help="which of its files: cpu-int8 or cpu-fp32")] = "cpu-int8",
) -> None:
    """Write a version as an artifact folder, with the signatures that vouch for it: to carry it to a device by hand."""
    from server.release.registry import export
    from server.release.signing import Signing
    from server.store.store import open_store

    config = load_config(path)
    with open_store(config) as store:
        signed = export(store, Signing(Path(config.server.data_dir)), number, out, variant=variant)
    typer.echo(f"{out}: version {number}, {'signed' if signed else 'not signed'}")


@model.command("verify", epilog="Example: winnow-server model verify model-7 --root root.json")
def model_verify(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="an artifact folder, or its manifest.json")],
    root: Annotated[Path, typer.Option(help="the fleet's root of trust: trust/root.json of the server")],
    as_json: AsJson = False,
) -> None:
    """Say whether an artifact is intact and vouched for; needs neither server nor network."""
    from edge_agent.contract.trust import verify_artifact

    found = verify_artifact(file, root)
    said = found.describe(now_ms=now_ms())
    if as_json:
        from server import status as views

        typer.echo(views.as_json({"file": str(file), "said": said}))
    else:
        typer.echo(f"{file}: {said}")
