"""Who may say what to whom?

The rules of a broker that knows its clients, in mosquitto's words: a device (`%u` is its name, which its certificate
says) writes below its own `up`, reads below its own `down`, and hears whether the server is there; the server hears
every device, and tells each. Everything else is nobody's: nothing here is granted by a wildcard that a device chooses.
"""

from __future__ import annotations

from edge_agent.contract.wire import DOWN, ROOT, UP, server_state_topic


def rules(fleet: str, *, server: str) -> str:
    """Mosquitto's `acl_file` for a fleet; `server` is the name by which the server itself comes in.

    >>> print(rules("farm", server="winnow.server").splitlines()[-1])
    pattern read winnow/1/farm/server/state
    """
    ours = f"{ROOT}/{fleet}"
    lines = [
        f"user {server}",
        f"topic read {ours}/+/up/+",
        f"topic write {ours}/+/down/+",
        f"topic write {server_state_topic(fleet)}",
        "",
        *(f"pattern write {ours}/%u/up/{kind}" for kind in UP),
        *(f"pattern read {ours}/%u/down/{kind}" for kind in DOWN),
        f"pattern read {server_state_topic(fleet)}",
    ]
    return "\n".join(lines) + "\n"
