"""Which of several processes acts, where only one may?

    stands -> leads, renewed each third of its lease -> stands again, when that failed for two thirds, or another leads
                     not renewed once it hangs

A renewal waits for no other write (`Database.beside`): whatever they wait for, a seat is not lost over it.

Who leads writes under its term (store/leadership.py), so that a write of one that was deposed is refused. What is no
write (a message to a device, a webhook) is kept apart by time: who was not renewed stops a third of the lease before
another may begin. A process that was frozen may still send what it was about to; none of that does harm when it comes
late or twice (docs/adr/0035-one-leads-by-a-lease-and-a-term.md).
"""

from __future__ import annotations

import logging
import os
import secrets
import socket
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from functools import partial

import sqlalchemy as sa

from server.errors import DeposedError, ServerError, StoreError
from server.roles.tick import always
from server.store import leadership
from server.store.leadership import Name, Seat
from server.store.store import Store

log = logging.getLogger(__name__)

ACTS_SHARE = 2 / 3  # of a lease, without a renewal: more leaves no time to come to rest, less stops at every hiccup
RENEWALS = 3  # in a lease: fewer, and one that fails ends a term; more only write
LOOKS = 6  # in a lease, of who stands: fewer takes over late, more asks the catalogue for nothing
AGAIN_S = 0.5  # after a renewal that the store could not take


def elapsed_s() -> float:
    """Seconds that go on while the machine sleeps, where the system has such a clock."""
    return time.clock_gettime(time.CLOCK_BOOTTIME) if hasattr(time, "CLOCK_BOOTTIME") else time.monotonic()


class Election:
    """Stands for seats, for all of them together, and keeps them. `acts` may be asked from any thread."""

    def __init__(
        self,
        store: Store,
        *names: Name,
        lease_s: float,
        elapsed: Callable[[], float] = elapsed_s,
        clock: Callable[[sa.Connection], int] = leadership.clock_ms,
    ) -> None:
        """`elapsed`: seconds of this machine; `clock`: the catalogue's, ms since 1970."""
        self._store, self._names, self._lease_s = store, names, lease_s
        self._elapsed, self._clock = elapsed, clock
        self.holder = f"{socket.gethostname()}:{os.getpid()}:{secrets.token_hex(4)}"
        self.terms: Mapping[str, int] = {}
        """Under which it leads; empty: it does not."""
        self._until_s = 0.0
        self._seen: dict[Seat, float] = {}  # seats as they are, and since when, by `elapsed`

    @property
    def acts(self) -> bool:
        """Whether it leads, for all that it can know."""
        return bool(self.terms) and self._elapsed() < self._until_s

    def stand(self) -> bool:
        """Ask for the seats once; whether they are ours now. StoreError: they could not be asked for."""
        asked_s = self._elapsed()
        with self._store.database.read() as connection:
            found = leadership.seats(connection, self._names)
            now_ms = self._clock(connection)
        self._seen = {seat: self._seen.get(seat, asked_s) for seat in found}
        stale = [seat for seat, since_s in self._seen.items() if asked_s - since_s >= self._lease_s]
        ask = partial(leadership.asked, holder=self.holder, lease_ms=self._lease_ms, now_ms=now_ms, stale=stale)
        # Seen without the right to write, for which others would have to wait.
        return all(ask(seat) is not None for seat in found) and self._claim(stale)

    def renew(self) -> None:
        """Ask for another lease. DeposedError: another leads; StoreError: it could not be asked for."""
        asked_s = self._elapsed()  # before: the lease begins when the catalogue answers, or not at all
        try:
            with self._store.database.beside() as connection:
                until_ms = self._clock(connection) + self._lease_ms
                leadership.renew(connection, self.terms, self.holder, until_ms=until_ms)
        except DeposedError:
            self.terms = {}
            raise
        self._until_s = asked_s + ACTS_SHARE * self._lease_s

    def give_back(self) -> None:
        """Lead no more: whoever stands may begin at once."""
        terms, self.terms = self.terms, {}
        if terms:
            with self._store.database.write() as connection:
                leadership.give_back(connection, terms)

    def lead(
        self, stopped: threading.Event, act: Callable[[Store], None], *, well: Callable[[], bool] = always
    ) -> None:
        """Stand until `stopped`; whenever elected, `act` on the store under our term. It is to end when `acts` does.

        It is called in the thread that called this. `well`: whether it gets on; once not, the seats are not renewed.
        """
        said = ""
        while not stopped.is_set():
            if why := self._stands_by():
                if why != said:
                    log.info("%s: this process stands by: %s", ", ".join(self._names), why)
                said = why
                stopped.wait(self._lease_s / LOOKS)
                continue
            said = ""
            log.info("leads: %s", ", ".join(f"{name}, term {term}" for name, term in self.terms.items()))
            try:
                with self._renewed(well):
                    act(self._store.under(self.terms))
                    if not stopped.is_set():
                        log.warning("%s: not renewed in time, so this process stands again", ", ".join(self._names))
            except StoreError as error:  # deposed, or the catalogue is away: it comes again
                log.warning("%s: this process stands again: %s", ", ".join(self._names), error)
                stopped.wait(self._lease_s / LOOKS)

    @contextmanager
    def won(self) -> Iterator[Store]:
        """Lead as long as the block runs; ServerError when somebody else does. Who was killed is waited for."""
        until_s = self._elapsed() + self._lease_s + AGAIN_S
        while not self.stand():
            if self._elapsed() > until_s:
                raise ServerError(f"{', '.join(self._names)}: another process leads, and goes on")
            time.sleep(AGAIN_S)
        with self._renewed():
            yield self._store.under(self.terms)

    @property
    def _lease_ms(self) -> int:
        return int(self._lease_s * 1000)

    def _claim(self, stale: Collection[Seat]) -> bool:
        asked_s = self._elapsed()  # before: the lease begins when the catalogue answers, or not at all
        with self._store.database.write() as connection:
            now_ms = self._clock(connection)
            found = leadership.claim(
                connection, self._names, self.holder, lease_ms=self._lease_ms, now_ms=now_ms, stale=stale
            )
        if any(seat.holder != self.holder for seat in found):
            return False
        self.terms = {seat.name: seat.term for seat in found}
        self._until_s = asked_s + ACTS_SHARE * self._lease_s
        return True

    def _stands_by(self) -> str:
        """Ask for the seats once; why they are not ours, in words; empty: they are."""
        try:
            return "" if self.stand() else "another leads"
        except StoreError as error:
            return f"nobody knows who leads: {error}"

    @contextmanager
    def _renewed(self, well: Callable[[], bool] = always) -> Iterator[None]:
        """As long as the block runs, and is well; given back at its end."""
        done = threading.Event()
        thread = threading.Thread(target=self._renew_until, args=(done, well), name="election", daemon=True)
        thread.start()
        try:
            yield
        finally:
            done.set()
            thread.join()
            try:
                self.give_back()
            except StoreError as error:
                log.warning("%s: could not be given back, and runs out: %s", ", ".join(self._names), error)

    def _renew_until(self, done: threading.Event, well: Callable[[], bool]) -> None:
        wait_s = self._lease_s / RENEWALS
        while not done.wait(wait_s):
            if not well():
                log.error("%s: this process hangs: not renewed, so that another takes over", ", ".join(self._names))
                return
            try:
                self.renew()
                wait_s = self._lease_s / RENEWALS
            except DeposedError as error:
                log.warning("%s", error)
                return
            except StoreError as error:
                log.warning("%s: not renewed, and tried again: %s", ", ".join(self._names), error)
                wait_s = AGAIN_S
