"""What is signed, by whom, and until when?

TUF metadata of four roles (contract/trust.py says which), as one `Bundle`. Everything here is pure: a bundle, signers
and the time in; a new bundle, or metadata that still lacks signatures, out.

Versions of timestamp, snapshot and targets are minutes since 1970, or one more than the last: a server that comes back
from last month's backup is ahead of what its devices have seen, and not locked out by their memory. Roots count by one.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta, timezone
from typing import Any, NamedTuple, TypeVar

import msgspec
from securesystemslib.signer import Key, Signer
from tuf.api.exceptions import RepositoryError
from tuf.api.metadata import Metadata, MetaFile, Root, Snapshot, TargetFile, Targets, Timestamp
from tuf.api.serialization.json import JSONSerializer

from edge_agent.contract.trust import SIGNED_AT, Bundle, Raw, target_path
from server.errors import SigningError

ROLES = ("root", "targets", "snapshot", "timestamp")
LIFE = {
    # Too short, and nothing can be rolled out to devices that come by seldom. Too long, and whoever can hold back news
    # from a device may do so for as long.
    "timestamp": timedelta(days=3),
    "snapshot": timedelta(days=14),
    # Renewed by people where the keys lie in a safe; `winnow-server keys list` says when.
    "targets": timedelta(days=365),
    "root": timedelta(days=3 * 365),
}
RENEW = {"timestamp": timedelta(days=2), "snapshot": timedelta(days=7)}  # with less left they are signed anew
TARGETS_KEPT = 200  # newest versions that are vouched for: 40 kB; what is older no device may go back to anyway

Signers = Mapping[str, Signer]  # by key id
T = TypeVar("T", Root, Timestamp, Snapshot, Targets)


class Keys(NamedTuple):
    """Of one role: its keys, and how many of them must sign."""

    keys: Sequence[Key]
    threshold: int


def first(roles: Mapping[str, Keys], signers: Signers, *, now_ms: int) -> Bundle:
    """The first metadata of a fleet: no version is vouched for yet."""
    root = Root(version=1, expires=_until("root", now_ms), consistent_snapshot=True)
    for role in ROLES:
        _entrust(root, role, roles[role])
    targets = Metadata(Targets(version=_next(0, now_ms), expires=_until("targets", now_ms)))
    nothing = Raw(b"null")
    bundle = Bundle(
        roots=(pack(sign(Metadata(root), signers, [root])),),
        targets=pack(sign(targets, signers, [root])),
        snapshot=nothing,
        timestamp=nothing,
    )
    return renew(bundle, signers, now_ms=now_ms)


def root_of(bundle: Bundle) -> Root:
    """The root in force."""
    return Metadata[Root].from_bytes(bytes(bundle.roots[-1])).signed


def targets_of(bundle: Bundle) -> Targets:
    """What is vouched for."""
    return Metadata[Targets].from_bytes(bytes(bundle.targets)).signed


def expiries(bundle: Bundle) -> dict[str, int]:
    """Until when each role's metadata is good, ms since 1970."""
    every = (bundle.roots[-1], bundle.targets, bundle.snapshot, bundle.timestamp)
    parsed = [Metadata.from_bytes(bytes(data)).signed for data in every]
    return {signed.type: int(signed.expires.timestamp() * 1000) for signed in parsed}


def covers(targets: Targets, *, number: int, manifest_sha256: str) -> bool:
    """Whether this manifest is vouched for as that version."""
    found = targets.targets.get(target_path(number))
    return found is not None and found.hashes.get("sha256") == manifest_sha256


def with_target(targets: Targets, file: TargetFile, *, now_ms: int) -> Metadata[Targets]:
    """The next targets, with one version more; yet to be signed."""
    every = {**targets.targets, file.path: file}
    newest = sorted(every.values(), key=lambda one: int(one.custom["version"]) if one.custom else 0)[-TARGETS_KEPT:]
    return next_targets(targets, now_ms=now_ms, files=newest)


def next_targets(targets: Targets, *, now_ms: int, files: Iterable[TargetFile] | None = None) -> Metadata[Targets]:
    """The same targets (or others) for another year, perhaps by other keys; yet to be signed."""
    kept = targets.targets.values() if files is None else files
    return Metadata(
        Targets(
            version=_next(targets.version, now_ms),
            expires=_until("targets", now_ms),
            targets={one.path: one for one in kept},
        )
    )


def target(*, number: int, name: str, manifest_sha256: str, manifest_bytes: int) -> TargetFile:
    """A version, as targets name it."""
    custom = {"custom": {"version": number, "name": name}}
    return TargetFile(manifest_bytes, {"sha256": manifest_sha256}, target_path(number), custom)


def next_root(root: Root, *, now_ms: int, roles: Mapping[str, Keys]) -> Metadata[Root]:
    """The next root, with other keys for these roles; yet to be signed, by the old root's keys and its own."""
    new = copy.deepcopy(root)
    new.version, new.expires = root.version + 1, _until("root", now_ms)
    for role, keys in roles.items():
        for keyid in list(new.roles[role].keyids):
            new.revoke_key(keyid, role)
        _entrust(new, role, keys)
    return Metadata(new)


