"""Looking through samples in a real browser: searched, picked, on the map, one whole; snapshots and copies of them."""

from __future__ import annotations

import csv
import io
import time
import zipfile

import browser as browsers
import msgspec
import numpy as np
import pytest
from device_words import FLEET, SELECTION, encode_sample, message, sample, sample_frames
from playwright.sync_api import expect
from quadrants import artifact, images

from edge_agent.contract.types import Prediction
from server.collect.inbound import Message
from server.collect.ingest import Ingest
from server.release.registry import add_artifact
from server.store import chores, labels, places, questions, trail
from server.store.consensus import FIRST, SECOND_LOOK
from server.store.labels import Label
from server.teach.snapshot import freeze

NAMES = ("top left", "top right", "bottom left", "bottom right")
COUNT, LABELLED = 80, 30


def messages(device: str, seq: int, array: np.ndarray, **prediction: object) -> list[Message]:
    made = sample(device, seq, data=array)
    made = made._replace(prediction=Prediction(**prediction) if prediction else made.prediction)
    reason = "random" if seq % 4 == 3 else "informative"
    made = made._replace(selection=msgspec.structs.replace(SELECTION, reason=reason))
    header, body = encode_sample(made)
    now_ms = time.time_ns() // 1_000_000
    return [message(device, "sample", frame, at_ms=now_ms) for frame in sample_frames(header, body)]


def put(served, sent: list[Message]) -> None:
    Ingest(served.store, fleet=FLEET, offline_after_s=90.0).take(sent)


@pytest.fixture
def served(served, tmp_path):
    """Eighty pictures of two devices, thirty labelled, every sixth against the model; a champion that sees them."""
    x, y = images(COUNT)
    taken = [int(y[seq] if seq % 6 else (y[seq] + 1) % 4) for seq in range(COUNT)]
    sent = (messages(f"cam-{seq % 2}", seq, x[seq], label=taken[seq], confidence=0.6) for seq in range(COUNT))
    put(served, [one for some in sent for one in some])
    with served.store.database.write() as connection:
        labels.ensure_names(connection, NAMES)
        labels.add(connection, [Label(f"cam-{n % 2}.main.1.{n}", int(y[n]), "ann", n) for n in range(LABELLED)])
    artifact(tmp_path / "artifact", version=1, classes=NAMES)
    add_artifact(served.store, tmp_path / "artifact", weights=None, now_ms=1)
    return served


def test_samples_are_searched_by_what_was_said_of_them(chromium, served):
    page = served.sign_in(chromium, "viewer", viewport={"width": 1280, "height": 900})
    page.click("nav >> text=Data")
    tiles = page.locator("#tiles li")
    expect(tiles).to_have_count(60)
    page.click("#further")
    expect(tiles).to_have_count(COUNT)
    expect(page.locator("#further")).to_be_hidden()
    page.select_option("select[name=agrees]", "no")
    expect(tiles).to_have_count(5)
    expect(tiles.first.locator(".state.bad")).to_be_visible()
    page.fill("input[name=device]", "cam-1")
    expect(page.locator("#empty h2")).to_have_text("Nothing fits")
    page.click("#clear")
    page.select_option("select[name=labelled_as]", "top left")
    expect(page.locator("#summary")).to_contain_text("last labelled first")
    page.click("[data-view=table]")
    expect(page.locator("#rows tbody tr").first).to_contain_text("top left")
    assert page.url.endswith("?labelled_as=top+left&view=table")
    assert browsers.serious(page) == []
    page.reload()  # the address says it all
    expect(page.locator("#rows tbody tr").first).to_contain_text("top left")
    answer = page.request.get(f"{served.url}{page.locator('#csv').get_attribute('href')}")
    rows = list(csv.DictReader(io.StringIO(answer.text())))
    assert rows
    assert {row["label"] for row in rows} == {"top left"}
    assert page.locator("#bulk").count() == 0  # who only looks is offered nothing
    page.set_viewport_size({"width": 390, "height": 800})
    page.click("[data-view=grid]")
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    assert page.problems == []
    page.close()


def test_those_picked_are_asked_about_with_a_reason(chromium, served):
    page = served.sign_in(chromium, "operator")
    page.goto(f"{served.url}/data?search=cam-1.main.1.2")  # 21 23 25 27 29: labelled; 2x of cam-1 beyond: none
    expect(page.locator("#tiles li")).to_have_count(5)
    page.focus("#tiles input >> nth=0")
    page.keyboard.press("Space")
    expect(page.locator("#picked")).to_have_text("1 picked")
    page.click("#pick-all")
    page.fill("#bulk input[name=why]", "they look alike")
    assert browsers.serious(page) == []
    page.click("text=Second look")
    expect(page.locator("#said")).to_have_text("5 will be looked at again")
    page.goto(f"{served.url}/data?search=cam-0.main.1.4")  # 4, labelled, and 40 to 48
    expect(page.locator("#tiles li")).to_have_count(6)
    page.locator("#tiles input").first.check()
    page.click("#pick-all")
    page.fill("#bulk input[name=why]", "before the fair")
    page.click("text=Ask for a label")
    expect(page.locator("#said")).to_have_text("5 will be labelled next, 1 not: they have an answer")
    with served.store.database.read() as connection:
        assert questions.count(connection) == {SECOND_LOOK: 5, FIRST: 5}
        look, soon = trail.entries(connection, limit=2)
    assert (look.who, look.what, look.why, len(look.detail["samples"])) == (
        "operator",
        "second look",
        "they look alike",
        5,
    )
    assert (soon.what, soon.why, len(soon.detail["samples"])) == ("ask soon", "before the fair", 5)
    assert page.problems == []
    page.close()


