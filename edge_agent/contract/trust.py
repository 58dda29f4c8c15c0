"""Who vouches for a model?

The Update Framework (TUF, https://theupdateframework.github.io/specification/): metadata of four roles, signed apart.

    root        which keys may sign what, and how many of them must; made by hand, its keys may lie in a safe
    targets     which manifests are ours, by length and hash; signed when a version is published
    snapshot    which targets are in force
    timestamp   which snapshot is, for the next days; renewed by the server by itself

A `Bundle` holds all of it, every root since the first, so that one file of a few kB vouches for every version. The
manifest names its ONNX files by hash: vouching for it vouches for them. Bytes inside are as they were signed.

python-tuf decides (its client, `tuf.ngclient`, on files that are here already); this module only feeds it. It is
imported when there is something to check, by a process that ends afterwards.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from edge_agent.contract.artifact import MANIFEST, MODEL, decode_manifest, sha256_hex
from edge_agent.contract.errors import ArtifactError, IntegrityError, SignatureError, StaleError

if TYPE_CHECKING:
    from tuf.api.metadata import Metadata, Root, Timestamp
    from tuf.ngclient import FetcherInterface, Updater

BUNDLE = "trust.json"  # beside the manifest in an artifact folder that was given by hand
BUNDLE_MAX_BYTES = 1024 * 1024  # 300 roots and 1000 versions
FORMAT = 1
SIGNED_AT = "winnow-signed-at"  # further field of a timestamp: when it was signed, RFC 3339

Raw = msgspec.Raw


class Bundle(msgspec.Struct, frozen=True, kw_only=True):
    """All metadata, byte for byte as signed. It proves nothing until it is checked against a root that is trusted."""

    roots: tuple[Raw, ...]  # in order of their versions, one after the other
    timestamp: Raw
    snapshot: Raw
    targets: Raw
    format: int = FORMAT


class Claim(msgspec.Struct, frozen=True, kw_only=True):
    """What is to be vouched for: that this manifest is that version."""

    version: int
    manifest_sha256: str
    manifest_bytes: int


class Vouched(NamedTuple):
    """What the check found. Times are ms since 1970."""

    bundle: Bundle  # what to hold the next one against
    signed_ms: int  # the timestamp
    expires_ms: int  # the first of the four


class Verified(NamedTuple):
    """An artifact that is intact and vouched for."""

    version: int
    signed_ms: int
    expires_ms: int

    def describe(self, *, now_ms: int) -> str:
        """In words. Signatures that have expired keep a device from switching to it by itself, and nothing else."""
        state = "were good until" if self.expires_ms < now_ms else "are good until"
        signed, until = day(self.signed_ms), day(self.expires_ms)
        return f"version {self.version}, intact, signed on {signed}; its signatures {state} {until}"


def target_path(version: int) -> str:
    """The name of a version's manifest among the targets.

    >>> target_path(7)
    'models/7/manifest.json'
    """
    return f"models/{version}/manifest.json"


def encode_bundle(bundle: Bundle) -> bytes:
    """One JSON file."""
    return msgspec.json.encode(bundle)


def decode_bundle(data: bytes) -> Bundle:
    """Read a bundle; SignatureError when it is none. Nothing inside has been checked yet."""
    if len(data) > BUNDLE_MAX_BYTES:
        raise SignatureError(f"signatures of {len(data)} bytes, at most {BUNDLE_MAX_BYTES}")
    try:
        bundle = msgspec.json.decode(data, type=Bundle)
    except (msgspec.DecodeError, ValueError, RecursionError) as error:
        raise SignatureError(f"signatures cannot be read: {error}") from error
    if bundle.format > FORMAT:
        raise SignatureError(f"signatures of format {bundle.format}, this program knows up to {FORMAT}")
    return bundle


def signed_ms(bundle: Bundle) -> int:
    """When the bundle's timestamp says it was signed; 0 when it does not. SignatureError when it is no timestamp."""
    from tuf.api.exceptions import RepositoryError

    try:
        said = _timestamp(bundle).signed.unrecognized_fields.get(SIGNED_AT, "")
        return int(datetime.fromisoformat(str(said).replace("Z", "+00:00")).timestamp() * 1000)
    except RepositoryError as error:
        raise SignatureError(f"signatures without a timestamp: {error}") from error
    except (ValueError, OverflowError):
        return 0


