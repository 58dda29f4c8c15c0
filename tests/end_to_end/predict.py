"""What a model says on the machine that runs this: python predict.py ARTIFACT x.npy said.npy"""

from __future__ import annotations

import platform
import sys
from pathlib import Path

import numpy as np

from edge_agent.model import Model


def said(folder: Path, x: np.ndarray) -> np.ndarray:
    """(N, C + D): logits and embedding, row by row as the agent infers; after the golden test."""
    model = Model(folder, block=8)
    model.check_golden()
    rows = []
    for sample in x:
        model.run(0, sample)
        rows.append(np.concatenate((model.logits[0], model.embedding[0])))
    return np.stack(rows)


if __name__ == "__main__":
    np.save(sys.argv[3], said(Path(sys.argv[1]), np.load(sys.argv[2])))
    sys.stdout.write(platform.machine())
