"""How does a program prove who it is?

By a private key that never leaves the machine it was made on. EC P-256, signatures ECDSA with SHA-256: small, quick on
an ARM core, and known to every TLS library.
"""

from __future__ import annotations

import hashlib
import os
import secrets
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

PrivateKey = ec.EllipticCurvePrivateKey
PublicKey = ec.EllipticCurvePublicKey

NOT_X509 = (ValueError, TypeError, UnsupportedAlgorithm, x509.InvalidVersion)
"""All that `cryptography` raises of a key, a request or a certificate that is damaged, or that a stranger made up."""


def new_key() -> PrivateKey:
    """A new key, of the system's randomness."""
    return ec.generate_private_key(ec.SECP256R1())


def private_pem(key: PrivateKey) -> bytes:
    """PKCS 8 in PEM, not encrypted: its file's mode protects it."""
    kind = serialization.PrivateFormat.PKCS8
    return key.private_bytes(serialization.Encoding.PEM, kind, serialization.NoEncryption())


def read_key(path: Path) -> PrivateKey:
    """The key in a file; OSError when it cannot be read, ValueError when it is none of ours."""
    try:
        key = serialization.load_pem_private_key(path.read_bytes(), password=None)
    except TypeError as error:  # encrypted
        raise ValueError(f"{path}: {error}") from error
    if not isinstance(key, PrivateKey):
        raise ValueError(f"{path}: expected an EC key")
    return key


def write_key(path: Path, key: PrivateKey) -> None:
    """Write it whole, flushed, 0600; FileExistsError when there is a file: a key is never overwritten."""
    beside = path.with_name(f"{path.name}.{secrets.token_hex(4)}")
    handle = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with open(handle, "wb") as file:
            file.write(private_pem(key))
            file.flush()
            os.fsync(file.fileno())
        os.link(beside, path)  # in one step, and not over another
    finally:
        beside.unlink()
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def key_sha256(key: PublicKey) -> str:
    """SHA-256, in hex, over its DER."""
    kind = serialization.PublicFormat.SubjectPublicKeyInfo
    return hashlib.sha256(key.public_bytes(serialization.Encoding.DER, kind)).hexdigest()


def signing_request(key: PrivateKey) -> bytes:
    """A request for a certificate (PKCS 10) in DER. Its subject says nothing: the server decides on the name."""
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "device")])
    made = x509.CertificateSigningRequestBuilder().subject_name(subject).sign(key, hashes.SHA256())
    return made.public_bytes(serialization.Encoding.DER)


def requested_key(request: bytes) -> PublicKey:
    """The key that a request (DER) proves to hold; ValueError when it proves nothing, or is of another kind."""
    try:
        found = x509.load_der_x509_csr(request)
        key = found.public_key()
        proven = found.is_signature_valid
    except (*NOT_X509, InvalidSignature) as error:
        raise ValueError(f"not a certificate request: {error}") from error
    return checked_key(key if proven else None)


def checked_key(key: object) -> PublicKey:
    """It, when it is one of ours; ValueError otherwise."""
    if not isinstance(key, PublicKey) or key.curve.name != "secp256r1":
        raise ValueError("expected a proven key on the curve P-256")
    return key


def sign(key: PrivateKey, data: bytes) -> bytes:
    """Its signature over `data`."""
    return key.sign(data, ec.ECDSA(hashes.SHA256()))


def is_signed(key: PublicKey, signature: bytes, data: bytes) -> bool:
    """Whether the holder of `key` signed `data`."""
    try:
        key.verify(signature, data, ec.ECDSA(hashes.SHA256()))
    except InvalidSignature:
        return False
    return True
