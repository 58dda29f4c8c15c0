"""Who signs a version, and with which keys?

    trust/bundle.json            everything that is signed, in one file that is replaced in one step
    trust/root.json              its newest root: what a device is given to trust (`[update] trust`)
    trust/pending-targets.json   what still lacks signatures; `winnow-server keys sign FILE --key KEY` adds one,
    trust/pending-root.json      anywhere, and the server takes it over once there are enough
    keys/                        private keys (keys.py); those of root and targets may be taken away

Without keys nothing is signed. With them no version is rolled out that is not. Commands and a running server work on
the same folder: whoever changes it holds its lock.
"""

from __future__ import annotations

import fcntl
import logging
import os
import threading
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from securesystemslib.signer import Signer
from tuf.api.exceptions import RepositoryError
from tuf.api.metadata import TargetFile, Targets

from edge_agent.contract.artifact import sha256_hex, write_durably
from edge_agent.contract.errors import SignatureError
from edge_agent.contract.trust import Bundle, day, decode_bundle, encode_bundle
from server.errors import SigningError
from server.release import keys, metadata
from server.release.pending import ROLES, Pending
from server.store.versions import Version

log = logging.getLogger(__name__)

KEYS = "keys"
TRUST = "trust"
BUNDLE = "bundle.json"
ROOT = "root.json"
LOOK_MS = 5_000  # between looks for something to sign or renew: each reads the keys
OFFERED = 4  # bundles that devices may still be fetching while a newer one is out
WARN_MS = 60 * 86_400_000  # before root or targets expire: people have to find their keys


class Policy(NamedTuple):
    """How many keys the roles that people look after have, and how many must sign."""

    root_keys: int = 1
    root_threshold: int = 1
    targets_keys: int = 1
    targets_threshold: int = 1


class Stamp(NamedTuple):
    """A bundle, as an assignment names it."""

    sha256: str
    bytes: int


class _Known(NamedTuple):
    state: tuple[int, int]  # of the file: inode and mtime
    bundle: Bundle
    stamp: Stamp
    targets: Targets


