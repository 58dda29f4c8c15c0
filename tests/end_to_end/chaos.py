"""Does anything get lost or doubled when everything fails that can, again and again?

Some agents, a server and its broker; between each agent and the broker a link. Agents, server and broker are killed
with -9, links are cut, held up and slowed down: what, when and for how long is drawn from one seed, so that a run that
failed can be repeated. In the end all is left alone until nothing waits any more, and then

    what is stored of each stream  =  what an undisturbed agent selects of it, each sample once
    no window of a stream is over the label budget
    no sample is missing, evicted or parked by anybody's count

Longer than the test in `test_chaos.py`:

    python tests/end_to_end/chaos.py [--seconds 300] [--agents 4] [--seed N] [--qdisc "netem delay 40ms 20ms loss 2%"]

`--qdisc`: all of it in a network namespace whose loopback has this queueing discipline; needs root, iproute2 and, for
netem, a kernel that has it.
"""

from __future__ import annotations

import argparse
import os
import secrets
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np

if __name__ == "__main__":  # pytest does it for the test
    sys.path[:0] = [str(Path(__file__).parents[depth]) for depth in (0, 1, 2)]

from link import Link
from processes import Programs, kill
from world import DEPTH, World, most_over_share

RATE = 100.0  # samples/s of each agent
CALM_S = 3.0  # at the beginning: a server and agents that have started
EVERY_S = 1.2  # mean time between two faults
FAULTS = {  # what may happen, how often among all, and how long it lasts, s: least and most
    "kill agent": (0.3, 0.0, 0.0),
    "kill server": (0.1, 0.0, 2.0),
    "kill broker": (0.1, 0.0, 0.0),
    "cut": (0.2, 0.1, 3.0),
    "hang": (0.2, 0.2, 10.0),  # longer than the keep-alive, now and then
    "slow": (0.1, 0.5, 5.0),
}
SLOW_S = 0.2  # longest delay of a piece on a slow link


class Fault(NamedTuple):
    """What happens. `whom`: which agent, or the one at the end of which link."""

    at_s: float
    what: str
    whom: int
    for_s: float
    delay_s: float


def plan(seed: int, *, seconds: float, agents: int) -> list[Fault]:
    """All faults of a run, by time. A function of its arguments and of nothing else."""
    rng = np.random.default_rng(seed)
    names = list(FAULTS)
    shares = [share for share, _, _ in FAULTS.values()]
    found, at_s = [], CALM_S
    while (at_s := at_s + float(rng.exponential(EVERY_S))) < seconds:
        what = names[rng.choice(len(names), p=shares)]
        _, least_s, most_s = FAULTS[what]
        for_s = least_s + (most_s - least_s) * float(rng.random()) ** 2
        found.append(Fault(at_s, what, int(rng.integers(agents)), for_s, SLOW_S * float(rng.random())))
    return found


def run(folder: Path, *, seed: int, seconds: float, agents: int, say: Callable[[str], None] = print) -> None:
    """One run; AssertionError when something does not hold."""
    say(f"seed {seed}: {agents} agents, {seconds:.0f} s")
    links: list[Link] = []
    with Programs() as programs:
        world = World(folder, programs)
        try:
            _play(world, links, seed=seed, seconds=seconds, agents=agents, say=say)
        finally:
            for link in links:
                link.close()


def _play(
    world: World, links: list[Link], *, seed: int, seconds: float, agents: int, say: Callable[[str], None]
) -> None:
    port = int(world.broker_url.rsplit(":", 1)[1])
    for number in range(agents):
        links.append(link := Link(port))
        url = f"mqtt://127.0.0.1:{link.port}"
        world.add(f"cam-{number}", rows=int(RATE * seconds), rate=RATE, seed=number, broker=url)
    _strike(world, links, plan(seed, seconds=seconds, agents=agents), say)
    world.finish(within_s=120.0)
    world.stop()
    _judge(world, say)


def _strike(world: World, links: list[Link], faults: list[Fault], say: Callable[[str], None]) -> None:
    """Do it all at its time, and put everything right in the end."""
    begun_s = time.monotonic()
    agenda = [(fault.at_s, True, fault) for fault in faults]
    agenda += [(fault.at_s + fault.for_s, False, fault) for fault in faults]
    for at_s, begins, fault in sorted(agenda, key=lambda item: item[0]):
        time.sleep(max(0.0, begun_s + at_s - time.monotonic()))
        if begins:
            say(f"{at_s:7.1f} s  {fault.what}, {fault.whom}, {fault.for_s:.1f} s")
            _begin(world, links[fault.whom], fault)
        else:
            _end(world, links[fault.whom], fault)
    for link in links:
        link.mend()


def _begin(world: World, link: Link, fault: Fault) -> None:
    if fault.what == "kill agent":
        world.cameras[fault.whom].agent.kill()
    elif fault.what == "kill server":
        world.server.kill()
    elif fault.what == "kill broker":
        for broker in world.brokers():
            kill(broker)
    elif fault.what == "cut":
        link.cut()
    elif fault.what == "hang":
        link.hang()
    else:
        link.slow(fault.delay_s)


def _end(world: World, link: Link, fault: Fault) -> None:
    if fault.what == "kill agent":
        world.cameras[fault.whom].agent.start()
    elif fault.what == "kill server":
        world.server.start()
    else:
        link.mend()


def _judge(world: World, say: Callable[[str], None]) -> None:
    missing = {row["device"]: row["missing"] for row in world.shown()}
    for camera in world.cameras:
        stored, expected = camera.stored(), camera.expected
        lost, doubled = len(set(expected) - set(stored)), len(stored) - len(set(stored))
        besides, over = len(set(stored) - set(expected)), most_over_share(stored)
        outbox = camera.beat().outbox
        say(
            f"{camera.name}: {len(stored)} stored of {len(expected)} selected: {lost} lost, {doubled} doubled, "
            f"{besides} besides; {over:.1f} labels over the share in the worst window, {DEPTH:.0f} allowed"
        )
        assert stored == expected
        assert over <= DEPTH
        assert (outbox.rows, outbox.parked, outbox.evicted, missing[camera.name]) == (0, 0, {}, 0)
        assert outbox.put_total == outbox.acked_total == len(expected)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seconds", type=float, default=300.0)
    parser.add_argument("--agents", type=int, default=4)
    parser.add_argument("--seed", type=int, default=secrets.randbelow(1 << 31))
    parser.add_argument("--qdisc", default="", help='of the loopback, such as "netem delay 40ms 20ms loss 2%%"')
    options = parser.parse_args()
    if options.qdisc:
        sys.exit(_in_namespace(options))
    with tempfile.TemporaryDirectory() as folder:
        run(Path(folder), seed=options.seed, seconds=options.seconds, agents=options.agents)


def _in_namespace(options: argparse.Namespace) -> int:
    """The same in a network of its own, whose loopback has the queueing discipline."""
    name = f"winnow-{os.getpid()}"
    inside = ["ip", "netns", "exec", name]
    again = [sys.executable, __file__]
    again += [f"--{key}={getattr(options, key)}" for key in ("seconds", "agents", "seed")]
    subprocess.run(["ip", "netns", "add", name], check=True)
    try:
        subprocess.run([*inside, "ip", "link", "set", "lo", "up"], check=True)
        subprocess.run([*inside, "tc", "qdisc", "add", "dev", "lo", "root", *options.qdisc.split()], check=True)
        return subprocess.run([*inside, *again], check=False).returncode
    finally:
        subprocess.run(["ip", "netns", "del", name], check=True)


if __name__ == "__main__":
    main()
