"""Which models are here, which one runs, and how does the agent change that?

    start:   while folder := running_folder(): load it, else failed(version, why); then executing(version)
    shadow:  shadow() -> folder: load it, else failed(version, why); refuse(version, why) when it does badly
    switch:  take(version) -> folder: load it, else failed(version, why); then executing(version)
    trial:   judge(verdict); after a revert, running_folder() is the old one

Always true: what runs goes on until something better has proved itself, and every change is on disk before it is
acted on.
"""

from __future__ import annotations

import logging
import math
import threading
from pathlib import Path
from typing import Literal, Protocol

from edge_agent.contract.errors import ArtifactError
from edge_agent.contract.wire import ModelState, Slot
from edge_agent.update import slots
from edge_agent.update.probation import Commit, Figures, Revert, Verdict
from edge_agent.update.shelf import Shelf
from edge_agent.update.slot_file import SlotFile

log = logging.getLogger(__name__)

REFUSALS_TOLD = 20  # newest ones in a heartbeat, whose size is limited

Kind = Literal["refused", "staged", "trial", "commit", "revert", "error"]
Detail = dict[str, str | int | float]
NOTHING: Detail = {}


class Report(Protocol):
    """Tell the server, in the background. Called from the agent's and the updater's thread, no lock held."""

    def __call__(self, kind: Kind, text: str, version: int, detail: Detail) -> None:
        """`kind`, `text` and `detail` as in an Event."""


