"""How does the model that the server wants get here?

    desired -> signed? -> manifest -> fits? -> ONNX file -> hash -> golden test -> staged

One `step` at a time, in a thread of its own. What is refused (hash, fit, golden test) is reported once, remembered with
its reason and never tried again; what is only late (network, full disk, signatures that have expired) is tried again.
What nobody vouches for, or is older than what was committed, is turned away: reported as refused, but not remembered.
What the server says that it does not have is let go until the server orders anew. The same order again, as a broker
repeats it on every connect, counts after a rest that doubles, whether it was let go or turned away.
"""

from __future__ import annotations

import contextlib
import logging
import queue
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from edge_agent.contract.artifact import MANIFEST, InputSpec, Manifest, read_artifact
from edge_agent.contract.errors import (
    ArtifactError,
    DowngradeError,
    IncompatibleError,
    SignatureError,
    StaleError,
    UplinkError,
)
from edge_agent.contract.wire import Assignment, BlockHeader, Desired, Fetch, ModelState, Parcel
from edge_agent.update import slots
from edge_agent.update.installed import NOTHING, Detail, Installed, Kind, Report
from edge_agent.update.probation import Figures
from edge_agent.update.trial import CheckStoppedError

if TYPE_CHECKING:
    from edge_agent.update.fetch import ArtifactFetch
    from edge_agent.update.https import Https
    from edge_agent.update.trust import Trust

log = logging.getLogger(__name__)

__all__ = ["Kind", "Updater"]  # what the agent needs

STEP_S = 0.5  # between steps when nothing arrives; bounds how late a silent fetch is noticed
PAUSE_S = 60.0  # after the disk refused
REST_S, REST_MAX_S = 60.0, 3600.0  # after the server had nothing: first, and at most
BLOCKS_WAITING = 64  # 4 MB; a block that finds no room is asked for again
STOP_S = 5.0


class GivenUp(msgspec.Struct, frozen=True):
    """An order that led nowhere through no fault of the version: how often, and until when it rests."""

    order: Desired
    times: int
    until_s: float

    def again(self, now_s: float) -> GivenUp:
        """Once more, with twice the rest."""
        rest_s = min(REST_S * 2.0 ** min(self.times, 10), REST_MAX_S)
        return GivenUp(self.order, self.times + 1, now_s + rest_s)


