"""How does an artifact get onto the device, block by block?

Three parts: `Requests` decides what to ask for and when (pure), `Download` keeps one file's blocks on disk so that a
reboot loses at most the last few, and `ArtifactFetch` runs the downloads of an assignment one after the other:
signatures where they are asked for, manifest, ONNX file.

Blocks carry no hash of their own: a wrong one shows when the file is whole, and the file is then fetched once more.
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Callable, Sequence
from pathlib import Path

from edge_agent.contract.artifact import (
    MANIFEST_MAX_BYTES,
    Manifest,
    OnnxFile,
    check_bytes,
    decode_manifest,
    write_durably,
)
from edge_agent.contract.errors import IncompatibleError, IntegrityError, SignatureError, UplinkError
from edge_agent.contract.trust import BUNDLE_MAX_BYTES
from edge_agent.contract.wire import BLOCK_BYTES, Assignment, BlockHeader, Fetch
from edge_agent.update.ways import Cellar, Ways

log = logging.getLogger(__name__)

WINDOW = 8  # blocks in flight: 512 KB. Fewer wait for the round trip; more flood a slow link and the broker's queue
FLUSH_BLOCKS = 16  # 1 MB. Fewer wear the flash out; more are fetched again after a power cut
ATTEMPTS = 2  # whole files: one may be spoilt on the way or on disk; a second one means that the server's is
MODEL_MAX_BYTES = 2**31 - 1  # of an ONNX file with its weights inside: protobuf's own limit

_SHA256 = re.compile(r"[0-9a-f]{64}")


class Requests:
    """Which blocks to ask for, and when.

    At most `window` blocks are in flight, topped up by halves so that a request is worth its message. When nothing
    has arrived for a while, everything missing is asked for again and the wait doubles; an arrival resets it. Silence
    is the measure, not the age of a block: on a slow link blocks come late, but they come.
    """

    def __init__(
        self, *, window: int = WINDOW, first_wait_s: float = 5.0, longest_wait_s: float = 60.0, max_errors: int = 3
    ) -> None:
        self._window, self._max_errors = window, max_errors
        self._first_wait_s, self._longest_wait_s = first_wait_s, longest_wait_s
        self._in_flight: set[int] = set()
        self._wait_s = first_wait_s
        self._again_at_s = 0.0  # when silence counts as loss
        self._not_before_s = 0.0  # set by an error answer
        self._errors = 0  # answers in a row

    def due(self, missing: Sequence[int], now_s: float) -> tuple[int, ...]:
        """What to ask for now, out of `missing` (ascending; twice the window is enough)."""
        if now_s < self._not_before_s:
            return ()
        if self._in_flight and now_s >= self._again_at_s:
            return tuple(missing[: self._window])
        free = self._window - len(self._in_flight)
        if 2 * free < self._window:
            return ()
        return tuple(index for index in missing if index not in self._in_flight)[:free]

    def asked(self, blocks: Sequence[int], now_s: float) -> None:
        """These went out. Apart from `due`, because a request that could not be sent must not count as silence."""
        if not self._in_flight.isdisjoint(blocks):
            self._in_flight.clear()
            self._double()
        self._in_flight.update(blocks)
        self._again_at_s = now_s + self._wait_s

    def arrived(self, index: int, now_s: float) -> None:
        """A block came."""
        self._in_flight.discard(index)
        self._wait_s = self._first_wait_s
        self._again_at_s = now_s + self._wait_s
        self._errors = 0

    def refused(self, now_s: float) -> bool:
        """The server answered that it has none. True when it has said so often enough to believe it.

        A request for many blocks may be answered by one error or by many: they count as one.
        """
        if self._in_flight:
            self._in_flight.clear()
            self._errors += 1
            self._not_before_s = now_s + self._wait_s
            self._double()
        return self._errors >= self._max_errors

    def _double(self) -> None:
        self._wait_s = min(2 * self._wait_s, self._longest_wait_s)


class Download:
    """One file on its way: `<sha256>.part` holds the blocks in place, `<sha256>.blocks` a 1 for each that is there.

    The data is flushed before the record of it, so that a record never speaks of a block that a power cut took.
    """

    def __init__(self, folder: Path, sha256: str, total_bytes: int) -> None:
        if not _SHA256.fullmatch(sha256) or total_bytes < 1:  # the hash becomes a file name
            raise IntegrityError(
                f"file {sha256[:80]!r} of {total_bytes} bytes: expected 64 hex digits and 1 byte or more"
            )
        self.sha256, self.total_bytes = sha256, total_bytes
        self._part, self._record = folder / f"{sha256}.part", folder / f"{sha256}.blocks"
        self._unsaved = 0
        self._have = self._recall()

    def _recall(self) -> bytearray:
        count = -(-self.total_bytes // BLOCK_BYTES)
        try:
            have = bytearray(self._record.read_bytes())
            if len(have) == count and set(have) <= {0, 1} and self._part.stat().st_size == self.total_bytes:
                return have
        except FileNotFoundError:
            pass
        self.discard()
        self._part.parent.mkdir(parents=True, exist_ok=True)
        with open(self._part, "wb") as file:
            file.truncate(self.total_bytes)
        return bytearray(count)

    @property
    def complete(self) -> bool:
        """Every block is there (and not yet checked)."""
        return 0 not in self._have

    @property
    def share(self) -> float:
        """Of the blocks, 0..1."""
        return sum(self._have) / len(self._have)

    def missing(self, limit: int) -> tuple[int, ...]:
        """The first `limit` blocks that are not there."""
        found: list[int] = []
        index = self._have.find(0)
        while index >= 0 and len(found) < limit:
            found.append(index)
            index = self._have.find(0, index + 1)
        return tuple(found)

    def accept(self, index: int, data: bytes | memoryview) -> bool:
        """Keep a block; False when it is there already or is no block of this file. OSError when the disk will not."""
        if not 0 <= index < len(self._have) or self._have[index]:
            return False
        if len(data) != min(BLOCK_BYTES, self.total_bytes - index * BLOCK_BYTES):
            return False
        with open(self._part, "r+b") as file:
            file.seek(index * BLOCK_BYTES)
            file.write(data)
        self._have[index] = 1
        self._unsaved += 1
        if self._unsaved >= FLUSH_BLOCKS or self.complete:
            self.flush()
        return True

    def flush(self) -> None:
        """Make what has been accepted survive a power cut."""
        if self._unsaved:
            with open(self._part, "r+b") as file:
                os.fsync(file.fileno())
            write_durably(self._record, bytes(self._have))
            self._unsaved = 0

    def finish(self) -> bytes:
        """The whole file. IntegrityError when it is not the promised one: it is then to be fetched anew."""
        data = self._part.read_bytes()
        try:
            check_bytes(data, OnnxFile(sha256=self.sha256, bytes=self.total_bytes), where="fetched file")
        except IntegrityError:
            self.discard()
            self._have = self._recall()
            raise
        return data

    def discard(self) -> None:
        """Forget every block."""
        self._record.unlink(missing_ok=True)
        self._part.unlink(missing_ok=True)
        self._unsaved = 0


class ArtifactFetch:
    """The files of one assignment, one after the other: the manifest, and the ONNX file that it names, by its ways.

    With `vouch` the signatures come first, and nothing else is asked for until it has returned.

    ArtifactError from any method means that the version is to be refused; SignatureError, that nobody vouches for what
    was sent under its number; UplinkError, that the server does not have it now; OSError, that the disk will not. A
    parcel that fails is none of these: the next way is taken.
    """

    def __init__(
        self,
        folder: Path,
        assignment: Assignment,
        *,
        variant: str,
        fits: Callable[[Manifest], None],
        cellar: Cellar,
        vouch: Callable[[Assignment, bytes], None] | None = None,
    ) -> None:
        if assignment.manifest_bytes > MANIFEST_MAX_BYTES:
            raise IncompatibleError(f"manifest of {assignment.manifest_bytes} bytes, at most {MANIFEST_MAX_BYTES}")
        self.assignment = assignment
        self.folder = folder
        self.manifest = b""
        self.onnx = b""
        self._variant, self._fits, self._cellar, self._vouch = variant, fits, cellar, vouch
        self._vouching = vouch is not None
        self._ways: Ways | None = None  # of the ONNX file; None while the manifest is on its way
        self._current: Download
        if self._vouching:
            self._follow_signatures()
        else:
            self._follow(assignment.manifest_sha256, assignment.manifest_bytes)

    def _follow_signatures(self) -> None:
        version, sha256, total_bytes = (
            self.assignment.version,
            self.assignment.trust_sha256,
            self.assignment.trust_bytes,
        )
        if not sha256:
            raise SignatureError(f"version {version} is not signed, and [update] trust asks for it")
        if not _SHA256.fullmatch(sha256) or not 1 <= total_bytes <= BUNDLE_MAX_BYTES:
            raise SignatureError(f"version {version}: signatures {sha256[:80]!r} of {total_bytes} bytes")
        self._follow(sha256, total_bytes)

    def _follow(self, sha256: str, total_bytes: int) -> None:
        self._current = Download(self.folder, sha256, total_bytes)
        self._requests = Requests()
        self._spoilt = 0
        self._settle()

    @property
    def done(self) -> bool:
        """`manifest` and `onnx` hold the checked bytes."""
        return bool(self.onnx)

    @property
    def share(self) -> float:
        """Of the ONNX file, or of its parcel; the manifest is small."""
        return self._current.share if self.manifest else 0.0

    def due(self, now_s: float) -> Fetch | None:
        """What to ask the server for now."""
        blocks = self._requests.due(self._current.missing(2 * WINDOW), now_s)
        return Fetch(sha256=self._current.sha256, blocks=blocks) if blocks else None

    def asked(self, fetch: Fetch, now_s: float) -> None:
        """The request went out."""
        self._requests.asked(fetch.blocks, now_s)

    def take(self, header: BlockHeader, data: bytes | memoryview, now_s: float) -> None:
        """Take an answer, whatever it is; one for another file is ignored."""
        if header.sha256 != self._current.sha256 or self.done:
            return
        if header.error or header.total_bytes != self._current.total_bytes:
            self._refused(header, now_s)
        elif self._current.accept(header.index, data):
            self._requests.arrived(header.index, now_s)
            self._settle()

    def _refused(self, header: BlockHeader, now_s: float) -> None:
        if self._requests.refused(now_s):
            said = header.error[:200] or f"{header.total_bytes} bytes, expected {self._current.total_bytes}"
            text = f"file {header.sha256[:12]}...: the server says: {said}"
            self._otherwise(UplinkError(f"version {self.assignment.version}: {text}"))

    def _settle(self) -> None:
        """Go on to the next file when the current one is whole."""
        if not self._current.complete:
            return
        try:
            data = self._current.finish()
        except IntegrityError as error:
            self._spoil(error)
            return
        if self._vouching and self._vouch is not None:
            self._vouch(self.assignment, data)
            self._vouching = False
            self._follow(self.assignment.manifest_sha256, self.assignment.manifest_bytes)
            return
        if self._ways is None:
            self.manifest = data
            self._read_manifest()
            return
        try:
            self.onnx = self._ways.arrived(data)
        except IntegrityError as error:
            self._current.discard()
            self._otherwise(error)

    def _spoil(self, error: IntegrityError) -> None:
        self._spoilt += 1
        if self._spoilt >= ATTEMPTS:
            self._otherwise(error)
        else:
            log.warning("version %d: %s: fetching it again", self.assignment.version, error)
            self._requests = Requests()

    def _otherwise(self, error: IntegrityError | UplinkError) -> None:
        """Take the next way to the file; without one, what happened is the end of it."""
        if self._ways is None or not self._ways.give_up(str(error)):
            if self._vouch is not None and isinstance(error, IntegrityError):
                # The right bytes are known by their signature: these are the carrier's fault, not the version's.
                raise SignatureError(f"version {self.assignment.version}: {error}") from error
            raise error
        self._set_out(self._ways)

    def _set_out(self, ways: Ways) -> None:
        wanted = ways.next()
        try:
            self._follow(wanted.sha256, wanted.bytes)
        except IntegrityError as error:
            self._otherwise(error)

    def _read_manifest(self) -> None:
        manifest = decode_manifest(self.manifest, where=f"manifest of version {self.assignment.version}")
        if manifest.version != self.assignment.version:
            raise IncompatibleError(f"the manifest says version {manifest.version}, assigned {self.assignment.version}")
        self._fits(manifest)
        file = manifest.variant(self._variant)
        if file.bytes > MODEL_MAX_BYTES:
            raise IncompatibleError(f"model of {file.bytes} bytes, at most {MODEL_MAX_BYTES}")
        self._ways = Ways(file, self.assignment.parcels, self._cellar)
        self.onnx = self._ways.here()
        if not self.done:
            self._set_out(self._ways)

    def flush(self) -> None:
        """Make the blocks so far survive a power cut."""
        self._current.flush()
