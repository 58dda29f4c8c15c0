"""Rings that fill before one's eyes, and an operator's words: the real rules, in a real browser."""

from __future__ import annotations

import time

import browser as browsers
import pytest
from fleet_simulator import FleetSimulator
from playwright.sync_api import expect

from server import config
from server.release import commands
from server.store import trail

RULES = config.Rollout(rings=("canary=1", "all"), soak_s=20.0, timeout_s=120.0)


@pytest.fixture
def fleet(tmp_path):
    made = FleetSimulator(tmp_path / "fleet", devices=3, rules=RULES)
    yield made
    made.close()


@pytest.fixture
def site(fleet, tmp_path):
    made = browsers.Served(tmp_path, now_ms=lambda: fleet.now_ms, store=fleet.store)
    yield made
    made.close()


def test_an_operator_sees_a_rollout_fill_and_halts_it(chromium, site, fleet):
    page = site.sign_in(chromium, "operator")
    page.click("text=Rollouts")
    expect(page.locator("main")).to_contain_text("Nothing has been rolled out")
    fleet.publish(2)
    fleet.run(30.0)
    expect(page.locator("#list")).to_contain_text("2 after")
    page.click("#list a")
    expect(page.locator(".rings .current h2")).to_contain_text("canary")
    assert browsers.serious(page) == []
    size = page.viewport_size
    page.set_viewport_size({"width": 390, "height": 800})
    assert page.evaluate("document.documentElement.scrollWidth") == 390  # what is wide scrolls by itself
    page.set_viewport_size(size)
    page.fill("input[name=reason]", "the line is being moved")
    page.click("text=Halt")
    expect(page.locator("#now")).to_contain_text("the server has not seen it yet")
    fleet.run(2.0)
    expect(page.locator("#now .state").first).to_have_text("halted")
    expect(page.locator("#now")).to_contain_text("the line is being moved")
    assert page.problems == []
    page.close()


def test_two_people_at_one_rollout(chromium, site, fleet):
    fleet.publish(2)
    fleet.run(30.0)
    page = site.sign_in(chromium, "operator")
    page.goto(f"{site.url}/rollouts/1")
    reason = page.locator("input[name=reason]")
    reason.press_sequentially("it is too")
    commands.say(fleet.store, 1, "pause", reason="wait", who="admin", now_ms=fleet.now_ms)
    fleet.run(2.0)
    expect(page.locator("#say-resume")).to_be_visible()  # what may be said now, without loading again
    expect(page.locator("#say-pause")).to_have_count(0)
    expect(reason).to_be_focused()
    reason.press_sequentially(" slow")
    cookies = page.context.cookies()
    page.context.clear_cookies()  # the session ends, and news come
    commands.say(fleet.store, 1, "resume", reason="go on", who="admin", now_ms=fleet.now_ms)
    fleet.run(2.0)
    expect(page.locator("#said")).to_contain_text("You are not signed in any more")
    expect(reason).to_have_value("it is too slow")  # who typed it is not led away from it
    page.context.add_cookies(cookies)
    with fleet.store.database.write():  # the server is slow, and somebody presses again
        page.evaluate("for (const ms of [0, 200]) setTimeout(() => document.getElementById('say-halt').click(), ms)")
        time.sleep(0.5)
    expect(page.locator("#now")).to_contain_text("the server has not seen it yet")
    with fleet.store.database.read() as connection:
        assert [one.why for one in trail.entries(connection, subject="rollout 1")].count("it is too slow") == 1
    page.close()


def test_a_viewer_sees_no_button_and_may_not(chromium, site, fleet):
    fleet.publish(2)
    fleet.run(30.0)
    page = site.sign_in(chromium, "viewer")
    page.goto(f"{site.url}/rollouts/1")
    expect(page.locator("h1")).to_have_text("Rollout 1")
    assert page.locator("main button").count() == 0
    csrf = page.locator("meta[name=csrf]").get_attribute("content")
    answer = page.request.post(f"{site.url}/rollouts/1/halt", form={"reason": "x", "csrf": csrf})
    assert answer.status == 403
    assert "takes the role operator" in answer.text()
    page.close()


def test_what_cannot_be_done_is_said(chromium, site, fleet):
    page = site.sign_in(chromium, "operator")
    page.goto(f"{site.url}/rollouts")
    expect(page.locator("main")).to_contain_text("Nothing has been rolled out")
    answer = page.goto(f"{site.url}/rollouts/7")
    assert answer.status == 409
    expect(page.locator("main")).to_contain_text("there is no rollout 7")
    page.close()