def lasts(seen: Bundle, bundle: Bundle, *, anchor: bytes) -> bool:
    """Whether what was seen still binds: its timestamp is of a key that the newest root trusts.

    A key that is replaced takes with it what it had said: or a stolen one could say "the year 2099, version 2^63", and
    nothing would be newer ever after (TUF 5.3.11, recovery from fast-forward attacks).
    """
    from tuf.api.exceptions import RepositoryError

    try:
        root = _newest_root(anchor, (*seen.roots, *bundle.roots))
        timestamp = _timestamp(seen)
        root.verify_delegate("timestamp", timestamp.signed_bytes, timestamp.signatures)
    except (RepositoryError, SignatureError):
        return False
    return True


def vouch(bundle: Bundle, claim: Claim, *, anchor: bytes, now_ms: int, seen: Bundle | None = None) -> Vouched:
    """Check a bundle, and that it vouches for `claim`.

    Args:
        bundle: what the server sent.
        claim: the version, with its manifest's hash and length.
        anchor: the root metadata that is trusted, as it came at enrolment.
        now_ms: trusted time, ms since 1970.
        seen: what was checked last: nothing older is believed any more.

    Raises:
        SignatureError: nobody we trust vouches for it.
        StaleError: it has expired, or is older than what was seen.
    """
    from tuf.api import exceptions as tuf_errors

    try:
        import tempfile

        with tempfile.TemporaryDirectory(prefix="winnow-") as name:
            folder = Path(name)
            updater = _updater(folder, bundle, anchor=anchor, now_ms=now_ms, seen=seen)
            updater.refresh()
            target = updater.get_targetinfo(target_path(claim.version))
            found = _found(folder, anchor)
    except tuf_errors.ExpiredMetadataError as error:
        raise StaleError(f"version {claim.version}: {error}: by trusted time it is {day(now_ms)}") from error
    except tuf_errors.BadVersionNumberError as error:
        raise StaleError(f"version {claim.version}: signatures older than those seen before: {error}") from error
    except (tuf_errors.RepositoryError, tuf_errors.DownloadError, ValueError) as error:
        raise SignatureError(f"version {claim.version}: {error}") from error
    if found.signed_ms >= found.expires_ms:
        signed, until = day(found.signed_ms), day(found.expires_ms)
        raise StaleError(
            f"version {claim.version}: signed on {signed}, good until {until}: the server's clock is ahead"
        )
    if target is None:
        raise SignatureError(f"version {claim.version} is not among the signed ones")
    if target.length != claim.manifest_bytes or target.hashes.get("sha256") != claim.manifest_sha256:
        raise SignatureError(f"version {claim.version}: its manifest is not the one that was signed")
    return found


def verify_artifact(file: Path, root: Path) -> Verified:
    """Check an artifact folder (or its manifest) that carries its signatures, as of the time when it was signed.

    ArtifactError when it is damaged, or nobody vouches for it by that root.
    """
    folder = file if file.is_dir() else file.parent
    try:
        anchor, data = root.read_bytes(), (folder / MANIFEST).read_bytes()
        onnx, signatures = (folder / MODEL).read_bytes(), (folder / BUNDLE).read_bytes()
    except OSError as error:
        expected = f"an artifact folder with {MANIFEST}, {MODEL} and {BUNDLE}, and the fleet's root.json"
        raise ArtifactError(f"{error.filename}: {error.strerror}: expected {expected}") from error
    manifest = decode_manifest(data, where=str(folder / MANIFEST))
    if (sha256_hex(onnx), len(onnx)) not in {(one.sha256, one.bytes) for one in manifest.files.values()}:
        raise IntegrityError(f"{folder / MODEL}: not one of the files that the manifest names")
    claim = Claim(version=manifest.version, manifest_sha256=sha256_hex(data), manifest_bytes=len(data))
    bundle = decode_bundle(signatures)
    found = vouch(bundle, claim, anchor=anchor, now_ms=signed_ms(bundle))
    return Verified(manifest.version, found.signed_ms, found.expires_ms)


def day(at_ms: int) -> str:
    """A date that people can read.

    >>> day(0)
    '1970-01-01'
    """
    return _utc(at_ms).strftime("%Y-%m-%d")


