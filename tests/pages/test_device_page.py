"""One device in a real browser: its past, its samples, orders to it."""

from __future__ import annotations

import time

import browser as browsers
import msgspec
import pytest
import quadrants
from device_words import FLEET, birth, event, heartbeat, message, uploads
from playwright.sync_api import expect

from edge_agent.contract.wire import DriftState, PaceState, SourceState, encode
from server.collect.ingest import Ingest
from server.release.registry import add_artifact
from server.store import device_orders, devices, requests, silence, trail

HOURS = 6


@pytest.fixture
def served(served):
    """cam-1 has been heard for six hours, and has sent some samples."""
    ingest = Ingest(served.store, fleet=FLEET, offline_after_s=90.0)
    quadrants.artifact(served.folder / "artifact")
    add_artifact(served.store, served.folder / "artifact", weights=None, now_ms=1)
    now_ms = time.time_ns() // 1_000_000
    first_ms = now_ms - HOURS * 3_600_000
    ingest.take([message("cam-1", "birth", encode(birth("a")), at_ms=first_ms)])
    for at_ms in range(first_ms, now_ms, 300_000):
        drift = DriftState(epoch=0, watching=True, group_samples=1, statistic=(at_ms - first_ms) / 3e6, threshold=9.0)
        seen = (at_ms - first_ms) // 300_000 + 1
        counts = msgspec.structs.replace(
            heartbeat("a").counts,
            read=8 * seen,
            scored=8 * seen,
            invalid=0,
            selected={},
            stream="main",
            through_seq=8 * seen - 1,
            model_version=1,
            utility_histogram=(4 * seen, 4 * seen),
            confidence_sums=(3.0 * seen, 2.0 * seen),
            classes=(5 * seen, 2 * seen, seen, 0),
            signals=(8 * seen, 20_000 * seen),
        )
        said = msgspec.structs.replace(
            heartbeat("a"),
            drift=drift,
            temperature_c=51.5,
            latency_p95_ms=4.0,
            counts=counts,
            source=SourceState(kind="serial", gaps=3, restarts=1204, failing="/dev/ttyUSB0: could not open port"),
            pace=PaceState(max_rate_per_s=12.5, share=0.25, why="cpu-thermal at 84 C, limit 85 C"),
        )
        ingest.take([message("cam-1", "heartbeat", encode(said), at_ms=at_ms)])
    ingest.take([one for seq in range(30) for one in uploads("cam-1", seq)])
    ingest.take([message("cam-1", "event", encode(event(1)))])
    return served


def test_a_device_is_shown_whole(chromium, served):
    page = served.sign_in(chromium, "viewer", viewport={"width": 1280, "height": 1000})
    page.goto(f"{served.url}/fleet")
    page.click("#devices a")
    expect(page.locator("h1")).to_have_text("cam-1")
    expect(page.locator("#facts")).to_contain_text("version 1, steady")
    expect(page.locator("#facts")).to_contain_text("version 3: its golden outputs differ")
    facts = page.locator("#facts dl").nth(1)
    expect(facts).to_contain_text("serial: 3 gaps, 1,204 restarts")
    expect(facts).to_contain_text("/dev/ttyUSB0: could not open port")
    expect(facts).to_contain_text("12.5 samples/s")
    expect(facts).to_contain_text("works 25.0 % of the time: cpu-thermal at 84 C, limit 85 C")
    expect(page.locator("#charts")).to_contain_text("Drift, share of an alarm")
    expect(page.locator("#charts")).to_contain_text("Utility, mean of all samples")
    expect(page.locator("#charts")).to_contain_text("Temperature")
    expect(page.locator("#mix tbody tr").first).to_contain_text("top-left62.5 %")
    expect(page.locator(".samples li")).to_have_count(24)
    expect(page.locator(".samples li").first).to_contain_text("bottom-right")
    assert page.locator(".samples img").first.evaluate("image => image.decode().then(() => image.naturalWidth)") >= 96
    expect(page.locator("main")).to_contain_text("the lens is dirty")
    assert page.locator("main button").count() == 0  # who only looks is offered nothing
    assert browsers.serious(page) == []
    page.set_viewport_size({"width": 390, "height": 800})
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    assert page.problems == []
    page.close()


