"""What does a fleet at rest cost the server, and how does that grow with the fleet and with what is stored?

Part one: fleets of light devices (`winnow-server simulate`: real MQTT sessions, the real wire, no model) against
`winnow-server run` with its own mosquitto and SQLite. They connect evenly within one interval of their heartbeats, so
that these come evenly, which is the dearest for a server that commits in groups. Held against a tenth of one core for
10,000 devices that say a heartbeat every 30 s (--quick: 1,000 that say one every 3 s, as many heartbeats a second from
a tenth of the rows, which says less); and against proportion: a total that grows with a higher power than 1 of the
number of devices has a device that costs the more the more others there are.

Part two: the pages, and what they ask for, with ever more samples in the store and 10,000 devices; held against
log(n), as a power over the same range: that of a walk down an index.

Powers are fitted by least squares in logarithms over repeated windows; "+ noise" is half of their 95 % interval.

    python benchmarks/fleet.py [--quick]
"""

from __future__ import annotations

import argparse
import math
import statistics
import time
from collections.abc import Sequence

from pages import PAGES, serving, took

from server.simulate import report
from server.simulate.growth import Growth, fit
from server.simulate.options import Options, Step
from server.simulate.report import Report, Simulation
from server.simulate.run import simulate

DEVICES, QUICK_DEVICES = (100, 1_000, 10_000), (100, 300, 1_000)
SAMPLES, QUICK_SAMPLES = (10_000, 100_000, 1_000_000), (5_000, 15_000, 50_000)
HEARTBEAT_S = 30.0
WINDOWS = 3  # of one interval of heartbeats each
FLEET, CORES_OF_FLEET = 10_000, 0.10
TOTALS = ("server_rss_bytes", "broker_rss_bytes", "catalogue_bytes")
ASKED = ("/api/v1/devices?limit=100", "/api/v1/devices/cam-7", "/api/v1/devices/cam-7/history", "/api/v1/samples")
LOOKS = 8
SETTLED_S = 10.0  # after a start, when tables are counted and all is looked at once: no part of what a page takes


def main() -> None:
    """Both parts."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="up to 1,000 devices and 50,000 samples")
    quick = parser.parse_args().quick
    claims = (
        at_rest(QUICK_DEVICES if quick else DEVICES)
        + ([as_often()] if quick else [])
        + pages(QUICK_SAMPLES if quick else SAMPLES)
    )
    for claim in claims:
        print(claim)


def at_rest(devices: Sequence[int]) -> list[str]:
    """Part one; the claims."""
    found = _play(devices, HEARTBEAT_S, Step("burst", 2.0), Step("restart", 1.0), day_devices=5)
    print("", *report.lines(found), sep="\n")
    return [
        *_cores(found.simulations[-1]),
        *(_in_proportion(f"fleet_growth_{name}_cores", _of_windows(found, name)) for name in ("server", "broker")),
        *(_in_proportion(f"fleet_growth_{name}", found.growth.get(name)) for name in TOTALS),
    ]


def as_often() -> str:
    """The heartbeats of 10,000 a second, of fewer."""
    found = _play(QUICK_DEVICES[-1:], HEARTBEAT_S * QUICK_DEVICES[-1] / FLEET)
    return _claim_of("fleet_cores_of_as_many_heartbeats", found.simulations[-1])


def _play(devices: Sequence[int], heartbeat_s: float, *more: Step, day_devices: int = 0) -> Report:
    steps = (Step("births", HEARTBEAT_S), *[Step("steady", HEARTBEAT_S)] * WINDOWS, *more)
    options = Options(
        devices=tuple(devices), steps=steps, heartbeat_s=heartbeat_s, day_devices=day_devices, pages=False
    )
    return simulate(options, say=lambda line: print(line, flush=True))


def _cores(largest: Simulation) -> list[str]:
    """What fewer devices cost says little of 10,000: the fewer say something, the fewer share a commit."""
    return [_claim_of("fleet_cores_of_10000", largest)] if largest.devices == FLEET else []


def _claim_of(name: str, found: Simulation) -> str:
    cores = found.figures["server_cores_steady"]
    return f"RATIO {name} {cores:.3f} target <= {CORES_OF_FLEET} {_word(cores <= CORES_OF_FLEET)}"


def _of_windows(found: Report, who: str) -> Growth | None:
    points = [(one.devices, cores) for one in found.simulations for cores in _windows(one, who)]
    return fit(*zip(*points, strict=True))


def _windows(of: Simulation, who: str) -> list[float]:
    phases = [one for one in of.phases if one.name == "steady"]
    return [getattr(one, f"{who}_cpu_s") / one.wall_s for one in phases]


def _in_proportion(name: str, growth: Growth | None) -> str:
    return f"RATIO {name} - target <= 1 short (not measured)" if growth is None else _claim(name, growth, 1.0)


def _claim(name: str, growth: Growth, most: float) -> str:
    limit = most + growth.high - growth.exponent
    return f"RATIO {name} {growth.exponent:.2f} target <= {limit:.2f} {_word(growth.exponent <= limit)}"


def _word(good: bool) -> str:
    return "ok" if good else "short"


def pages(samples: Sequence[int]) -> list[str]:
    """Part two; the claims."""
    took_ms: dict[str, list[tuple[int, float]]] = {}
    for count in samples:
        with serving(count) as (client, _):
            time.sleep(SETTLED_S)
            for path in (*PAGES, *ASKED):
                for _window in range(WINDOWS):
                    window = [took(lambda path=path: client.get(path))[0] for _ in range(LOOKS)]
                    took_ms.setdefault(path, []).append((count, statistics.median(window)))
    most = math.log(math.log(samples[-1]) / math.log(samples[0])) / math.log(samples[-1] / samples[0])
    print(f"{'median ms of a page with so many samples':<44}" + "".join(f"{count:>12,}" for count in samples))
    claims = []
    for path, points in took_ms.items():
        medians = [statistics.median(ms for n, ms in points if n == count) for count in samples]
        print(f"{path:<44}" + "".join(f"{ms:>12.1f}" for ms in medians))
        growth = fit(*zip(*points, strict=True))
        assert growth is not None
        claims.append(_claim("page_growth_" + path.strip("/").replace("/", "_").partition("?")[0], growth, most))
    print()
    return claims


if __name__ == "__main__":
    main()
