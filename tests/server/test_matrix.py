"""Nothing crosses: each device, every topic of the wire, every way to say and to hear something.

One session of a real broker with the server's own rules (server/collect/access.py): every device subscribes to all
there is, by name and by wildcards, and publishes to all there is, plainly, retained, as its will, and under another's
client id. What arrived anywhere is noted once; each test looks at its cells. That what is allowed does arrive is held
as well, or a broker that lets nothing pass would do.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import pytest
from fleet_ca import FLEET, Client, SecureBroker, until

from edge_agent.contract.wire import DOWN, UP, down_topic, server_state_topic, up_filter, up_topic

DEVICES = ("cam-1", "cam-2", "cam-3")
OWN = [up_topic(FLEET, name, kind) for name in DEVICES for kind in UP]
TOLD = [down_topic(FLEET, name, kind) for name in DEVICES for kind in DOWN]
STATE = server_state_topic(FLEET)
ELSEWHERE = [
    up_topic("other", "cam-1", "sample"),
    down_topic("other", "cam-1", "desired"),
    server_state_topic("other"),
    f"winnow/1/{FLEET}/cam-1/up/unknown",
    f"winnow/1/{FLEET}/cam-1/down/unknown",
    f"winnow/1/{FLEET}/cam-1/up/sample/more",
    f"winnow/1/{FLEET}/cam-1",
    f"winnow/2/{FLEET}/cam-1/up/sample",
    f"/winnow/1/{FLEET}/cam-1/up/sample",
    "anything",
    "$SYS/broker/uptime",
    "$CONTROL/dynamic-security/v1",
    f"$share/group/{up_topic(FLEET, 'cam-1', 'sample')}",
]
TOPICS = [*OWN, *TOLD, STATE, *ELSEWHERE]
WILDCARDS = [
    "#",
    "+",
    "/#",
    "+/+/+/+/+/+",
    "winnow/#",
    f"winnow/1/{FLEET}/#",
    f"winnow/1/{FLEET}/+/up/#",
    f"winnow/1/{FLEET}/+/down/+",
    f"winnow/1/{FLEET}/cam-2/#",
    "winnow/1/+/+/down/desired",
    "$SYS/#",
    "$CONTROL/#",
    "$share/group/#",
    f"$share/group/winnow/1/{FLEET}/+/down/+",
]


class Heard(NamedTuple):
    """(topic, payload) that arrived: at the server, at each device, at each that came later, for what is retained."""

    server: set[tuple[str, str]]
    devices: dict[str, set[tuple[str, str]]]
    later: dict[str, set[tuple[str, str]]]


def said(who: str, way: str) -> str:
    return f"{who} by {way}"


def noted(client: Client) -> set[tuple[str, str]]:
    return {(topic, payload.decode()) for topic, payload, _ in client.messages}


@pytest.fixture(scope="module")
def heard(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Heard]:
    broker = SecureBroker(tmp_path_factory.mktemp("matrix"))
    broker.start()
    opened: list[Client] = []

    def join(name: str, **options: str) -> Client:
        opened.append(Client(broker, files[name], **options))
        assert opened[-1].in_
        return opened[-1]

    files = {name: broker.ca.identify(name) for name in DEVICES}
    server = Client(broker, broker.ca.server_files)
    opened.append(server)
    server.subscribe(up_filter(FLEET))
    try:
        speak_as_others(join)
        clients = {name: join(name) for name in DEVICES}
        for client in clients.values():
            listen(client)
        for name, client in clients.items():
            for topic in TOPICS:
                if not topic.startswith(
                    "$share"
                ):  # a name that no client may publish to: paho and the broker refuse it
                    client.publish(topic, said(name, "plain").encode())
                    client.publish(topic, said(name, "retained").encode(), retain=True)
        for topic in (*TOLD, STATE):
            server.publish(topic, b"server", retain=topic.endswith("desired") or topic == STATE)
        for name, client in clients.items():
            client.publish(up_topic(FLEET, name, "event"), b"end")
            server.publish(down_topic(FLEET, name, "receipt"), b"end")
        for name, client in clients.items():
            until(lambda name=name: (up_topic(FLEET, name, "event"), "end") in noted(server))
            until(lambda name=name, client=client: (down_topic(FLEET, name, "receipt"), "end") in noted(client))
        found = {name: noted(client) for name, client in clients.items()}
        later = {name: came_later(join, name) for name in DEVICES}
        yield Heard(noted(server), found, later)
    finally:
        for client in opened:
            client.close()
        broker.stop()


def speak_as_others(join) -> None:
    """Every device, on each topic: a will, and a word under the client id of each other device."""
    for name in DEVICES:
        for topic in TOPICS:
            if topic.startswith("$"):
                continue  # not a topic that a will may have: the broker ends the connection at once
            client = join(name, will=topic, client_id=next(other for other in DEVICES if other != name))
            client.publish(topic, said(name, "client id").encode())
            client.mqtt._sock.close()  # no DISCONNECT: a crash


def listen(client: Client) -> None:
    for topic in (*WILDCARDS, *(topic for topic in TOPICS if not topic.startswith("$share"))):
        client.subscribe(topic)


def came_later(join, name: str) -> set[tuple[str, str]]:
    client = join(name)
    listen(client)
    until(lambda: (STATE, "server") in noted(client))
    return noted(client)


def may_say(name: str, topic: str) -> bool:
    return topic in {up_topic(FLEET, name, kind) for kind in UP}


@pytest.mark.parametrize("way", ["plain", "retained", "client id"])
@pytest.mark.parametrize("topic", TOPICS)
@pytest.mark.parametrize("name", DEVICES)
def test_what_a_device_says_reaches_the_server_by_its_own_topics_alone(heard, name, topic, way):
    arrived = (topic, said(name, way)) in heard.server
    assert arrived == may_say(name, topic)


@pytest.mark.parametrize("name", DEVICES)
def test_a_will_is_spoken_on_topics_of_its_own_device_alone(heard, name):
    """All wills say the same: how many came by a topic is told by who may speak there, and no topic else has any."""
    spoken = {topic for topic, payload in heard.server if payload == "will"}
    assert spoken == set(OWN)


@pytest.mark.parametrize("topic", TOPICS)
@pytest.mark.parametrize("name", DEVICES)
def test_a_device_hears_what_the_server_says_to_it_and_nothing_else(heard, name, topic):
    mine = topic == STATE or topic in {down_topic(FLEET, name, kind) for kind in DOWN}
    payloads = {payload for at, payload in heard.devices[name] if at == topic}
    assert payloads - {"end"} == ({"server"} if mine else set())


@pytest.mark.parametrize("name", DEVICES)
def test_nothing_retained_waits_for_who_comes_later_but_what_the_server_keeps_for_it(heard, name):
    assert heard.later[name] == {(down_topic(FLEET, name, "desired"), "server"), (STATE, "server")}
