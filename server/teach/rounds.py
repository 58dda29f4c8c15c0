"""When does a round of training begin, and how does it end?

A round begins when it is due (when.py), no other is at it, and no rollout is under way, so that a candidate is always
held against what the fleet runs; what a person asked for waits for none. Where nothing is done without being told
(`[autonomy]`), a round that is due is only proposed. It is a child process (run.py) that shares only the store with us,
from the snapshot to the verdict; there is one at a time, so an unfinished run is its. A run that a dead server left
behind is marked `interrupted`; its labels count as new again.

`tick`, `begin` and `stop` belong to one thread, which must live as long as the child (see server.child).
"""

from __future__ import annotations

import logging
import shutil
import signal
import subprocess
import sys
import threading
from collections import deque

import msgspec
import sqlalchemy as sa

from server import config
from server.child import end, spawn
from server.store import erasures, labels, rollouts, runs, training_orders, versions
from server.store.store import Store
from server.teach import outlook, proposals
from server.teach.gates.verdict import Gate, Verdict
from server.teach.run import CHECKPOINTS
from server.teach.training import Settings
from server.teach.when import Due, Look, due

log = logging.getLogger(__name__)

TERMINATE_S = 1.0  # a child in a long call into native code may not notice in time, and is killed
LAST_LINES = 20
LOOK_MS = 60_000  # less counts a million samples again and again, more begins a round with labels that are gone
PATIENCE = 3  # interrupted rounds in a row, after which what was ordered by hand is not begun again
RETRY_MS = 60_000  # after a round that could not even begin: less fills the log, more leaves a full disk's labels lying