def test_what_is_picked_and_shown_stays_while_the_server_answers_or_does_not(chromium, served):
    page = served.sign_in(chromium, "operator")
    page.goto(f"{served.url}/data")
    expect(page.locator("#tiles li")).to_have_count(60)
    page.locator("#tiles input").first.check()
    page.fill("#bulk input[name=why]", "they look alike")
    held: list = []
    page.route("**/samples/ask", lambda route: held.append(route))
    with page.expect_request("**/samples/ask"):
        page.click("text=Ask for a label")
    page.click("text=Ask for a label")  # once more, out of impatience
    page.locator("#tiles input").nth(1).check()
    assert len(held) == 1
    held[0].continue_()
    expect(page.locator("#said")).to_have_text("1 will be labelled next")
    expect(page.locator("#picked")).to_have_text("1 picked")  # the second
    page.fill("#bulk input[name=why]", "this one too")
    page.unroute("**/samples/ask")
    page.route("**/api/v1/samples**", lambda route: route.abort())
    page.click("text=Ask for a label")
    expect(page.locator("#said")).to_contain_text("Failed to fetch")
    page.evaluate("document.getElementById('said').textContent = ''")
    page.click("#further")
    expect(page.locator("#said")).to_contain_text("Failed to fetch")
    expect(page.locator("#tiles li")).to_have_count(60)
    expect(page.locator("#bulk input[name=why]")).to_have_value("this one too")
    page.unroute("**/api/v1/samples**")
    page.click("#further")
    expect(page.locator("#tiles li")).to_have_count(80)
    page.route("**/api/v1/samples**", lambda route: route.fulfill(status=503, json={"detail": "the catalogue is away"}))
    page.fill("input[name=search]", "cam-1.main.1.2")
    expect(page.locator("#empty")).to_contain_text("The server did not answer")
    page.unroute("**/api/v1/samples**")
    expect(page.locator("#tiles li")).to_have_count(5)  # it is asked again by itself
    page.close()


def test_the_map_is_drawn_in_the_background_and_picks(chromium, served):
    page = served.sign_in(chromium, "viewer", viewport={"width": 1280, "height": 1000})
    page.goto(f"{served.url}/data?view=map")
    expect(page.locator("#map-about")).to_contain_text(f"{COUNT} samples as version 1 sees them")
    assert browsers.serious(page) == []
    group = page.locator("#groups button", has_text="bottom right")
    count = int(group.locator(".num").inner_text())
    group.click()
    expect(page.locator("#chosen-from-map")).to_contain_text(f"{count} picked on the map: bottom right")
    expect(page.locator("#tiles li")).to_have_count(count)
    page.click("text=Show all again")
    expect(page.locator("#tiles li")).to_have_count(60)
    page.focus("#plane")  # a frame as large as it gets, in the middle, is everything
    for _ in range(8):
        page.keyboard.press("+")
    page.keyboard.press("Enter")
    expect(page.locator("#chosen-from-map")).to_contain_text(f"{COUNT} picked")
    page.click("text=Show all again")
    expect(page.locator("#tiles li")).to_have_count(60)
    page.evaluate("scrollTo(0, 0)")
    box = page.locator("#plane").bounding_box()
    x, y, size = box["x"], box["y"], box["width"]
    low, middle, high = 0.03, 0.5, 0.97  # corners are round: nothing is hit there
    with served.store.database.read() as connection:
        points = places.every(connection)
    left = sum(low < point.x < middle and low < 1.0 - point.y < high for point in points)
    page.mouse.move(x + low * size, y + low * size)
    page.mouse.down()
    for across, down in ((middle, low), (middle, high), (low, high), (low, low)):
        page.mouse.move(x + across * size, y + down * size, steps=3)
    page.mouse.up()
    expect(page.locator("#chosen-from-map")).to_be_visible()
    shown = int(page.locator("#chosen-from-map span").inner_text().split()[0])
    assert abs(shown - left) <= 2  # what lies on the line
    assert page.problems == []
    page.close()


def test_one_sample_is_shown_whole(chromium, served):
    freeze(served.store, now_ms=1)
    page = served.sign_in(chromium, "operator")
    page.route("**/near", lambda route: route.fulfill(status=503, body=""), times=1)  # it is asked again
    page.goto(f"{served.url}/samples/cam-0.main.1.6")
    main = page.locator("main")
    expect(main).to_contain_text("informative")
    expect(main.locator("[aria-label=Labels] tbody tr")).to_have_count(1)
    expect(main.locator("[aria-label=Snapshots] tbody tr")).to_contain_text("to train")
    expect(main).to_contain_text("It has no embedding")
    page.problems.clear()
    assert browsers.serious(page) == []
    page.fill("#ask input", "I doubt it")
    page.click("text=Have it looked at again")
    expect(main).to_contain_text("for a second look")
    assert page.request.get(f"{served.url}/samples/cam-9.main.1.1").status == 404
    assert page.problems == []
    page.close()


