"""People at the pages of a running server, in a real browser, while a broker and two agents go on with their work."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import browser as browsers
import pytest
from playwright.sync_api import Browser, Page, expect
from processes import query
from world import World

from server.__main__ import main

pytestmark = pytest.mark.end_to_end

PEOPLE = """
[labeler]
kind = "human"
blind_share = 0.0
gold_share = 0.0
"""
ROWS, RATE = 900, 60


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    with browsers.started() as found:
        yield found


@pytest.fixture
def world(tmp_path: Path, chromium: Browser) -> Iterator[World]:
    made = World(tmp_path, settings=PEOPLE, model=True)
    try:
        for name, seed in (("cam-1", 5), ("cam-2", 6)):
            made.add(name, rows=ROWS, rate=RATE, seed=seed)
        yield made
    finally:
        made.kill()


def sign_in(world: World, chromium: Browser, *, role: str) -> Page:
    """The fleet as somebody of a role sees it, who is added in words of the command line."""
    add = [sys.executable, "-m", "server", "user", "add", f"a-{role}", "--role", role, world.config]
    subprocess.run(add, input=f"{browsers.PASSWORD}\n", text=True, check=True, capture_output=True)
    page = chromium.new_context().new_page()
    page.problems = []
    page.on("pageerror", lambda error: page.problems.append(str(error)))
    page.goto(world.pages_url)
    page.fill("input[name=name]", f"a-{role}")
    page.fill("input[name=password]", browsers.PASSWORD)
    page.click("main button")
    expect(page.locator("nav")).to_be_visible()
    return page


def test_twenty_images_by_keyboard_while_agents_run(world: World, chromium: Browser) -> None:
    world.wait("questions wait", lambda: query(world.catalogue, "select count(*) from question") >= [(25,)])
    page = sign_in(world, chromium, role="labeler")
    page.click("nav >> text=Label")
    seen = []
    for key in ["Enter", "1", "2", "3", "4"] * 4:
        expect(page.locator("#one")).to_be_visible()
        seen.append(page.locator("#picture").get_attribute("src"))
        page.keyboard.press(key)
        expect(page.locator("#picture")).not_to_have_attribute("src", seen[-1])
    assert len(set(seen)) == 20
    given = "select count(distinct sample_id), count(*) from label where labeler = 'a-labeler' and undone_at_ms is null"
    world.wait("twenty labels are stored", lambda: query(world.catalogue, given) == [(20, 20)])
    assert page.problems == []
    page.context.close()
    world.finish()
    for camera in world.cameras:
        assert camera.stored() == camera.expected
    assert main(["audit", "verify", world.config]) == 0
