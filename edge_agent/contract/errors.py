"""Who has to act when something goes wrong?

    WinnowError
    ├── EdgeError                 on the device
    │   ├── ConfigError           the operator mends the file; the program exits with 78 (sysexits EX_CONFIG)
    │   ├── SourceError           the sensor or its path; the agent retries
    │   ├── ArtifactError         a model that will not be run; the running one goes on
    │   │   ├── IntegrityError    bytes differ from what the manifest promises
    │   │   ├── SignatureError    nobody we trust vouches for it
    │   │   ├── DowngradeError    older than what was committed
    │   │   └── IncompatibleError cannot run here: opset, shape, provider, golden outputs
    │   ├── StaleError            what vouches for a model is out of date: nothing is switched, newer may come
    │   ├── OutboxError           the disk; storing pauses, inference goes on
    │   ├── IdentityError         who somebody is: a certificate, a token, or the server's; somebody has to look
    │   └── UplinkError           the network; later
    └── MessageError              a peer sent something that is not of the wire format: counted, set aside

A message says what, where, what was got, what was expected, and the nearest valid name.
An expected outcome (nothing selected, outbox full) is a value, not an exception.
"""

from __future__ import annotations

from collections.abc import Iterable

EXIT_CONFIG = 78


class WinnowError(Exception):
    """Root of every error that Winnow raises on purpose."""


class EdgeError(WinnowError):
    """Something on the device needs attention."""


class ConfigError(EdgeError):
    """A configuration file cannot be used as it stands."""


class SourceError(EdgeError):
    """Samples cannot be read."""


class ArtifactError(EdgeError):
    """A model artifact is refused."""


class IntegrityError(ArtifactError):
    """Length or hash differs from the manifest."""


class SignatureError(ArtifactError):
    """The signature is missing or not of a trusted key."""


class DowngradeError(ArtifactError):
    """The version is not newer than the committed one."""


class IncompatibleError(ArtifactError):
    """The artifact is intact but cannot run here."""


class StaleError(EdgeError):
    """What vouches for a model has expired, or is older than what was seen before."""


class OutboxError(EdgeError):
    """The outbox cannot store."""


class IdentityError(EdgeError):
    """The device cannot prove who it is, or the server cannot."""


class UplinkError(EdgeError):
    """The server cannot be reached."""


class MessageError(WinnowError):
    """Bytes from a peer do not follow the wire format."""


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return " (did you mean 'x'?)" for the nearest known word, or ""; also for one that is known.

    >>> did_you_mean("marginn", ["margin", "entropy"])
    " (did you mean 'margin'?)"
    >>> did_you_mean("zzz", ["margin"]), did_you_mean("margin", ["margin"])
    ('', '')
    """
    import difflib  # only a mistake needs it

    near = difflib.get_close_matches(word, list(known), n=1)
    return f" (did you mean '{near[0]}'?)" if near and near[0] != word else ""
