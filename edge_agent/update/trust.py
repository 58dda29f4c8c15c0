"""Whom does this device believe, and what time does it take it to be?

It believes the root metadata that came with its enrolment (`[update] trust`), and whom that names. What was checked
last is kept in `trust.json`, one durable file: nothing older is believed again, and no time before it.

A Pi without a battery wakes up in 1970. Trusted time is therefore the latest of four: the clock, the day this program
was built, what the last checked metadata says, and the trusted time of that check. The last is never ahead of what a
trusted key still called valid, so that a clock that ran in 2036 for an hour locks nothing up once it is right again.

Out of date is not wrong: metadata that has expired keeps the device from *switching* until newer comes. What runs goes
on. What is not vouched for is never remembered against a version: or whoever can write to the broker could use up the
numbers of versions to come.

python-tuf is loaded by a process that ends after the check: an agent at work holds none of it.

    python -m edge_agent.update.trust QUESTION     exits 3 with a JSON line when the answer is no
"""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec

from edge_agent.contract.artifact import sha256_hex, write_durably
from edge_agent.contract.errors import ConfigError, EdgeError, IncompatibleError, SignatureError
from edge_agent.contract.trust import BUNDLE, Bundle, Claim, decode_bundle, lasts, signed_ms, vouch
from edge_agent.contract.wire import Assignment
from edge_agent.update.trial import EXIT_REFUSED

log = logging.getLogger(__name__)

BUILT_MS = 1_795_651_200_000  # 2026-11-26, moved on with each release. Too late, and fresh signatures look expired
STATE = "trust.json"


class Seen(msgspec.Struct, frozen=True, kw_only=True):
    """What was checked last, as `trust.json` keeps it. Times are ms since 1970."""

    bundle: Bundle
    floor_ms: int  # trusted time of the check
    expires_ms: int  # the first of the bundle's metadata


def trusted_ms(clock_ms: int, *, signed_ms: int = 0, floor_ms: int = 0, built_ms: int = BUILT_MS) -> int:
    """The time to hold expiry against, ms since 1970: it can be too early, but never by more than was known before.

    Args:
        clock_ms: what this device's clock says, right or wrong.
        signed_ms: when the last checked timestamp was signed.
        floor_ms: trusted time of the last check.
        built_ms: when this program was.

    >>> trusted_ms(0, built_ms=2000), trusted_ms(0, signed_ms=3000, built_ms=2000)
    (2000, 3000)
    """
    return max(clock_ms, built_ms, signed_ms, floor_ms)


class Question(msgspec.Struct, frozen=True, kw_only=True):
    """What the check is asked, as its one argument."""

    anchor: str  # path of the trusted root
    state: str  # path of trust.json
    bundle: str  # path of what came
    claim: Claim
    clock_ms: int | None  # None: given by hand, whose age nobody asks, and nothing is kept of it


def answer(question: Question) -> None:
    """Check, and keep what was found. SignatureError and StaleError as `vouch`."""
    anchor, state = Path(question.anchor).read_bytes(), Path(question.state)
    bundle, seen = decode_bundle(Path(question.bundle).read_bytes()), load(state)
    if question.clock_ms is None:
        old = msgspec.structs.replace(bundle, roots=seen.bundle.roots) if seen else None  # keys that were replaced
        vouch(bundle, question.claim, anchor=anchor, now_ms=signed_ms(bundle), seen=old)
        return
    now_ms = trusted_ms(question.clock_ms)
    if seen is not None and lasts(seen.bundle, bundle, anchor=anchor):
        now_ms = trusted_ms(question.clock_ms, signed_ms=signed_ms(seen.bundle), floor_ms=seen.floor_ms)
    found = vouch(bundle, question.claim, anchor=anchor, now_ms=now_ms, seen=seen.bundle if seen else None)
    kept = Seen(bundle=found.bundle, floor_ms=max(now_ms, found.signed_ms), expires_ms=found.expires_ms)
    write_durably(state, msgspec.json.encode(kept))


