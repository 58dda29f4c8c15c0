"""What takes long is made seldom, and what everybody asks for reads no row of the fleet."""

import pytest
import sqlalchemy as sa
from device_words import FLEET, heartbeat, message

from edge_agent.contract.wire import encode
from server import status
from server.collect.ingest import Ingest
from server.config import ServerConfig
from server.store.store import Store
from server.web.seldom import QUICK_S, SHARE, Seldom


class Clock:
    def __init__(self):
        self.now_s = 0.0

    def __call__(self):
        return self.now_s


@pytest.mark.parametrize("took_s", [0.01, QUICK_S, 2.0, 30.0])
def test_a_figure_takes_its_share_of_the_time_and_no_more(took_s):
    clock, made = Clock(), []

    def make():
        clock.now_s += took_s
        made.append(clock.now_s)
        return len(made)

    figure = Seldom(make, clock_s=clock)
    until_s = 400 * 30.0
    while clock.now_s < until_s:
        assert figure.get() == len(made)
        clock.now_s += 1.0
    if took_s > QUICK_S:
        assert took_s * len(made) <= SHARE * clock.now_s + took_s
        assert len(made) == pytest.approx(clock.now_s * SHARE / took_s, rel=0.2, abs=1)
    else:
        assert len(made) == pytest.approx(until_s / (1.0 + took_s), rel=0.01)  # every time


def test_what_could_not_be_made_is_tried_again():
    clock, tries = Clock(), []

    def make():
        clock.now_s += 10.0
        tries.append(1)
        if len(tries) == 1:
            raise ValueError
        return "made"

    figure = Seldom(make, clock_s=clock)
    with pytest.raises(ValueError):
        figure.get()
    assert figure.get() == "made"


def test_the_status_of_a_large_fleet_reads_no_device_and_no_stretch(tmp_path):
    """Beside what is made seldom: as many statements for 300 devices as for 3, and none of a device's words."""
    asked: dict[int, list[str]] = {}
    for devices in (3, 300):
        store = Store.open(tmp_path / str(devices))
        ingest = Ingest(store, fleet=FLEET, offline_after_s=90.0)
        ingest.take([message(f"cam-{n}", "heartbeat", encode(heartbeat("a"))) for n in range(devices)])
        over_all = status.figures_over_all(store, now_ms=1)
        said = asked.setdefault(devices, [])
        sa.event.listen(store.database.engine, "before_cursor_execute", lambda *told, said=said: said.append(told[2]))
        view = status.overview(ServerConfig(), store, now_ms=1, over_all=over_all)
        assert (view["devices"], view["online"]) == (devices, devices)
        store.close()
    assert asked[3] == asked[300]
    assert not [one for one in asked[300] if "stretch" in one or "heartbeat" in one or "birth" in one]
