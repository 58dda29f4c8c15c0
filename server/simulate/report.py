"""What was found?

All figures as they were measured, what follows from them, and what they were measured on: as JSON, and as plain tables.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec
import numpy as np

from server.simulate.growth import Growth, fit

DAY_S = 86_400.0


class Pages(msgspec.Struct, frozen=True):
    """How long a page took."""

    asked: int
    p50_ms: float
    p95_ms: float


class Phase(msgspec.Struct, kw_only=True):
    """What happened in one; a figure that nobody could measure is None."""

    name: str
    wall_s: float = 0.0
    done: bool = True  # what it waited for came about
    connects: int = 0
    connects_per_s: float = 0.0
    connect_p50_ms: float | None = None
    connect_p99_ms: float | None = None
    drops: int = 0
    messages: dict[str, int] = {}  # kind -> said by devices
    message_bytes: dict[str, int] = {}
    samples: int = 0  # that got a receipt
    again: int = 0  # sent once more for want of one
    receipt_p50_ms: float | None = None
    receipt_p99_ms: float | None = None
    server_cpu_s: float | None = None
    broker_cpu_s: float | None = None
    players_cpu_s: float = 0.0
    server_rss_bytes: int | None = None
    broker_rss_bytes: int | None = None
    late_ms: float = 0.0  # longest that something due waited for the players themselves
    pages: dict[str, Pages] = {}
    pages_failed: int = 0
    note: str = ""

    @property
    def server_cores(self) -> float | None:
        """Of a core, on average."""
        return None if self.server_cpu_s is None or not self.wall_s else self.server_cpu_s / self.wall_s


class Accounts(msgspec.Struct, kw_only=True):
    """Whether anything was lost, or taken twice."""

    put: int  # samples into outboxes
    answered: int  # with a receipt
    waiting: int
    refused: int
    duplicates: int  # that came again, were recognised, and are stored once
    stored: int | None  # rows of the server; None: not ours to look into
    bad: int  # messages from the server that were not understood

    @property
    def consistent(self) -> bool:
        """Everything put was answered or waits; everything answered is stored, once."""
        answered = self.put == self.answered + self.waiting and not (self.refused or self.bad)
        return answered and (self.stored is None or self.answered <= self.stored <= self.put)


class Table(msgspec.Struct, frozen=True):
    """What a day of a device leaves in a table."""

    rows: float
    bytes: float


class Simulation(msgspec.Struct, kw_only=True):
    """Of one number of devices."""

    devices: int
    processes: int
    heartbeat_s: float
    body_bytes: int
    phases: list[Phase]
    accounts: Accounts
    empty_server_rss_bytes: int = 0  # before the first device came; 0: not known
    empty_broker_rss_bytes: int = 0
    catalogue_bytes: int | None = None  # when all was over
    figures: dict[str, float] = {}  # see `figures`
    load: tuple[float, float, float] = (0.0, 0.0, 0.0)  # of the machine, when it began


class Report(msgspec.Struct, kw_only=True):
    """Everything."""

    machine: dict[str, str]
    simulations: list[Simulation]
    device_day: dict[str, Table] = {}  # table (or "blobs") -> what one device adds in a day
    device_day_bytes: float = 0.0
    growth: dict[str, Growth] = {}  # figure -> its exponent over the number of devices
    notes: list[str] = []


def figures(of: Simulation) -> dict[str, float]:
    """What one wants to know of a simulation; what could not be measured, or is of a phase not done, is left out.

    ms per message are of one processor: all that the server used in the phase that has little else, by its births or
    heartbeats; of the burst what is beyond the steady phase, without which nobody knows what a sample costs.
    """
    found: dict[str, float] = {}
    births, steady, burst = (_phases(of, name) for name in ("births", "steady", "burst"))
    if births:
        found["connects_per_s"] = births[0].connects_per_s
        _put(found, "server_ms_per_birth", _per(births[0].server_cpu_s, births[0].messages.get("birth", 0)))
    beats = sum(one.messages.get("heartbeat", 0) for one in steady)
    wall_s = sum(one.wall_s for one in steady)
    cpu_s = _sum(steady, lambda one: one.server_cpu_s)
    if wall_s and beats:
        _put(found, "server_ms_per_heartbeat", _per(cpu_s, beats))
        _put(found, "server_cores_steady", None if cpu_s is None else cpu_s / wall_s)
        broker_s = _sum(steady, lambda one: one.broker_cpu_s)
        _put(found, "broker_cores_steady", None if broker_s is None else broker_s / wall_s)
        found["heartbeat_bytes"] = sum(one.message_bytes.get("heartbeat", 0) for one in steady) / beats
    if burst and burst[0].samples:
        spent = burst[0].server_cpu_s
        if wall_s and spent is not None and cpu_s is not None:
            beyond = max(0.0, spent - cpu_s / wall_s * burst[0].wall_s)
            _put(found, "server_ms_per_sample", _per(beyond, burst[0].samples))
        found["samples_per_s"] = burst[0].samples / burst[0].wall_s
        _put(found, "receipt_p50_ms", burst[0].receipt_p50_ms)
        _put(found, "receipt_p99_ms", burst[0].receipt_p99_ms)
    for name in ("server", "broker"):
        if most := max((getattr(one, f"{name}_rss_bytes") or 0 for one in of.phases), default=0):
            found[f"{name}_rss_bytes"] = most
            found[f"{name}_bytes_per_device"] = max(0, most - getattr(of, f"empty_{name}_rss_bytes")) / of.devices
    _put(found, "catalogue_bytes", of.catalogue_bytes)
    for name in ("rollout", "restart"):
        if some := _phases(of, name):
            found[f"{name}_s"] = some[0].wall_s
            _put(found, f"server_cores_{name}", some[0].server_cores)
    for path, page in _slowest(of).items():
        found[f"page_p95_ms {path}"] = page
    return {name: float(f"{value:.5g}") for name, value in found.items()}


def grown(simulations: Sequence[Simulation]) -> dict[str, Growth]:
    """Exponents over the number of devices; of what is of one device or message 0 is as good as it gets."""
    found = {}
    for name in dict.fromkeys(name for one in simulations for name in one.figures):
        pairs = [(one.devices, one.figures[name]) for one in simulations if name in one.figures]
        if (growth := fit(*zip(*pairs, strict=True))) is not None:
            found[name] = growth
    return found


def per_thousand(report: Report) -> dict[str, str]:
    """What 1,000 devices more cost, in words: between the smallest and the largest simulation, or by the only one.

    Of the only one, memory is what it takes beyond that of a server without devices.
    """
    few, many = (choose(report.simulations, key=lambda one: one.devices) for choose in (min, max))
    words = {}
    for who in ("server", "broker"):
        cores = _slope(few, many, f"{who}_cores_steady")
        memory = _slope(few, many, f"{who}_rss_bytes", alone=few.figures.get(f"{who}_bytes_per_device"))
        for what, more, unit in (("cores at rest", cores, 1.0), ("MB of memory", memory, 1e6)):
            if more is not None:
                words[f"{who}, {what}"] = f"{1000 * more / unit:.4g}"
    if report.device_day_bytes:
        words["GB of disk a day, before anything is rolled up"] = f"{report.device_day_bytes / 1e6:.3g}"
    return words


def _slope(few: Simulation, many: Simulation, name: str, *, alone: float | None = None) -> float | None:
    """Of a figure, by a device; `alone`: what is known of it where there is one simulation, else all by all."""
    if name not in few.figures or name not in many.figures:
        return None
    if few.devices == many.devices:
        return many.figures[name] / many.devices if alone is None else alone
    return (many.figures[name] - few.figures[name]) / (many.devices - few.devices)


def machine() -> dict[str, str]:
    """What it ran on."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return {
        "system": platform.platform(),
        "processor": _processor(),
        "cores": f"{os.cpu_count()}",
        "memory": f"{memory:.0f} GiB",
        "python": platform.python_version(),
    }


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())


