"""The power may go between any two steps on the disk: which model runs at the next start?

Every call of the updater's and the agent's side is recorded on real files: before each flush, rename, removal and new
folder the whole folder is noted as a power cut would leave it then. Renames and removals reach a disk in order (ext4,
xfs and f2fs journal them so), but what was written into a file and not flushed is lost: such a file is empty, or half.
The next start is tried on each of these, and the walk goes on from one of them.
"""

from __future__ import annotations

import os
import random
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import hypothesis.strategies as st
from hypothesis import Phase, settings
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule
from test_updater import Device, Server

from edge_agent.contract.artifact import read_artifact
from edge_agent.contract.errors import IncompatibleError
from edge_agent.update import slots
from edge_agent.update.probation import Commit, Figures, Revert
from edge_agent.update.slots import Staged, Trial

STEPS = ("fsync", "rename", "replace", "unlink", "rmdir", "mkdir")
MEMORY = "/dev/shm"
VERSIONS = st.integers(1, 6)
BEFORE = Figures(samples=900, latency_p95_ms=4.0, confidence=0.8, confidence_error=0.01, expected=0.9)

Image = dict[str, bytes | None]  # path -> content; None: a folder


class Disk:
    """A folder, and what a power cut before each step would have left of it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.images: list[Image] = []
        self._flushed: dict[int, bytes] = {}  # inode -> content
        self._rng = random.Random(0)

    def image(self) -> Image:
        found: Image = {}
        for path in sorted(self.folder.rglob("*")):
            name = str(path.relative_to(self.folder))
            if path.is_dir():
                found[name] = None
                continue
            data = path.read_bytes()
            whole = self._flushed.get(path.stat().st_ino) == data
            found[name] = data if whole else data[: self._rng.choice((0, len(data) // 2))]
        return found

    def _note(self) -> None:
        image = self.image()
        if not self.images or image != self.images[-1]:
            self.images.append(image)

    @contextmanager
    def recording(self) -> Iterator[None]:
        """Note the images before every step, and the last."""
        real = {name: getattr(os, name) for name in STEPS}
        self.images = []

        def stepping(name: str) -> Callable[..., object]:
            def step(*arguments: object, **options: object) -> object:
                self._note()
                result = real[name](*arguments, **options)
                if name == "fsync" and (path := Path(f"/proc/self/fd/{arguments[0]}").readlink()).is_file():
                    self._flushed[path.stat().st_ino] = path.read_bytes()
                return result

            return step

        for name in STEPS:
            setattr(os, name, stepping(name))
        try:
            yield
        finally:
            for name in STEPS:
                setattr(os, name, real[name])
            self._note()

    def cut(self, image: Image, folder: Path) -> Disk:
        """A disk as that image says."""
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        left = Disk(folder)
        for name, data in image.items():
            path = folder / name
            if data is None:
                path.mkdir()
            else:
                path.write_bytes(data)
                left._flushed[path.stat().st_ino] = data
        return left


def _but_arrivals(image: Image) -> tuple[tuple[str, bytes | None], ...]:
    return tuple((name, data) for name, data in image.items() if not name.startswith("incoming/"))


class Cuts(RuleBasedStateMachine):
    """Any server and any models; after each call, a start from every image that a power cut could have left."""

    def __init__(self) -> None:
        super().__init__()
        self.room = Path(tempfile.mkdtemp(dir=MEMORY if os.access(MEMORY, os.W_OK) else None))
        self._real_fsync, os.fsync = os.fsync, lambda _: None  # what it is for is played here
        self.server = Server()
        self.disk = Disk(self.room / "models")
        self.verified: set[int] = set()  # passed the golden test on this device
        self.committed = {0}
        self.refused: set[int] = set()  # never to run again
        self.certain: set[int] = set()  # those that were so before the last call
        self.checks_fail = False
        self.starts = 0
        with self.disk.recording():
            self.device = self.boot(self.disk)

    def teardown(self) -> None:
        os.fsync = self._real_fsync
        shutil.rmtree(self.room)

    def boot(self, disk: Disk) -> Device:
        device = Device(disk.folder, self.server, keep_versions=2)
        device.updater._check = self.check
        return device

    def check(self, folder: Path) -> None:
        version = read_artifact(folder)[0].version
        if self.checks_fail:
            raise IncompatibleError("golden")
        self.verified.add(version)

    @property
    def state(self) -> slots.State:
        return self.device.slots

    def act(self, call: Callable[[], object]) -> None:
        """Do it, and hold every start that a power cut meanwhile could have led to against what is allowed."""
        before, refused = self.state, self.refused
        self.certain = refused
        with self.disk.recording():
            call()
        self.committed.add(self.state.committed)
        allowed = {before.committed, slots.running(before), self.state.committed, slots.running(self.state)}
        # Blocks on their way decide nothing: of images that differ in them alone, one stands for all.
        for image in {_but_arrivals(image): image for image in self.disk.images}.values():
            self.starts += 1
            started = self.boot(self.disk.cut(image, self.room / "tried"))
            self.hold(started, allowed=allowed, refused=refused)
        told = {
            version
            for kind, version, text in self.device.reports
            if kind in ("refused", "revert") and not text.startswith("DowngradeError")  # that is found out anew
        }
        assert told <= self.state.refused.keys()
        self.refused = set(self.state.refused)

    def hold(self, started: Device, *, allowed: set[int], refused: set[int]) -> None:
        state, runs = started.slots, started.updater.state().version
        assert runs == slots.running(state)  # exactly one, and the one that is written down
        # A device without a model takes what it finds, if that passed its golden test.
        assert runs in (allowed | self.verified if 0 in allowed else allowed)
        assert runs in self.committed | self.verified
        assert runs not in refused
        assert refused <= state.refused.keys()
        for version in {state.committed, slots.newest(state)} - {0}:
            read_artifact(started.updater.shelf.path(version))  # whole: it can be run, or gone back to
        if runs:
            folder = started.updater.running_folder()
            assert folder is not None
            manifest, onnx = read_artifact(folder)
            assert onnx == self.server.files[manifest.files["cpu-int8"].sha256]

    # --- the server ---

    @rule(version=VERSIONS, fails=st.integers(0, 4))
    def assign(self, version: int, fails: int) -> None:
        assignment = self.server.publish(version, blocks=1)
        self.checks_fail = fails == 0
        self.device.assign(assignment)
        self.act(lambda: self.device.run(8))

    @rule()
    def withdraw(self) -> None:
        self.device.assign(None)
        self.act(lambda: self.device.run(1))

    # --- the agent ---

    @precondition(lambda self: isinstance(self.state, Staged))
    @rule()
    def shadow(self) -> None:
        self.act(self.device.updater.shadow)

    @precondition(lambda self: isinstance(self.state, Staged))
    @rule()
    def refuse(self) -> None:
        self.act(lambda: self.device.updater.refuse(self.state.candidate, "late"))

    @precondition(lambda self: isinstance(self.state, Staged))
    @rule()
    def take(self) -> None:
        self.act(lambda: self.device.updater.take(self.state.candidate, before=BEFORE))

    @precondition(lambda self: isinstance(self.state, Trial))
    @rule()
    def fail(self) -> None:
        self.act(lambda: self.device.updater.failed(self.state.candidate, "cannot be loaded"))

    @precondition(lambda self: isinstance(self.state, Trial))
    @rule(good=st.booleans())
    def judge(self, good: bool) -> None:
        self.device.updater.executing(slots.running(self.state))
        self.act(lambda: self.device.updater.judge(Commit() if good else Revert("bad")))

    @rule()
    def sweep(self) -> None:
        self.device.updater.executing(slots.running(self.state))
        self.act(lambda: self.device.run(1))

    @rule(when=st.floats(0.0, 1.0, exclude_max=True))
    def power_cut(self, when: float) -> None:
        """The walk goes on from any image of the last call."""
        image = self.disk.images[int(when * len(self.disk.images))]
        before, certain = self.state, self.certain
        folder = self.room / f"models-{self.starts}"
        self.starts += 1
        self.disk = self.disk.cut(image, folder)
        with self.disk.recording():
            self.device = self.boot(self.disk)
        assert certain <= self.state.refused.keys()
        assert self.state.committed in self.committed | {before.committed} | self.verified
        self.committed.add(self.state.committed)
        self.refused = self.certain = set(self.state.refused)


if sys.version_info >= (3, 11):  # an older pathlib holds on to os's functions: its steps would not be seen
    Cuts.TestCase.settings = settings(
        max_examples=80,
        stateful_step_count=20,
        deadline=None,
        derandomize=True,
        phases=[Phase.generate],  # to make a failure smaller takes minutes
    )
    test_power_cuts = Cuts.TestCase