def test_recordings_are_drawn_and_sounds_are_played(chromium, served):
    t = np.linspace(0, 60, 8000, dtype=np.float32)
    put(served, messages("wrist-1", 0, np.stack([np.sin(t[:300]), np.cos(t[:300])], axis=1)))
    put(served, messages("mic-1", 0, np.sin(40 * t)))
    page = served.sign_in(chromium, "viewer")
    page.goto(f"{served.url}/samples/wrist-1.main.1.0")
    expect(page.locator(".u-legend")).to_contain_text("channel 2")
    expect(page.locator(".plot")).to_have_attribute("aria-label", "300 readings of 2 channels: channel 1, channel 2")
    page.goto(f"{served.url}/samples/mic-1.main.1.0")
    page.select_option("select.rate", "8000")
    sound = page.request.get(f"{served.url}{page.locator('audio').get_attribute('src')}")
    assert sound.headers["content-type"] == "audio/wav"
    assert len(sound.body()) == 44 + 2 * 8000
    assert page.request.get(f"{served.url}/samples/cam-0.main.1.0/sound?rate=8000").status == 404
    assert browsers.serious(page) == []
    assert page.problems == []
    page.close()


def test_snapshots_are_compared(chromium, served):
    page = served.sign_in(chromium, "viewer")
    page.goto(f"{served.url}/data/snapshots")
    expect(page.locator(".empty")).to_contain_text("winnow-server train")
    freeze(served.store, now_ms=1)
    with served.store.database.write() as connection:
        more = [Label(f"cam-{n % 2}.main.1.{n}", 0, "bob", n) for n in range(LABELLED, LABELLED + 6)]
        labels.add(connection, more)
    freeze(served.store, now_ms=2)
    page.reload()
    expect(page.locator("[aria-label=Snapshots] tbody tr")).to_have_count(2)
    page.click("text=Compare")
    expect(page.locator("section", has_text="Added")).to_contain_text("bob 6")
    assert browsers.serious(page) == []
    page.locator("h1 a").last.click()
    expect(page.locator(".head")).to_contain_text("whole")
    expect(page.locator("main")).to_contain_text("ann 30, bob 6")
    assert browsers.serious(page) == []
    assert page.problems == []
    page.close()


def test_a_copy_is_made_in_the_background_and_fetched_by_who_may(chromium, served):
    frozen = freeze(served.store, now_ms=1)
    page = served.sign_in(chromium, "operator")
    page.goto(f"{served.url}/data/snapshots")
    page.select_option("#exports select[name=form]", "csv")
    page.fill("#exports input[name=why]", "the yearly report")
    page.click("text=Export")
    link = page.locator("#exports a", has_text="Download")
    expect(link).to_be_visible(timeout=30_000)
    assert browsers.serious(page) == []
    with page.expect_download() as waiting:
        link.click()
    with zipfile.ZipFile(waiting.value.path()) as archive:
        rows = list(csv.DictReader(io.StringIO(archive.read("samples.csv").decode())))
    assert {row["label"] for row in rows} <= set(NAMES)
    assert len(rows) == frozen.train_count + frozen.holdout_count
    with served.store.database.read() as connection:
        begun, done, fetched = trail.entries(connection, subject=f"snapshot {frozen.id}")[-3:]
    assert (begun.what, begun.who, begun.why) == ("export", "operator", "the yearly report")
    assert done.what == "export whole"
    assert fetched.why == "fetched: the yearly report"
    viewer = served.sign_in(chromium.new_context(), "viewer")
    viewer.goto(f"{served.url}/data/snapshots")
    expect(viewer.locator("#exports")).to_contain_text("done")
    assert viewer.locator("#exports a, #exports form").count() == 0
    assert viewer.request.get(f"{served.url}/data/exports/1").status == 403
    viewer.context.close()
    chores.drop_exports(served.store)  # as when something is erased
    assert page.request.get(f"{served.url}/data/exports/1").status == 404
    page.reload()
    expect(page.locator("#exports")).to_contain_text("deleted")
    assert page.problems == []
    page.close()


def test_what_may_not_be_shared_is_not_and_the_page_says_why(chromium, served):
    frozen = freeze(served.store, now_ms=1)
    page = served.sign_in(chromium, "operator")
    page.goto(f"{served.url}/data/snapshots")
    page.fill("#exports input[name=why]", "for a friend")
    page.check("#exports input[name=share]")
    page.click("text=Export")
    expect(page.locator("#exports .state.bad")).to_be_visible(timeout=30_000)
    expect(page.locator("#exports")).to_contain_text(f"snapshot {frozen.id[:12]}: nothing to share as parquet")
    assert page.problems == []
    page.close()
