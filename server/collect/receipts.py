"""What is each device told of its samples?

    accepted    it was not here before
    duplicate   it is here already, the same bytes
    erased      it is to be forgotten: the device keeps it no more than we do
    refused     for good: not of the wire format, or its id belongs to other bytes

One answer for each sample, the best one where there were several: a device deletes on the first two, and parks a
refused sample, so "refused" must not overtake them.
"""

from __future__ import annotations

from collections import defaultdict

from edge_agent.contract.wire import Receipt

RECEIPT_IDS = 40
"""Samples to one receipt: with ids and reasons of full length it still fits into a JSON message (64 KB)."""
REASON_MAX_CHARS = 200

_ACCEPTED, _DUPLICATE, _ERASED, _REFUSED = range(4)


class Answers:
    """The answers to a group of messages."""

    def __init__(self) -> None:
        self._answers: dict[str, dict[str, tuple[int, str]]] = defaultdict(dict)  # device -> id -> (answer, reason)

    def accept(self, device: str, sample_id: str) -> None:
        """It is stored now."""
        self._answer(device, sample_id, (_ACCEPTED, ""))

    def repeat(self, device: str, sample_id: str) -> None:
        """It was stored before."""
        self._answer(device, sample_id, (_DUPLICATE, ""))

    def erase(self, device: str, sample_id: str, reason: str) -> None:
        """It was erased, and is not taken again."""
        self._answer(device, sample_id, (_ERASED, reason[:REASON_MAX_CHARS]))

    def refuse(self, device: str, sample_id: str, reason: str) -> None:
        """It will never be stored."""
        self._answer(device, sample_id, (_REFUSED, reason[:REASON_MAX_CHARS]))

    def answered(self, device: str, sample_id: str) -> bool:
        """Whether there is an answer: otherwise parts are missing."""
        return sample_id in self._answers.get(device, {})

    def receipts(self) -> list[tuple[str, Receipt]]:
        """The messages: (device, receipt), of at most RECEIPT_IDS samples each."""
        found = []
        for device, answers in self._answers.items():
            ids = list(answers)
            for start in range(0, len(ids), RECEIPT_IDS):
                some = ids[start : start + RECEIPT_IDS]
                found.append(
                    (device, _receipt(answers if len(some) == len(ids) else {id_: answers[id_] for id_ in some}))
                )
        return found

    def _answer(self, device: str, sample_id: str, answer: tuple[int, str]) -> None:
        mine = self._answers[device]
        mine[sample_id] = min(mine.get(sample_id, answer), answer)


def _receipt(answers: dict[str, tuple[int, str]]) -> Receipt:
    told: tuple[list[str], ...] = ([], [], [], [])
    for id_, (answer, _) in answers.items():
        told[answer].append(id_)
    accepted, duplicate, erased, refused = told
    return Receipt(
        accepted=tuple(accepted),
        duplicate=tuple(duplicate),
        # A device that does not know of erasure parks what was erased, and sends it no more.
        refused={id_: answers[id_][1] for id_ in answers if answers[id_][0] >= _ERASED} if erased or refused else {},
        erased=tuple(erased),
    )
