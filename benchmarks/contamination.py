"""Is it found in time that what would be trained on shows what is held out?

100,000 samples, a tenth of them held out, as fingerprints of 64 numbers with their bits; 1 % of the others are planted
near-duplicates. Held against a limit, since a round waits for it. Beside it, for the record, scipy's k-d tree on the
same vectors: quicker where they lie far apart, as planted ones do (on 60,000 and 10,000 pictures of Fashion-MNIST both
take the same time); where a scene stands still it has every pair to list, and blocks are done with the first.

    python benchmarks/contamination.py [--quick]
"""

from __future__ import annotations

import argparse
import time

import numpy as np
from scipy.spatial import cKDTree

from server.store.fingerprints import Fingerprint
from server.teach.contamination import NONE, Look, twins
from server.teach.fingerprint import LIKENESS

LIMIT_S = 60.0
HELD_SHARE, PLANTED_SHARE = 0.1, 0.01


def vectors(count: int, rng: np.random.Generator) -> np.ndarray:
    """(N, 64): as those of pictures, of which a few low frequencies say most."""
    raw = rng.normal(size=(count, 64)) / np.arange(1, 65) ** 0.5
    return (raw / np.linalg.norm(raw, axis=1, keepdims=True)).astype(np.float32)


def looks(vector: np.ndarray, bits: np.ndarray) -> list[Look]:
    return [Look(Fingerprint("grey", v, int(b)), None, 0) for v, b in zip(vector, bits, strict=True)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    count = 10_000 if parser.parse_args().quick else 100_000
    rng = np.random.default_rng(0)
    held_count = int(count * HELD_SHARE)
    held, train = vectors(held_count, rng), vectors(count - held_count, rng)
    held_bits, train_bits = (rng.integers(0, 2**63, len(side), np.uint64) for side in (held, train))
    planted = rng.permutation(len(train))[: int(PLANTED_SHARE * len(train))]
    of = rng.integers(0, held_count, len(planted))
    train[planted] = held[of] + rng.normal(0, 0.003, (len(planted), 64)).astype(np.float32)
    train_bits[planted] = held_bits[of]
    sides = looks(train, train_bits), looks(held, held_bits)

    began = time.perf_counter()
    found = twins(*sides, cosine=0.98)
    ours_s = time.perf_counter() - began
    right = int((found[planted] == of).sum())
    false = int((found != NONE).sum()) - right

    some = train[: len(train) // 5]
    began = time.perf_counter()
    cKDTree(held).query(some, distance_upper_bound=LIKENESS["grey"].distance)
    tree_s = 5 * (time.perf_counter() - began)

    print(f"{'':<24}{'seconds':>9}")
    print(f"{'ours, in blocks':<24}{ours_s:>9.1f}   {right} of {len(planted)} planted found, {false} others")
    print(f"{'scipy, k-d tree':<24}{tree_s:>9.1f}   (5 times a fifth)")
    ok = ours_s <= LIMIT_S
    print(f"RATIO contamination_seconds {ours_s:.1f} target <= {LIMIT_S:g} {'ok' if ok else 'short'}")
    ok = right == len(planted) and false == 0
    print(f"RATIO contamination_found {right / len(planted):.4f} target >= 1 {'ok' if ok else 'short'}")


if __name__ == "__main__":
    main()
