"""Do a detector's boxes go on from frame to frame?

What a detector misses has no score to be unsure of. In a stream of frames it shows all the same: something that was
tracked is gone though it cannot have left the image, or comes from nowhere, or a frame shows nothing where nearly every
frame does. (After Jin et al., ECCV 2018, and Bengar et al., ICCV workshops 2019, who look at whole videos.)

    break     the surest tracked box that is gone, or half the score of one that comes from nowhere; each times
              1 - the share of frames, of late, in which something broke
    missing   in a frame without boxes: how much more often than not frames have some, of late

Both ask how usual it is here. Where frames do not follow each other, or follow too slowly, everything breaks in every
frame, and it says nothing; nor does `missing` where half of the frames are empty. Sample by sample, in order, so that
the blocks do not matter.
"""

from __future__ import annotations

import msgspec
import numpy as np
from numpy.typing import NDArray

from edge_agent.contract.boxes import match
from edge_agent.contract.errors import ConfigError

Corners = NDArray[np.float64]

SAME = 0.3  # overlap of a box with itself a frame later: lower joins neighbours, higher loses what moves
TRACKED = 2  # frames in a row that a box has to be seen in: fewer take a flicker for a track, more miss short ones
STEP = 0.15  # of the image, that a thing may go from frame to frame: less breaks where it leaves, more hides breaks
NOWHERE = 0.5  # of the score of what comes from nowhere: things do step out of doors, but do not vanish
BROKEN_ALPHA = 0.05  # of the share of frames that broke, about 20: lower is late to trust a scene, higher forgets one
SHOWN_ALPHA = 0.01  # of the share of frames that show something, about 100
DOUBTED = 20  # frames without a box that are taken as seen at the start: fewer call the second frame a surprise
COLUMNS = 7  # of a track: its corners, class, score, and frames that it was seen in


class State(msgspec.Struct, kw_only=True):
    """What the next frame is held against, as saved."""

    model: str = ""
    broken: float = 1.0  # share of frames that broke, of late: all of them, until it is known
    shown: float = 0.0
    frames: int = 0
    tracks: bytes = b""  # (M, COLUMNS) float64


class Frames:
    """What a detector said of the frame before, and how it usually goes on."""

    def __init__(self, *, saved: bytes = b"") -> None:
        """`saved`: what `save` gave; ConfigError when it is not that."""
        self._state = State()
        self._tracks: Corners = np.zeros((0, COLUMNS))
        if saved:
            self._load(saved)

    def meet(self, model: str) -> None:
        """Whose boxes come from now on, by name and version: those of another break for no reason in the sample."""
        if model != self._state.model:
            self._state, self._tracks = State(model=model), np.zeros((0, COLUMNS))

    def surprise(self, corners: Corners, label: NDArray[np.intp], score: Corners) -> float:
        """Take in the boxes (M, 4) of the next frame: how surprising that they are as they are, 0..1."""
        state, tracks = self._state, self._tracks
        same = label[:, None] == tracks[None, :, 4]
        found = match(corners, score, tracks[:, :4], overlap_min=SAME, same=same)
        goes_on = np.zeros(len(tracks), np.bool_)
        goes_on[found[found >= 0]] = True
        lost = tracks[~goes_on & (tracks[:, 6] >= TRACKED) & _stays(tracks), 5]
        new = score[(found < 0) & _stays(corners)] if state.frames else score[:0]
        broke = max(float(lost.max(initial=0.0)), NOWHERE * float(new.max(initial=0.0)))
        missing = max(0.0, 2.0 * state.shown - 1.0) if not len(corners) else 0.0
        surprise = 1.0 - (1.0 - (1.0 - state.broken) * broke) * (1.0 - missing)
        self._go_on(float(broke > 0.0), np.column_stack((corners, label, score, _seen(tracks, found))))
        return surprise

    def _go_on(self, broke: float, tracks: Corners) -> None:
        state = self._state
        state.frames += 1
        state.broken += BROKEN_ALPHA * (broke - state.broken)
        state.shown += max(SHOWN_ALPHA, 1.0 / (state.frames + DOUBTED)) * (float(len(tracks) > 0) - state.shown)
        self._tracks = tracks

    # --- across restarts ---

    def save(self) -> bytes:
        """For another to go on from; nothing before the first frame."""
        self._state.tracks = self._tracks.tobytes()
        return msgspec.msgpack.encode(self._state) if self._state.frames else b""

    def _load(self, saved: bytes) -> None:
        try:
            self._state = msgspec.msgpack.decode(saved, type=State)
            self._tracks = np.frombuffer(self._state.tracks, np.float64).reshape(-1, COLUMNS).copy()
        except (msgspec.DecodeError, ValueError) as error:
            raise ConfigError(f"saved frames of a detector: {error}") from error


def _stays(boxes: Corners) -> NDArray[np.bool_]:
    """(M,) which are too far inside, or too large, to be out of the image a frame later, or earlier."""
    ways = np.column_stack((boxes[:, 2:4], 1.0 - boxes[:, :2]))  # to go by the left, the top, the right, the bottom
    found: NDArray[np.bool_] = ways.min(axis=1, initial=1.0) > STEP
    return found


def _seen(tracks: Corners, found: NDArray[np.intp]) -> Corners:
    """(M,) frames in a row that each box was seen in, this one included."""
    seen: Corners = np.ones(len(found))
    seen[found >= 0] += tracks[found[found >= 0], 6]
    return seen
