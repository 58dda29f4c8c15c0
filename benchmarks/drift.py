"""How soon is a change seen, at the same rate of false alarms, and what does looking cost?

Every detector gets the same streams: an unchanged stretch, then the change. Each one's parameter is set, by bisection
on unchanged streams of the same kind, so that it raises one false alarm in EVERY samples; the watch is also shown as it
is used, told to raise one in EVERY, of which it raises fewer. A peer sees one number, and the better of two
(confidence, energy) is shown, which flatters it; KSWIN, which is slow, sees the energy alone.
Delays are conditional and restricted, as in the literature: streams with a false alarm before the change are drawn
anew, and not found counts as the cap.

A second table: the change is there from the first sample. Is that told after the first samples?

    python benchmarks/drift.py [--quick] [--peers-site DIR] [--alibi PYTHON]

river: `pip install 'winnow-edge[peers]'`, or into an environment of its own whose site-packages DIR is given.
alibi-detect (its online MMD sees the whole embedding) runs under the interpreter PYTHON of an environment of its own:
`pip install alibi-detect==0.13.0 torch==2.13.0 'numpy<2'`. frouros is not run: its ADWIN refuses such numbers
(ValueError), and its Page-Hinkley is river's.
"""

from __future__ import annotations

import argparse
import importlib
import itertools
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from _changes import Case, Rows, fashion, synthetic, wearer

from edge_agent.choose.acquisition import Scorer
from edge_agent.choose.drift import COMPARED, LEAST_SAMPLES, MONTH_S, Alarm, Watch

EVERY = 5_000.0  # samples between false alarms
BLOCK = 32
FINE = 4  # samples of a block while delays are measured, so that waiting for a block is nobody's handicap
BEFORE, CAP = 4_096, 2_048  # samples unchanged, and the longest delay; whole blocks
CONTROL = 100_000  # samples of an unchanged stream that parameters are set on
CONTROL_SLOW = 20_000  # for what costs some 300 us a sample
BISECTIONS = 9
SLOW_REPEATS = 3
REFERENCES = 4  # of MMD
TARGET_US = 10.0


class Peer(NamedTuple):
    """A detector of one number. make: from a parameter, between dull and sensitive. step: whether it found drift."""

    name: str
    make: Callable[[float], Any]
    dull: float
    sensitive: float
    step: Callable[[Any, float], bool]
    slow: bool = False


Delays = list[float]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="fewer repetitions, and no peer of 300 us a sample")
    parser.add_argument("--peers-site", action="append", default=[], help="site-packages with river")
    parser.add_argument("--alibi", default="", metavar="PYTHON", help="an interpreter with alibi-detect")
    options = parser.parse_args()
    sys.path += options.peers_site
    repeats = 8 if options.quick else 32
    peers = [peer for peer in installed() if not (options.quick and peer.slow)]
    cases = [*synthetic(), *fashion(), *wearer()]
    names = [
        "winnow as stated",
        "winnow",
        *(peer.name for peer in peers),
        *(["alibi MMD"] if options.alibi and not options.quick else []),
    ]
    print(f"one false alarm in {EVERY:.0f} samples; up to {repeats} repetitions")
    print(f"delay: mean +- standard error, not found counts as {CAP}; (found)\n")
    print(f"{'case':20}" + "".join(f"{name:>22}" for name in names))
    table, least = {}, {}
    for kind, group in itertools.groupby(cases, key=lambda case: case.kind):
        some = list(group)
        least[kind] = between_false_alarms(some[0])
        table |= compared(some, peers, repeats, options.alibi if not options.quick else "")
        print(f"  ({kind}: winnow as stated: a false alarm every {least[kind]:.0f} samples)")
    print()
    told_from_the_start(cases, repeats)
    print()
    for peer in peers:
        print(f"cost of {peer.name}: {cost_of_peer(peer):.2f} us a sample")
    summarise(table, min(least.values()), cases[0])


