"""How is an outlook said to people?"""

from __future__ import annotations

from datetime import datetime, timezone

from server.drift.outlook import Accuracy, Against, Movement, OnDevice, Outlook

NAMED = 5  # devices, and classes; more do not help


def in_words(outlook: Outlook) -> str:
    """The fleet's, in one line."""
    moved = next((one.moved for one in outlook.devices if one.moved), None)
    who = {
        "nobody": "no stream has moved from its own level",
        "cannot tell": "too little is known yet to say whether a stream has moved",
        "fleet": f"the fleet moved as one: {movement(outlook.moved)}",
        "device": f"{_named(outlook.flagged)} moved, alone: {movement(moved)}",
        "several devices": f"{_named(outlook.flagged)} moved, {_directions(outlook)}: {movement(moved)}",
    }[outlook.who]
    if outlook.who == "fleet" and outlook.flagged:
        who += f"; otherwise than the rest: {_named(outlook.flagged)}"
    return f"{who}; {against(outlook.against)}"


def on_device(one: OnDevice) -> str:
    """A device's, in one line."""
    own = one.why or (f"moved on its own: {movement(one.moved)}" if one.moved else "has not moved on its own")
    return f"{own}; {against(one.against)}"


def movement(moved: Movement | None) -> str:
    """Which signal, how far, since when."""
    if moved is None:
        return "by little in many signals"
    since = datetime.fromtimestamp(moved.since_ms / 1000, timezone.utc).isoformat(timespec="minutes")
    return f"{moved.signal} {moved.before:.3g} -> {moved.after:.3g} since {since}"


def against(answer: Against) -> str:
    """Kind of shift and accuracy."""
    if answer.kind == "cannot tell":
        return f"kind of shift cannot be told ({answer.why})"
    kind = "as the held-out samples" if answer.kind == "none" else f"{answer.kind}: {answer.why}"
    if answer.kind == "label shift":
        kind += f" ({_shares(answer)})"
    return f"{kind}; {accuracy(answer.accuracy)}"


def accuracy(found: Accuracy) -> str:
    """With its interval, or why not."""
    if found.value is None:
        return f"accuracy without labels withheld ({found.withheld})"
    return f"accuracy without labels {found.value:.3f} [{found.low:.3f}, {found.high:.3f}], if still calibrated"


def _shares(answer: Against) -> str:
    most = sorted(answer.shares, key=lambda share: -abs(share.now - share.reference))[:NAMED]
    return ", ".join(f"{share.name} {share.reference:.0%} -> {share.now:.0%}" for share in most)


def _named(devices: tuple[str, ...]) -> str:
    more = f" and {len(devices) - NAMED} more" if len(devices) > NAMED else ""
    return ", ".join(devices[:NAMED]) + more


def _directions(outlook: Outlook) -> str:
    return "in one direction" if outlook.alike else "in different directions"