class Teach:
    """Starts rounds, and sees them end."""

    def __init__(
        self,
        store: Store,
        *,
        teach: config.Teach,
        gates: config.Gates,
        autonomy: config.Autonomy = config.Autonomy(),  # noqa: B008 - frozen
        snapshot: config.Snapshot = config.Snapshot(),  # noqa: B008 - frozen
    ) -> None:
        """Nothing happens yet."""
        self._store = store
        self._settings = Settings(teach=teach, gates=gates, snapshot=snapshot)
        self._child: _Child | None = None
        self._retry_ms = 0
        self.trouble = ""
        """Why the last round left no run; empty: it did."""
        self._dialled = [channel for channel, dial in autonomy.dials().items() if dial != "propose"]
        self._seen: tuple[tuple[int, ...], Look] | None = None  # what it follows from, and what was seen

    @property
    def busy(self) -> bool:
        """A round is at it."""
        return self._child is not None

    def recover(self, *, now_ms: int) -> None:
        """Mark what a dead server left unfinished, and wait again for what was ordered; before the first `tick`."""
        self._interrupt(again=True, now_ms=now_ms)

    def tick(self, *, now_ms: int) -> None:
        """See whether the round has ended, and whether one is due."""
        self.watch(now_ms=now_ms)
        if self.busy or now_ms < self._retry_ms or (found := self._due(now_ms)) is None:
            return
        if found.rule == "hand" or self._dialled:
            self.begin(why=found.why)
        else:
            self._propose(found, now_ms)

    def watch(self, *, now_ms: int) -> None:
        """See whether the round has ended."""
        if self._child is not None and self._child.ended():
            self._end(self._child, now_ms)

    def begin(self, *, why: str) -> None:
        """Start a round on all that is labelled; `why` goes into the audit trail, with its run."""
        with self._store.database.read() as connection:
            before = runs.last_id(connection)
        log.info("a round begins, %s", why)
        self._child = _Child(self._store, self._settings, why, after=before)

    def stop(self, *, again: bool = False, now_ms: int) -> None:
        """End a round that is at it; it counts as interrupted. `again`: what was ordered by hand still is."""
        if self._child is None:
            return
        self._child.stop()
        self._child = None
        self._interrupt(again=again, now_ms=now_ms)

    def _interrupt(self, *, again: bool, now_ms: int) -> None:
        self._clear()
        with self._store.database.write() as connection:
            for run in runs.in_state(connection, *runs.UNFINISHED):
                runs.fail(connection, run.id, error=runs.INTERRUPTED, now_ms=now_ms)
                if again and runs.interrupted(connection) < PATIENCE:  # else it may be what brings its machine down
                    training_orders.reopen(connection, run.id)
                log.warning("run %d: was interrupted; its labels count as new", run.id)

    def _clear(self) -> None:
        """Take away the samples that ranks learned from: a round that was killed left them where no erasure looks."""
        from models.launch import FOLDER

        for job in (self._store.folder / CHECKPOINTS).glob(f"*/{FOLDER}"):
            shutil.rmtree(job, ignore_errors=True)

    def _end(self, child: _Child, now_ms: int) -> None:
        self._child = None
        self._clear()
        with self._store.database.write() as connection:
            for run in runs.in_state(connection, *runs.UNFINISHED):  # unless it has said how it ended
                runs.fail(connection, run.id, error=child.error(), now_ms=now_ms)
            made = runs.following(connection, after=child.after)
        self.trouble = "" if made else child.error()
        if made is not None:
            log.info("run %d %s: %s", made.id, made.state, describe(made))
        else:
            self._retry_ms = now_ms + RETRY_MS
            log.warning("no round could begin: %s; tried again in %d s", self.trouble, RETRY_MS // 1000)

    def _due(self, now_ms: int) -> Due | None:
        teach = self._settings.teach
        with self._store.database.read() as connection:
            found = due(teach, self._look(connection, now_ms))
            if found is None or found.rule == "hand":
                return found
            ended = teach.max_rounds and runs.rounds(connection) >= teach.max_rounds
            return None if ended or not teach.enabled or self._rolling_out(connection) else found

    def _look(self, connection: sa.Connection, now_ms: int) -> Look:
        """What the rules see; read again when something that it follows from has changed, and now and then anyway.

        An answer that was taken back, and a device that was left out, leave no new row.
        """
        champion = versions.champion(connection)
        order = training_orders.waiting(connection)
        follows = (
            now_ms // LOOK_MS,
            labels.last_id(connection),
            runs.last_id(connection),
            champion.number if champion else 0,
            erasures.last_id(connection),
            order.id if order else 0,
        )
        if self._seen is None or self._seen[0] != follows:
            self._seen = follows, outlook.look(connection, self._settings.teach, now_ms=now_ms)
        age_days = (now_ms - champion.created_at_ms) / outlook.DAY_MS if champion else 0.0
        return self._seen[1]._replace(age_days=age_days)

    def _rolling_out(self, connection: sa.Connection) -> bool:
        awaited = any(rollouts.awaited(connection, channel) is not None for channel in self._dialled)
        return awaited or rollouts.running(connection) or bool(runs.in_state(connection, "passed"))

    def _propose(self, found: Due, now_ms: int) -> None:
        """Most looks find that it is said already: only then is the right to write asked for."""
        with self._store.database.read() as connection:
            said = proposals.waiting(connection)
        if said is None or said.rule != found.rule:
            with self._store.database.write() as connection:
                text = proposals.propose(connection, found, now_ms=now_ms)
            log.info("%s; winnow-server train begins it", text)


def describe(run: runs.Run) -> str:
    """How a run ended, in one line."""
    report = run.report
    if "verdict" not in report:
        return run.error or ""
    verdict = msgspec.convert(report["verdict"], type=Verdict)
    whole = [gate for gate in verdict.gates if "/" not in gate.name and gate.interval and gate.n]
    shown = [*whole, *(gate for gate in verdict.failed() if gate not in whole)]
    return f"{report['train']} trained on, {report['holdout']} held out; " + "; ".join(map(_describe_gate, shown))


def _describe_gate(gate: Gate) -> str:
    interval = f" [{gate.interval[0]:+.3f}, {gate.interval[1]:+.3f}]" if gate.interval else f" of {gate.limit:g}"
    sign = "+" if gate.interval else ""
    return f"{gate.name} {gate.figure:{sign}.3f}{interval} n={gate.n} {gate.state.replace('_', ' ')}"


class _Child:
    """The process of one round; its run is the first with an id above `after`."""

    def __init__(self, store: Store, settings: Settings, why: str, *, after: int) -> None:
        self.after = after
        command = [
            sys.executable,
            "-m",
            "server.teach.run",
            *store.arguments(),
            f"--why={why}",
        ]  # whatever is said
        command += [f"--settings={msgspec.json.encode(settings).decode()}"]
        self._process = spawn(command, output=subprocess.PIPE, death_signal=signal.SIGKILL)
        self._last: deque[str] = deque(maxlen=LAST_LINES)
        self._reader = threading.Thread(target=self._read, name="round", daemon=True)
        self._reader.start()

    def ended(self) -> bool:
        return self._process.poll() is not None

    def error(self) -> str:
        """What to say of one that did not say how it ended."""
        self._reader.join(TERMINATE_S)
        said = self._last[-1] if self._last else "it said nothing"
        return said if self._process.returncode == 1 else f"ended with {self._process.returncode}: {said}"

    def stop(self) -> None:
        end([self._process], within_s=TERMINATE_S)

    def _read(self) -> None:
        for line in self._process.stdout or ():
            self._last.append(line.decode(errors="replace").rstrip("\n"))
            log.info("round: %s", self._last[-1])