def _updater(folder: Path, bundle: Bundle, *, anchor: bytes, now_ms: int, seen: Bundle | None) -> Updater:
    """python-tuf's client over a folder that holds what was seen, and a fetcher that holds what is new."""
    from tuf.ngclient import Updater
    from tuf.ngclient.config import UpdaterConfig

    if seen is not None:
        for role, data in (("timestamp", seen.timestamp), ("snapshot", seen.snapshot), ("targets", seen.targets)):
            (folder / f"{role}.json").write_bytes(bytes(data))
        (folder / "root_history").mkdir()
        with contextlib.suppress(SignatureError):  # a memory that rotted: the bundle brings every root along
            for version, data in _versions(seen.roots):
                (folder / "root_history" / f"{version}.root.json").write_bytes(bytes(data))
    config = UpdaterConfig(max_root_rotations=max(len(bundle.roots), 1) + (len(seen.roots) if seen else 0))
    updater = Updater(str(folder), "bundle", fetcher=_fetcher(bundle), bootstrap=anchor, config=config)
    # The client has no argument for the time, and goes by the clock of a device that may have none: docs/adr/0018.
    updater._trusted_set.reference_time = _utc(now_ms)
    return updater


def _fetcher(bundle: Bundle) -> FetcherInterface:
    from tuf.api.exceptions import DownloadHTTPError
    from tuf.ngclient import FetcherInterface

    roots = {f"{version}.root.json": data for version, data in _versions(bundle.roots)}

    class Fetcher(FetcherInterface):
        """Nothing is fetched: our own messages carried it all."""

        def _fetch(self, url: str) -> Iterator[bytes]:
            name = url.rpartition("/")[2]
            role = name.removesuffix(".json").rpartition(".")[2]
            if role == "root" and name not in roots:
                raise DownloadHTTPError("no newer root", 404)
            found = roots[name] if role == "root" else getattr(bundle, role)
            return iter([bytes(found)])

    return Fetcher()


def _found(folder: Path, anchor: bytes) -> Vouched:
    """What the client left in its folder, all of it checked."""
    from tuf.api.metadata import Metadata

    first, newest = _version(Raw(anchor)), _version(Raw((folder / "root.json").read_bytes()))
    files = [folder / "root_history" / f"{version}.root.json" for version in range(first, newest + 1)]
    files += [folder / f"{role}.json" for role in ("timestamp", "snapshot", "targets")]
    *roots, timestamp, snapshot, targets = (file.read_bytes() for file in files)
    expires = min(Metadata.from_bytes(data).signed.expires for data in (roots[-1], timestamp, snapshot, targets))
    bundle = Bundle(
        roots=tuple(map(Raw, roots)), timestamp=Raw(timestamp), snapshot=Raw(snapshot), targets=Raw(targets)
    )
    return Vouched(bundle, signed_ms(bundle), int(expires.timestamp() * 1000))


def _newest_root(anchor: bytes, roots: Iterable[Raw]) -> Root:
    """Where the chain of roots leads that begins with the trusted one; what does not continue it is passed over."""
    from tuf.api.exceptions import RepositoryError
    from tuf.api.metadata import Metadata, Root

    root = Metadata[Root].from_bytes(anchor).signed
    for version, data in sorted(_versions(roots), key=lambda pair: pair[0]):
        if version != root.version + 1:
            continue
        with contextlib.suppress(RepositoryError):
            new = Metadata[Root].from_bytes(bytes(data))
            root.verify_delegate("root", new.signed_bytes, new.signatures)
            new.signed.verify_delegate("root", new.signed_bytes, new.signatures)
            root = new.signed
    return root


class _Signed(msgspec.Struct):
    version: int


class _Envelope(msgspec.Struct):
    signed: _Signed


def _version(data: Raw) -> int:
    try:
        return msgspec.json.decode(data, type=_Envelope).signed.version
    except (msgspec.DecodeError, ValueError, RecursionError) as error:
        raise SignatureError(f"metadata without a version: {error}") from error


def _versions(roots: Iterable[Raw]) -> list[tuple[int, Raw]]:
    return [(_version(data), data) for data in roots]


def _timestamp(bundle: Bundle) -> Metadata[Timestamp]:
    from tuf.api.metadata import Metadata, Timestamp

    return Metadata[Timestamp].from_bytes(bytes(bundle.timestamp))


def _utc(at_ms: int) -> datetime:
    return datetime.fromtimestamp(at_ms / 1000, tz=timezone.utc)
