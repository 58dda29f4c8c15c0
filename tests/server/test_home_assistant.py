"""What Home Assistant would be told: by a real broker, with its templates rendered over real heartbeats."""

from __future__ import annotations

import json
import threading
import time

import msgspec
import paho.mqtt.client as mqtt
import pytest
from broker import Broker
from device_words import FLEET, NOW_MS, birth, heartbeat, message
from fleet_ca import Client, FleetCA, until
from jinja2 import Template

from edge_agent.contract.wire import LinkState, encode
from server import config
from server.collect.access import Audience, rules
from server.collect.broker import BrokerChild
from server.collect.ingest import Ingest
from server.govern.erase import erase
from server.govern.subject import Subject
from server.store import identities
from server.store.store import Store
from server.tell.home_assistant import REST_MS, HomeAssistant

PATIENCE_S = 30.0
TOPIC = f"homeassistant/device/winnow-{FLEET}-cam-1/config"


class Hub:
    """A client that keeps what is retained for it, as Home Assistant would."""

    def __init__(self, broker: Broker) -> None:
        self.told: dict[str, bytes] = {}
        self._client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2)
        self._client.on_message = lambda _c, _d, message: self._take(message)
        self._client.connect(broker.host, broker.port)
        self._client.loop_start()
        self._client.subscribe("#", 1)

    def _take(self, said: mqtt.MQTTMessage) -> None:
        self.told[said.topic] = said.payload

    def publish(self, topic, payload, *, qos, retain) -> None:
        self._client.publish(topic, payload, qos, retain).wait_for_publish(PATIENCE_S)

    def wait_for(self, condition) -> None:
        deadline = time.monotonic() + PATIENCE_S
        while not condition():
            assert time.monotonic() < deadline, self.told
            threading.Event().wait(0.01)

    def stop(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()


class Scene:
    def __init__(self, folder, broker) -> None:
        self.broker, self.hub = broker, Hub(broker)
        self.store = Store.open(folder / "store")
        self.ingest = Ingest(self.store, fleet=FLEET, offline_after_s=90.0)
        self.now_ms = NOW_MS
        self.published: list[str] = []
        self.restart()

    def restart(self, **rules) -> None:
        self.assistant = HomeAssistant(
            self.store, config.HomeAssistant(**({"discovery": True} | rules)), fleet=FLEET, publish=self._publish
        )

    def _publish(self, topic, payload, *, qos, retain) -> None:
        self.published.append(topic)
        self.hub.publish(topic, payload, qos=qos, retain=retain)

    def says(self, name: str, **changes) -> None:
        said = msgspec.structs.replace(heartbeat("a"), **changes)
        self.ingest.take([message(name, "birth", encode(birth("a"))), message(name, "heartbeat", encode(said))])

    def tick(self) -> list[str]:
        self.published.clear()
        self.now_ms += REST_MS
        self.assistant.tick(self.now_ms)
        return list(self.published)


@pytest.fixture
def scene(tmp_path):
    broker = Broker(tmp_path)
    broker.start()
    made = Scene(tmp_path, broker)
    yield made
    made.hub.stop()
    made.store.close()
    broker.kill()


def test_a_device_is_announced_once_and_its_heartbeats_fill_the_sensors(scene):
    scene.says("cam-1")
    assert scene.tick() == [TOPIC]
    assert scene.tick() == []
    scene.hub.wait_for(lambda: TOPIC in scene.hub.told)
    said = json.loads(scene.hub.told[TOPIC])
    assert said["device"]["identifiers"] == [f"winnow_{FLEET}_cam-1"]
    assert said["state_topic"] == f"winnow/1/{FLEET}/cam-1/up/heartbeat"
    beat = json.loads(encode(heartbeat("a")))
    shown = {key: Template(one["value_template"]).render(value_json=beat) for key, one in said["components"].items()}
    assert shown == {
        "online": "ON",
        "samples_per_s": str(float(round(beat["samples_per_s"], 1))),
        "waiting": str(beat["outbox"]["rows"]),
        "version": str(beat["model"]["version"]),
    }
    assert len({one["unique_id"] for one in said["components"].values()}) == 4


def test_one_that_speaks_seldom_is_waited_for(scene):
    scene.says("cam-1", link=LinkState(sent_bytes=0, received_bytes=0, heartbeat_s=300.0))
    scene.tick()
    scene.hub.wait_for(lambda: TOPIC in scene.hub.told)
    assert json.loads(scene.hub.told[TOPIC])["components"]["online"]["off_delay"] == 905


@pytest.mark.parametrize("how", ["revoked", "erased", "switched off", "another prefix"])
def test_what_was_announced_goes(scene, how):
    scene.says("cam-1")
    scene.says("cam-2")
    scene.tick()
    scene.restart(discovery=how != "switched off", prefix="ha" if how == "another prefix" else "homeassistant")
    if how == "revoked":
        with scene.store.database.write() as connection:
            identities.revoke(connection, "cam-1", why="", samples_left_out=False, now_ms=NOW_MS)
    if how == "erased":
        erase(scene.store, Subject("device", ("cam-1",)), why="asked", who="ada", now_ms=NOW_MS)
    assert TOPIC in scene.tick()
    scene.hub.wait_for(lambda: scene.hub.told.get(TOPIC) == b"")
    assert scene.tick() == []
    late = Hub(scene.broker)  # who comes later finds nothing of it
    other = "ha" if how == "another prefix" else "homeassistant"
    if how != "switched off":
        late.wait_for(lambda: f"{other}/device/winnow-{FLEET}-cam-2/config" in late.told)
    assert TOPIC not in late.told
    late.stop()
    scene.restart(discovery=how != "switched off")
    if how != "another prefix":
        assert TOPIC in scene.tick()  # a kill may have kept it from the broker


def test_a_broker_that_began_anew_is_told_again_when_the_device_is_back(scene):
    scene.says("cam-1")
    scene.says("cam-2")
    scene.tick()
    scene.assistant.on_birth("cam-1")
    scene.published.clear()
    scene.assistant.tick(scene.now_ms + 1)
    assert scene.published == [TOPIC]


def test_without_discovery_nothing_is_told(scene):
    scene.says("cam-1")
    scene.restart(discovery=False)
    assert scene.tick() == []


def test_our_own_broker_lets_it_listen_to_heartbeats_and_to_nothing_else():
    lines = rules("farm", server="winnow.server", audience=Audience("home-assistant", "homeassistant")).splitlines()
    own = lines[lines.index("user home-assistant") + 1 :]
    assert own[: own.index("")] == [
        "topic read homeassistant/#",
        "topic write homeassistant/status",
        "topic read winnow/1/farm/+/up/heartbeat",
    ]
    assert "topic write homeassistant/#" in lines[: lines.index("user home-assistant")]
    assert "homeassistant" not in rules("farm", server="winnow.server")


def test_the_broker_keeps_to_that(tmp_path):
    ca = FleetCA(tmp_path)
    entry = ca.entry._replace(audience=Audience("home-assistant", "homeassistant"))
    broker = BrokerChild(tmp_path / "broker", entry=entry)
    broker.start()
    server, device = Client(broker, ca.server_files), Client(broker, ca.identify("cam-1"))
    assistant = Client(broker, ca.identify("home-assistant"))
    for topic in ("homeassistant/#", f"winnow/1/{ca.fleet}/+/up/heartbeat", f"winnow/1/{ca.fleet}/+/up/sample"):
        assistant.subscribe(topic)
    device.publish("homeassistant/device/evil/config")
    device.publish(f"winnow/1/{ca.fleet}/cam-1/up/sample")
    device.publish(f"winnow/1/{ca.fleet}/cam-1/up/heartbeat")
    assistant.publish(f"winnow/1/{ca.fleet}/cam-1/down/desired")
    server.publish("homeassistant/device/winnow/config", retain=True)
    until(lambda: len(assistant.messages) >= 2)
    assert {topic for topic, _, _ in assistant.messages} == {
        f"winnow/1/{ca.fleet}/cam-1/up/heartbeat",
        "homeassistant/device/winnow/config",
    }
    for client in (server, device, assistant):
        client.close()
    broker.stop()
