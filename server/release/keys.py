"""Where are the keys?

Files in `keys/` of the data folder, one key each, named `<role>-<id>.pem`: PKCS #8, unencrypted, mode 0600. What a key
may sign is what the root metadata says of its id, whatever the file is called; so a file can be moved to a safe and
given back by `--key` under any name.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from securesystemslib.signer import CryptoSigner, Signer

from edge_agent.contract.artifact import write_durably
from server.errors import SigningError

ID_CHARS = 12  # of a key's id in file names and tables


def make(folder: Path, role: str, count: int, *, among: Iterable[Signer] = ()) -> list[Signer]:
    """New Ed25519 keys, on disk before anybody trusts them, until there are `count` with those `among` them."""
    made = list(among)
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        while len(made) < count:
            signer = CryptoSigner.generate_ed25519()
            path = folder / f"{role}-{signer.public_key.keyid[:ID_CHARS]}.pem"
            write_durably(path, signer.private_bytes, mode=0o600)
            made.append(signer)
    except OSError as error:
        raise SigningError(f"{folder}: {error.strerror}: expected a folder for keys") from error
    return made


def named(folder: Path, role: str) -> list[Signer]:
    """The keys in a folder that were made for a role."""
    return [read(path) for path in sorted(folder.glob(f"{role}-*.pem"))]


def here(folder: Path) -> dict[str, Path]:
    """The keys in a folder: id -> file."""
    return {read(path).public_key.keyid: path for path in sorted(folder.glob("*.pem"))}


def signers(folder: Path, more: Iterable[Path] = ()) -> dict[str, Signer]:
    """The keys in a folder, and in other files."""
    every = [read(path) for path in (*sorted(folder.glob("*.pem")), *more)]
    return {signer.public_key.keyid: signer for signer in every}


def read(path: Path) -> CryptoSigner:
    """A key out of a file; SigningError when there is none, or others could read it."""
    try:
        mode = path.stat().st_mode
        if mode & 0o077:
            raise SigningError(f"{path}: mode {mode & 0o777:o}, expected 600: others could read the key (chmod 600)")
        key = load_pem_private_key(path.read_bytes(), password=None)
        return CryptoSigner(key)
    except OSError as error:
        raise SigningError(f"{path}: {error.strerror}: expected a private key (PEM)") from error
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise SigningError(f"{path}: {error}: expected a private key (PEM, PKCS #8, without a password)") from error
