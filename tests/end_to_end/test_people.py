"""People at the pages of a running server, in a real browser, while a broker and two agents go on with their work."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import browser as browsers
import pytest
from playwright.sync_api import Browser, Page, expect
from processes import Programs, query
from quadrants import another
from world import World

from server.release.fleet import REST_MS

pytestmark = pytest.mark.end_to_end

PEOPLE = """
[labeler]
kind = "human"
blind_share = 0.0
gold_share = 0.0
"""
ROWS, RATE = 900, 60
RINGS = """
[rollout]
rings = ["canary=cam-1", "all"]
soak_s = 3600.0
[autonomy]
dial = "propose"
"""


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    with browsers.started() as found:
        yield found


@pytest.fixture
def world(tmp_path: Path, chromium: Browser) -> Iterator[World]:
    with Programs() as programs:
        yield World(tmp_path, programs, settings=PEOPLE + RINGS, model=True)


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
    for name, seed in (("cam-1", 5), ("cam-2", 6)):
        world.add(name, rows=ROWS, rate=RATE, seed=seed)
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
    world.command("audit", "verify")


def test_a_rollout_is_started_and_halted_while_agents_run(world: World, chromium: Browser) -> None:
    for name, seed in (("cam-1", 5), ("cam-2", 6)):
        world.add(name, rows=10_000, rate=RATE, seed=seed, updates=True)
    another(world.folder / "second", version=2, noise=0.02)
    world.command("model", "add", str(world.folder / "second"))
    world.wait("both agents run version 1", lambda: versions_of(world) == {"cam-1": 1, "cam-2": 1})
    page = sign_in(world, chromium, role="operator")
    page.click("nav >> text=Rollouts")
    page.select_option("select[name=version]", "2")
    page.fill("input[name=why]", "it knows more")
    page.click("main button >> text=Start")
    expect(page.locator(".rings .current h2")).to_contain_text("canary")
    world.wait("the canary runs version 2", lambda: versions_of(world) == {"cam-1": 2, "cam-2": 1})
    # A look at the fleet is followed by a rest of nine times its length (release/fleet.py), up to half a minute.
    expect(page.locator(".rings .current")).to_contain_text("running", timeout=REST_MS + browsers.WAIT_MS)
    page.fill("input[name=reason]", "the line is being moved")
    page.click("text=Halt")
    expect(page.locator("#now .state").first).to_have_text("halted")
    expect(page.locator("#now")).to_contain_text("the line is being moved")
    ordered = "select name from device where json_extract(desired, '$.model.version') = 2"
    assert query(world.catalogue, ordered) in ([], [("cam-1",)])  # to nobody else
    assert page.problems == []
    page.context.close()


def versions_of(world: World) -> dict[str, int]:
    beats = {camera.name: world.heard(camera.name) for camera in world.cameras}
    return {name: beat.model.version for name, beat in beats.items() if beat is not None}
