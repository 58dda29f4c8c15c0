"""People who label by keyboard, in real browsers, at a real queue."""

from __future__ import annotations

import time

import browser as browsers
import msgspec
import numpy as np
import pytest
from device_words import FLEET, SELECTION, frames, message
from playwright.sync_api import expect

from server.collect.ingest import Ingest
from server.label.queue import Queue, Rules
from server.store import labels
from server.store.consensus import FIRST
from server.store.questions import Queued

NAMES = ("coat", "boot", "bag", "shirt")


@pytest.fixture
def served(served):
    """Forty samples wait: the device took all for a shirt."""
    ingest = Ingest(served.store, fleet=FLEET, offline_after_s=90.0)
    chosen = msgspec.structs.replace(SELECTION, reason="informative")
    ingest.take(
        [message("cam-1", "sample", frame) for seq in range(40) for frame in frames("cam-1", seq, selection=chosen)]
    )
    with served.store.database.write() as connection:
        labels.ensure_names(connection, NAMES)
    now_ms = time.time_ns() // 1_000_000
    queue = Queue(served.store, Rules(), now_ms=lambda: now_ms, rng=np.random.default_rng(0))
    queue.put([Queued(f"cam-1.main.1.{seq}", FIRST, now_ms, 1, seq, None, None, ()) for seq in range(40)])
    return served


def labelled(served) -> dict[str, str]:
    with served.store.database.read() as connection:
        rows = connection.execute(labels.in_force()).all()
        names = labels.names(connection)
    return {row.sample_id: names[row.class_index] if row.class_index >= 0 else str(row.class_index) for row in rows}


def count_of(served, wanted: int) -> dict[str, str]:
    deadline = time.monotonic() + 15
    while len(found := labelled(served)) != wanted and time.monotonic() < deadline:
        time.sleep(0.05)
    assert len(found) == wanted
    return found


def test_twenty_images_by_keyboard(chromium, served):
    page = served.sign_in(chromium, "labeler")
    page.click("nav >> text=Label")
    expect(page.locator("#guess")).to_have_text("version 1 takes it for shirt, 50 %")
    assert browsers.serious(page) == []
    keys = ["Enter", "1", "2", "3", "4", "c", "n"] * 3
    for key in keys[:20]:
        expect(page.locator("#one")).to_be_visible()
        before = page.locator("#picture").get_attribute("src")
        page.keyboard.press(key)
        expect(page.locator("#picture")).not_to_have_attribute("src", before)
    found = list(count_of(served, 20).values())
    assert [found.count(name) for name in (*NAMES, "-1", "-2")] == [3, 3, 3, 6, 3, 2]
    expect(page.locator("#progress")).to_contain_text("you: 20 today")
    assert page.problems == []
    page.close()


def test_what_was_said_is_taken_back_and_skipped(chromium, served):
    page = served.sign_in(chromium, "labeler")
    page.goto(f"{served.url}/label")
    expect(page.locator("#one")).to_be_visible()
    first = page.locator("#picture").get_attribute("alt")
    page.keyboard.press("1")
    count_of(served, 1)
    page.keyboard.press("u")
    expect(page.locator("#picture")).to_have_attribute("alt", first)
    count_of(served, 0)
    page.keyboard.press("s")
    expect(page.locator("#picture")).not_to_have_attribute("alt", first)
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("+")
    assert page.locator("#picture").evaluate("image => image.style.getPropertyValue('--zoom')") == "2"
    assert page.problems == []
    page.close()


def test_who_leaves_while_an_answer_is_on_its_way_is_asked_first(chromium, served):
    page = served.sign_in(chromium, "labeler")
    page.goto(f"{served.url}/label")
    expect(page.locator("#one")).to_be_visible()
    may_go = "window.dispatchEvent(new Event('beforeunload', { cancelable: true }))"
    held: list = []
    page.route("**/label/answers", lambda route: held.append(route))
    with page.expect_request("**/label/answers"):
        page.keyboard.press("1")
    assert page.evaluate(may_go) is False
    with page.expect_response("**/label/progress"):  # asked for when it was taken
        held[0].continue_()
    page.wait_for_function(may_go)
    page.close()


def test_a_grid_of_one_class_with_exceptions(chromium, served):
    page = served.sign_in(chromium, "labeler", viewport={"width": 1280, "height": 900})
    page.goto(f"{served.url}/label")
    page.click("#grid-mode")
    tiles = page.locator("#tiles li")
    expect(tiles).to_have_count(30)
    tiles.nth(3).click()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("x")
    expect(tiles.nth(4)).to_have_attribute("aria-selected", "false")
    assert browsers.serious(page) == []
    page.keyboard.press("Enter")
    assert set(count_of(served, 28).values()) == {"shirt"}
    expect(page.locator("#one")).to_be_visible()  # the exceptions come one by one
    page.keyboard.press("1")
    page.keyboard.press("1")
    assert list(count_of(served, 30).values()).count("coat") == 2
    assert page.problems == []
    page.close()


