"""How does a device become a member of a fleet?

A token, a key made here, a certificate; then a configuration that is ready to run. Whatever breaks off may be started
again with the same token. Nothing that is there is overwritten.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from edge_agent.contract.artifact import write_durably
from edge_agent.contract.enrolment import ENROL, Enrol, Enrolled, Token
from edge_agent.contract.errors import ConfigError, IdentityError
from edge_agent.contract.keys import signing_request
from edge_agent.contract.types import is_name
from edge_agent.identity.papers import Certificate, Papers
from edge_agent.identity.portal import Portal

FOLDER = "identity"

_TOML = """\
# `winnow-agent check agent.toml` tries the source and the model, and prints everything that is in force.

[device]
name = "{device}"
fleet = "{fleet}"
data_dir = "data"

[source]
kind = "folder"                     # new images and .npy files, as they come
path = "samples"

{uplink}"""
_UPLINK = """\
[uplink]
broker = "{broker}"
ca_file = "{folder}/ca.pem"
cert_file = "{folder}/device.pem"
renewal = "{renewal}"
"""


class Done(NamedTuple):
    """What an enrolment has made."""

    certificate: Certificate
    toml: Path
    uplink: str  # the lines that the file needs
    written: bool  # False: there was a file, which is left as it was


def enrol(token: Token, folder: Path) -> Done:
    """Enrol with a token; everything goes to `folder`.

    ConfigError, IdentityError and UplinkError say what is wrong. After the last the same may be tried again.
    """
    papers = _fresh(folder / FOLDER)
    portal = Portal.parse(token.url)
    ca_pem = portal.fetch_authority(token.ca_sha256)
    key = papers.next_key()
    word = Enrol(secret=token.secret, request=signing_request(key))
    answer = portal.ask(ENROL, word, Enrolled, ca_pem=ca_pem)
    if not is_name(answer.device) or not is_name(answer.fleet):
        raise IdentityError(f"the server sent names that are none: {answer.device!r}, {answer.fleet!r}")
    uplink = _UPLINK.format(broker=_quotable(answer.broker), folder=FOLDER, renewal=_quotable(token.url))
    _write(papers.ca_file, ca_pem)
    toml = folder / "agent.toml"
    written = not toml.exists()
    if written:
        _write(toml, _TOML.format(device=answer.device, fleet=answer.fleet, uplink=uplink))
    certificate = papers.take(key, answer.certificate, device=answer.device)  # last: with it the device is enrolled
    return Done(certificate, toml, uplink, written)


def _fresh(folder: Path) -> Papers:
    papers = Papers.within(folder)
    if papers.cert_file.exists():
        raise ConfigError(
            f"{papers.cert_file}: device {papers.current()[0].device!r} is enrolled here: choose another --dir, "
            f"or move {folder} away to enrol it anew"
        )
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"{folder}: {error.strerror}: expected a folder to write to") from error
    return papers


def _write(path: Path, text: str) -> None:
    try:
        write_durably(path, text.encode())
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}: expected a folder to write to") from error


def _quotable(url: str) -> str:
    """A URL that may stand between quotes in a TOML file."""
    if not url.isascii() or not url.isprintable() or '"' in url or "\\" in url:
        raise IdentityError(f"the server sent an address that is none: {url[:80]!r}")
    return url
