"""Which numbers stand for a text?

The word pieces of a vocabulary, as BERT and its kin were taught on them (Devlin et al. 2019; Wu et al. 2016): the text
in lower case without accents, cut at spaces and at every punctuation mark, and each word taken apart into the longest
pieces that the vocabulary knows. Device and training must do the same, and so it is part of the contract; pure Python.

    >>> some = Vocabulary(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "pump", "leak", "##s", "!"])
    >>> some.numbers("Pump  leaks!", 8).tolist()
    [2, 4, 5, 6, 7, 3, 0, 0]
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edge_agent.contract.errors import ConfigError

PAD, UNKNOWN, BEGIN, END = "[PAD]", "[UNK]", "[CLS]", "[SEP]"
CONTINUED = "##"  # begins a piece that goes on with a word
WORD_MAX = 100  # letters; longer ones are unknown
IDEOGRAPHS = (
    (0x4E00, 0x9FFF), (0x3400, 0x4DBF), (0x20000, 0x2A6DF), (0x2A700, 0x2B73F), (0x2B740, 0x2B81F), (0x2B820, 0x2CEAF),
    (0xF900, 0xFAFF), (0x2F800, 0x2FA1F),
)  # fmt: skip
"""Each of these is a word."""


class Vocabulary:
    """Pieces by their numbers."""

    def __init__(self, pieces: Iterable[str]) -> None:
        """In the order of their numbers; ConfigError when those that every text needs are missing."""
        self._number = {piece: number for number, piece in enumerate(pieces)}
        if missing := [name for name in (PAD, UNKNOWN, BEGIN, END) if name not in self._number]:
            raise ConfigError(
                f"vocabulary of {len(self._number)} pieces: no {missing[0]}: expected a vocab.txt of BERT"
            )

    @classmethod
    def read(cls, file: Path) -> Vocabulary:
        """A vocab.txt, one piece a line; ConfigError when it cannot be read."""
        try:
            return cls(file.read_text(encoding="utf-8").splitlines())
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"{file}: {error}: expected a vocab.txt, one piece a line") from error

    def numbers(self, text: str, length: int) -> NDArray[np.int32]:
        """(length,): begin, the pieces, end; what does not fit is cut off, what is left is `PAD`."""
        pieces = [piece for word in _words(text) for piece in self._pieces(word)][: length - 2]
        found = [self._number[BEGIN], *pieces, self._number[END]]
        made = np.full(length, self._number[PAD], np.int32)
        made[: len(found)] = found
        return made

    def _pieces(self, word: str) -> list[int]:
        """Of one word, the longest first; of one that cannot be taken apart, `UNKNOWN`."""
        found, start = [], 0
        while start < len(word) <= WORD_MAX:
            mark = CONTINUED if start else ""
            ends = range(len(word), start, -1)
            end = next((end for end in ends if mark + word[start:end] in self._number), 0)
            if not end:
                return [self._number[UNKNOWN]]
            found.append(self._number[mark + word[start:end]])
            start = end
        return found or [self._number[UNKNOWN]]


def _words(text: str) -> Iterator[str]:
    """Lower case, without accents and control characters, cut at spaces; marks and ideographs stand alone."""
    lowered = unicodedata.normalize("NFD", "".join(map(_kept, text)).lower())
    apart = (f" {char} " if _alone(char) else char for char in lowered if unicodedata.category(char) != "Mn")
    yield from "".join(apart).split()


def _kept(char: str) -> str:
    if char in "\t\n\r" or unicodedata.category(char) == "Zs":
        return " "
    return "" if char in "\0\ufffd" or unicodedata.category(char).startswith("C") else char


def _alone(char: str) -> bool:
    code = ord(char)
    mark = 33 <= code <= 47 or 58 <= code <= 64 or 91 <= code <= 96 or 123 <= code <= 126
    return mark or unicodedata.category(char).startswith("P") or any(low <= code <= high for low, high in IDEOGRAPHS)
