"""Who has to act when something goes wrong on the server?

    WinnowError
    └── ServerError
        ├── ServerConfigError  the operator mends the file; the program exits with 78
        ├── IdentityError      who somebody is: a CA, a certificate, a token, a revocation
        ├── LabelError         a labeler, or what it answered
        ├── TrainingError      the run fails, the champion stays
        ├── RolloutError       an order that the rollout's state does not allow
        ├── SigningError       keys or signatures that are missing: nothing is released without them
        ├── OrderError         what nobody can be told to do
        ├── RequestError       "more like this" of something that nobody can look out for
        ├── GovernError        what is asked about, or is to be erased, is not there
        └── StoreError         the disk or the database
            ├── AwayError      the catalogue cannot be read or written now: full, locked, or not reached
            └── DeposedError   who wrote leads no more: another may, and this process stands again

What a device sends wrongly is a MessageError of the contract: counted per device, set aside, never a crash.
"""

from __future__ import annotations

from edge_agent.contract.errors import WinnowError


class ServerError(WinnowError):
    """Something on the server needs attention."""


class ServerConfigError(ServerError):
    """A configuration file cannot be used as it stands."""


class IdentityError(ServerError):
    """A certificate, a token or the authority behind them cannot be used."""


class LabelError(ServerError):
    """Labels cannot be had, or make no sense."""


class TrainingError(ServerError):
    """A run failed; the champion stays."""


class RolloutError(ServerError):
    """The rollout's state does not allow this."""


class SigningError(ServerError):
    """A key cannot be used, or signatures are missing."""


class OrderError(ServerError):
    """No device is meant, or it cannot be done."""


class RequestError(ServerError):
    """Nobody can look out for what is asked for."""


class GovernError(ServerError):
    """What somebody asks about, or wants erased, is not there."""


class StoreError(ServerError):
    """The store cannot be read or written."""


class AwayError(StoreError):
    """The catalogue cannot be read or written now; what was asked for may be tried again."""


class DeposedError(StoreError):
    """Another leads by now, so nothing was written."""