class Installed:
    """The slots and the artifact folders of a device. Every method may be called from any thread."""

    def __init__(self, folder: Path, *, variant: str, max_starts: int, keep_versions: int, report: Report) -> None:
        """Building one counts as a start of the agent: a trial that saw too many of them is reverted here.

        Nothing is reported before `start`: who builds this may still be building what reports.

        Args:
            folder: `models/` of the device.
            variant: the file of a manifest to run.
            max_starts: of the agent within one trial.
            keep_versions: artifact folders kept.
            report: tells the server.
        """
        self.shelf = Shelf(folder)
        self.variant = variant
        self._keep_versions, self._report = keep_versions, report
        self._file = SlotFile(folder / "slots.json")
        self._lock = threading.RLock()  # held while the slots are written down
        self._executing = 0
        self._sha256 = (0, "")  # of the version named
        self._turned_away: dict[int, str] = {}  # versions that nobody vouched for -> why; of this run
        self._slots = self._file.load()
        self._swept: tuple[slots.State, int] | None = None  # the state for which old folders were deleted
        self._given_up: tuple[Kind, int] | None = None  # a version, by too many starts; not reported yet
        self._tried = 0, 0.0  # samples that the version on trial has seen, and how far that is
        self._shadowed: Detail = NOTHING  # what the shadow found, to be told when the trial goes on live
        self._recall(max_starts)

    def _recall(self, max_starts: int) -> None:
        before = self._slots
        if isinstance(before, slots.Steady) and before.committed == 0:
            before = slots.adopt(before, self._newest_usable(before))
        self._save(slots.started(before, max_starts))
        for version in self._slots.refused.keys() - before.refused.keys():
            self._given_up = ("revert" if slots.running(before) == version else "refused", version)

    def _save(self, state: slots.State) -> None:
        if state != self._slots:
            self._file.save(state)
            self._slots = state

    def _newest_usable(self, state: slots.State, *, below: float = math.inf) -> int:
        """The newest version on disk that was not refused; 0 when there is none."""
        return next((v for v in self.shelf.versions() if v < below and v not in state.refused), 0)

    # --- the agent's side ---

    def running_folder(self) -> Path | None:
        """What to load at the start, and after a revert; None when there is no model."""
        version = slots.running(self._slots)
        return self.shelf.path(version) if version else None

    def shadow(self) -> Path | None:
        """The staged artifact, to be loaded beside the one that runs; None when nothing is staged. May be asked again.

        Starts of the agent count from now on: loading may kill it.
        """
        with self._lock:
            before = self._slots
            if not isinstance(before, slots.Staged):
                return None
            after = slots.shadow(before)
            self._save(after)
        if after != before:
            version, self._tried = after.candidate, (0, 0.0)
            text = f"version {version} runs in the shadow of version {after.committed}"
            self._report("trial", text, version, {"phase": "shadow"})
        return self.shelf.path(after.candidate)

    def take(self, version: int = 0, *, before: Figures | None = None, found: Detail = NOTHING) -> Path | None:
        """Hand a staged artifact over, once, to be loaded and run. Its trial begins now: loading may kill the agent.

        Args:
            version: the one that is meant, 0 for any; None is returned when another is staged by now.
            before: how the version that gives way does.
            found: what the shadow found, told with the trial.
        """
        with self._lock:
            if not isinstance(self._slots, slots.Staged) or version not in (0, self._slots.candidate):
                return None
            self._save(slots.begin(self._slots, before))
            self._shadowed, self._tried = found, (0, 0.0)
            return self.running_folder()

    def executing(self, version: int) -> None:
        """The loop runs `version` now: at the start, after a switch, after going back. May be said again and again."""
        with self._lock:
            changed, self._executing = version != self._executing, version
        if changed and self.on_trial(version):
            self._report("trial", f"version {version} runs on probation", version, {"phase": "live", **self._shadowed})

    def progress(self, samples: int, share: float) -> None:
        """The version on trial has seen so many, which is that share of its shadow or probation."""
        self._tried = samples, share

    def failed(self, version: int, reason: str) -> None:
        """`version` could not be loaded: refused. A committed one makes way for an older one, and is fetched anew."""
        with self._lock:
            lost = version == self._slots.committed
            if lost:
                older = self._newest_usable(self._slots, below=version)
                self._save(slots.lost(self._slots, older))
        if lost:
            self._report("error", f"going back to version {older or 'none'}: {reason}", version, {})
        else:
            self.refuse(version, reason)

    def judge(self, verdict: Verdict, found: Detail = NOTHING) -> None:
        """End the trial of the version that executes, or let it go on. A late verdict changes nothing.

        `found`: the figures it rests on, told with it.
        """
        with self._lock:
            if not isinstance(self._slots, slots.Trial) or self._slots.candidate != self._executing:
                return
            version = self._slots.candidate
            if isinstance(verdict, Commit):
                self._save(slots.commit(self._slots))
            elif isinstance(verdict, Revert):
                self._save(slots.revert(self._slots, verdict.reason))
        if isinstance(verdict, Commit):
            self._report("commit", f"version {version} proved itself", version, found)
        elif isinstance(verdict, Revert):
            self._report("revert", verdict.reason, version, found)

    def state(self) -> ModelState:
        """For birth and heartbeat: what executes, not what should."""
        with self._lock:
            state, refused = self._slots, self._turned_away | self._slots.refused
            trying = not isinstance(state, slots.Steady) and state.starts is not None
            tried, share = self._tried if trying else (0, 0.0)
            return ModelState(
                version=self._executing,
                sha256=self._executing_sha256(),
                slot=self._slot(),
                refused={version: refused[version] for version in sorted(refused)[-REFUSALS_TOLD:]},
                trying=slots.newest(state) if trying else 0,
                tried=tried,
                tried_share=share,
            )

    def _slot(self) -> Slot:
        """As seen from outside: a trial is one while the loop runs it."""
        if self._executing == 0:
            return "none"
        if self._executing != self._slots.committed:
            return "trial"
        return "steady" if isinstance(self._slots, slots.Steady) else "staged"

    def _executing_sha256(self) -> str:
        if self._sha256[0] != self._executing:
            try:
                self._sha256 = (self._executing, self.shelf.model_sha256(self._executing, self.variant))
            except ArtifactError:  # nothing runs, or its folder was deleted
                return ""
        return self._sha256[1]

    # --- the updater's side ---

    def start(self) -> None:
        """Report what building this found."""
        if self._given_up is not None:
            (kind, version), self._given_up = self._given_up, None
            self._report(kind, self._slots.refused[version], version, {})

    def on_trial(self, version: int) -> bool:
        """Whether `version` is the one that runs on probation."""
        state = self._slots
        return isinstance(state, slots.Trial) and state.candidate == version

    def slot_state(self) -> slots.State:
        """The state now, for `slots.may_take`."""
        return self._slots

    def adopt(self, artifact: Path, version: int) -> None:
        """Commit an unpacked, tested artifact that was given by hand."""
        with self._lock:
            self.shelf.admit(artifact, version)
            self._save(slots.adopt(self._slots, version))

    def stage(self, artifact: Path, version: int) -> None:
        """Let an unpacked, tested artifact wait for its trial."""
        with self._lock:
            if isinstance(self._slots, slots.Trial) or slots.may_take(self._slots, version) != "yes":
                return  # the agent changed something meanwhile; the assignment is looked at anew
            self.shelf.admit(artifact, version)
            self._save(slots.stage(self._slots, version))
        self._report("staged", f"version {version} passed its golden test", version, {})

    def unstage_all_but(self, version: int) -> None:
        """What is staged is no longer wanted, unless it is `version`."""
        with self._lock:
            if isinstance(self._slots, slots.Staged) and self._slots.candidate != version:
                self._save(slots.unstage(self._slots))

    def call_off(self, version: int) -> None:
        """`version` is wanted: what is on trial instead is let go, for a slow stream may try it for days.

        Not by an order from before the committed version, nor where there is nothing to go back to.
        """
        with self._lock:
            state = self._slots
            if not isinstance(state, slots.Trial) or not 0 < state.committed <= version != state.candidate:
                return
            self._save(slots.unstage(state))
        text = f"version {version} is wanted instead: back to version {state.committed}"
        self._report("revert", text, state.candidate, {})

    def refuse(self, version: int, reason: str, found: Detail = NOTHING) -> None:
        """Report it, remember it, never run it."""
        with self._lock:
            self._save(slots.refuse(self._slots, version, reason))
        self._report("refused", reason, version, found)

    def turn_away(self, version: int, reason: str) -> None:
        """Report it as refused until somebody vouches for it, or orders it otherwise; a restart forgets it."""
        with self._lock:
            known, self._turned_away[version] = self._turned_away.get(version), reason
            for oldest in sorted(self._turned_away)[:-REFUSALS_TOLD]:
                del self._turned_away[oldest]
        if reason != known:
            self._report("refused", reason, version, {})

    def readmit(self, version: int) -> None:
        """Somebody vouches for it now, or another order is to be looked at."""
        with self._lock:
            self._turned_away.pop(version, None)

    def sweep(self) -> None:
        """Delete the folders that are not needed any more."""
        with self._lock:
            state, executing = self._slots, self._executing
            if (state, executing) != self._swept:
                needed = {state.committed, slots.newest(state), executing}
                self.shelf.sweep(needed=needed, useless=state.refused, keep=self._keep_versions)
                self._swept = (state, executing)
