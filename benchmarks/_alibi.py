"""Online MMD of alibi-detect, run by an interpreter that has it: it wants an older numpy than ours, and torch.

    python _alibi.py streams.npz scores.npz

Reads references `r` (n, d) and streams `r name` (m, d) that belong to them; writes the score of every sample of each
stream, and the seconds of processor time per sample. The threshold is set by whoever reads them, as for every other
detector: the one asked for here only has to satisfy the constructor.
"""

from __future__ import annotations

import importlib
import sys
import time
from typing import Any

import numpy as np

WINDOW = 50


def main() -> None:
    cd: Any = importlib.import_module("alibi_detect.cd")
    torch: Any = importlib.import_module("torch")
    torch.set_num_threads(1)
    given = {name: rows.astype(np.float32) for name, rows in np.load(sys.argv[1]).items()}
    scores, samples, seconds = {}, 0, 0.0
    for reference in (name for name in given if " " not in name):
        detector = cd.MMDDriftOnline(
            given[reference], ert=100, window_size=WINDOW, n_bootstraps=300, backend="pytorch", verbose=False
        )
        begun = time.process_time()
        for name, rows in given.items():
            if name.startswith(f"{reference} "):
                detector.reset_state()
                scores[name] = np.array([float(detector.score(row)) for row in rows])  # predict() leaks
                samples += len(rows)
        seconds += time.process_time() - begun
    np.savez(sys.argv[2], seconds=seconds / samples, **scores)


if __name__ == "__main__":
    main()
