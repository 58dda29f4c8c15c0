"""What does a device say of itself?

Pure: a message in, a word out. What is decoded is held against what may be stored and added up.
"""

from __future__ import annotations

import re
from functools import lru_cache

import msgspec

from edge_agent.choose.signals import LARGEST, SCALARS
from edge_agent.choose.tally import BINS
from edge_agent.contract.errors import MessageError
from edge_agent.contract.types import is_name
from edge_agent.contract.wire import Birth, Death, Event, Fetch, Heartbeat, OutboxState, StreamCounts, decode
from server.store.silence import LONGEST_BEAT_S

INT4 = 2**31
INT8 = 2**63
_LIMITS = {"boot": INT8, "at_ms": INT8, "captured_at_ms": INT8, "n": INT4, "label": INT4, "model_version": INT4}
"""Integers that have a column of their own must fit into it: the decoder takes larger ones."""
_NUL = re.compile(rb"(?<!\\)(?:\\\\)*\\u0000")
"""As JSON writes the character that no text in PostgreSQL may hold; after backslashes in pairs it is none."""
_LONG = re.compile(rb'[\s:,\[-][0-9]{19}|"-?[0-9]{19,}"\s*:')
"""As many digits as a number of 64 bits may just have, in a number or a key: with fewer, none is larger."""
_DIGITS = bytes.maketrans(b"123456789", b"000000000")
_RUN = re.compile(rb"0*")
_SESSION_MAX_CHARS = 64
CLASSES_MAX = 10_000  # more than a heartbeat has room for beside the rest
_SIGNALS_MAX = 1 + len(SCALARS) + LARGEST

Word = Birth | Death | Heartbeat | Event | Fetch


def word_of(kind: str, payload: bytes) -> Word:
    """Of that kind; MessageError when it is none, or says what no device can know."""
    word: Word
    if b"\\u0000" in payload and _NUL.search(payload):
        raise MessageError(f"{kind}: a text holds the character NUL")
    if kind == "birth":
        word = decode(Birth, payload)
    elif kind == "death":
        word = decode(Death, payload)
    elif kind == "heartbeat":
        word = decode(Heartbeat, payload)
    elif kind == "event":
        word = decode(Event, payload)
    else:
        word = decode(Fetch, payload)
    check_integers(word)
    if _may_be_long(payload) and not _fits(msgspec.to_builtins(word)):
        raise MessageError(f"{kind}: a whole number does not fit 64 bits")
    if isinstance(word, Birth | Heartbeat):
        _check_outbox(word.outbox)
        if not 0 <= word.model.version < INT4:
            raise MessageError(f"{kind}: model.version {str(word.model.version)[:24]}, expected 0..{INT4 - 1}")
    beat_s = word.interval_s if isinstance(word, Birth) else _promised_s(word)
    if not 0.0 <= beat_s <= LONGEST_BEAT_S:
        raise MessageError(f"{kind}: {beat_s:g} s to the next heartbeat, expected 0..{LONGEST_BEAT_S:g}")
    if isinstance(word, Heartbeat):
        for counts in (*word.cuts, word.counts):
            _check_counts(counts)
    if len(getattr(word, "session", "")) > _SESSION_MAX_CHARS:
        raise MessageError(f"{kind}: session is longer than {_SESSION_MAX_CHARS} characters")
    return word


def _promised_s(word: Word) -> float:
    return word.link.heartbeat_s if isinstance(word, Heartbeat) and word.link is not None else 0.0


def _check_outbox(outbox: OutboxState) -> None:
    """Its counts are held against what is stored."""
    whole = (outbox.rows, outbox.parked, outbox.put_total, outbox.acked_total, outbox.since_boot)
    if not all(0 <= n < INT8 for n in (*whole, sum(outbox.evicted.values()), *outbox.evicted.values())):
        raise MessageError("outbox: a count is below 0 or does not fit 64 bits")
    purged = outbox.purged
    if purged is not None and not all(0 <= n < INT8 for n in (purged.id, purged.boot, purged.seq + 1)):
        raise MessageError("outbox: purged: a number is below 0 or does not fit 64 bits")


def _check_counts(counts: StreamCounts) -> None:
    """They are added to what is stored, and to what other devices say: numbers that fit, of a stream that may be."""
    whole = (
        counts.read,
        counts.scored,
        counts.invalid,
        counts.epoch,
        counts.through_seq + 1,
        *counts.selected.values(),
        *counts.utility_histogram,
        *counts.classes,
        *counts.signals[:1],
    )
    if min(whole) < 0 or max(whole) >= INT8 or not 0 <= counts.model_version < INT4:
        raise MessageError(f"heartbeat: a count is below 0 or does not fit 64 bits, through_seq {counts.through_seq}")
    if counts.signals and not (min(counts.signals) > -INT8 and max(counts.signals) < INT8):
        raise MessageError("heartbeat: a sum of signals does not fit 64 bits")
    if counts.confidence_sums and not (min(counts.confidence_sums) >= 0.0 and max(counts.confidence_sums) < INT8):
        raise MessageError("heartbeat: confidence_sums: expected finite numbers from 0 on")
    bins, sums = len(counts.utility_histogram), len(counts.confidence_sums)
    if bins != sums or bins > BINS:
        raise MessageError(
            f"heartbeat: {bins} bins in utility_histogram and {sums} in confidence_sums, "
            f"expected as many in both, {BINS} at most"
        )
    for name, limit in (("classes", CLASSES_MAX), ("signals", _SIGNALS_MAX)):
        if len(getattr(counts, name)) > limit:
            raise MessageError(f"heartbeat: {name} has {len(getattr(counts, name))} entries, expected {limit} at most")
    if counts.stream and not is_name(counts.stream):
        raise MessageError(f"heartbeat: stream {counts.stream[:80]!r} is no name")


@lru_cache
def _limits(kind: type[msgspec.Struct]) -> tuple[tuple[str, int], ...]:
    return tuple((name, limit) for name, limit in _LIMITS.items() if name in kind.__struct_fields__)


def check_integers(message: msgspec.Struct) -> None:
    """MessageError where a whole number does not fit its column."""
    for name, limit in _limits(type(message)):
        value = getattr(message, name)
        if not 0 <= value < limit:
            raise MessageError(f"{type(message).__name__}: {name} {str(value)[:24]}, expected 0..{limit - 1}")


def _may_be_long(payload: bytes) -> bool:
    """Whether a number in it may not fit 64 bits: of most, known in a fraction of what it takes to look."""
    digits = payload.translate(_DIGITS)
    start = 0
    while (start := digits.find(b"0" * 19, start)) >= 0:
        if any(_LONG.match(payload, max(0, start - back)) for back in (1, 2)):  # a quote and a sign
            return True
        start = _RUN.match(digits, start).end()  # type: ignore[union-attr]  # it matches anything
    return False


def _fits(value: object) -> bool:
    """Whether every whole number in it fits 64 bits; no deeper than the wire's structures are."""
    if isinstance(value, dict):
        return all(_fits(key) and _fits(one) for key, one in value.items())
    if isinstance(value, list | tuple):
        return all(map(_fits, value))
    return not isinstance(value, int) or -INT8 <= value < INT8