class Updater(Installed):
    """What is installed, and the thread that brings what is desired, tests it and stages it.

    `needs` may be set whenever the stream's shape becomes known; None: not yet.
    """

    def __init__(
        self,
        folder: Path,
        *,
        variant: str,
        check: Callable[[Path], None],
        needs: InputSpec | None,
        max_starts: int,
        keep_versions: int,
        request: Callable[[Fetch], bool],
        report: Report,
        trust: Trust | None = None,
        https: Callable[[], Https] | None = None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """As `Installed`, whose start it counts; and besides.

        Args:
            folder: `models/` of the device.
            variant: the file of a manifest to run.
            check: golden test of an artifact folder; raises ArtifactError to refuse it.
            needs: shape and dtype of the stream.
            max_starts: of the agent within one trial.
            keep_versions: artifact folders kept.
            request: sends a Fetch; False when it cannot now.
            report: tells the server.
            trust: whom to believe; None: unsigned versions are taken.
            https: makes what fetches from servers that offer files that way; None: blocks come as messages.
            monotonic: clock of the thread, seconds.
        """
        super().__init__(folder, variant=variant, max_starts=max_starts, keep_versions=keep_versions, report=report)
        self.needs = needs
        self._check, self._request, self._monotonic = check, request, monotonic
        self._trust, self._make_https = trust, https
        self._https: Https | None = None  # made when a server first offers files that way
        self._inbox: Desired | None = None
        self._order: Desired | None = None  # the last that was looked at
        self._dropped: GivenUp | None = None
        self._blocks: queue.Queue[tuple[BlockHeader, bytes | memoryview]] = queue.Queue(BLOCKS_WAITING)
        self._assignment: Assignment | None = None
        self._vouched: Assignment | None = None  # the last that was signed
        self._fetch: ArtifactFetch | None = None
        self._pause_until_s = 0.0
        self._complaint = ""  # of the disk, said once
        self._wake, self._stopping = threading.Event(), threading.Event()
        self._thread: threading.Thread | None = None

    def install_first(self, artifact: Path) -> None:
        """Commit a version given by hand, when it is newer than everything here. ArtifactError when it is no good.

        To be called before `start`.
        """
        manifest, onnx = read_artifact(artifact, variant=self.variant)
        version, state = manifest.version, self.slot_state()
        if version <= slots.newest(state):
            self._say_known(artifact, version)
            return
        if version in state.refused:
            log.warning("%s: version %d was refused here: %s", artifact, version, state.refused[version])
            return
        self._fit(manifest)
        data = (artifact / MANIFEST).read_bytes()
        if self._trust is not None:
            self._trust.vouch_by_hand(version, data, artifact)
        self._check(artifact)
        folder = self.shelf.unpack(self.shelf.arrival(version), data, onnx)
        self.adopt(folder, version)

    def _say_known(self, artifact: Path, version: int) -> None:
        """Whoever wrapped another model under the same number would wonder why nothing changes."""
        here = self.shelf.path(version) / MANIFEST
        if here.exists() and here.read_bytes() != (artifact / MANIFEST).read_bytes():
            log.warning("%s: another version %d is here already: give it a higher number", artifact, version)

    def shadow(self) -> Path | None:
        """As `Installed`; but once its signatures have expired, what is staged has to be vouched for anew."""
        return super().shadow() if self._staged_is_fresh() else None

    def take(self, version: int = 0, *, before: Figures | None = None, found: Detail = NOTHING) -> Path | None:
        """As `Installed`; but once its signatures have expired, what is staged has to be vouched for anew."""
        return super().take(version, before=before, found=found) if self._staged_is_fresh() else None

    def _staged_is_fresh(self) -> bool:
        """If not, it is let go, and fetched again with newer signatures."""
        state = self.slot_state()
        if self._trust is None or not isinstance(state, slots.Staged) or self._trust.fresh():
            return True
        text = f"version {state.candidate} was staged, but its signatures have expired since: fetched anew"
        self._report("error", text, state.candidate, {})
        self.unstage_all_but(0)
        return False

    def on_desired(self, desired: Desired) -> None:
        """What the server wants. The same again is a new try, in time."""
        with self._lock:
            self._inbox = desired
        self._wake.set()

    def on_block(self, header: BlockHeader, data: bytes | memoryview) -> None:
        """A block, or the server's word that it has none."""
        if self._fetch is not None:
            try:
                self._blocks.put_nowait((header, data))
            except queue.Full:
                log.debug("block %d found no room: it will be asked for again", header.index)
        self._wake.set()

    def state(self) -> ModelState:
        """For birth and heartbeat: what executes, and what is on its way."""
        state, fetch = super().state(), self._fetch
        if fetch is None:
            return state
        return msgspec.structs.replace(state, fetching=fetch.assignment.version, fetched_share=fetch.share)

    def start(self) -> None:
        """Step in a thread of its own."""
        super().start()
        self._thread = threading.Thread(target=self._run, name="updater", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End the thread; what has been fetched stays. A check that runs is for `check` itself to end."""
        self._stopping.set()
        self._wake.set()
        if self._thread is not None:
            self._thread.join(STOP_S)

    def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                self.step(self._monotonic())
            except Exception:  # the thread must outlive a surprise: the running model does not depend on it
                log.exception("updater: going on in %g s", PAUSE_S)
                self._pause_until_s = self._monotonic() + PAUSE_S
            self._wake.wait(STEP_S)
            self._wake.clear()
        if self._fetch is not None:
            with contextlib.suppress(OSError):  # only costs fetching a few blocks again
                self._fetch.flush()

    def step(self, now_s: float) -> None:
        """Do what can be done now. Waits for nothing but the golden test, and the unpacking of a parcel."""
        self._obey()
        if now_s < self._pause_until_s:
            return
        try:
            self.sweep()
            if self._assignment is not None:
                self._advance(self._assignment, now_s)
        except (UplinkError, StaleError) as error:
            self._let_go(error, now_s)
        except OSError as error:
            self._pause(error, now_s)
        except CheckStoppedError:
            self._fetch = None  # its blocks stay on disk: checked at the next start

    def _obey(self) -> None:
        with self._lock:
            desired, self._inbox = self._inbox, None
        if desired is None:
            return
        if self._dropped is not None and desired != self._dropped.order:
            self._dropped = None
        if desired.model is not None and (self._order is None or desired.model != self._order.model):
            self.readmit(desired.model.version)  # whoever sent the order before is not who sent this one
        self._order, self._assignment = desired, desired.model
        self._pause_until_s, self._complaint = self._dropped.until_s if self._dropped else 0.0, ""
        self.unstage_all_but(desired.model.version if desired.model else 0)
        if desired.model is not None:
            self.call_off(desired.model.version)
        if self._fetch is not None and not self._fetch.assignment.is_for_same(desired.model):
            self._drop()
        elif self._fetch is not None and desired.model and _source(self._fetch.assignment) != _source(desired.model):
            self._fetch.flush()  # its signatures were renewed: the blocks that are here stay
            self._fetch = None

    def _let_go(self, error: UplinkError | StaleError, now_s: float) -> None:
        """The server does not have it, or not fresh. What it orders next is tried; its last order only after a rest."""
        self._fetch = None
        self._rest(now_s)
        if self._dropped is None or self._dropped.times == 1:
            self._report("error", str(error), 0, {})

    def _rest(self, now_s: float) -> None:
        """Do nothing until the server says something; and what it said last counts only after a rest."""
        self._assignment = None
        if self._order is not None:
            self._dropped = (self._dropped or GivenUp(self._order, 0, 0.0)).again(now_s)

    def _advance(self, assignment: Assignment, now_s: float) -> None:
        try:
            if self._fetch is None:
                self._fetch = self._begin(assignment)
            if self._fetch is not None:
                self._proceed(self._fetch, now_s)
        except ArtifactError as error:
            reason = f"{type(error).__name__}: {error}"
            if self._is_to_blame(assignment, error):
                self.refuse(assignment.version, reason)
            else:  # not the version's fault: anybody may have sent this under its number
                self._rest(now_s)
                self.turn_away(assignment.version, reason)
            self._drop()

    def _is_to_blame(self, assignment: Assignment, error: ArtifactError) -> bool:
        if isinstance(error, DowngradeError):  # one that ran here may be the way back from the one that runs
            return False
        return self._trust is None or (self._vouched == assignment and not isinstance(error, SignatureError))

    def _begin(self, assignment: Assignment) -> ArtifactFetch | None:
        """Start to fetch, or resume; None when there is nothing to do now."""
        state, version = self.slot_state(), assignment.version
        answer = slots.may_take(state, version)
        if answer == "downgrade":
            raise DowngradeError(f"version {version} is older than {state.committed}, which was committed here")
        if answer != "yes":
            return None
        from edge_agent.update.fetch import ArtifactFetch  # what is fetched is seldom, and it brings signatures along

        folder = self.shelf.arrival(version)
        vouch = self._vouch if self._trust is not None else None
        return ArtifactFetch(folder, assignment, variant=self.variant, fits=self._fit, cellar=self, vouch=vouch)

    def _vouch(self, assignment: Assignment, bundle: bytes) -> None:
        if self._trust is not None:
            self._trust.vouch(assignment, bundle)
            self._vouched = assignment
            self.readmit(assignment.version)

    # --- the cellar ---

    def file(self, sha256: str) -> Path | None:
        """An ONNX file here that should have that hash."""
        return self.shelf.file(sha256, self.variant)

    def bad_parcels(self) -> list[str]:
        """Hashes of the parcels that failed here."""
        return self.shelf.bad_parcels()

    def give_up(self, parcel: Parcel, reason: str) -> None:
        """Tell, and never try that parcel again."""
        self.shelf.note_bad_parcel(parcel.sha256)
        version = self._assignment.version if self._assignment else 0
        self._report("error", f"{parcel.packing} parcel failed, another way is taken: {reason}", version, {})

    def _proceed(self, fetch: ArtifactFetch, now_s: float) -> None:
        while not self._blocks.empty():
            header, data = self._blocks.get_nowait()
            fetch.take(header, data, now_s)
        if fetch.done:
            self._try_out(fetch)
        elif (wanted := fetch.due(now_s)) is not None:
            self._ask(fetch, wanted, now_s)

    def _ask(self, fetch: ArtifactFetch, wanted: Fetch, now_s: float) -> None:
        url = fetch.assignment.url
        if url and self._https is None and self._make_https is not None:
            self._https = self._make_https()
        if self._https is not None and url and (blocks := self._https.get(url, wanted)):
            fetch.asked(wanted, now_s)
            for header, data in blocks:
                fetch.take(header, data, now_s)
            self._wake.set()  # there is more where this came from
        elif self._request(wanted):
            fetch.asked(wanted, now_s)

    def _fit(self, manifest: Manifest) -> None:
        needs, has = self.needs, manifest.input
        if needs is not None and (needs.shape, needs.dtype) != (has.shape, has.dtype):
            takes, gives = f"takes {has.shape} {has.dtype}", f"the stream gives {needs.shape} {needs.dtype}"
            raise IncompatibleError(f"version {manifest.version} {takes}, {gives}")
        if not manifest.classes:
            raise IncompatibleError(f"version {manifest.version} names no classes, expected at least one")

    def _try_out(self, fetch: ArtifactFetch) -> None:
        folder = self.shelf.unpack(fetch.folder, fetch.manifest, fetch.onnx)
        self._check(folder)
        self._obey()  # the check took its time
        if self._fetch is fetch:
            self.stage(folder, fetch.assignment.version)
            self._drop()

    def _drop(self) -> None:
        """Forget what was on its way, blocks included."""
        self._fetch = None
        if self._https is not None:
            self._https.close()
        while not self._blocks.empty():
            self._blocks.get_nowait()
        self.shelf.clear_arrivals()

    def _pause(self, error: OSError, now_s: float) -> None:
        """The disk is full, or the check could not be started: nobody's fault but this device's. Later."""
        self._fetch = None  # its blocks stay on disk
        self._pause_until_s = now_s + PAUSE_S
        if str(error) != self._complaint:
            self._complaint = str(error)
            version = self._assignment.version if self._assignment else 0
            self._report("error", f"update paused for {PAUSE_S:g} s: {error}", version, {})


def _source(assignment: Assignment) -> tuple[str, str]:
    """Who vouches for it, and where its files are; other parcels are no reason to begin anew."""
    return assignment.trust_sha256, assignment.url
