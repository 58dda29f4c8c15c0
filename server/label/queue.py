"""Who is asked what, and what becomes of the answer?

    next     what the labeler has at hand already; by chance a gold question; else the queue in its order. All of it on
             a lease: until that runs out nobody else gets the sample, unless several opinions are wanted
    answer   kept with who, what for, how long, at what price, and what guess was seen; then the class in force is said
             anew. Where people differ too much, one more is asked
    skip     not me, not now: others get it at once, the same labeler after a day
    undo     the labeler's last answer counts no more, and the question is his again

An answer that comes late, or twice with the same key, loses nothing and counts once. The rules are here, the rows in
questions.py; each of these is one transaction, so that any number of processes may ask at once.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import NamedTuple

import numpy as np
import sqlalchemy as sa

from edge_agent.contract.task import Task as Kind
from server.config import ServerConfig
from server.errors import LabelError
from server.label.answer import Meant, Outcome, Reply, meant, outcome
from server.label.labeler import Given, Standing
from server.label.prices import Price, parse
from server.label.purpose import purpose_of
from server.label.task import Task, tasks_of, with_guesses
from server.label.truth import Named
from server.store import consensus, erasures, labels, questions, samples
from server.store.consensus import FIRST, GOLD
from server.store.questions import SOON, Lease, Queued
from server.store.store import Store

log = logging.getLogger(__name__)

PERSON = "human"  # kind of labeler
SKIP_MS = 86_400_000  # shorter brings what a person cannot do back at once, longer lets it lie where there is only one
AGREED = (
    0.8  # probability of the class in force below which one more is asked: lower settles on less, higher costs more
)


class Rules(NamedTuple):
    """How people are asked."""

    lease_s: float = 300.0
    gold_share: float = 0.0  # of the questions, 0..1
    blind_share: float = 0.0  # of them, asked without showing the guess
    overlap_share: float = 0.0  # of them, asked of two
    most_labelers: int = 3  # of one sample, where they differ
    prices: Mapping[str, Price] = {}
    task: Kind = "classification"  # what an answer is

    @classmethod
    def of(cls, config: ServerConfig) -> Rules:
        """As configured; ServerConfigError when the prices cannot be read."""
        people = config.labeler
        return cls(
            lease_s=people.lease_s,
            gold_share=people.gold_share,
            blind_share=people.blind_share,
            overlap_share=people.overlap_share,
            most_labelers=people.most_labelers,
            prices=parse(people.prices),
            task=config.server.task,
        )


class Queue:
    """The questions of one store."""

    def __init__(self, store: Store, rules: Rules, *, now_ms: Callable[[], int], rng: np.random.Generator) -> None:
        """`rng` draws gold, blind and doubly asked questions."""
        self._store = store
        self._rules = rules
        self._now_ms = now_ms
        self._rng = rng

    def put(self, made: Sequence[Queued], *, leased_to: str = "", lease_ms: int = 0) -> int:
        """Queue what a plan asks for; with `leased_to` for that labeler, who has it already. Returns how many."""
        now_ms = self._now_ms()
        several = [one._replace(wanted=max(one.wanted, 1 + self._drawn(self._rules.overlap_share))) for one in made]
        with self._store.database.write() as connection:
            number = questions.put(connection, several)
            if leased_to:
                held = [Lease(one.sample_id, leased_to, one.purpose, now_ms, now_ms + lease_ms) for one in made]
                here = samples.body_names(connection, [one.sample_id for one in held])
                questions.hold(connection, [one for one in held if one.sample_id in here])
            questions.make_room(connection, now_ms=now_ms)
        return number

    def next(self, labeler: str, *, count: int = 1) -> list[Task]:
        """What this labeler is to answer now, at most `count`, on leases of his; [] when there is nothing for him."""
        now_ms = self._now_ms()
        until_ms = now_ms + round(self._rules.lease_s * 1000)
        with self._store.database.write() as connection:
            mine = questions.held(connection, labeler, now_ms=now_ms)[:count]
            taken = [one._replace(until_ms=until_ms) for one in mine]
            golden = questions.gold_for(connection, labeler)
            for _ in range(count - len(taken)):
                if golden and self._drawn(self._rules.gold_share):
                    chosen = golden.pop(int(self._rng.integers(len(golden))))
                    taken.append(Lease(chosen, labeler, GOLD, now_ms, until_ms))
            for one in questions.open_to(connection, labeler, limit=count - len(taken), now_ms=now_ms):
                asked = questions.get(connection, one)
                taken.append(Lease(one, labeler, asked.purpose if asked else FIRST, now_ms, until_ms))
            hide = partial(self._drawn, self._rules.blind_share)
            taken[len(mine) :] = with_guesses(connection, taken[len(mine) :], hide=hide)
            questions.hold(connection, taken)
            return tasks_of(connection, taken)

    def answer(
        self,
        labeler: str,
        sample_id: str,
        said: str,
        *,
        new_class: bool = False,
        seconds: float | None = None,
        kind: str = PERSON,
        key: str | None = None,
        truth: Named | None = None,
    ) -> Outcome:
        """Keep an answer; see `answers`."""
        reply = Reply(sample_id, said, seconds, key, truth)
        return self.answers(labeler, [reply], new_class=new_class, kind=kind)[0]

    def answers(
        self,
        labeler: str,
        replies: Sequence[Reply],
        *,
        new_class: bool = False,
        kind: str = PERSON,
        asked_as: str = "",
    ) -> list[Outcome]:
        """Keep several answers of one labeler: all of them, or none.

        Args:
            labeler: whose.
            replies: to what he was asked; or about any other samples, which he corrects.
            new_class: a name that is not known is a new class, and not a slip.
            kind: of labeler.
            asked_as: who had the question, where it was asked elsewhere on several people's behalf: whoever answers
                what another has answered there has an opinion too, and corrects nobody.

        Raises:
            LabelError: there is no such class, or no such sample any more; or it is no answer on a server of that task.
        """
        with self._store.database.write() as connection:
            here = samples.body_names(connection, [one.sample_id for one in replies])
            for one in (reply._replace(key=labels.key_of(reply.key)) for reply in replies):
                if one.sample_id not in here:
                    raise LabelError(f"{one.sample_id}: no such sample: it was erased, or its id is another")
                said = meant(connection, one, task=self._rules.task, who=labeler, new=new_class, now_ms=self._now_ms())
                if not one.key or not _came_before(connection, one.key):
                    self._take(connection, labeler, one, said, kind, asked_as or labeler)
            return [outcome(connection, labeler, one) for one in replies]

    def take_in(self, given: Iterable[Given | Standing], *, asked_as: str) -> int:
        """Keep what people elsewhere have answered, each once; returns how many were of samples here.

        `asked_as`: who had the questions on their behalf.
        """
        kept = 0
        for one in given:
            with self._store.database.read() as connection:
                here = one.id in samples.body_names(connection, [one.id])
            if not here:
                continue  # erased
            if isinstance(one, Standing):
                self._withdraw(one)
                continue
            try:
                reply = Reply(one.id, one.said, one.seconds, one.key, one.truth)
                self.answers(one.labeler, [reply], new_class=True, kind=one.kind, asked_as=asked_as)
                kept += 1
            except LabelError as error:  # one that makes no sense must not hold up the others
                log.warning("%s answered %r to %s: %s", one.labeler, one.said, one.id, error)
        return kept

    def _withdraw(self, standing: Standing) -> None:
        """Answers that were deleted where they were given count no more, and what has none waits again."""
        with self._store.database.write() as connection:
            given = [row for row in labels.of_sample(connection, standing.id) if row.kind == standing.kind]
            gone = [
                row.id for row in given if row.undone_at_ms is None and not (row.key or "").startswith(standing.keys)
            ]
            for label_id in gone:
                questions.take_back(connection, label_id, now_ms=self._now_ms())
            if gone:
                consensus.resolve(connection, [standing.id])
                questions.unspare(connection, standing.id)

    def skip(self, labeler: str, sample_id: str) -> None:
        """Not me, not now. LabelError when he does not have it."""
        now_ms = self._now_ms()
        with self._store.database.write() as connection:
            held = questions.lease_of(connection, labeler, sample_id)
            if held is None or held.skipped:
                raise LabelError(f"{sample_id}: {labeler} was not asked about it, so there is nothing to skip")
            questions.hold(connection, [held._replace(skipped=True, until_ms=now_ms + SKIP_MS)])

    def undo(self, labeler: str) -> str:
        """Take the labeler's last answer back; returns its sample's id. LabelError when there is none."""
        now_ms = self._now_ms()
        with self._store.database.write() as connection:
            last = questions.last_given(connection, labeler)
            if last is None:
                raise LabelError(f"{labeler} has given no answer that could be taken back")
            questions.take_back(connection, last.id, now_ms=now_ms)
            consensus.resolve(connection, [last.sample_id])
            beside = questions.unspare(connection, last.sample_id)
            until_ms = now_ms + round(self._rules.lease_s * 1000)
            again = Lease(last.sample_id, labeler, last.purpose, now_ms, until_ms)
            questions.hold(connection, [again._replace(guess=last.guess, guess_by=last.guess_by, shown=last.shown)])
            if last.purpose != GOLD and questions.get(connection, last.sample_id) is None:
                asked = Queued(last.sample_id, last.purpose, now_ms, 1, SOON, last.probability, last.plan_ms, beside)
                wanted = questions.answered(connection, asked) + 1
                questions.put(connection, [asked._replace(wanted=wanted)])
            questions.make_room(connection, now_ms=now_ms)
            return str(last.sample_id)

    def _take(self, connection: sa.Connection, labeler: str, one: Reply, said: Meant, kind: str, asked_as: str) -> None:
        held = questions.lease_of(connection, asked_as, one.sample_id)
        asked = questions.get(connection, one.sample_id)
        now_ms = self._now_ms()
        took = _seconds(held, now_ms, self._rules.lease_s) if one.seconds is None else one.seconds
        given = labels.Label(
            one.sample_id,
            said.class_index,
            labeler,
            now_ms,
            took,
            kind=kind,
            key=one.key or None,
            price=self._rules.prices.get(kind, Price()).of(took),
            purpose=purpose_of(connection, one.sample_id, held, asked, corrects=asked_as == labeler),
            truth=said.plain,
        )
        if held is not None:
            given = given._replace(guess=held.guess, guess_by=held.guess_by, shown=held.shown)
        if asked is not None:
            given = given._replace(**asked.drawn)
        labels.add(connection, [given])
        questions.release(connection, asked_as, one.sample_id)
        self._after(connection, given, asked)

    def _after(self, connection: sa.Connection, given: labels.Label, asked: Queued | None) -> None:
        """The question is over when as many as were wanted have answered and agree."""
        if asked is None or given.purpose == GOLD:
            return
        if given.class_index != labels.CANNOT_TELL:
            labels.spare(connection, dict.fromkeys(asked.beside, given.sample_id))
        if questions.answered(connection, asked) < asked.wanted:
            return
        standing = labels.standing(connection, given.sample_id)
        differ = standing is not None and standing.confidence is not None and standing.confidence < AGREED
        if differ and asked.wanted < self._rules.most_labelers:
            questions.want(connection, given.sample_id, asked.wanted + 1)
        else:
            questions.drop(connection, given.sample_id)

    def _drawn(self, share: float) -> bool:
        return share > 0.0 and bool(self._rng.random() < share)


def _came_before(connection: sa.Connection, key: str) -> bool:
    """An answer of that key is here, or was erased with its labeler."""
    return labels.has_key(connection, key) or bool(erasures.buried(connection, [key]))


def _seconds(held: Lease | None, now_ms: int, lease_s: float) -> float:
    return 0.0 if held is None else min(max(now_ms - held.at_ms, 0) / 1000.0, lease_s)
