"""How do samples get their labels?

A thread asks the labeler about what waits in the store, in batches, and keeps the answers. It looks when it is woken
(new samples), and again a while after a failure. A labeler that fails costs time, never a sample: nothing is marked
before its answer is committed.

    teacher    a model in front of the labeler: answers what it is sure of; a part of that goes to the labeler too
    labeler    answers, or says LATER: then the question stands in the queue, until people or the labeler answer it
    queue      is kept just long enough that nobody waits

With `labels_per_day` any 24 hours see at most so many questions; what they leave unasked waits, and what shows the
same as something answered is spared. Which are asked, and with what probability, chooser.py says; without a budget all
are, in the end.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import sqlalchemy as sa

from edge_agent.contract.artifact import Manifest
from server.errors import LabelError, StoreError
from server.label import wishes
from server.label.answer import meant_by, names_of
from server.label.chooser import Asked, Chooser
from server.label.labeler import LATER, Answer, Labeler, People, Question, ask
from server.label.prices import Price
from server.label.queue import PERSON, Queue, Rules
from server.label.teacher import Teacher
from server.label.truth import answerable
from server.store import consensus, labels, questions
from server.store.consensus import AGAIN, FIRST, TEACHER
from server.store.questions import Queued
from server.store.samples import body_names, sample_array
from server.store.store import Store
from server.store.wording import guess_of, named

log = logging.getLogger(__name__)

DAY_MS = 86_400_000
BUDGET_LOOK_S = 60.0  # between looks whether the budget has room again
BUDGET_PAUSE_S = 1.0  # after a look under a budget: none, and every new sample costs a look at all that waits
QUEUE_LOOK_S = 5.0  # between looks at what came later: longer lets people wait for a question, shorter asks for nothing
IDLE_MS = 60_000  # less walks a million samples again and again, more lets lie what came back without being news
QUEUE_BATCHES = 4  # that stand in the queue without a budget: fewer keeps people waiting, more is planned long ahead
ELSEWHERE_MS = 14 * DAY_MS  # for which what was asked elsewhere is asked nobody here
REFIT = 20  # samples answered by several, since the labelers' error rates were estimated: fewer costs, more waits
PLANS_A_DAY = 48  # fewer lets questions wait for hours, more makes every choice small, and dear for what it chooses
LEAST_PICKS = 10  # of a plan, or a quarter of the day's: fewer are hardly a choice, more leave room unused for longer
PERSON_S = 0.1  # an answer, on average: lower takes a program's jitter for a price, higher misses a quick person
RETRY_S = 5.0  # shorter hammers a labeler that is down, longer leaves samples lying after it is back


class Said(NamedTuple):
    """An answer to a planned question, and whose it is."""

    asked: Asked
    answer: Answer
    labeler: str
    kind: str
    seconds: float


class Labelling:
    """Asks one labeler, until there is nothing to ask or it is stopped."""

    def __init__(
        self,
        store: Store,
        labeler: Labeler,
        *,
        name: str,
        batch: int,
        now_ms: Callable[[], int],
        strategy: str = "auto",
        labels_per_day: int = 0,
        exploration: float = 0.1,
        duplicate_cosine: float = 0.995,
        rng: np.random.Generator | None = None,
        teacher: Teacher | None = None,
        rules: Rules | None = None,
    ) -> None:
        """`name` is kept with every answer; `labels_per_day` 0: no budget; `rules`: of Queue; others: of Chooser."""
        self._store = store
        self._labeler = labeler
        self._name = name
        version = getattr(labeler, "version", "")
        self._who = f"{name}@{version}"[:100] if version else name
        self._batch = batch
        self._now_ms = now_ms
        self._labels_per_day = labels_per_day
        self._rng = rng or np.random.default_rng(0)
        self._teacher = teacher
        self._rules = rules or Rules()
        self.queue = Queue(store, self._rules, now_ms=now_ms, rng=self._rng)
        self._answered = getattr(labeler, "answered", None)
        self._people = isinstance(labeler, People)
        self._slow = self._people or self._answered is not None
        self._withdraw = not self._people
        self._chooser = Chooser(
            store,
            strategy="arrival" if strategy == "auto" and not labels_per_day else strategy,
            rng=self._rng,
            exploration=exploration,
            duplicate_cosine=duplicate_cosine,
        )
        self._planned: list[Asked] = []
        self._planned_ms = 0
        self._news = 0
        self._barren, self._again_ms = (-1, 0), 0  # of the last look that found nothing: what it saw, and until when
        self._woken = threading.Event()
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._work, name="labelling", daemon=True)
        self.errors = 0
        """Batches that failed and were asked again, or will be."""

    def start(self) -> None:
        """Begin with what waits already."""
        self._woken.set()
        self._thread.start()

    def wake(self) -> None:
        """There may be something to label."""
        self._news += 1
        self._woken.set()

    def hint(self) -> None:
        """Something was answered elsewhere: look at once. One hint less costs but the time until the next look."""
        if callable(hint := getattr(self._labeler, "hint", None)):
            hint()
            self.wake()

    def stop(self, *, timeout_s: float) -> None:
        """End after the batch in hand; a labeler that hangs is left behind after `timeout_s`."""
        self._stopped.set()
        self._woken.set()
        if self._thread.is_alive():
            self._thread.join(timeout_s)

    def step(self) -> int:
        """Ask one batch and keep the answers; returns how many were asked. LabelError, StoreError: nothing was kept."""
        self.collect()
        if self._withdraw:  # of when people were asked here: they no longer are
            with self._store.database.write() as connection:
                questions.withdraw(connection, now_ms=self._now_ms())
            self._withdraw = False
        if not (self._planned or self._people):
            self._planned = wishes.taken(self._store, now_ms=self._now_ms(), limit=self._batch)
        if not self._planned:
            self._look()
        with self._store.database.read() as connection:
            self._planned = _waiting_still(connection, self._planned)
            names = labels.names(connection)
        batch = self._planned[: self._batch]
        if not batch:
            return 0
        self._keep(self._ask(batch, [self._question(asked.row, names) for asked in batch]))
        del self._planned[: len(batch)]
        return len(batch)

    def collect(self) -> int:
        """Keep what was answered elsewhere, and estimate labelers anew when it is time; returns how many answers."""
        kept = self.queue.take_in(self._answered(), asked_as=self._name) if self._answered is not None else 0
        with self._store.database.read() as connection:
            due = consensus.stale(connection) >= REFIT
            counts = consensus.refit(connection) if due else {}
            contested = consensus.contested(connection) if due else []
        if due:
            with self._store.database.write() as connection:
                consensus.keep(connection, counts)
                consensus.resolve(connection, contested)
        return kept

    def _ask(self, batch: Sequence[Asked], asked: Sequence[Question]) -> list[Said]:
        """The teacher first, then the labeler about what that left, or left to be checked."""
        said, left = [], list(range(len(batch)))
        if self._teacher is not None:
            self._teacher.learn(self._store)
            answers = ask(self._teacher, list(asked))
            sure = [i for i in left if answers[i] is not LATER]
            said = [Said(batch[i], answers[i], self._teacher.name, TEACHER, 0.0) for i in sure]
            checked = {i for i in sure if self._rng.random() < self._teacher.check_share}
            left = [i for i in left if i in checked or answers[i] is LATER]
        if left:
            began_ms = self._now_ms()
            answers = ask(self._labeler, [asked[i] for i in left])
            seconds = (self._now_ms() - began_ms) / 1000.0 / len(left)
            took = seconds if seconds >= PERSON_S else 0.0
            said += [
                Said(batch[i], answer, self._who, self._name, took) for i, answer in zip(left, answers, strict=True)
            ]
        return said

    def _look(self) -> None:
        """Plan what to ask next. Where people are asked and nothing is left, a look waits for news, or IDLE_MS."""
        now_ms, seen = self._now_ms(), (self._news, self._room())
        if seen == self._barren and now_ms < self._again_ms:
            return
        champion = self._chooser.keep_up(stopped=self._stopped.is_set)
        if self._stopped.is_set():
            return
        self._planned_ms, self._planned = now_ms, self._plan(seen[1], champion)
        if self._slow and not self._planned:
            self._barren, self._again_ms = seen, now_ms + IDLE_MS

    def _room(self) -> int:
        """Questions to ask now: one batch without a budget; with one all that are left of it."""
        since = self._now_ms() - DAY_MS
        with self._store.database.read() as connection:
            kinds = {self._name, PERSON} if self._slow else {self._name}
            given = sum(labels.given_since(connection, kind=kind, at_ms=since) for kind in kinds)
            queued = questions.unanswered(connection)
        if self._labels_per_day:
            return self._labels_per_day - given - queued
        return min(max(QUEUE_BATCHES * self._batch - queued, 0), self._batch) if self._slow else self._batch

    def _plan(self, room: int, champion: Manifest | None) -> list[Asked]:
        """With a budget not little by little."""
        day = self._labels_per_day
        if not day:
            return self._chooser.everything(room, champion=champion)
        least = max(1, min(LEAST_PICKS, day // 4), day // PLANS_A_DAY)
        return self._chooser.within(room, champion=champion) if room >= least else []

    def _question(self, row: Any, names: Sequence[str]) -> Question:
        return Question(
            id=row.id,
            ref=row.ref,
            guess=guess_of(row, names),
            confidence=row.confidence or 0.0,
            load=lambda: sample_array(self._store, row),
            said=answerable(named(row.said, names), self._rules.task),
        )

    def _keep(self, said: Sequence[Said]) -> None:
        at_ms = self._now_ms()
        told = [one for one in said if one.answer is not LATER]
        with self._store.database.write() as connection:
            # Some may have been erased while they were asked about: of those nothing is kept.
            here = body_names(connection, [one.asked.row.id for one in told])
            index = labels.ensure_names(connection, [name for one in told for name in names_of(one.answer)])
            taught = {one.asked.row.id for one in told if one.kind == TEACHER}
            given = [self._label(one, index, at_ms, taught) for one in told if one.asked.row.id in here]
            labels.add(connection, given)
            classed = {one.sample_id for one in given if one.class_index != labels.CANNOT_TELL}
            beside = {other: one.asked.row.id for one in told for other in one.asked.beside}
            labels.spare(connection, {other: with_ for other, with_ in beside.items() if with_ in classed})
        self._queue_up([one for one in said if one.answer is LATER], {one.asked.row.id for one in told}, at_ms)

    def _label(self, one: Said, index: Mapping[str, int], at_ms: int, taught: Collection[str]) -> labels.Label:
        """`taught`: what the teacher has answered. Whoever else does gives another opinion."""
        drawn = self._drawn(one.asked)
        price = self._rules.prices.get(one.kind, Price()).of(one.seconds)
        said = meant_by(one.answer, index, task=self._rules.task, who=one.labeler)
        label = labels.Label(one.asked.row.id, said.class_index, one.labeler, at_ms, one.seconds, **drawn)
        again = one.kind != TEACHER and one.asked.row.id in taught
        return label._replace(kind=one.kind, price=price, purpose=AGAIN if again else FIRST, truth=said.plain)

    def _queue_up(self, later: Sequence[Said], answered: set[str], at_ms: int) -> None:
        """What is to be answered later; what the teacher has answered is asked again, to measure it."""
        made = []
        for one in later:
            purpose = AGAIN if one.asked.row.id in answered else FIRST
            drawn = self._drawn(one.asked)
            asked = Queued(one.asked.row.id, purpose, at_ms, probability=drawn["probability"], plan_ms=drawn["plan_ms"])
            made.append(asked._replace(beside=one.asked.beside if purpose == FIRST else ()))
        if made:
            elsewhere = self._name if self._answered is not None else ""
            self.queue.put(made, leased_to=elsewhere, lease_ms=ELSEWHERE_MS)

    def _drawn(self, asked: Asked) -> dict[str, Any]:
        """How a label came to be asked for, as it is kept."""
        at_ms = self._planned_ms if self._labels_per_day and asked.probability is not None else None
        return {"probability": asked.probability, "plan_ms": at_ms, "stands_for": 1 + len(asked.beside)}

    def _work(self) -> None:
        while not self._stopped.is_set():
            self._woken.wait(QUEUE_LOOK_S if self._slow else BUDGET_LOOK_S if self._labels_per_day else None)
            self._woken.clear()
            try:
                while not self._stopped.is_set() and self.step():
                    pass
                if self._labels_per_day:
                    self._stopped.wait(BUDGET_PAUSE_S)
            except Exception as error:  # the supervising loop: one bad batch must not end labelling for good
                self.errors += 1
                unforeseen = not isinstance(error, (LabelError, StoreError))
                log.warning("labelling: %s; asked again in %.0f s", error, RETRY_S, exc_info=unforeseen)
                self._stopped.wait(RETRY_S)
                self._woken.set()


def _waiting_still(connection: sa.Connection, planned: Sequence[Asked]) -> list[Asked]:
    """Without what was erased, or answered elsewhere, since it was planned."""
    waiting = labels.still_waiting(connection, [asked.row.id for asked in planned])
    return [asked for asked in planned if asked.row.id in waiting]
