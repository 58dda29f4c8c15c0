"""Ten thousand devices in a real browser."""

from __future__ import annotations

import threading
import time

import browser as browsers
import pytest
import sqlalchemy as sa
from playwright.sync_api import expect

from server.store import device_orders, heard, identities, silence, trail, whereabouts
from server.store.schema import device
from server.web.live import PERIOD_S

COUNT = 10_000


@pytest.fixture
def page(chromium, served):
    browsers.plant_devices(served.store, COUNT, now_ms=time.time_ns() // 1_000_000)
    made = served.sign_in(chromium, "viewer")
    expect(made.locator("#summary")).to_contain_text("10,000 devices")
    yield made
    assert made.problems == []
    made.close()


def test_ten_thousand_devices_are_shown_filtered_and_sorted(page, served):
    rows = page.locator("#devices tbody tr:not([aria-hidden])")
    expect(rows.first).to_contain_text("cam-00000")
    assert rows.count() < 200  # what is not in view does not exist
    assert page.locator("#order, #orders, th.tick").count() == 0  # who only looks is offered no orders
    page.fill("input[type=search]", "cam-0123")
    expect(page.locator("#summary")).to_contain_text("10 devices")
    expect(rows).to_have_count(10)
    page.fill("input[type=search]", "")
    page.select_option("select[name=state]", "drift")
    expect(page.locator("#summary")).to_contain_text("drift")
    expect(rows.first.locator(".state")).to_have_text("drift")
    page.select_option("select[name=state]", "")
    page.select_option("select[name=at]", "site-3")
    expect(rows.first).to_contain_text("site-3")
    page.select_option("select[name=at]", "")
    page.click("th[data-key=samples_per_s] button")
    expect(rows.first).to_contain_text("1.0")
    page.click("th[data-key=samples_per_s] button")
    expect(rows.first).to_contain_text("7.0")
    expect(page.locator("th[data-key=samples_per_s]")).to_have_attribute("aria-sort", "descending")


def test_the_end_of_the_table_is_one_scroll_away(page):
    page.evaluate("document.getElementById('scroll').scrollTop = 1e9")
    expect(page.locator("#devices tbody")).to_contain_text("cam-09999")


def fall_silent(served) -> None:
    with served.store.database.write() as connection:
        silence.mark_offline(connection, now_ms=10**15, after_ms=0)


def first_state(page):
    return page.locator("#devices tbody tr:not([aria-hidden])").first.locator(".state")


@pytest.fixture
def tabs(chromium, served):
    """A browser that has signed in, to a fleet of one device that is online."""
    browsers.plant_devices(served.store, 2, now_ms=time.time_ns() // 1_000_000)
    with served.store.database.write() as connection:
        connection.execute(sa.delete(device).where(device.c.name == "cam-00000"))
    context = chromium.new_context()
    served.sign_in(context, "viewer").close()
    yield context
    context.close()


def open_fleet(tabs, served, **routes):
    page = tabs.new_page()
    for pattern, route in routes.items():
        page.route(f"**/{pattern}", route)
    page.goto(f"{served.url}/fleet")
    expect(first_state(page)).to_have_text("online")
    return page


def test_what_changes_is_shown_without_loading_again(page, served):
    page.fill("input[type=search]", "cam-00001")
    expect(first_state(page)).to_have_text("online")
    fall_silent(served)
    expect(first_state(page)).to_have_text("offline")


def test_what_changed_before_the_news_began_is_shown(tabs, served):
    held: list = []
    page = open_fleet(tabs, served, live=lambda route: held.append(route))
    fall_silent(served)
    held[0].continue_()
    expect(first_state(page)).to_have_text("offline")


def test_what_changed_while_nobody_looked_is_shown_when_somebody_does(tabs, served):
    page = open_fleet(tabs, served)
    page.evaluate("Object.defineProperty(document, 'hidden', { value: true, configurable: true })")
    fall_silent(served)
    page.wait_for_timeout(3000 * PERIOD_S)
    expect(first_state(page)).to_have_text("online", timeout=1)
    page.evaluate("delete document.hidden; document.dispatchEvent(new Event('visibilitychange'))")
    expect(first_state(page)).to_have_text("offline")


def test_a_tab_that_does_not_listen_is_told_by_the_one_that_does(tabs, served):
    open_fleet(tabs, served)
    unheard: list = []
    page = open_fleet(tabs, served, live=lambda route: unheard.append(route))
    fall_silent(served)
    expect(first_state(page)).to_have_text("offline")
    assert unheard == []


def test_news_that_come_faster_than_answers_end_in_a_picture(tabs, served):
    page = open_fleet(tabs, served)
    page.route("**/api/v1/devices*", lambda route: (time.sleep(2 * PERIOD_S), route.continue_()))
    over = threading.Event()

    def speak():
        while not over.wait(PERIOD_S / 4):
            with served.store.database.write() as connection:
                heard.record_seen(connection, {"cam-00002": time.time_ns() // 1_000_000})

    speaker = threading.Thread(target=speak)
    speaker.start()
    try:
        fall_silent(served)
        expect(first_state(page)).to_have_text("offline")
    finally:
        over.set()
        speaker.join()


def test_news_come_again_after_the_server_had_none_to_give(tabs, served):
    refused: list = []

    def refuse_once(route):
        route.continue_() if refused else refused.append(route.fulfill(status=503, body="{}"))

    page = open_fleet(tabs, served, live=refuse_once)
    fall_silent(served)
    expect(first_state(page)).to_have_text("offline")


def test_it_is_usable_without_eyes_or_mouse_and_on_a_telephone(page):
    assert browsers.serious(page) == []
    page.set_viewport_size({"width": 390, "height": 800})
    assert page.evaluate("document.documentElement.scrollWidth") <= 390


def test_in_the_dark_it_can_be_read_too(chromium, served):
    browsers.plant_devices(served.store, 50, now_ms=time.time_ns() // 1_000_000)
    page = served.sign_in(chromium, color_scheme="dark")
    expect(page.locator("#summary")).to_contain_text("50 devices")
    assert browsers.serious(page) == []
    page.close()


def test_an_empty_fleet_says_what_to_do(chromium, served):
    page = served.sign_in(chromium)
    expect(page.locator("#empty")).to_be_visible()
    expect(page.locator("#empty")).to_contain_text("winnow-server device enrol")
    assert browsers.serious(page) == []
    page.close()


def said(served, what) -> list:
    with served.store.database.read() as connection:
        return [entry for entry in trail.entries(connection) if entry.what == what]


def test_an_operator_orders_all_that_the_search_finds_in_one_step(chromium, served):
    browsers.plant_devices(served.store, COUNT, now_ms=time.time_ns() // 1_000_000)
    with served.store.database.write() as connection:
        identities.revoke(connection, "cam-00003", why="", samples_left_out=False, now_ms=1)
    page = served.sign_in(chromium, "operator")
    expect(page.locator("#order")).to_have_text("Order all 10,000 …")
    page.select_option("select[name=at]", "site-3")
    expect(page.locator("#order")).to_have_text("Order 834 devices found …")
    held: list = []
    page.route("**/orders/meant*", lambda route: held.append(route))
    page.click("#order")
    page.fill("#orders input[name=why]", "slow")
    page.click("#orders-go")
    page.keyboard.press("Escape")
    page.click("#order")
    with page.expect_response("**/orders/meant*"):
        held[0].continue_()
    expect(page.locator("#orders-go")).to_be_enabled()
    expect(page.locator("#orders-go")).to_have_text("Look whom it concerns")  # that was of the dialog before
    page.unroute("**/orders/meant*")
    page.fill("#orders input[name=why]", "")
    page.keyboard.press("Escape")
    page.click("#order")
    assert browsers.serious(page) == []
    page.click("#orders-go")  # nobody is told anything without a reason
    expect(page.locator("#orders-look")).to_be_empty()
    page.fill("#orders input[name=why]", "the line is being moved")
    page.click("#orders-go")
    expect(page.locator("#orders-look")).to_contain_text("This concerns 833 devices")
    expect(page.locator("#orders-look")).to_contain_text("1 revoked, left out")
    assert said(served, "pause") == []  # so far it was only a look
    page.fill("#orders input[name=why]", "the line is moved")
    expect(page.locator("#orders-go")).to_have_text("Look whom it concerns")  # what was looked at is not this
    page.click("#orders-go")
    expect(page.locator("#orders-go")).to_have_text("Tell 833 devices")
    page.click("#orders-go")
    expect(page.locator("#said")).to_contain_text("833 devices told")
    (entry,) = said(served, "pause")
    assert (entry.who, entry.why, len(entry.detail["devices"])) == ("operator", "the line is moved", 833)
    assert entry.subject == "cam-00015, cam-00027, cam-00039 and 830 more"
    with served.store.database.read() as connection:
        assert set(device_orders.standing(connection)) == {*entry.detail["devices"]}
    page.goto(f"{served.url}/governance")
    expect(page.locator("#trail")).to_contain_text("and 830 more")
    page.click("#trail details >> nth=0")
    expect(page.locator("#trail")).to_contain_text("and 793 more: the CSV has all")
    assert page.problems == []
    page.close()


def test_those_that_are_ticked_are_moved(chromium, served):
    browsers.plant_devices(served.store, 60, now_ms=time.time_ns() // 1_000_000)
    page = served.sign_in(chromium, "operator", color_scheme="dark")
    for name in ("cam-00002", "cam-00005"):
        page.check(f"[aria-label='Tick {name}']")
    page.fill("input[type=search]", "cam-0000")  # ticks stay, whatever is searched for next
    expect(page.locator("#summary")).to_contain_text("10 devices")
    expect(page.locator("#order")).to_have_text("Order 10 devices found …")
    expect(page.locator("#bulk")).to_contain_text("2 devices ticked")
    page.set_viewport_size({"width": 390, "height": 800})
    page.click("#order-ticked")
    page.select_option("#orders select[name=word]", "ring")
    page.fill("#orders input[name=place]", "canary")
    page.fill("#orders input[name=why]", "tried first")
    page.click("#orders-go")
    expect(page.locator("#orders-look")).to_contain_text("This concerns 2 devices")
    expect(page.locator("#orders-look")).to_contain_text("Now: drawn anew 2.")
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    assert browsers.serious(page) == []
    page.click("#orders-go")
    expect(page.locator("#said")).to_contain_text("2 devices told")
    expect(page.locator("#bulk")).to_be_hidden()
    with served.store.database.read() as connection:
        rings = {one.name: one.ring for one in whereabouts.every(connection) if one.ring}
    assert rings == {"cam-00002": "canary", "cam-00005": "canary"}
    (entry,) = said(served, "place")
    assert (entry.who, entry.why, entry.subject) == ("operator", "tried first", "cam-00002,cam-00005")
    page.click("#order")
    page.select_option("#orders select[name=word]", "budget")
    page.fill("#orders input[name=labels_per_day]", "50")
    page.fill("#orders input[name=why]", "dear")
    page.click("#orders-go")
    page.click("#orders-go >> text=Tell 10 devices")
    expect(page.locator("#said")).to_contain_text("10 devices told")
    assert [entry.detail["labels_per_day"] for entry in said(served, "budget")] == [50.0]
    assert page.problems == []
    page.close()
