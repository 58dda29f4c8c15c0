"""Who has to act when data or a recipe does not fit?

Whoever gave it, or who runs the machines that learn. The message says what was got, what was expected and how to mend
it.
(A model that cannot be used is an `ArtifactError` of the contract.)
"""

from __future__ import annotations

from edge_agent.contract.errors import WinnowError


class DataError(WinnowError):
    """Data cannot be fetched or read, or does not fit what is to be learnt from it."""


class RankError(WinnowError):
    """One of the processes that learn together died, however often they began again; the message has its last lines."""
