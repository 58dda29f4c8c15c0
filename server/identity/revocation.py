"""How is somebody shut out at once?

    the store says who is revoked     whoever wrote it, be it another process
    the list is written anew          and the broker reads it: nobody comes in by those certificates any more
    who is in is cut off              by a client of the same name, which takes the session over

The last needs nothing of a broker but what MQTT 3.1.1 promises (section 3.1.4: a second connection with a client id
ends the first), and the right to come in under that name, which the authority can give itself.
"""

from __future__ import annotations

import logging
import ssl
import threading
from collections.abc import Callable, Collection, Iterable, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion

from edge_agent.contract.artifact import write_durably
from edge_agent.contract.errors import did_you_mean
from edge_agent.contract.keys import new_key, private_pem
from server.errors import IdentityError
from server.identity.authority import Authority
from server.identity.credentials import Credentials
from server.store import identities, samples, trail
from server.store.store import Store

CUT_S = 5.0  # longest wait for the broker; longer holds up everything else that the server looks after
CUT_LOOKS = 30  # a broker that cannot be reached is asked so often; fewer, and it may only be starting anew
CUT_DAYS = 1 / 24  # time of a certificate to cut with, beside what every one begins early

_log = logging.getLogger(__name__)


class Revoked(NamedTuple):
    """What a revocation has done."""

    certificates: int  # that were good until then
    samples: int  # of the device, in the store


def revoke(
    store: Store, name: str, *, why: str, samples_left_out: bool, now_ms: int, who: str = trail.SERVER
) -> Revoked:
    """Shut a device out; a running server sees it within a second. IdentityError when nobody knows of it.

    A device that is revoked may be so once more: to give another reason, or to leave out its samples too.
    """
    with store.database.write() as connection:
        known = identities.names(connection)
        if name not in known:
            raise IdentityError(f"device {name!r} is unknown{did_you_mean(name, known)}")
        certificates = identities.revoke(connection, name, why=why, samples_left_out=samples_left_out, now_ms=now_ms)
        stored = samples.sample_counts(connection).get(name, {})
        detail = {"samples_left_out": samples_left_out, "certificates": certificates}
        trail.record(connection, "revoke", f"device {name}", why=why, who=who, detail=detail, now_ms=now_ms)
    return Revoked(certificates, sum(stored.values()))


class Revocation:
    """Keeps the list, and cuts off."""

    def __init__(
        self,
        store: Store,
        credentials: Credentials,
        *,
        reload: Callable[[], None],
        cut: Callable[[str, int], bool],
    ) -> None:
        """`reload`: have the broker read the list again; `cut(device, now_ms)`: end its connection, whether it did."""
        self._store = store
        self._credentials = credentials
        self._reload = reload
        self._cut = cut
        self._listed: frozenset[str] = frozenset()
        self._looks: dict[str, int] = {}  # device -> at how many more it is to be cut off

    def write(self, now_ms: int) -> None:
        """Write the list as it is: before the broker starts, which does not start without.

        Who is new on it was revoked while no server ran. A broker that is not our child may still have him in.
        """
        with self._store.database.read() as connection:
            revoked = identities.revoked_serials(connection)
        self._await(revoked, self._credentials.listed())
        self._list(revoked, now_ms)

    def tick(self, now_ms: int) -> list[str]:
        """Act on what is new; returns the devices that are cut off for the first time.

        Each is cut off once more at the next look: it may have been half way in, by the list as it was. Where that
        fails nobody else is waited for at this look, and it is tried again at the next, the others first.
        """
        with self._store.database.read() as connection:
            revoked = identities.revoked_serials(connection)
        new = self._await(revoked, self._listed)
        if new:
            self._list(revoked, now_ms)
            self._reload()
            _log.warning("no longer let in, and cut off: %s", ", ".join(new))
        self._cut_off(now_ms)
        return new

    def _cut_off(self, now_ms: int) -> None:
        for device in list(self._looks):
            done = self._cut(device, now_ms)
            left = self._looks.pop(device) - 1
            if left := min(left, 1) if done else left:
                self._looks[device] = left  # last of all
            if not done:
                return

    def _await(self, revoked: Mapping[str, str], listed: Collection[str]) -> list[str]:
        """Who is revoked (serial -> device) and was not listed is to be cut off; returns the devices."""
        new = sorted({device for serial, device in revoked.items() if serial not in listed})
        self._looks.update(dict.fromkeys(new, CUT_LOOKS))
        return new

    def _list(self, revoked: Iterable[str], now_ms: int) -> None:
        self._credentials.revoke(revoked, now_ms=now_ms)
        self._listed = frozenset(revoked)


def cut(authority: Authority, device: str, *, host: str, port: int, ca_file: Path, now_ms: int) -> bool:
    """End the connection of `device` to the broker at `host:port`; False when the broker did not let us in."""
    context = ssl.create_default_context(cafile=ca_file)
    with TemporaryDirectory() as folder:  # Python's ssl takes keys from files alone
        file = Path(folder, "as-device.pem")
        key = new_key()
        made = authority.issue_device(device, key.public_key(), now_ms=now_ms, days=CUT_DAYS)
        write_durably(file, private_pem(key) + made.pem, mode=0o600)
        context.load_cert_chain(file)
    client = mqtt.Client(CallbackAPIVersion.VERSION2, device, reconnect_on_failure=False)
    client.tls_set_context(context)
    let_in = threading.Event()
    client.on_connect = lambda _client, _data, _flags, reason, _properties: None if reason.is_failure else let_in.set()
    try:
        client.connect(host, port)
    except OSError as error:
        _log.warning("device %s could not be cut off: %s:%d: %s", device, host, port, error)
        return False
    client.loop_start()
    done = let_in.wait(CUT_S)
    client.disconnect()
    client.loop_stop()
    if not done:
        _log.warning("device %s could not be cut off: the broker at %s:%d does not let us in", device, host, port)
    return done
