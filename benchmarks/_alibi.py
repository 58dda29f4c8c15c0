"""Online MMD of alibi-detect, run by an interpreter that has it: it wants an older numpy than ours, and torch.

    python _alibi.py streams.npz scores.npz

Reads `reference` (n, d) and any number of streams (m, d); writes the score of every sample of each, and the seconds of
processor time per sample. The threshold is set by whoever reads them, as for every other detector.
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
    streams = dict(np.load(sys.argv[1]))
    reference = streams.pop("reference").astype(np.float32)
    detector = cd.MMDDriftOnline(
        reference, ert=100, window_size=WINDOW, n_bootstraps=300, backend="pytorch", verbose=False
    )
    scores, samples, begun = {}, 0, time.process_time()
    for name, rows in streams.items():
        detector.reset_state()
        scores[name] = np.array([float(detector.score(row)) for row in rows.astype(np.float32)])  # predict() leaks
        samples += len(rows)
    np.savez(sys.argv[2], seconds=(time.process_time() - begun) / samples, **scores)


if __name__ == "__main__":
    main()
