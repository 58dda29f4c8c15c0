"""Which strategy chooses? The one place that knows their names."""

from __future__ import annotations

from edge_agent.choose.quantile import NoveltyQuantile
from edge_agent.choose.rules import Rules
from edge_agent.choose.selector import Selector
from edge_agent.choose.splitmix import SplitMix64
from edge_agent.choose.vessal import Vessal
from edge_agent.contract.errors import ConfigError, did_you_mean

STRATEGIES: dict[str, type[Selector]] = {"novelty_quantile": NoveltyQuantile, "vessal": Vessal}


def check(name: str) -> None:
    """ConfigError when there is no strategy of that name."""
    if name not in STRATEGIES:
        known = ", ".join(STRATEGIES)
        raise ConfigError(f"[choose] strategy {name!r}: unknown{did_you_mean(name, STRATEGIES)}; known: {known}")


def make(name: str, rules: Rules, rng: SplitMix64, *, saved: bytes = b"") -> Selector:
    """A selector of that strategy; ConfigError for another name, or when `saved` cannot be read.

    What another strategy saved is not gone on with, but its tokens are.
    """
    check(name)
    return STRATEGIES[name](rules, rng, saved=saved)