def compared(cases: list[Case], peers: list[Peer], repeats: int, alibi: str) -> dict[str, list[Delays]]:
    """Delays of every detector on cases of one kind, printed as they come."""
    settings = {(peer.name, column): tuned(peer, cases[0], column) for peer in peers for column in columns(peer)}
    scores = mmd(cases, alibi) if alibi else {}
    stated = tuned_watch(cases[0])
    table = {}
    for case in cases:
        row = [
            conditional(lambda seed, c=case, every=every: delay_of_watch(c, seed, every), repeats)
            for every in (EVERY, stated)
        ]
        for peer in peers:
            both = [
                conditional(
                    lambda seed, p=peer, x=settings[peer.name, column], k=column, c=case: delay_of_peer(
                        p, x, k, c, seed
                    ),
                    SLOW_REPEATS if peer.slow else repeats,
                )
                for column in columns(peer)
            ]
            row.append(min(both, key=lambda delays: float(np.mean(delays))))
        if case.name in scores:
            row.append(scores[case.name])
        print(f"{case.name:20}" + "".join(f"{shown(delays):>22}" for delays in row), flush=True)
        table[case.name] = row
    return table


def summarise(table: dict[str, list[Delays]], least: float, case: Case) -> None:
    ratios = {}
    for name, (_, ours, *others) in table.items():
        if others:
            ratios[name] = float(np.mean(ours)) / min(float(np.mean(delays)) for delays in others)
    for name, ratio in ratios.items():
        claim(f"drift_delay_{name}_over_best_peer", ratio, "<=", 1.0)
    if ratios:
        claim(
            "drift_delay_over_best_peer_geometric_mean",
            float(np.exp(np.mean(np.log(list(ratios.values()))))),
            "<=",
            1.0,
        )
    claim("drift_samples_per_false_alarm_over_stated_worst", least / EVERY, ">=", 1.0)
    claim("drift_cost_us_per_sample", cost_of_watch(case), "<=", TARGET_US)


def conditional(delay: Callable[[int], float | None], repeats: int) -> Delays:
    """Delays on the first streams that had no false alarm before the change; fewer when that is rare."""
    found = (value for seed in range(6 * repeats) if (value := delay(seed)) is not None)
    return list(itertools.islice(found, repeats)) or [float(CAP)]


# --- peers ---


def installed() -> Iterator[Peer]:
    try:
        river: Any = importlib.import_module("river.drift")
    except ImportError as error:
        print(f"missing: river ({error}): pip install river==0.26.1, see --help")
        return
    yield Peer("river ADWIN", lambda p: river.ADWIN(delta=p, clock=1), 1e-9, 0.99, _river)
    yield Peer("river PageHinkley", lambda p: river.PageHinkley(delta=0.25, threshold=p), 500.0, 0.5, _river)
    yield Peer("river KSWIN", lambda p: river.KSWIN(alpha=p, seed=0), 1e-9, 0.05, _river, slow=True)


def _river(detector: Any, value: float) -> bool:
    detector.update(value)
    return bool(detector.drift_detected)


def numbers(case: Case, rows: Rows) -> np.ndarray:
    """(n, 2) confidence and energy, in standard deviations of the unchanged stream."""
    confidence, energy = _numbers(case, rows)
    usual = _numbers(case, case.usual(np.random.default_rng(998), 4_000))
    return np.stack(
        [(x - y.mean()) / (y.std() + 1e-9) for x, y in zip((confidence, energy), usual, strict=True)], axis=1
    )


def _numbers(case: Case, rows: Rows) -> tuple[np.ndarray, np.ndarray]:
    temperature = case.manifest.temperature
    confidence = Scorer("margin", temperature=temperature).score(rows[0]).confidence.astype(float)
    return confidence, np.log(confidence) - rows[0].max(axis=1) / temperature


def columns(peer: Peer) -> tuple[int, ...]:
    """Of `numbers`, those that a peer is tried on; a slow one on the energy alone, which shows most."""
    return (1,) if peer.slow else (0, 1)


