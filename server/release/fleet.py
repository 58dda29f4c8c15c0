"""How does the fleet come to run what the rollouts say, and to look out for what people ask for?

Orders are published as retained `desired` messages: of the model (channels.py), of requests (requests.py), of what is
to be purged (store/erasures.py), of what operators say (orders.py) and of the portfolio's arm. An order is published
when it differs from the one in the store, and again when its device connects and when the server starts (the broker, or
a kill after the commit, may have lost it).
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence

import msgspec

from edge_agent.contract.wire import Desired, Purge, down_topic, encode
from server import config
from server.release.channels import Channels
from server.release.downloads import Publish
from server.release.orders import with_orders
from server.release.requests import Sketches, wanted_of
from server.release.signing import Signing
from server.store import device_orders, devices, erasures, identities, portfolios, requests, rollouts
from server.store.store import Store

AT_ONCE = 200  # orders to one transaction: what is told to all of 10,000 would hold up ingest for many seconds
REST_MS = 30_000  # between looks when nothing is rolled out: reading 10,000 devices costs a good part of a second
RESTS = 9  # times as long as a look took, before the next: more, and rollouts are slow; less, and ingest is


class Fleet:
    """Carries the rollouts on, and passes requests on."""

    def __init__(
        self,
        store: Store,
        *,
        fleet: str,
        rules: config.Rollout,
        publish: Publish,
        autonomy: config.Autonomy = config.Autonomy(),  # noqa: B008 - frozen
        signing: Signing | None = None,
        files_url: str = "",
        monotonic: Callable[[], float] | None = None,
    ) -> None:
        """Start with what the store remembers. ServerConfigError when the rings of `rules` or `autonomy` make no sense.

        Args:
            store: of the server.
            fleet: its name, part of every topic.
            rules: of rollouts.
            publish: hands a message to the broker.
            autonomy: which channels get what is published by itself.
            signing: which versions may be rolled out; None: all, unsigned.
            files_url: where devices may fetch by HTTPS as well; empty: nowhere.
            monotonic: clock by which a look is followed by a rest; None: there is none.
        """
        self._store = store
        self._monotonic = monotonic
        self._rest_ms = 0.0  # after the last look
        self._fleet = fleet
        self._publish = publish
        self._channels = Channels(store, rules, autonomy=autonomy, signing=signing, files_url=files_url)
        self._sketches = Sketches(store)
        self._asked: Sequence[requests.Request] = ()  # what was open at the last look
        self._purges: dict[str, tuple[Purge, ...]] = {}  # what was to be purged then, by device
        self._arms_ms = 0  # when arms were told that were passed on
        self._orders = 0  # revision of the operators' orders then
        self._lock = threading.Lock()
        self._born: set[str] = set()
        self._looked_ms: int | None = None

    def on_birth(self, device: str) -> None:
        """A device has connected; its order follows with the next `tick`."""
        with self._lock:
            self._born.add(device)

    def tick(self, now_ms: int) -> None:
        """One look at the fleet: start what waits, advance what runs, publish what changed. StoreError: try again."""
        with self._lock:
            born, self._born = self._born, set()
        try:
            self._look(born, now_ms)
        except BaseException:
            with self._lock:
                self._born |= born
            raise

    def _look(self, born: set[str], now_ms: int) -> None:
        current, news = self._channels.look(now_ms)
        with self._store.database.read() as connection:
            asked = requests.open_ones(connection, now_ms=now_ms)
            kept = portfolios.get(connection)
            purges = erasures.orders(connection)
            orders = device_orders.revision(connection)
        arms_ms = kept.at_ms if kept else 0
        news |= list(asked) != list(self._asked) or arms_ms != self._arms_ms or purges != self._purges
        news |= orders != self._orders
        whole = news or self._due(current, asked, now_ms)
        if not (born or whole):
            return
        begun_s = self._monotonic() if self._monotonic else 0.0
        with self._store.database.read() as connection:
            gone = identities.revoked(connection)
            known = devices.devices(connection, None if whole else born)  # what a few need is read of those few
        fleet = {device.name: device for device in known if device.name not in gone}
        again = set(fleet) if self._looked_ms is None else born & fleet.keys()
        changed: dict[str, Desired] = {}
        for one in current:
            if whole or one.status != "running":  # one that runs is judged by all of its devices
                changed |= self._channels.advance(one, fleet, now_ms)
        changed |= self._pass_on(asked, purges, fleet, changed)
        for name in changed.keys() | again:
            desired = changed.get(name) or fleet[name].desired
            if desired is not None:
                self._publish(down_topic(self._fleet, name, "desired"), encode(desired), qos=1, retain=True)
        if whole:
            self._asked, self._purges, self._arms_ms, self._looked_ms = asked, purges, arms_ms, now_ms
            self._orders = orders
            self._rest_ms = 1000 * RESTS * (self._monotonic() - begun_s) if self._monotonic else 0.0

    def _due(self, current: Sequence[rollouts.Rollout], asked: Sequence[requests.Request], now_ms: int) -> bool:
        # An ended rollout still owes its version to whoever comes late, and a birth may have passed unheard; a device
        # that runs another version by now is owed another sketch.
        if not current and not asked:
            return self._looked_ms is None
        if self._looked_ms is None or now_ms < self._looked_ms:  # the clock was put back
            return True
        running = any(one.status == "running" for one in current)
        return now_ms - self._looked_ms >= (min(self._rest_ms, REST_MS) if running else REST_MS)

    def _pass_on(
        self,
        asked: Sequence[requests.Request],
        purges: Mapping[str, tuple[Purge, ...]],
        fleet: dict[str, devices.Device],
        changed: dict[str, Desired],
    ) -> dict[str, Desired]:
        """Keep all that each device is to be told beside the model; returns the orders that differ."""
        self._sketches.keep(request.sample_id for request in asked)
        with self._store.database.read() as connection:
            given = device_orders.latest(connection)
        new: dict[str, Desired] = {}
        for name, device in fleet.items():
            known = changed.get(name) or device.desired or Desired(revision=0)
            wanted = with_orders(_with_arm(known, device.arm), given.get(name, {}))
            told = wanted_of(device, asked, self._sketches)
            wanted = msgspec.structs.replace(wanted, requests=told, purges=purges.get(name, ()))
            if wanted != known:
                new[name] = wanted
        kept: dict[str, Desired] = {}
        names = list(new)
        for start in range(0, len(names), AT_ONCE):
            with self._store.database.write() as connection:
                kept |= {
                    name: devices.set_desired(connection, name, new[name]) for name in names[start : start + AT_ONCE]
                }
        return kept


def _with_arm(desired: Desired, arm: str | None) -> Desired:
    """An order with the arm that a portfolio gave; one that it takes back leaves the device's own in force."""
    if arm is None and desired.strategy is None:  # what else may be told of acquisition is not the portfolio's
        return desired
    strategy, _, acquisition = (arm or "").partition("/")
    return msgspec.structs.replace(desired, strategy=strategy or None, acquisition=acquisition or None)
