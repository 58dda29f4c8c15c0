"""When does a device ask for its next certificate, and what if it cannot?

After half of the time of the one it has, a little earlier or later so that a fleet does not come all at once. It tries
again until it has one, past the end of the old one too: the old key alone is enough to renew, and for nothing else. A
connection that is open goes on; the next one is made with the new certificate.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

from edge_agent.contract.enrolment import RENEW, Renew, Renewed, renewal_bytes
from edge_agent.contract.errors import IdentityError, UplinkError
from edge_agent.contract.keys import sign, signing_request
from edge_agent.identity.papers import Certificate, Papers
from edge_agent.identity.portal import Portal

LOOK_S = 3600.0  # between two looks: longer, and a clock that is set after the start is noticed late
RETRY_FIRST_S = 60.0
RETRY_MAX_S = 6 * 3600.0
FROM_SHARE, TO_SHARE = 0.5, 0.6  # of its time after which a certificate is renewed, drawn between them

log = logging.getLogger(__name__)


def due_in_s(certificate: Certificate, *, share: float, now_s: float) -> float:
    """How long until `share` of its time is over; 0: now.

    >>> ours = Certificate("cam-1", "", issued_s=0.0, expires_s=90.0)
    >>> [due_in_s(ours, share=0.5, now_s=now_s) for now_s in (40.0, 45.0, 400.0)]
    [5.0, 0.0, 0.0]
    """
    return max(0.0, certificate.issued_s + share * (certificate.expires_s - certificate.issued_s) - now_s)


class Renewal:
    """Keeps the certificate of one device current."""

    def __init__(
        self,
        papers: Papers,
        portal: Portal,
        *,
        report: Callable[[str], None],
        uniform: Callable[[], float],
        clock: Callable[[], float] = time.time,
    ) -> None:
        """`report` is told what an operator should know; `uniform` draws from [0, 1); `clock` gives s since 1970."""
        self._papers = papers
        self._portal = portal
        self._report = report
        self._clock = clock
        self._uniform = uniform
        self._share = FROM_SHARE + (TO_SHARE - FROM_SHARE) * uniform()
        self._failures = 0
        self._complaint = ""
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="renewal", daemon=True)

    def start(self) -> None:
        """Look at once, and then again and again."""
        self._thread.start()

    def stop(self) -> None:
        """Look no more; one that is being asked for may still come."""
        self._stopping.set()

    def look(self) -> float:
        """Renew if it is time to; returns after how many seconds to look again.

        IdentityError and UplinkError say why it could not be.
        """
        certificate, key = self._papers.current()
        if wait_s := due_in_s(certificate, share=self._share, now_s=self._clock()):
            return min(wait_s, LOOK_S)
        wanted = self._papers.next_key()
        request = signing_request(wanted)
        signature = sign(key, renewal_bytes(certificate.pem, request))
        word = Renew(certificate=certificate.pem, request=request, signature=signature)
        answer = self._portal.ask(RENEW, word, Renewed, ca_pem=self._papers.authority())
        made = self._papers.take(wanted, answer.certificate, device=certificate.device)
        log.info("certificate renewed, good until %s", time.strftime("%Y-%m-%d", time.gmtime(made.expires_s)))
        return min(due_in_s(made, share=self._share, now_s=self._clock()), LOOK_S)

    def step(self) -> float:
        """`look`, but what fails is told and tried again; returns after how many seconds."""
        try:
            wait_s = self.look()
        except (IdentityError, UplinkError) as error:
            self._complain(str(error))
            wait_s = min(RETRY_FIRST_S * 2.0**self._failures, RETRY_MAX_S) * (0.5 + 0.5 * self._uniform())
            self._failures = min(self._failures + 1, 20)  # far beyond the longest wait
        else:
            self._failures, self._complaint = 0, ""
        return wait_s

    def _run(self) -> None:
        wait_s = 0.0
        while not self._stopping.wait(wait_s):
            wait_s = self.step()

    def _complain(self, text: str) -> None:
        """Once for each kind of trouble; the server that hears of it may be reached by the broker only."""
        if text != self._complaint:
            self._report(f"certificate not renewed: {text}")
        self._complaint = text
