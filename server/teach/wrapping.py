"""How does anybody's ONNX classifier become an artifact folder?"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from edge_agent.contract.artifact import Manifest, write_artifact
from edge_agent.contract.errors import ArtifactError


def wrap_file(onnx: Path, *, names: Sequence[str], data: Path, out: Path, int8: bool, version: int) -> Manifest:
    """Wrap an ONNX file with labelled samples (.npz) and write the folder.

    Raises:
        DataError: the samples do not fit the model, or know a class that `names` does not.
        IncompatibleError: no model of this kind; the message says why.
        ArtifactError: the file cannot be read.
    """
    from models.wrap import wrap

    from models.data import finite_rows, load_npz
    from models.errors import DataError

    try:
        model = onnx.read_bytes()
    except OSError as error:
        raise ArtifactError(f"{onnx}: {error.strerror}") from error
    samples = load_npz(data)
    samples = samples.take(finite_rows(samples.x))
    if unknown := [name for name in samples.names if name not in names]:
        raise DataError(f"{data}: names has {unknown[0]!r}, which is none of --names {','.join(names)}")
    index = np.array([list(names).index(name) for name in samples.names])
    wrapped = wrap(model, name=onnx.stem, names=names, version=version, data=samples.x, y=index[samples.y], int8=int8)
    write_artifact(out, wrapped.manifest, wrapped.onnx)
    return wrapped.manifest