def quantile_ms(values_s: Sequence[float], share: float) -> float | None:
    """A quantile in ms of what is in seconds; None of nothing.

    >>> quantile_ms([0.1, 0.2, 0.3], 0.5)
    200.0
    """
    return round(1000 * float(np.quantile(values_s, share, method="higher")), 3) if values_s else None


def lines(report: Report) -> list[str]:
    """For people."""
    said = [", ".join(f"{name} {value}" for name, value in report.machine.items()), ""]
    for one in report.simulations:
        said += _simulation(one)
    if report.growth:
        said += ["growth with the number of devices: total ~ n^e, with the 95 % interval of e", ""]
        said += [f"  {name:<40}{g.exponent:>8.2f}  {g.low:.2f} .. {g.high:.2f}" for name, g in report.growth.items()]
        said.append("")
    if report.device_day:
        said.append(f"a day of one device adds {report.device_day_bytes / 1000:,.0f} KB:")
        rows = sorted(report.device_day.items(), key=lambda item: -item[1].bytes)
        said += [f"  {name:<20}{table.rows:>10,.1f} rows{table.bytes:>12,.0f} bytes" for name, table in rows]
        said.append("")
    if costs := per_thousand(report):
        said += ["1,000 devices more cost:", *(f"  {name:<48}{value}" for name, value in costs.items()), ""]
    return [*said, *report.notes]


