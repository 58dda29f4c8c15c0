"""What lies between the devices and the server of a simulated fleet? A broker whose faults are verbs."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator

from edge_agent.contract.wire import up_topic

FLEET = "sim"


class Network:
    """Between the devices and the server: a broker that keeps `desired`, and loses what nobody is there to take."""

    def __init__(self, seed: int) -> None:
        self._rng = random.Random(seed)
        self._up: list[tuple[str, bytes]] = []
        self._down: list[tuple[str, bytes]] = []
        self._retained: dict[str, bytes] = {}
        self._is_cut: set[str] = set()
        self._repeats = self._corrupts = 0.0
        self._reorders = False
        self.tamper: Callable[[str, bytes], bytes] = lambda _topic, payload: payload  # somebody sits in the middle

    # --- faults ---

    def cut(self, *names: str) -> None:
        """Nothing passes; the broker tells of their death."""
        self._is_cut |= set(names)

    def mend(self, *names: str) -> None:
        """All is as before; the devices connect again."""
        self._is_cut -= set(names)

    def repeat(self, share: float) -> None:
        """So many of the messages come twice."""
        self._repeats = share

    def reorder(self) -> None:
        """What travels in one tick arrives in any order."""
        self._reorders = True

    def corrupt(self, share: float) -> None:
        """So many of the blocks have a byte changed: what carries the rest checks its bytes itself."""
        self._corrupts = share

    # --- traffic ---

    def reaches(self, name: str) -> bool:
        return name not in self._is_cut

    def say(self, name: str, kind: str, payload: bytes) -> None:
        if self.reaches(name) or kind == "death":
            self._up.append((up_topic(FLEET, name, kind), payload))

    def publish(self, topic: str, payload: bytes, *, qos: int, retain: bool) -> None:
        """As the server's broker client."""
        if retain:
            self._retained[topic] = payload
        self._down.append((topic, payload))

    def retained(self, name: str) -> bytes | None:
        return self._retained.get(f"winnow/1/{FLEET}/{name}/down/desired")

    def going_up(self) -> list[tuple[str, bytes]]:
        going, self._up = self._up, []
        return list(self._spoilt(going))

    def going_down(self) -> list[tuple[str, bytes]]:
        going, self._down = self._down, []
        return list(self._spoilt((topic, self.tamper(topic, payload)) for topic, payload in going))

    def _spoilt(self, messages: Iterable[tuple[str, bytes]]) -> Iterator[tuple[str, bytes]]:
        found = []
        for topic, payload in messages:
            if topic.endswith("/block") and self._rng.random() < self._corrupts:
                place = self._rng.randrange(len(payload))
                payload = payload[:place] + bytes([payload[place] ^ 0x55]) + payload[place + 1 :]
            found += [(topic, payload)] * (1 + (self._rng.random() < self._repeats))
        if self._reorders:
            self._rng.shuffle(found)
        yield from found
