"""How do images become arrays without their decoders running in here?

In a child with limits (decoder.py), started when the first image comes and kept. A child that dies of an image, or
does not answer in time, is killed and replaced, and the image refused. What it answers is taken for no more than bytes
of the length that was asked for.
"""

from __future__ import annotations

import contextlib
import math
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator

import msgspec
import numpy as np
from numpy.typing import NDArray

from edge_agent.contract.errors import MessageError
from edge_agent.contract.images import Kind
from server.errors import StoreError
from server.store.decoder import CPU_S, GIVEN, READY, REFUSED, Question, read_exactly

COMMAND = [sys.executable, "-m", "server.store.decoder"]
START_S = 60.0
ANSWER_S = 30.0  # of wall clock; the child's own limit is of processor time, and comes first unless it waits for it
REASON_MAX_BYTES = 1000
TRIES = 2  # of one image: a child may also be killed by somebody who has nothing to do with it


class Sandbox:
    """Decodes images, one at a time; may be called from any thread."""

    def __init__(self, *, answer_s: float = ANSWER_S) -> None:
        """`answer_s`: longest wait for one image."""
        self._answer_s = answer_s
        self._child: subprocess.Popen[bytes] | None = None
        self._closed = False
        self._one_at_a_time = threading.Lock()

    @property
    def pid(self) -> int:
        """Of the child that decodes; 0 while there is none."""
        return self._child.pid if self._child else 0

    def decode(self, body: bytes, kind: Kind, shape: tuple[int, ...]) -> NDArray[np.uint8]:
        """The array of an image. MessageError: it is none, or the decoder died of it. StoreError: no decoder to be had.

        shape: of the array, checked before (check_sample_header): it bounds what is decoded.
        """
        question = msgspec.msgpack.encode(Question(kind, shape, len(body)))
        asked = b"".join((len(question).to_bytes(4, "big"), question, body))
        with self._one_at_a_time:
            for _ in range(TRIES):
                answer = self._ask(asked, math.prod(shape))
                if answer is not None:
                    return np.frombuffer(answer, np.uint8).reshape(shape)
        raise MessageError(f"{kind}: the decoder died of it, {TRIES} times")

    def close(self) -> None:
        """End the child, and what it has in hand; nothing is decoded any more."""
        self._closed = True
        child = self._child
        if child is not None:
            _kill(child)
        with self._one_at_a_time:
            self._end()

    def _ask(self, asked: bytes, expected: int) -> bytes | None:
        """What the child answers; None when it died."""
        child = self._running()
        assert child.stdin is not None and child.stdout is not None  # noqa: S101, PT018 - opened with pipes
        try:
            with _killed_after(child, self._answer_s) as too_late:
                child.stdin.write(asked)
                child.stdin.flush()
                status, *length = read_exactly(child.stdout, 5)  # type: ignore[arg-type]
                size = int.from_bytes(bytes(length), "big")
                if size != expected if status == GIVEN else size > REASON_MAX_BYTES or status != REFUSED:
                    raise EOFError  # it is not itself any more
                answer = read_exactly(child.stdout, size)  # type: ignore[arg-type]
        except (OSError, EOFError):
            ended = self._end()
            if too_late.is_set():
                raise MessageError(f"not decoded within {self._answer_s:g} s") from None
            if ended == -signal.SIGXCPU:
                raise MessageError(f"not decoded within {CPU_S} s of processor time") from None
            return None
        if status == REFUSED:
            raise MessageError(answer.decode(errors="replace"))
        return answer

    def _running(self) -> subprocess.Popen[bytes]:
        if self._child is not None and self._child.poll() is None:
            return self._child
        self._end()
        if self._closed:
            raise StoreError("images cannot be decoded: we are stopping")
        pipe = subprocess.PIPE
        try:
            child = subprocess.Popen(COMMAND, stdin=pipe, stdout=pipe, stderr=pipe, start_new_session=True)
        except OSError as error:
            raise StoreError(f"images cannot be decoded: {sys.executable}: {error.strerror}") from error
        assert child.stdout is not None  # noqa: S101 - opened with a pipe
        with _killed_after(child, START_S):
            ready = child.stdout.read(1)
        self._child = child
        if ready != READY:
            _kill(child)
            _, said = child.communicate()
            self._child = None
            last = said.decode(errors="replace").strip().splitlines()[-1:]
            raise StoreError(f"images cannot be decoded, the decoder does not start: {' '.join(last)[:300]}")
        return child

    def _end(self) -> int:
        """Kill the child, if there is one; returns its exit status."""
        child, self._child = self._child, None
        if child is None:
            return 0
        _kill(child)
        for pipe in (child.stdin, child.stdout, child.stderr):
            with contextlib.suppress(OSError):  # what was not written to it is of no use any more
                pipe.close()  # type: ignore[union-attr]  # opened with pipes
        return child.wait()  # for itself alone: whatever it left behind may hold the other ends of its pipes


def _kill(child: subprocess.Popen[bytes]) -> None:
    """With all that it may have started: it leads a group, which keeps its number until its leader was waited for."""
    if child.returncode is None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)


@contextlib.contextmanager
def _killed_after(child: subprocess.Popen[bytes], seconds: float) -> Iterator[threading.Event]:
    """Kill the child when that takes longer; set then. What waits for its pipes wakes up by that."""
    too_late = threading.Event()

    def kill() -> None:
        too_late.set()
        _kill(child)

    timer = threading.Timer(seconds, kill)
    timer.daemon = True
    timer.start()
    try:
        yield too_late
    finally:
        timer.cancel()