def test_an_operator_moves_it_and_asks_for_more_like_a_sample(chromium, served):
    page = served.sign_in(chromium, "operator")
    page.goto(f"{served.url}/devices/cam-1")
    assert page.locator("text=Revoke").count() == 0
    page.fill("input[name=channel]", "beta")
    page.fill("input[name=site]", "barn")
    page.fill("form[action$=place] input[name=why]", "it hangs in the barn now")
    page.click("text=Move")
    expect(page.locator("#head")).to_contain_text("barn · channel beta")
    with served.store.database.read() as connection:
        (found,) = devices.devices(connection)
        entry = trail.entries(connection, subject="device cam-1")[-1]
    assert (found.channel, found.site) == ("beta", "barn")
    assert (entry.who, entry.why) == ("operator", "it hangs in the barn now")
    page.click("[aria-label='More like cam-1.main.1.29']")  # not without a reason
    assert page.locator("#more input[name=why]").evaluate("field => field.validity.valueMissing")
    page.fill("#more input[name=why]", "boots are rare")
    page.click("[aria-label='More like cam-1.main.1.29']")
    expect(page.locator("#said")).to_contain_text("no device could answer")  # version 1 is in no registry here
    expect(page.locator("#more input[name=why]")).to_have_value("boots are rare")  # what was typed is not lost
    with served.store.database.read() as connection:
        assert requests.open_ones(connection, now_ms=0) == []
    page.close()


def test_an_operator_pauses_uploads_and_changes_the_budget(chromium, served):
    page = served.sign_in(chromium, "operator")
    page.goto(f"{served.url}/devices/cam-1")
    page.fill("form[action$=uploads] input[name=why]", "the line is being moved")
    page.click("text=Pause uploads")
    expect(page.locator("#facts")).to_contain_text("paused by operator since")
    expect(page.locator("#facts")).to_contain_text("the line is being moved")
    assert browsers.serious(page) == []
    page.fill("input[name=labels_per_day]", "200")
    page.fill("input[name=label_share]", "2.5")
    page.fill("form[action$=budget] input[name=why]", "the link is dear")
    page.click("text=Change budget")
    expect(page.locator("#facts")).to_contain_text("operator, 20")
    with served.store.database.read() as connection:
        told = device_orders.standing(connection)["cam-1"]
    assert told["budget"].said == {"label_share": 0.025, "labels_per_day": 200.0}
    assert told["pause"].why == "the line is being moved"
    page.fill("form[action$=uploads] input[name=why]", "done")
    page.click("text=Resume uploads")
    expect(page.locator("#facts")).not_to_contain_text("paused by operator")
    with served.store.database.read() as connection:
        said = [(one.what, one.who, one.why) for one in trail.entries(connection, subject="device cam-1")]
    assert said == [
        ("pause", "operator", "the line is being moved"),
        ("budget", "operator", "the link is dear"),
        ("resume", "operator", "done"),
    ]
    assert page.problems == []
    page.close()


def test_the_page_follows_the_device_and_the_days_that_are_wanted(chromium, served):
    page = served.sign_in(chromium, "viewer")
    held: list = []
    page.route("**/history?days=1", lambda route: held.append(route))
    page.goto(f"{served.url}/devices/cam-1")
    expect(page.locator("#head .state")).to_have_text("online")
    page.select_option("#days", "30")
    expect(page.locator("#charts figure").first).to_be_visible()
    page.evaluate("document.querySelector('#charts figure').id = 'of-30-days'")
    with page.expect_response("**/history?days=1"):
        held[0].continue_()
    with served.store.database.write() as connection:
        silence.mark_offline(connection, now_ms=10**15, after_ms=0)
    expect(page.locator("#head .state")).to_have_text("offline")
    expect(page.locator("#of-30-days")).to_have_count(1)  # an answer that came late is of days nobody wants now
    assert page.problems == []
    page.close()


def test_one_that_was_never_seen_is_not_found(chromium, served):
    page = served.sign_in(chromium)
    assert page.goto(f"{served.url}/devices/cam-9").status == 404
    expect(page.locator("main")).to_contain_text("device 'cam-9' has never been seen")
    assert page.goto(f"{served.url}/samples/nothing/picture").status == 404
    page.close()
