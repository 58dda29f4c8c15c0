"""How does a simulation go?

    a server on a folder of its own -> devices in their processes -> phase by phase -> accounts -> a device's day

once for each number of devices, and what grows how is fitted over them.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from server.errors import ServerError
from server.simulate import day, report
from server.simulate.device import Habits
from server.simulate.fleet import Fleet
from server.simulate.host import Host
from server.simulate.member import name_of
from server.simulate.options import Options
from server.simulate.phases import Phases
from server.simulate.report import Accounts, Report, Simulation, Table
from server.simulate.verbs import Spec
from server.simulate.visits import Visits

START_S = 60.0  # for the processes that play devices
DAY = "day"  # folder of the devices whose day is played
ONE = name_of(0)  # device whose page is looked at
PATHS = (
    "/sign-in", "/fleet", "/api/v1/devices?limit=100", "/api/v1/fleet/map", f"/devices/{ONE}", f"/api/v1/devices/{ONE}",
    f"/api/v1/devices/{ONE}/history", "/data", "/api/v1/samples", "/label", "/models", "/rollouts",
)  # fmt: skip
NOTES = (
    "MQTT without TLS: each device would need a certificate, and the broker would have a handshake more for each.",
    "The players share the machine with server and broker; what they use of it stands in their column.",
    "Publish to receipt is seen from the device, its own process's delays included (`late_ms`).",
)


def simulate(options: Options, *, say: Callable[[str], None]) -> Report:
    """Play it all; WinnowError when it cannot be."""
    simulations = []
    with _folder(options) as folder:
        for devices in options.devices:
            say(f"{devices:,} devices")
            say(report.HEAD)
            place = folder / f"{devices}"
            simulations.append(_one(place, options, devices, say))
        days = _day(folder / DAY, options, say)
    return Report(
        machine=report.machine(),
        simulations=simulations,
        device_day=days,
        device_day_bytes=round(sum(table.bytes for table in days.values()), 1),
        growth=report.grown(simulations),
        notes=list(NOTES),
    )


def _day(folder: Path, options: Options, say: Callable[[str], None]) -> dict[str, Table]:
    if not options.day_devices:
        return {}
    say(f"24 hours of {options.day_devices:,} devices, on a clock of their own")  # minutes without another word
    return day.play(folder, options)


def _one(folder: Path, options: Options, devices: int, say: Callable[[str], None]) -> Simulation:
    load = os.getloadavg()
    with Host(folder, options) as host:
        empty = host.cost()
        habits = Habits(
            host.fleet,
            heartbeat_s=options.heartbeat_s,
            body_bytes=options.body_bytes,
            retry_first_s=options.retry_first_s,
            retry_max_s=options.retry_max_s,
            trial_s=options.trial_s,
        )

        def spec(first: int, count: int) -> Spec:
            return Spec(host.wire, habits, first, count, host.version, host.sha256, host.boot, 1, options.seed)

        visits = Visits(host.pages, host.token, PATHS) if host.ours and options.pages else None
        with Fleet(spec, devices=devices, processes=options.processes) as fleet:
            phases = Phases(fleet, host, visits, options, devices=devices, say=say)
            played = []
            for step in options.steps:
                played.append(phases.play(step))
            tally = fleet.look().tally
            if visits is not None:
                visits.stop()
        accounts = Accounts(
            put=tally.put,
            answered=tally.answered,
            waiting=tally.waiting,
            refused=tally.refused,
            duplicates=tally.duplicates,
            stored=host.stored() if host.ours else None,
            bad=tally.bad,
        )
        catalogue = sum(size.bytes for size in host.sizes().values()) if host.ours else None
    made = Simulation(
        devices=devices,
        processes=options.processes,
        heartbeat_s=options.heartbeat_s,
        body_bytes=options.body_bytes,
        phases=played,
        accounts=accounts,
        empty_server_rss_bytes=empty[0].rss_bytes,
        empty_broker_rss_bytes=empty[1].rss_bytes,
        catalogue_bytes=catalogue,
        load=load,
    )
    made.figures = report.figures(made)
    return made


@contextmanager
def _folder(options: Options) -> Iterator[Path]:
    if options.folder is not None:
        if (options.folder / DAY).exists():  # of it nothing would be new, and nothing be counted
            raise ServerError(f"--folder: {options.folder / DAY} is there already: name another")
        yield options.folder
    else:
        with tempfile.TemporaryDirectory(prefix="winnow-simulate-") as made:
            yield Path(made)


def stamp() -> str:
    """Now, for a line of the log."""
    return time.strftime("%H:%M:%S")