class Signing:
    """The signatures of one fleet. Safe to use from several threads, and beside other processes."""

    def __init__(self, data_dir: Path) -> None:
        """Nothing is read yet."""
        self.folder, self.keys = data_dir / TRUST, data_dir / KEYS
        self.pending = Pending(self.folder)
        self._lock = threading.RLock()
        self._known: _Known | None = None
        self._offered: OrderedDict[str, bytes] = OrderedDict()
        self._looked = -1, -1  # ms since 1970, and the newest version then
        self._said = ""

    # --- what is signed ---

    @property
    def ready(self) -> bool:
        """Whether there is something that is signed."""
        return (self.folder / BUNDLE).exists()

    @property
    def on(self) -> bool:
        """Whether this fleet signs its models: it has keys; if the rest is lost, nothing goes out unsigned."""
        return self.ready or any(self.keys.glob("*.pem"))

    def covers(self, version: Version) -> bool:
        """Whether it is signed."""
        number, sha256 = version.number, version.manifest_sha256
        return metadata.covers(self._read().targets, number=number, manifest_sha256=sha256)

    def kept_until(self) -> str:
        """The day on which what people signed expires; the server renews the rest by itself."""
        expiries = metadata.expiries(self.bundle())
        return day(min(expiries[role] for role in ROLES))

    def stamp(self) -> Stamp:
        """The bundle in force."""
        return self._read().stamp

    def file(self, sha256: str) -> bytes | None:
        """A bundle that was in force lately, by its hash."""
        with self._lock:
            if self.ready:
                self._read()
            return self._offered.get(sha256)

    def bundle(self) -> Bundle:
        """Everything that is signed. SigningError when nothing is."""
        return self._read().bundle

    def _read(self) -> _Known:
        path = self.folder / BUNDLE
        with self._lock:
            try:
                found = path.stat()
                state = (found.st_ino, found.st_mtime_ns)
                if self._known is None or self._known.state != state:
                    data = path.read_bytes()
                    bundle = decode_bundle(data)
                    stamp = Stamp(sha256_hex(data), len(data))
                    self._known = _Known(state, bundle, stamp, metadata.targets_of(bundle))
                    self._offered[stamp.sha256] = data
                    while len(self._offered) > OFFERED:
                        self._offered.popitem(last=False)
            except OSError as error:
                lost = f"there are keys without it: put your copy of {self.folder} back, or finish the init"
                how = lost if self.on else "this fleet signs no models yet: winnow-server keys init server.toml"
                raise SigningError(f"{path}: {error.strerror}: {how}") from error
            except (SignatureError, RepositoryError) as error:
                raise SigningError(f"{path}: {error}: put your copy of {self.folder} back") from error
            return self._known

    # --- what changes it ---

    def init(self, policy: Policy, *, now_ms: int) -> Bundle:
        """Make every key and the first metadata. SigningError when there are some.

        Keys that a command made which was killed before it signed anything are taken: nobody trusts them yet.
        """
        counts = {
            "root": (policy.root_keys, policy.root_threshold),
            "targets": (policy.targets_keys, policy.targets_threshold),
            "snapshot": (1, 1),
            "timestamp": (1, 1),
        }
        for role, (count, threshold) in counts.items():
            metadata.check_threshold(role, count, threshold)
        left = {role: keys.named(self.keys, role) for role in counts}
        strange = len(list(self.keys.glob("*.pem"))) - sum(map(len, left.values()))
        if self.ready or strange or any(len(left[role]) > count for role, (count, _) in counts.items()):
            raise SigningError(f"{self.keys}: keys are here already: winnow-server keys rotate makes others")
        made = {role: keys.make(self.keys, role, count, among=left[role]) for role, (count, _) in counts.items()}
        roles = {role: _keys(made[role], threshold) for role, (_, threshold) in counts.items()}
        every = {signer.public_key.keyid: signer for signers in made.values() for signer in signers}
        bundle = metadata.first(roles, every, now_ms=now_ms)
        self.folder.mkdir(parents=True, exist_ok=True)
        self._write(bundle)
        return bundle

    def tick(self, versions: Sequence[Version], *, now_ms: int) -> None:
        """Sign what can be signed here, take over what others have signed, renew what expires. SigningError: say so."""
        newest, (looked_ms, looked) = versions[-1].number if versions else 0, self._looked
        if not self.on or (newest == looked and 0 <= now_ms - looked_ms < LOOK_MS):
            return
        self._looked = now_ms, newest
        bundle = self.sign(versions, now_ms=now_ms)
        self._say(self._wanting(bundle, versions, now_ms))

    def sign(self, versions: Sequence[Version], *, more: Sequence[Path] = (), now_ms: int) -> Bundle:
        """Vouch for versions with the keys that are here and `more`; what lacks signatures then stays pending."""
        with self._held():
            bundle, signers = self.bundle(), keys.signers(self.keys, more)
            root, targets = metadata.root_of(bundle), metadata.targets_of(bundle)
            pending = self.pending.targets()
            if pending is not None and pending.signed.version > targets.version:
                targets = pending.signed
            else:
                pending = None
            missing = [one for one in versions[-metadata.TARGETS_KEPT :] if not _covered(targets, one)]
            for one in missing:
                pending = metadata.with_target(targets, _target(one), now_ms=now_ms)
                targets = pending.signed
            if pending is not None:
                waiting = self.pending.root()
                roots = [root, waiting.signed] if waiting else [root]
                self.pending.keep(metadata.sign(pending, signers, roots))
            return self._settle(bundle, signers, now_ms=now_ms)

    def rotate(
        self, role: str, *, count: int = 1, threshold: int = 1, more: Sequence[Path] = (), now_ms: int
    ) -> Bundle:
        """Other keys for a role. The new root is in force once the old root's keys have signed it, and its own."""
        with self._held():
            self.pending.none_of("root")
            metadata.check_threshold(role, count, threshold)
            made = keys.make(self.keys, role, count)
            signers = keys.signers(self.keys, more)
            return self._re_root({role: _keys(made, threshold)}, signers, now_ms=now_ms)

    def extend(self, role: str, *, more: Sequence[Path] = (), now_ms: int) -> Bundle:
        """The same keys of root or targets for another term."""
        with self._held():
            self.pending.none_of(role)
            signers = keys.signers(self.keys, more)
            if role == "root":
                return self._re_root({}, signers, now_ms=now_ms)
            bundle = self.bundle()
            again = metadata.next_targets(metadata.targets_of(bundle), now_ms=now_ms)
            self.pending.keep(metadata.sign(again, signers, [metadata.root_of(bundle)]))
            return self._settle(bundle, signers, now_ms=now_ms)

    def _re_root(self, roles: dict[str, metadata.Keys], signers: dict[str, Signer], *, now_ms: int) -> Bundle:
        bundle = self.bundle()
        old = metadata.root_of(bundle)
        new = metadata.next_root(old, now_ms=now_ms, roles=roles)
        if "targets" in roles:  # what the old keys signed would not hold under the new root, which waits for them
            pending = self.pending.targets()
            newest = pending.signed if pending else metadata.targets_of(bundle)
            again = metadata.next_targets(newest, now_ms=now_ms)
            self.pending.keep(metadata.sign(again, signers, [new.signed]))
        self.pending.keep(metadata.sign(new, signers, [old, new.signed]))
        return self._settle(bundle, signers, now_ms=now_ms)

    def _settle(self, bundle: Bundle, signers: dict[str, Signer], *, now_ms: int) -> Bundle:
        taken = bundle
        while (more := metadata.settle(taken, self.pending.root(), self.pending.targets())) is not taken:
            taken = more
        renewed = metadata.renew(taken, signers, now_ms=now_ms)
        if renewed != bundle or not self._root_is(renewed):  # killed between the two
            self._write(renewed)
        self.pending.forget(renewed)
        return renewed

    def _root_is(self, bundle: Bundle) -> bool:
        try:
            return (self.folder / ROOT).read_bytes() == bytes(bundle.roots[-1])
        except FileNotFoundError:
            return False

    def _write(self, bundle: Bundle) -> None:
        write_durably(self.folder / BUNDLE, encode_bundle(bundle))
        write_durably(self.folder / ROOT, bytes(bundle.roots[-1]))

    def _wanting(self, bundle: Bundle, versions: Sequence[Version], now_ms: int) -> str:
        """What people have to do; empty: nothing."""
        says = [f"{path} lacks {count} signatures" for path, count in self.pending.lacking(bundle).items()]
        if versions and not _covered(metadata.targets_of(bundle), versions[-1]):
            says.append(
                f"version {versions[-1].number} is not rolled out before it is signed: "
                f"winnow-server model sign {versions[-1].number} --key FILE server.toml"
            )
        expiries = metadata.expiries(bundle)
        for role in ROLES:
            if expiries[role] - now_ms < WARN_MS:
                says.append(f"{role} expires on {day(expiries[role])}: winnow-server keys extend {role} server.toml")
        return "; ".join(says)

    def _say(self, text: str) -> None:
        if text and text != self._said:
            log.warning("signing: %s", text)
        self._said = text

    @contextmanager
    def _held(self) -> Iterator[None]:
        """Nobody else changes the folder meanwhile."""
        with self._lock:
            self._read()
            handle = os.open(self.folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                fcntl.flock(handle, fcntl.LOCK_EX)
                yield
            finally:
                os.close(handle)


def _keys(signers: Sequence[Signer], threshold: int) -> metadata.Keys:
    return metadata.Keys([signer.public_key for signer in signers], threshold)


def _covered(targets: Targets, version: Version) -> bool:
    return metadata.covers(targets, number=version.number, manifest_sha256=version.manifest_sha256)


def _target(version: Version) -> TargetFile:
    return metadata.target(
        number=version.number,
        name=version.name,
        manifest_sha256=version.manifest_sha256,
        manifest_bytes=version.manifest_bytes,
    )