def tuned(peer: Peer, case: Case, column: int) -> float:
    """The parameter that gives one alarm in EVERY samples of an unchanged stream, found on a logarithmic scale."""
    count = CONTROL_SLOW if peer.slow else CONTROL
    values = numbers(case, case.usual(np.random.default_rng(999), count))[:, column].tolist()
    dull, sensitive = np.log(peer.dull), np.log(peer.sensitive)
    for _ in range(5 if peer.slow else BISECTIONS):
        middle = 0.5 * (dull + sensitive)
        if alarms(peer, float(np.exp(middle)), values) > count / EVERY:
            sensitive = middle
        else:
            dull = middle
    return float(np.exp(dull))


def alarms(peer: Peer, parameter: float, values: list[float]) -> int:
    detector, count = peer.make(parameter), 0
    for value in values:
        if peer.step(detector, value):
            count += 1
            detector = peer.make(parameter)
    return count


def delay_of_peer(peer: Peer, parameter: float, column: int, case: Case, seed: int) -> float | None:
    detector = peer.make(parameter)
    for at, value in enumerate(numbers(case, whole(case, seed))[:, column].tolist()):
        if peer.step(detector, value):
            return float(at - BEFORE + 1) if at >= BEFORE else None
    return float(CAP)


def cost_of_peer(peer: Peer) -> float:
    values = np.random.default_rng(0).normal(size=1000).tolist()
    detector = peer.make(peer.dull)
    return best_of(3, lambda: [peer.step(detector, value) for value in values]) / len(values) * 1e6


