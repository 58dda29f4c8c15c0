"""A fleet's signatures, in memory; its faults and its attackers are verbs. After python-tuf's RepositorySimulator."""

from __future__ import annotations

import msgspec
from securesystemslib.signer import CryptoSigner
from tuf.api.metadata import Metadata, Root

from edge_agent.contract.trust import Bundle, encode_bundle
from server.release import metadata

DAY_MS = 86_400_000


class Repository:
    """Signs with keys of its own; `now_ms` is the server's clock."""

    def __init__(self, now_ms, *, roots=1, root_threshold=1, targets=1, targets_threshold=1):
        self.now_ms = now_ms
        self.signers = {}
        roles = {
            "root": self.new_keys(roots, root_threshold),
            "targets": self.new_keys(targets, targets_threshold),
            "snapshot": self.new_keys(),
            "timestamp": self.new_keys(),
        }
        self.bundle: Bundle = metadata.first(roles, self.signers, now_ms=now_ms)
        self.anchor = bytes(self.bundle.roots[0])

    def new_keys(self, count=1, threshold=1):
        made = [CryptoSigner.generate_ed25519() for _ in range(count)]
        self.signers |= {signer.public_key.keyid: signer for signer in made}
        return metadata.Keys([signer.public_key for signer in made], threshold)

    def publish(self, version, manifest_sha256, manifest_bytes, *, signers=None):
        """Vouch for a version, with all keys or with these."""
        file = metadata.target(
            number=version, name="pets", manifest_sha256=manifest_sha256, manifest_bytes=manifest_bytes
        )
        waiting = metadata.with_target(metadata.targets_of(self.bundle), file, now_ms=self.now_ms)
        metadata.sign(waiting, self.signers if signers is None else signers, [metadata.root_of(self.bundle)])
        self.bundle = msgspec.structs.replace(self.bundle, targets=metadata.pack(waiting))
        return self.renew()

    def renew(self):
        """As the server does by itself, every day."""
        self.bundle = metadata.renew(self.bundle, self.signers, now_ms=self.now_ms)
        return self.bundle

    def rotate(self, role, count=1, threshold=1):
        """Other keys for a role."""
        new = metadata.next_root(
            metadata.root_of(self.bundle), now_ms=self.now_ms, roles={role: self.new_keys(count, threshold)}
        )
        self.take(new)

    def take(self, root: Metadata[Root]):
        """A new root, signed by the old one's keys and its own, and everything else by the keys that it names."""
        metadata.sign(root, self.signers, [metadata.root_of(self.bundle), root.signed])
        again = metadata.next_targets(metadata.targets_of(self.bundle), now_ms=self.now_ms)
        self.bundle = msgspec.structs.replace(
            self.bundle,
            roots=(*self.bundle.roots, metadata.pack(root)),
            targets=metadata.pack(metadata.sign(again, self.signers, [root.signed])),
        )
        self.renew()

    def passes(self, days):
        """Time."""
        self.now_ms += int(days * DAY_MS)

    def encoded(self, **changes):
        """The bundle as it travels, with parts replaced."""
        return encode_bundle(msgspec.structs.replace(self.bundle, **changes))
