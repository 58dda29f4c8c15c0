"""Which model runs?

Versions are integers that only grow; 0 means none. Always true: exactly one version runs in every state, it is the
committed one or the one on trial, and a refused version never runs again.

    Steady(c)             runs c                     <-- unstage, refuse(n) --+
      | stage                                                                |
      v                                                                      |
    Staged(c, n)          runs c --------------------------------------------+
      |     | shadow                                                         |
      |     v                                                                |
      |   Staged(c, n, 0) runs c, and n beside it ---------------------------+
      |     |
      v     v begin
    Trial(c, n, 0)        runs n
      | commit       |
      |              +-- revert --> Steady(c), n refused
      v              +-- unstage -> Steady(c)
    Steady(n)

    stage      a newer version takes the place of a staged one, wherever that has got to
    started    counted from `shadow`, and again from `begin`; too many within either: n is refused, Steady(c)
    adopt      a version given by hand, or found on disk when there is no other: Steady(it)
    lost       the files of c are gone: an older version goes on

A version beside the running one is in the shadow: it sees samples, and what it says of them is no answer. It is loaded
into the same process all the same, so starts are counted from then on. Without a shadow `begin` follows at once.

Nothing here touches a file or a clock: a transition takes a state and returns the next one, and whoever keeps the
state writes it down before acting on it. A power cut then repeats a step at worst.
"""

# Annotations are not postponed here: msgspec would compile each of them at every start (docs/adr/0041).

from typing import Literal

import msgspec

from edge_agent.update.probation import Figures

REASON_CHARS = 300


class Steady(msgspec.Struct, frozen=True, kw_only=True, tag_field="slot", tag="steady"):
    """The committed version runs, and nothing waits."""

    committed: int = 0
    refused: dict[int, str] = {}  # version -> why

    def __post_init__(self) -> None:
        _check(self)


class Staged(msgspec.Struct, frozen=True, kw_only=True, tag_field="slot", tag="staged"):
    """The committed version runs; a newer one is on disk and passed its golden test."""

    committed: int
    candidate: int
    starts: int | None = None  # of the agent since the candidate runs in the shadow; None: it does not
    refused: dict[int, str] = {}

    def __post_init__(self) -> None:
        _check(self)


class Trial(msgspec.Struct, frozen=True, kw_only=True, tag_field="slot", tag="trial"):
    """The candidate runs on probation; the committed version is the way back."""

    committed: int
    candidate: int
    starts: int = 0  # of the agent since the candidate runs live
    before: Figures | None = None  # how the committed version did when it gave way: a restart must not forget it
    refused: dict[int, str] = {}

    def __post_init__(self) -> None:
        _check(self)


State = Steady | Staged | Trial
Answer = Literal["yes", "here", "wait", "refused", "downgrade"]


def _check(state: State) -> None:
    if state.committed < 0 or state.committed in state.refused:
        raise ValueError(f"committed version {state.committed}: expected one that was not refused, or 0")
    if isinstance(state, Steady):
        return
    if state.candidate <= state.committed or state.candidate in state.refused:
        raise ValueError(f"candidate {state.candidate}: expected newer than {state.committed} and not refused")
    if state.starts is not None and state.starts < 0:
        raise ValueError(f"starts {state.starts}: expected 0 or more")


def running(state: State) -> int:
    """The version that must execute; 0 when there is none.

    >>> running(begin(stage(Steady(committed=3), 4)))
    4
    """
    return state.candidate if isinstance(state, Trial) else state.committed


def newest(state: State) -> int:
    """The highest version that is here for good or on its way to be; 0 when there is none."""
    return state.committed if isinstance(state, Steady) else state.candidate


def may_take(state: State, version: int) -> Answer:
    """Whether `version` may be fetched and staged now.

    `here`: it runs, or is staged. `wait`: another is on trial. `refused`: earlier, for good. `downgrade`: it is older
    than the committed one.
    """
    if version in state.refused:
        return "refused"
    if version < state.committed:
        return "downgrade"
    if version in (state.committed, newest(state)):
        return "here"
    return "wait" if isinstance(state, Trial) else "yes"


def stage(state: Steady | Staged, version: int) -> Staged:
    """`version` waits for its trial, instead of any other that waited. ValueError when it may not be taken."""
    return Staged(committed=state.committed, candidate=version, refused=state.refused)


def unstage(state: Staged | Trial) -> Steady:
    """The candidate is no longer wanted, and is let go where it runs already; it may be staged again later."""
    return Steady(committed=state.committed, refused=state.refused)


def shadow(state: Staged) -> Staged:
    """The candidate is about to be loaded beside the committed version, or goes on there after a start.

    Before, not after: loading it may be what kills the agent.
    """
    return state if state.starts is not None else msgspec.structs.replace(state, starts=0)


def begin(state: Staged, before: Figures | None = None) -> Trial:
    """The candidate is about to run. Before, not after: running it may be what kills the agent."""
    return Trial(committed=state.committed, candidate=state.candidate, before=before, refused=state.refused)


def commit(state: Trial) -> Steady:
    """The candidate has proved itself."""
    return Steady(committed=state.candidate, refused=state.refused)


def revert(state: Trial, reason: str) -> Steady:
    """Back to the committed version; the candidate is refused from now on."""
    return Steady(committed=state.committed, refused=_with(state.refused, state.candidate, reason))


def refuse(state: State, version: int, reason: str) -> State:
    """`version` will not be run: remembered with its reason. ValueError for the committed one: see `lost`."""
    if isinstance(state, Trial) and state.candidate == version:
        return revert(state, reason)
    if isinstance(state, Staged) and state.candidate == version:
        state = unstage(state)
    return msgspec.structs.replace(state, refused=_with(state.refused, version, reason))


def started(state: State, max_starts: int) -> State:
    """The agent starts. One that starts again and again with a candidate loaded is being killed by it."""
    if isinstance(state, Steady) or state.starts is None:
        return state
    if state.starts >= max_starts:
        where = "trial" if isinstance(state, Trial) else "trial in the shadow"
        return refuse(state, state.candidate, f"the agent was started more than {max_starts} times within its {where}")
    return msgspec.structs.replace(state, starts=state.starts + 1)


def adopt(state: State, version: int) -> Steady:
    """`version` is committed without a trial; whatever was staged or on trial is let go. Never backwards."""
    if version < newest(state):
        raise ValueError(f"version {version}: expected none older than {newest(state)}")
    return Steady(committed=version, refused=state.refused)


def lost(state: State, fallback: int) -> State:
    """The committed version cannot be loaded any more; an older one goes on.

    It is not refused: the server still assigns it, so that it is fetched anew, tested and tried.
    """
    if fallback >= state.committed:
        raise ValueError(f"version {fallback}: expected one older than {state.committed}")
    return msgspec.structs.replace(state, committed=fallback)


def _with(refused: dict[int, str], version: int, reason: str) -> dict[int, str]:
    return {**refused, version: reason[:REASON_CHARS]}


def encode(state: State) -> bytes:
    """One line of JSON.

    >>> encode(Trial(committed=6, candidate=7, starts=1, refused={5: "golden test"}))
    b'{"slot":"trial","committed":6,"candidate":7,"starts":1,"before":null,"refused":{"5":"golden test"}}'
    """
    return msgspec.json.encode(state)


def decode(data: bytes) -> State:
    """Read a state back; ValueError when it is none, or an illegal one."""
    try:
        state: State = msgspec.json.decode(data, type=State)
    except (msgspec.DecodeError, RecursionError) as error:
        raise ValueError(str(error)) from error
    return state
