"""The agent on a device. `from edge_agent import Agent` is for whoever runs it in a loop of their own: session.py."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"  # as pyproject.toml has it: to ask what is installed costs a megabyte

if TYPE_CHECKING:
    from edge_agent.agent import Agent as Agent


def __getattr__(name: str) -> Any:
    """Only when somebody asks: nothing is loaded with the package itself."""
    if name == "Agent":
        from edge_agent.agent import Agent

        return Agent
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
