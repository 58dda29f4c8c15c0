"""Ten thousand devices in a real browser."""

from __future__ import annotations

import time

import browser as browsers
import pytest
from playwright.sync_api import expect

from server.store import devices

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


def test_what_changes_is_shown_without_loading_again(page, served):
    page.fill("input[type=search]", "cam-00001")
    row = page.locator("#devices tbody tr:not([aria-hidden])").first
    expect(row.locator(".state")).to_have_text("online")
    with served.store.database.write() as connection:
        devices.mark_offline(connection, now_ms=10**15, after_ms=0)
        devices.record_seen(connection, {"cam-00002": time.time_ns() // 1_000_000})
    expect(row.locator(".state")).to_have_text("offline", timeout=10_000)


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
