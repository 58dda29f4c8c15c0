"""What is in a model: a file, an artifact folder, or a version of the registry?"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

from edge_agent.contract.artifact import MODEL, Manifest, check_bytes, decode_manifest, read_artifact
from edge_agent.contract.errors import ArtifactError
from edge_agent.contract.outputs import BOXES_OFF, looked_at
from server.errors import TrainingError
from server.store import versions
from server.store.store import Store

SHOWN = 8  # kinds of operators, and layers, in words


def look(what: str, store: Store | None) -> dict[str, Any]:
    """All that can be said, as plain data. `store`: for a version; None: `what` is a file or a folder.

    Raises:
        TrainingError: no such version.
        ArtifactError: the file or folder cannot be read, or is no model.
    """
    from models.anatomy import anatomy
    from models.taps import Taps

    manifest, onnx = _read(Path(what)) if store is None else _version(what, store)
    named = None if manifest is None else Taps(manifest.logits, manifest.embedding)
    found: dict[str, Any] = {"what": what, "model": msgspec.to_builtins(anatomy(onnx, named=named))}
    if manifest is not None:
        found["manifest"] = _stated(manifest, onnx)
    return found


def _read(file: Path) -> tuple[Manifest | None, bytes]:
    if file.is_dir():
        return read_artifact(file)
    try:
        return None, file.read_bytes()
    except OSError as error:
        raise ArtifactError(f"{file}: {error.strerror}: expected an artifact folder, ONNX file or number") from error


def _version(what: str, store: Store) -> tuple[Manifest, bytes]:
    with store.database.read() as connection:
        version = versions.get(connection, int(what)) if what.isdigit() else None
    if version is None:
        raise TrainingError(f"version {what} is not in the registry: winnow-server models lists them")
    manifest = decode_manifest(store.blobs.get(version.manifest_sha256), where=f"version {what}")
    return manifest, store.blobs.get(manifest.variant("cpu-int8").sha256)


def _stated(manifest: Manifest, onnx: bytes) -> dict[str, Any]:
    """What the manifest says, without its arrays; and whether the golden inputs give what it says, here and now."""
    golden, reference = manifest.golden, manifest.reference
    return {
        "name": manifest.name,
        "version": manifest.version,
        "task": manifest.task,
        "classes": list(manifest.classes),
        "members": manifest.members,
        "input": msgspec.to_builtins(manifest.input),
        "files": msgspec.to_builtins(manifest.files),
        "temperature": manifest.temperature,
        "metrics": manifest.metrics,
        "notes": list(manifest.notes),
        "licence": manifest.licence,
        "parent": manifest.parent,
        "snapshot": manifest.snapshot,
        "created_at": manifest.created_at,
        "golden": {
            "inputs": golden.inputs.shape[0],
            "tolerance": golden.tolerance,
            **_golden(manifest, onnx),
        },
        "reference": {
            "samples": reference.samples,
            "confidence_mean": reference.confidence_mean,
            "class_share": list(reference.class_share),
            "directions": reference.whitening.shape[1] if reference.whitening and manifest.embedding else 0,
        },
    }


def _golden(manifest: Manifest, onnx: bytes) -> dict[str, Any]:
    """Largest difference of each golden output on this machine, and whether a device would take it."""
    import numpy as np

    from models.evaluate import open_session, run_outputs

    check_bytes(onnx, manifest.variant("cpu-int8"), where=MODEL)
    golden, boxes = manifest.golden, manifest.task == "detection"
    stated = {manifest.logits: golden.logits} | golden.outputs
    logits = golden.logits.array()
    matter = np.stack([looked_at(manifest, one) for one in logits]) if boxes else np.ones(len(logits), np.bool_)
    off = {}
    for name, said in zip(stated, run_outputs(open_session(onnx), golden.inputs.array(), list(stated)), strict=True):
        apart = np.abs(said - np.asarray(stated[name].array(), np.float32))
        off[name] = float((apart if name == manifest.logits else apart[matter]).max())
    least = {name: min(golden.tolerance, BOXES_OFF) if boxes else golden.tolerance for name in golden.outputs}
    return {"off_by": off, "passed": all(value <= least.get(name, golden.tolerance) for name, value in off.items())}


def lines(found: dict[str, Any]) -> list[str]:
    """The same in words."""
    model, stated = found["model"], found.get("manifest")
    kinds = sorted(model["operators"].items(), key=lambda item: -item[1])
    more = f" and {len(kinds) - SHOWN} kinds more" if len(kinds) > SHOWN else ""
    said = [
        *(f"input      {_port(port)}" for port in model["inputs"]),
        *(f"output     {_port(port)}" for port in model["outputs"]),
        f"logits     {model['logits'] or 'not found'}",
        f"embedding  {model['embedding'] or 'none'}",
        f"taps       {model['why']}",
        f"operators  {', '.join(f'{name} {count}' for name, count in kinds[:SHOWN])}{more}",
        f"opset      {model['opset']}, IR {model['ir_version']}: {_who(model['runtime'])}",
        f"size       {model['bytes']} bytes, {model['parameters']} parameters, {model['int8_share']:.0%} of 8 bits",
        *(
            f"layer      {layer['bytes']:>9} bytes  {layer['kind']} {layer['name']}"
            for layer in model["layers"][:SHOWN]
        ),
        *(f"caveat     {caveat}" for caveat in model["caveats"]),
    ]
    return said if stated is None else [*_manifest_lines(stated), *said]


def _manifest_lines(stated: dict[str, Any]) -> list[str]:
    golden, reference = stated["golden"], stated["reference"]
    off = ", ".join(f"{name} {value:.2g}" for name, value in golden["off_by"].items())
    metrics = ", ".join(f"{name} {value:.4g}" for name, value in stated["metrics"].items()) or "none"
    return [
        f"model      {stated['name']} version {stated['version']}, {stated['task']}, {', '.join(stated['files'])}",
        f"classes    {len(stated['classes'])}: {', '.join(stated['classes'][:SHOWN])}",
        f"metrics    {metrics}; temperature {stated['temperature']:.3g}",
        f"golden     {golden['inputs']} inputs, {'passed' if golden['passed'] else 'FAILED'} here: off by {off}, "
        f"at most {golden['tolerance']:.2g}",
        f"reference  {reference['samples']} samples, confidence {reference['confidence_mean']:.3f}, "
        f"{reference['directions']} directions of the embedding",
        *(f"note       {note}" for note in stated["notes"]),
    ]


def _port(port: dict[str, Any]) -> str:
    return f"{port['name']}: {port['dtype']} {'x'.join(map(str, port['shape'])) or '(shape not said)'}"


def _who(runtime: str) -> str:
    return f"onnxruntime {runtime} and newer load it" if runtime else "no onnxruntime up to 1.32 loads it"