def sign(metadata: Metadata[T], signers: Signers, roots: Iterable[Root]) -> Metadata[T]:
    """Add every signature that these signers can give, of keys that one of `roots` names for the role."""
    wanted = {keyid for root in roots for keyid in root.roles[metadata.signed.type].keyids}
    for keyid in sorted(wanted & signers.keys()):
        metadata.sign(signers[keyid], append=True)
    return metadata


def lacking(metadata: Metadata[T], root: Root) -> int:
    """How many signatures are missing by the rule of `root`."""
    result = root.get_verification_result(metadata.signed.type, metadata.signed_bytes, metadata.signatures)
    return max(result.threshold - len(result.signed), 0)


def settle(bundle: Bundle, root: Metadata[Root] | None, targets: Metadata[Targets] | None) -> Bundle:
    """Take over what has signatures enough. A root under which the targets would not hold waits for others."""
    current, old = root_of(bundle), Metadata[Targets].from_bytes(bytes(bundle.targets))
    newer = targets is not None and targets.signed.version > old.signed.version
    if root is not None and _follows(root, current):
        held = next((one for one in (targets if newer else None, old) if one and not lacking(one, root.signed)), None)
        if held is not None:
            return msgspec.structs.replace(bundle, roots=(*bundle.roots, pack(root)), targets=pack(held))
    if targets is not None and newer and not lacking(targets, current):
        return msgspec.structs.replace(bundle, targets=pack(targets))
    return bundle


def _follows(root: Metadata[Root], current: Root) -> bool:
    return root.signed.version == current.version + 1 and not lacking(root, current) and not lacking(root, root.signed)


def renew(bundle: Bundle, signers: Signers, *, now_ms: int) -> Bundle:
    """Sign snapshot and timestamp anew where they are due; the same bundle when they are not.

    SigningError when a key is missing for it.
    """
    root = root_of(bundle)
    targets = MetaFile.from_data(targets_of(bundle).version, bytes(bundle.targets), ["sha256"])
    snapshot = _current(bundle.snapshot, Snapshot, root, now_ms)
    if snapshot is None or snapshot.meta["targets.json"] != targets:
        version = _next(_version(bundle.snapshot), now_ms)
        made = Snapshot(version=version, expires=_until("snapshot", now_ms), meta={"targets.json": targets})
        bundle = msgspec.structs.replace(bundle, snapshot=_sign_whole(made, signers, root))
    about = MetaFile.from_data(_version(bundle.snapshot), bytes(bundle.snapshot), ["sha256"])
    timestamp = _current(bundle.timestamp, Timestamp, root, now_ms)
    if timestamp is None or timestamp.snapshot_meta != about:
        stamp = Timestamp(
            version=_next(_version(bundle.timestamp), now_ms),
            expires=_until("timestamp", now_ms),
            snapshot_meta=about,
            unrecognized_fields={SIGNED_AT: _utc(now_ms).isoformat()},
        )
        bundle = msgspec.structs.replace(bundle, timestamp=_sign_whole(stamp, signers, root))
    return bundle


def _current(data: Raw, kind: type[T], root: Root, now_ms: int) -> T | None:
    """The metadata, when it is rightly signed and good for a while."""
    if bytes(data) == b"null":
        return None
    metadata = Metadata[T].from_bytes(bytes(data))
    signed = metadata.signed
    due = signed.expires - _utc(now_ms) < RENEW[kind.type] or signed.expires - _utc(now_ms) > LIFE[kind.type]
    return None if due or lacking(metadata, root) else signed


def _sign_whole(signed: T, signers: Signers, root: Root) -> Raw:
    metadata = sign(Metadata(signed), signers, [root])
    if missing := lacking(metadata, root):
        expected = "expected them in the keys folder: the server renews with them by itself"
        raise SigningError(f"{signed.type}: {missing} keys are missing: {expected}")
    return pack(metadata)


def check_threshold(role: str, count: int, threshold: int) -> None:
    """SigningError when so many keys can never sign."""
    if not 1 <= threshold <= count:
        must = f"{threshold} of {count} keys must sign"
        raise SigningError(f"{role}: {must}: expected at least 1, and no more than there are")


def _entrust(root: Root, role: str, keys: Keys) -> None:
    check_threshold(role, len(keys.keys), keys.threshold)
    for key in keys.keys:
        root.add_key(key, role)
    root.roles[role].threshold = keys.threshold


def pack(metadata: Metadata[Any]) -> Raw:
    """As it stands in a bundle."""
    return Raw(metadata.to_bytes(JSONSerializer(compact=True)))


def unpack(data: bytes, *, where: str) -> Metadata[Any]:
    """Metadata out of a file; SigningError when it is none."""
    try:
        metadata: Metadata[Any] = Metadata.from_bytes(data)
    except RepositoryError as error:
        raise SigningError(f"{where}: {error}: expected a file that waits for signatures") from error
    return metadata


def _version(data: Raw) -> int:
    return 0 if bytes(data) == b"null" else int(Metadata.from_bytes(bytes(data)).signed.version)


def _next(version: int, now_ms: int) -> int:
    return max(version + 1, now_ms // 60_000)


def _until(role: str, now_ms: int) -> datetime:
    return (_utc(now_ms) + LIFE[role]).replace(microsecond=0)


def _utc(at_ms: int) -> datetime:
    return datetime.fromtimestamp(at_ms / 1000, tz=timezone.utc)