HEAD = (
    f"{'phase':<10}{'wall s':>8}{'connects/s':>12}{'messages':>10}{'samples':>9}{'again':>7}{'p50 ms':>9}{'p99 ms':>10}"
    f"{'server':>8}{'broker':>8}{'players':>8}  (cores)"
)


def line(of: Phase) -> str:
    """A phase, under HEAD."""
    row = f"{of.name:<10}{of.wall_s:>8.1f}{of.connects_per_s:>12,.0f}{sum(of.messages.values()):>10,}"
    row += f"{of.samples:>9,}{of.again:>7,}{_number(of.receipt_p50_ms):>9}{_number(of.receipt_p99_ms):>10}"
    for spent in (of.server_cpu_s, of.broker_cpu_s, of.players_cpu_s):
        row += f"{_number(None if spent is None else spent / max(of.wall_s, 1e-9), 3):>8}"
    return f"{row}  {'' if of.done else 'NOT DONE '}{of.note}".rstrip()


def _simulation(of: Simulation) -> list[str]:
    title = f"{of.devices:,} devices in {of.processes} processes, a heartbeat every {of.heartbeat_s:g} s, "
    title += f"samples of {of.body_bytes:,} bytes; load of the machine {', '.join(f'{n:.1f}' for n in of.load)}"
    said = [title, "", f"  {HEAD}"]
    said += [f"  {line(one)}" for one in of.phases]
    accounts = of.accounts
    stored = "" if accounts.stored is None else f", stored {accounts.stored:,}"
    verdict = "consistent" if accounts.consistent else "NOT CONSISTENT"
    kept = f"  samples: put {accounts.put:,}, receipted {accounts.answered:,}{stored}, waiting {accounts.waiting:,}"
    said += ["", f"{kept}, came twice {accounts.duplicates:,}: {verdict}"]
    said += [f"  {name:<44}{value:>12,.6g}" for name, value in of.figures.items()]
    return [*said, ""]


def _number(value: float | None, digits: int = 1) -> str:
    return "-" if value is None else f"{value:,.{digits}f}"


def _phases(of: Simulation, name: str) -> list[Phase]:
    return [one for one in of.phases if one.name == name and one.done]


def _sum(phases: Sequence[Phase], value: Callable[[Phase], float | None]) -> float | None:
    values = [value(one) for one in phases]
    return None if None in values else sum(one for one in values if one is not None)


def _per(cpu_s: float | None, count: int) -> float | None:
    return None if cpu_s is None or not count else 1000 * cpu_s / count


def _put(found: dict[str, float], name: str, value: float | None) -> None:
    if value is not None:
        found[name] = value


def _slowest(of: Simulation) -> dict[str, float]:
    found: dict[str, float] = {}
    for one in of.phases:
        for path, page in one.pages.items():
            found[path] = max(found.get(path, 0.0), page.p95_ms)
    return found