def test_two_people_never_get_the_same(chromium, served):
    seen: list[str] = []
    pages = [served.sign_in(chromium.new_context(), name) for name in ("labeler", "admin")]
    for page in pages:
        page.goto(f"{served.url}/label")
        expect(page.locator("#one")).to_be_visible()
    for _ in range(12):
        for page in pages:
            alt = page.locator("#picture").get_attribute("alt")
            seen.append(alt)
            page.keyboard.press("Enter")
            expect(page.locator("#picture")).not_to_have_attribute("alt", alt)
    assert len(seen) == len(set(seen)) == 24
    count_of(served, 24)
    for page in pages:
        page.context.close()


def test_a_new_class_is_asked_about_and_added(chromium, served):
    page = served.sign_in(chromium, "labeler")
    page.goto(f"{served.url}/label")
    expect(page.locator("#one")).to_be_visible()
    page.on("dialog", lambda dialog: dialog.accept())
    page.fill("#new-class input", "sandal")
    page.keyboard.press("Enter")
    assert list(count_of(served, 1).values()) == ["sandal"]
    page.close()


def test_an_answer_that_is_sent_twice_counts_once_and_a_viewer_gives_none(chromium, served):
    page = served.sign_in(chromium, "labeler")
    csrf = {"X-CSRF-Token": page.locator("meta[name=csrf]").get_attribute("content")}
    asked = page.request.post(f"{served.url}/api/v1/label/next?count=1", headers=csrf).json()["questions"][0]
    given = {"answers": [{"sample_id": asked["sample_id"], "key": asked["key"], "said": "coat"}]}
    for _ in range(2):
        assert page.request.post(f"{served.url}/api/v1/label/answers", headers=csrf, data=given).ok
    with served.store.database.read() as connection:
        assert labels.last_id(connection) == 1
    wrong = {"answers": [{"sample_id": asked["sample_id"], "said": "caot"}]}
    answer = page.request.post(f"{served.url}/api/v1/label/answers", headers=csrf, data=wrong).json()
    assert "did you mean 'coat'" in answer["outcomes"][0]["error"]
    page.close()
    viewer = served.sign_in(chromium.new_context(), "viewer")
    assert viewer.locator("nav >> text=Label").count() == 0
    assert viewer.request.post(f"{served.url}/api/v1/label/next").status == 403
    viewer.context.close()


def test_nothing_to_answer_says_so(chromium, tmp_path):
    served = browsers.Served(tmp_path, now_ms=lambda: time.time_ns() // 1_000_000)
    page = served.sign_in(chromium, "labeler")
    page.goto(f"{served.url}/label")
    expect(page.locator("#nothing")).to_be_visible()
    page.close()
    served.close()
    served.store.close()


def test_a_recording_is_drawn_and_a_sound_is_played(chromium, served):
    t = np.linspace(0, 60, 8000, dtype=np.float32)
    ingest = Ingest(served.store, fleet=FLEET, offline_after_s=90.0)
    for device, array in (("mic-1", np.sin(40 * t)), ("wrist-1", np.stack([np.sin(t), np.cos(t), t], axis=1))):
        ingest.take([message(device, "sample", frame) for frame in frames(device, 0, data=array)])
    now_ms = time.time_ns() // 1_000_000
    queue = Queue(served.store, Rules(), now_ms=lambda: now_ms, rng=np.random.default_rng(0))
    queue.put([Queued(f"{name}.main.1.0", FIRST, now_ms, 1, -1, None, None, ()) for name in ("mic-1", "wrist-1")])
    page = served.sign_in(chromium, "labeler")
    page.goto(f"{served.url}/label")
    expect(page.locator("#plot .u-legend")).to_contain_text("channel 1")
    expect(page.locator("#play")).to_be_visible()
    expect(page.locator("#rounds")).to_contain_text("No round of training has been judged yet")
    assert browsers.serious(page) == []
    page.keyboard.press("1")
    expect(page.locator("#plot .u-legend")).to_contain_text("channel 3")
    expect(page.locator("#play")).to_be_hidden()
    page.keyboard.press("+")
    page.keyboard.press("2")
    expect(page.locator("#picture")).to_be_visible()  # and on with pictures
    expect(page.locator("#plot")).to_be_hidden()
    assert count_of(served, 2) == {"mic-1.main.1.0": "coat", "wrist-1.main.1.0": "boot"}
    assert page.problems == []
    page.close()
