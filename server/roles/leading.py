"""What does the one process do that leads?

    devices     answers them
    collector   takes in what the others do not: everything, where there are none; who fell silent
    labelling   asks the labeler
    telling     drift, alarms, webhooks
    chores      what pages ask for and takes a while
    schedule    once a second: publish, roll out, sign, sweep

All of it ends with the stack, and begins anew wherever somebody leads next.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from contextlib import ExitStack
from typing import NamedTuple

from edge_agent.contract.wire import UP, Up
from server.config import ServerConfig
from server.label.labelling import Labelling
from server.release.signing import Signing
from server.roles.collecting import collector_of
from server.roles.devices import Devices
from server.roles.labelling import News, labelling_of
from server.roles.schedule import Schedule
from server.roles.telling import STOP_S, tell
from server.roles.tick import Step
from server.roles.voice import Voice
from server.store.store import Store
from server.web.chores import Chores

READY_S = 10.0


class Leading(NamedTuple):
    """What is at work. `steps` are to be taken once a second."""

    steps: Sequence[Step]
    labelling: Labelling | None
    wait_ready: Callable[[float], bool]


def lead(
    stack: ExitStack, config: ServerConfig, store: Store, *, now_ms: Callable[[], int], kinds: Collection[Up]
) -> Leading:
    """Begin, until the stack ends. `kinds`: what is taken in here; others take in the rest."""
    signing, voice = Signing(store.folder), Voice()
    devices = Devices(config, store, signing, publish=voice, now_ms=now_ms)
    address = devices.start(stack)
    labelling = labelling_of(config, store, now_ms=now_ms) if config.labeler.kind else None
    schedule = Schedule(config, store, signing, publish=voice, files_url=devices.files_url, now_ms=now_ms)
    collector = collector_of(
        config,
        store,
        address,
        now_ms=now_ms,
        on_fetch=devices.downloads.ask,
        on_samples=lambda _: labelling.wake() if labelling else None,
        kinds=kinds,
    )
    voice.through(collector.publish)
    collector.start()
    stack.callback(collector.stop)
    steps: list[Step] = [devices.tick, *schedule.steps]
    stack.callback(schedule.stop, timeout_s=STOP_S)
    if labelling is not None:
        labelling.start()
        stack.callback(labelling.stop, timeout_s=STOP_S)
        if set(kinds) != set(UP):
            steps.append(News(store, labelling.wake).tick)
    tell(stack, config, store, now_ms=now_ms)
    chores = Chores(store, now_ms=now_ms)
    chores.start()
    stack.callback(chores.stop)
    return Leading(steps, labelling, collector.wait_ready)
