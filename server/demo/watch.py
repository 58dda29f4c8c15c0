"""What is the fleet doing right now?

Reads what the programs themselves write: status.json and predictions.bin of each agent, the server's catalogue. A live
table on a terminal, plain lines everywhere else.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.live import Live
from rich.table import Table
from sqlite_utils import Database

from edge_agent.contract.errors import MessageError
from edge_agent.contract.wire import Heartbeat, decode
from edge_agent.outgoing import PREDICTION
from edge_agent.status import STATUS
from server.demo.scenario import Stream
from server.demo.workspace import Workspace
from server.store import rollouts, runs, versions
from server.store.store import Store

TICK_S = 0.5
LINE_S = 5.0  # between two plain lines
ROLLING = 200  # samples of the accuracy in the table
PATIENCE_S = 45.0  # for rounds and rollouts under way when the streams have ended
STALL_S = 120.0  # without any new sample before it is given up


class Eye:
    """One device, as seen from its files."""

    def __init__(self, stream: Stream, folder: Path) -> None:
        """Nothing has been read yet."""
        self.stream = stream
        self.beat: Heartbeat | None = None
        self.version = np.zeros(len(stream.y), np.int64)  # that executed each sample; 0: none yet
        self.right = np.zeros(len(stream.y), np.bool_)
        self.order: list[int] = []  # versions executed, in their order
        self.begun_s: float | None = None
        self._folder = folder
        self._log = folder / "predictions.bin"
        self._status = folder / STATUS
        self._at = 0

    def look(self, now_s: float, rate_per_s: float) -> None:
        """Read what is new."""
        try:
            self.beat = decode(Heartbeat, self._status.read_bytes())
        except (FileNotFoundError, MessageError):
            return
        running = self.beat.model.version
        if running and running not in self.order:
            self.order.append(running)
        records = self._records()
        if len(records):
            self._take(records)
            if self.begun_s is None:
                self.begun_s = now_s - (int(records["seq"][-1]) + 1) / rate_per_s

    def _records(self) -> NDArray[np.void]:
        if not self._log.exists():
            return np.empty(0, PREDICTION)
        with open(self._log, "rb") as file:
            file.seek(self._at)
            data = file.read()
        whole = len(data) // PREDICTION.itemsize * PREDICTION.itemsize
        self._at += whole
        return np.frombuffer(data[:whole], PREDICTION)

    def _take(self, records: NDArray[np.void]) -> None:
        rows = records["seq"].astype(np.int64)
        self.version[rows] = records["version"]
        self.right[rows] = records["label"] == self.stream.y[rows]
        for version in records["version"].tolist():
            if version not in self.order:
                self.order.append(version)

    @property
    def done(self) -> int:
        """Samples predicted so far."""
        return int(np.count_nonzero(self.version))

    def drained(self) -> bool:
        """Whether the device has said, after its last sample, that nothing waits any more."""
        beat = self.beat
        return beat is not None and beat.counts.read == len(self.stream.y) and beat.outbox.rows == 0

    def waiting(self) -> set[str]:
        """Ids in its outbox, once the agent has ended. Some may be stored: their receipts were on the way."""
        return {row["id"] for row in Database(self._folder / "outbox.db")["sample"].rows_where("parked = 0")}

    def rolling(self) -> float:
        """Accuracy over the last samples."""
        done = self.done
        return float(self.right[max(0, done - ROLLING) : done].mean()) if done else float("nan")


class Watch:
    """Looks at everything until the streams have been played and the server is at rest."""

    def __init__(self, workspace: Workspace, streams: list[Stream], *, rate_per_s: float, rounds: int) -> None:
        """`rounds`: that the server is to run."""
        self.eyes = [Eye(stream, workspace.agent_data(stream.name)) for stream in streams]
        self.everywhere_s: dict[int, float] = {}  # version -> when every device executed it or a newer one
        self.rate_per_s = rate_per_s
        self._rounds = rounds
        self._store = Store.open(workspace.server_data)
        self._server = "starting"

    @property
    def begun_s(self) -> float:
        """When the first stream began, monotonic seconds."""
        return min((eye.begun_s for eye in self.eyes if eye.begun_s is not None), default=time.monotonic())

    def follow(self, console: Console, check: Callable[[], None]) -> str:
        """Until all is done; returns "" or what was left undone. `check` raises when a process has died."""
        with self._showing(console) as show:
            ended_s, progress_s, done = None, time.monotonic(), -1
            while True:
                now_s = time.monotonic()
                check()
                at_rest = self._look(now_s)
                show(now_s)
                if (total := sum(eye.done for eye in self.eyes)) != done:
                    done, progress_s = total, now_s
                if all(eye.done == len(eye.stream.y) for eye in self.eyes):
                    ended_s = ended_s or now_s
                    if at_rest:
                        return ""
                    if now_s - ended_s > PATIENCE_S:
                        return f"after {PATIENCE_S:.0f} s the server was still at work: {self._server}"
                elif now_s - progress_s > STALL_S:
                    return f"no new sample for {STALL_S:.0f} s"
                time.sleep(TICK_S)

    def look_again(self) -> None:
        """Once more at the devices' files, now that the agents have said their last word."""
        for eye in self.eyes:
            eye.look(time.monotonic(), self.rate_per_s)

    def close(self) -> None:
        """Close the catalogue."""
        self._store.close()

    def _look(self, now_s: float) -> bool:
        """Read everything; whether nothing is left to do."""
        for eye in self.eyes:
            eye.look(now_s, self.rate_per_s)
        lowest = min((eye.order[-1] if eye.order else 0) for eye in self.eyes)
        for version in range(1, lowest + 1):
            self.everywhere_s.setdefault(version, now_s)
        with self._store.database.read() as connection:
            busy = runs.in_state(connection, *runs.UNFINISHED, "passed")  # which is published in a moment
            rollout, champion = rollouts.current(connection), versions.champion(connection)
            rounds = runs.rounds(connection)
        behind = champion is not None and (rollout is None or rollout.version < champion.number)
        rolling = behind or (rollout is not None and rollout.status == "running")
        self._server = f"round {rounds} of {self._rounds}"
        if busy:
            self._server += f", {busy[-1].state}"
        elif rolling and rollout:
            self._server += f", rolling out version {rollout.version}"
        return all(eye.drained() for eye in self.eyes) and not busy and not rolling and rounds >= self._rounds

    # --- showing ---

    @contextmanager
    def _showing(self, console: Console) -> Iterator[Callable[[float], None]]:
        if console.is_terminal:
            with Live(console=console, refresh_per_second=4) as live:
                yield lambda now_s: live.update(self._table(now_s))
        else:
            said_s = 0.0

            def say(now_s: float) -> None:
                nonlocal said_s
                if now_s - said_s >= LINE_S:
                    said_s = now_s
                    console.print(self._line(now_s), highlight=False, soft_wrap=True)

            yield say

    def _table(self, now_s: float) -> Table:
        table = Table(title=f"{now_s - self.begun_s:5.0f} s   server: {self._server}", title_justify="left")
        table.add_column("device")
        for name in ("played", "samples/s", "selected", "outbox", "version", f"accuracy, last {ROLLING}"):
            table.add_column(name, justify="right")
        for eye in self.eyes:
            beat = eye.beat
            if beat is None:
                table.add_row(eye.stream.name, *["-"] * 6)
                continue
            version = str(beat.model.version) + {"trial": " (trial)", "staged": " (staged)"}.get(beat.model.slot, "")
            table.add_row(
                eye.stream.name,
                f"{eye.done / len(eye.stream.y):.0%}",
                f"{beat.samples_per_s:.0f}",
                str(sum(beat.counts.selected.values())),
                str(beat.outbox.rows),
                version,
                f"{eye.rolling():.1%}" if eye.done else "-",
            )
        return table

    def _line(self, now_s: float) -> str:
        devices = "  ".join(
            f"{eye.stream.name}: v{eye.order[-1]} {eye.rolling():.0%}"
            if eye.order and eye.done
            else f"{eye.stream.name}: -"
            for eye in self.eyes
        )
        played = sum(eye.done for eye in self.eyes) / sum(len(eye.stream.y) for eye in self.eyes)
        selected = sum(sum(eye.beat.counts.selected.values()) for eye in self.eyes if eye.beat)
        at = f"{max(0.0, now_s - self.begun_s):5.0f} s  played {played:4.0%}  selected {selected:5d}"
        return f"{at}  {devices}  server: {self._server}"