def mmd(cases: list[Case], python: str) -> dict[str, Delays]:
    """Delays of alibi-detect's online MMD on the embedding, whose threshold is set on unchanged streams too.

    It judges by a fixed reference, so that there are several, each with streams of its own.
    """
    first, before, streams = cases[0], 256, {}
    for number in range(REFERENCES):
        streams[f"{number}"] = first.usual(np.random.default_rng([number, 1]), 1_000)[1]
        streams[f"{number} control"] = first.usual(np.random.default_rng([number, 2]), CONTROL_SLOW // 2)[1]
        for case, seed in itertools.product(cases, (3, 4)):
            rng = np.random.default_rng([number, seed])
            rows = np.concatenate([case.usual(rng, before)[1], case.changed(rng, CAP // 2)[1]])
            streams[f"{number} {case.name} {seed}"] = rows
    with tempfile.TemporaryDirectory() as folder:
        asked, answered = Path(folder) / "streams.npz", Path(folder) / "scores.npz"
        np.savez(asked, **streams)
        subprocess.run([python, Path(__file__).with_name("_alibi.py"), asked, answered], check=True)
        scores = dict(np.load(answered))
    print(f"  (alibi MMD: {scores.pop('seconds') * 1e6:.0f} us a sample)")
    control = np.concatenate([scores[f"{number} control"] for number in range(REFERENCES)])
    rising = np.sort(control)[::-1]
    threshold = next(float(h) for h in rising if crossings(control, float(h)) > len(control) / EVERY)
    delays: dict[str, Delays] = {}
    for case, number, seed in itertools.product(cases, range(REFERENCES), (3, 4)):
        over = np.flatnonzero(scores[f"{number} {case.name} {seed}"] >= threshold)
        if len(over) == 0 or over[0] >= before:
            delays.setdefault(case.name, []).append(float(over[0] - before + 1) if len(over) else float(CAP))
    return delays


def crossings(scores: np.ndarray, threshold: float, window: int = 50) -> int:
    """Alarms, when a new window is filled after each."""
    count, free = 0, 0
    for at in np.flatnonzero(scores >= threshold):
        if at >= free:
            count, free = count + 1, at + window
    return count


# --- the watch ---


def watching(case: Case, every: float = EVERY) -> Watch:
    return Watch(case.manifest, false_alarms_per_month=MONTH_S / every, embedding=True)


def tuned_watch(case: Case) -> float:
    """What to state so that one alarm in EVERY samples is raised."""
    low, high = LEAST_SAMPLES, 2.0 * EVERY
    for _ in range(5):
        middle = (low * high) ** 0.5
        low, high = (middle, high) if between_false_alarms(case, middle) < EVERY else (low, middle)
    return high


def look(watch: Watch, case: Case, rows: Rows, size: int) -> Iterator[tuple[int, Alarm | None]]:
    """The sample that ended each block, and the alarm it raised."""
    scorer = Scorer("margin", temperature=case.manifest.temperature)
    logits, embedding = rows
    for begin in range(0, len(logits) - size + 1, size):
        block = logits[begin : begin + size]
        watch.pass_time(size)  # at one sample a second
        yield begin + size, watch.look(scorer.score(block), block, embedding[begin : begin + size], count=size)


def moved(alarm: Alarm | None) -> bool:
    return alarm is not None and alarm.kind == "moved"


def delay_of_watch(case: Case, seed: int, every: float) -> float | None:
    for at, alarm in look(watching(case, every), case, whole(case, seed), FINE):
        if moved(alarm):
            return float(at - BEFORE) if at > BEFORE else None
    return float(CAP)


def between_false_alarms(case: Case, every: float = EVERY) -> float:
    """Samples watched while nothing changes, over alarms."""
    watch, watched, count = watching(case, every), 0, 0
    for _, alarm in look(watch, case, case.usual(np.random.default_rng(999), CONTROL), BLOCK):
        watched += BLOCK * watch.watching
        count += moved(alarm)
    return watched / max(count, 1)


def told_from_the_start(cases: list[Case], repeats: int) -> None:
    """How often a stream that is changed from its first sample is told to differ from the manifest's reference."""
    print(f"there from the start, told after {COMPARED} samples: share; what differs most, by how much (mean)")
    for kind, some in itertools.groupby(cases, key=lambda case: case.kind):
        first, *others = some
        unchanged = first._replace(name=f"{kind}, unchanged", changed=first.usual)
        for case in (unchanged, first, *others):
            found = [alarm for seed in range(repeats) if (alarm := at_the_start(case, seed))]
            each = {alarm.signal for alarm in found}
            text = ", ".join(
                f"{signal} {np.mean([alarm.after - alarm.before for alarm in found if alarm.signal == signal]):+.2f}"
                for signal in sorted(each)
            )
            print(f"{case.name:24} {len(found) / repeats:>5.0%}  {text}", flush=True)


def at_the_start(case: Case, seed: int) -> Alarm | None:
    rows = case.changed(np.random.default_rng(seed), COMPARED)
    told = (alarm for _, alarm in look(watching(case), case, rows, BLOCK) if alarm and alarm.kind == "differs")
    return next(told, None)


def cost_of_watch(case: Case) -> float:
    """Of `look` alone, in blocks, once a level stands."""
    watch, scorer = watching(case), Scorer("margin")
    logits, embedding = case.usual(np.random.default_rng(0), 4096)
    blocks = [(logits[at : at + BLOCK], embedding[at : at + BLOCK]) for at in range(0, 4096, BLOCK)]
    scored = [(scorer.score(block), block, rows) for block, rows in blocks]
    watch.pass_time(1e9)

    def once() -> None:
        for score, block, rows in scored:
            watch.look(score, block, rows, count=BLOCK)

    once()
    return best_of(7, once) / 4096 * 1e6


def best_of(times: int, work: Callable[[], Any]) -> float:
    seconds = []
    for _ in range(times):
        begun = time.thread_time()
        work()
        seconds.append(time.thread_time() - begun)
    return min(seconds)


def whole(case: Case, seed: int) -> Rows:
    rng = np.random.default_rng(seed)
    before, after = case.usual(rng, BEFORE), case.changed(rng, CAP)
    return np.concatenate([before[0], after[0]]), np.concatenate([before[1], after[1]])


def shown(delays: Delays) -> str:
    error = np.std(delays) / np.sqrt(len(delays))
    return f"{np.mean(delays):.0f} +-{error:.0f} ({np.mean([delay < CAP for delay in delays]):.0%})"


def claim(name: str, value: float, sign: str, target: float) -> None:
    met = value <= target if sign == "<=" else value >= target
    print(f"RATIO {name} {value:.3f} target {sign} {target} {'ok' if met else 'short'}")


if __name__ == "__main__":
    main()
