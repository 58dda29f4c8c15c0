"""What is in an image that a stranger sent?

    python -m server.store.decoder

A program of its own, because decoders of images are C code with a history of holes, and what they read here was written
by whoever holds a device. It is started by sandbox.py, reads questions from stdin and writes answers to stdout until
stdin ends, so it never outlives its parent. Nothing is pickled: lengths, msgpack, raw bytes.

    question   4 bytes length | msgpack Question | body, Question.body_bytes long
    ready      1 byte, once
    answer     1 byte, 0 or 1 | 4 bytes length   | the array's bytes (0), or why there is none, UTF-8 (1)

Once it has loaded what it needs it gives up what it does not: it can open no file and no socket, write to no file,
start no process, take no more than MEMORY_BYTES on top, and spend no more than CPU_S of processor time on one image.
"""

from __future__ import annotations

import math
import os
import resource
import sys
import time
from typing import BinaryIO

import msgspec
import numpy as np

from edge_agent.contract import images
from edge_agent.contract.errors import MessageError

MEMORY_BYTES = 512 * 1024 * 1024  # the largest image is 64 MB, and there are some copies of it at times
CPU_S = 5  # a frame of 25 MB takes a tenth of it on a small processor
READY = b"\n"
GIVEN, REFUSED = 0, 1


class Question(msgspec.Struct, frozen=True):
    """One image to decode."""

    kind: images.Kind
    shape: tuple[int, ...]
    body_bytes: int


def read_exactly(stream: BinaryIO, size: int) -> bytes:
    """So many bytes; EOFError when there are fewer."""
    data = stream.read(size)
    if len(data) != size:
        raise EOFError
    return data


def main() -> int:
    """Answer until stdin ends."""
    _warm()
    _give_up_rights()
    questions, answers = sys.stdin.buffer, sys.stdout.buffer
    answers.write(READY)
    answers.flush()
    while True:
        try:
            size = int.from_bytes(read_exactly(questions, 4), "big")
            question = msgspec.msgpack.decode(read_exactly(questions, size), type=Question)
            body = read_exactly(questions, question.body_bytes)
        except EOFError:
            return 0
        _allow_processor_time()
        status, answer = _answer(question, body)
        answers.write(bytes([status]) + len(answer).to_bytes(4, "big"))
        answers.write(answer)
        answers.flush()


def _answer(question: Question, body: bytes) -> tuple[int, bytes]:
    try:
        array = images.decode_image(body, question.kind, question.shape)
    except MessageError as error:
        return REFUSED, str(error).encode()
    return GIVEN, array.tobytes()


def _warm() -> None:
    """Load every decoder, while files may still be opened."""
    pixels = np.zeros((2, 2, 3), np.uint8)
    for kind in images.KINDS:
        images.decode_image(images.encode_image(pixels, images.Codec(kind, 90)), kind, pixels.shape)


def _give_up_rights() -> None:
    silence = os.open(os.devnull, os.O_WRONLY)
    os.dup2(silence, sys.stderr.fileno())  # nobody reads it: a full pipe would hold us up
    os.close(silence)
    limits = {
        resource.RLIMIT_AS: _address_space() + MEMORY_BYTES,
        resource.RLIMIT_FSIZE: 0,
        resource.RLIMIT_NOFILE: 3,  # the three that are open
        resource.RLIMIT_NPROC: 0,  # of the user's processes, so that it can start none; root is not bound by it
        resource.RLIMIT_CORE: 0,
    }
    for limit, value in limits.items():
        resource.setrlimit(limit, (value, value))


def _address_space() -> int:
    """Of this process, bytes; 0 where there is no /proc, and then the limit is on all of it."""
    try:
        with open("/proc/self/statm", "rb") as file:
            return int(file.read().split()[0]) * resource.getpagesize()
    except OSError:
        return 0


def _allow_processor_time() -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_CPU)
    resource.setrlimit(resource.RLIMIT_CPU, (math.ceil(time.process_time()) + CPU_S, hard))


if __name__ == "__main__":
    sys.exit(main())