def load(state: Path) -> Seen | None:
    """What was checked last; None when nothing was, or it cannot be read: then the root alone counts again."""
    try:
        return msgspec.json.decode(state.read_bytes(), type=Seen)
    except FileNotFoundError:
        return None
    except (msgspec.DecodeError, ValueError, RecursionError) as error:
        log.warning("%s cannot be read (%s): going by the trusted root alone", state, error)
        return None


class Trust:
    """The agent's side: asks in a process of its own."""

    def __init__(
        self,
        folder: Path,
        *,
        anchor: Path,
        ask: Callable[[Sequence[str]], None],
        clock_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
    ) -> None:
        """ConfigError when there is no root to trust.

        Args:
            folder: where `trust.json` and what is being checked lie.
            anchor: file with the root metadata.
            ask: runs a program as `trial.run_check` does, with its errors.
            clock_ms: this device's clock.
        """
        self._folder, self._anchor, self._ask, self._clock_ms = folder, anchor, ask, clock_ms
        check_anchor(anchor)

    def vouch(self, assignment: Assignment, bundle: bytes) -> None:
        """SignatureError or StaleError unless `bundle` vouches for it. OSError, CheckStoppedError: not known yet."""
        claim = Claim(
            version=assignment.version,
            manifest_sha256=assignment.manifest_sha256,
            manifest_bytes=assignment.manifest_bytes,
        )
        self._put(bundle, claim, clock_ms=self._clock_ms())

    def vouch_by_hand(self, version: int, manifest: bytes, artifact: Path) -> None:
        """The same for an artifact that somebody put on this device. Whoever can do that need not prove its age."""
        bundle = artifact / BUNDLE
        try:
            data = bundle.read_bytes()
        except OSError as error:
            raise SignatureError(
                f"{bundle}: {error.strerror}: expected signatures there, as `winnow-server model export` writes them"
            ) from error
        claim = Claim(version=version, manifest_sha256=sha256_hex(manifest), manifest_bytes=len(manifest))
        self._put(data, claim, clock_ms=None)

    def fresh(self) -> bool:
        """Whether what was checked last is still in force: if not, nothing may be switched to."""
        seen = load(self._folder / STATE)
        if seen is None:
            return False
        return trusted_ms(self._clock_ms(), floor_ms=seen.floor_ms) < seen.expires_ms

    def _put(self, bundle: bytes, claim: Claim, *, clock_ms: int | None) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        path = self._folder / "asked.json"
        path.write_bytes(bundle)
        question = Question(
            anchor=str(self._anchor),
            state=str(self._folder / STATE),
            bundle=str(path),
            claim=claim,
            clock_ms=clock_ms,
        )
        try:
            self._ask([sys.executable, "-m", "edge_agent.update.trust", msgspec.json.encode(question).decode()])
        except IncompatibleError as error:  # killed, out of memory, out of time: it says nothing of the version
            raise SignatureError(f"version {claim.version}: its signatures could not be checked: {error}") from error
        finally:
            path.unlink(missing_ok=True)


class _Root(msgspec.Struct, tag_field="_type", tag="root"):
    version: int


class _Anchor(msgspec.Struct):
    signed: _Root


def check_anchor(path: Path) -> int:
    """The version of a root metadata file; ConfigError when it is none. Its signatures are python-tuf's to check."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=_Anchor).signed.version
    except OSError as error:
        raise ConfigError(f"[update] trust: {path}: {error.strerror}: expected the fleet's root.json") from error
    except (msgspec.DecodeError, ValueError, RecursionError) as error:
        raise ConfigError(f"[update] trust: {path}: {error}: expected the fleet's root.json") from error


def main(argv: list[str]) -> int:
    """Answer one question."""
    try:
        answer(msgspec.json.decode(argv[0], type=Question))
    except EdgeError as error:
        line = msgspec.json.encode({"error": type(error).__name__, "message": str(error)}).decode()
        sys.stdout.write(line + "\n")
        return EXIT_REFUSED
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
