"""People who draw boxes, pick several classes and type numbers, in real browsers: what is stored is what was drawn."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import browser as browsers
import numpy as np
import pytest
import sqlalchemy as sa
from device_words import FLEET, frames, message
from playwright.sync_api import Browser, Page, expect

from edge_agent.contract.task import Applies, Box, Said, Task, Value
from server.collect.ingest import Ingest
from server.label.queue import Queue, Rules
from server.store import labels
from server.store.consensus import FIRST
from server.store.questions import Queued
from server.store.schema import class_name

WIDTH, HEIGHT = 160, 120
PIXEL = max(1 / WIDTH, 1 / HEIGHT)
SAID: dict[Task, Said] = {
    "detection": Said(
        boxes=(
            Box(0, 0.125, 0.25, 0.375, 0.75, 0.9),
            Box(1, 0.5, 0.5, 0.75, 0.75, 0.6),
            Box(0, 0.8, 0.1, 0.9, 0.2, 0.1),
        )
    ),
    "multilabel": Said(applies=(Applies(0, 0.9), Applies(1, 0.2), Applies(2, 0.6))),
    "regression": Said(values=(Value(0, 3.25, 0.5), Value(1, -2.0))),
}


@pytest.fixture
def served(tmp_path: Any, request: Any) -> Iterator[browsers.Served]:
    """Six pictures wait on a server of the task that the test names; of the last two the model says nothing."""
    task: Task = request.param
    now_ms = time.time_ns() // 1_000_000
    made = browsers.Served(tmp_path, now_ms=lambda: now_ms, task=task)
    ingest = Ingest(made.store, fleet=FLEET, offline_after_s=90.0)
    for seq in range(6):
        x = np.random.default_rng(seq).integers(60, 120, (HEIGHT, WIDTH, 3)).astype(np.uint8)
        said = SAID[task] if seq < 4 else Said()
        ingest.take([message("cam-1", "sample", frame) for frame in frames("cam-1", seq, data=x, label=0, said=said)])
    with made.store.database.write() as connection:
        labels.ensure_names(connection, ["person", "dog", "bicycle"])
    queue = Queue(made.store, Rules(task=task), now_ms=lambda: now_ms, rng=np.random.default_rng(0))
    queue.put([Queued(f"cam-1.main.1.{seq}", FIRST, now_ms, 1, seq) for seq in range(6)])
    yield made
    made.close()
    made.store.close()


def truths(served: browsers.Served, count: int) -> dict[int, Any]:
    """Sequence number -> truth in force, once there are so many."""
    deadline = time.monotonic() + 15
    while True:
        with served.store.database.read() as connection:
            rows = connection.execute(labels.in_force().add_columns(labels.in_force_.c.truth)).all()
        if len(rows) == count or time.monotonic() > deadline:
            assert len(rows) == count
            return {int(row.sample_id.rsplit(".", 1)[1]): row.truth for row in rows}
        time.sleep(0.05)


def near(*expected: tuple[int, float, float, float, float]) -> list[Any]:
    """Boxes in the store's order, each corner within a pixel."""
    return [
        [label, *(pytest.approx(value, abs=PIXEL) for value in corners), 1.0] for label, *corners in sorted(expected)
    ]


def opened(served: browsers.Served, chromium: Browser, **options: Any) -> Page:
    page = served.sign_in(chromium, "labeler", **options)
    page.goto(f"{served.url}/label")
    expect(page.locator("#one")).to_be_visible()
    return page


def at(page: Page, x: float, y: float) -> tuple[float, float]:
    """Where a place of the picture, in shares, is on the screen."""
    spot = page.locator("#drawing").evaluate(
        "(svg, [x, y]) => { const at = new DOMPoint(x * svg.viewBox.baseVal.width, y * svg.viewBox.baseVal.height)"
        ".matrixTransform(svg.getScreenCTM()); return [at.x, at.y]; }",
        [x, y],
    )
    return spot[0], spot[1]


def pull(page: Page, start: tuple[float, float], end: tuple[float, float]) -> None:
    page.mouse.move(*at(page, *start))
    page.mouse.down()
    page.mouse.move(*at(page, (start[0] + end[0]) / 2, (start[1] + end[1]) / 2))
    page.mouse.move(*at(page, *end))
    page.mouse.up()


boxes = pytest.mark.parametrize("served", ["detection"], indirect=True)
MODELS = ((0, 0.125, 0.25, 0.375, 0.75), (1, 0.5, 0.5, 0.75, 0.75))


@boxes
def test_boxes_by_keyboard_alone(chromium: Browser, served: browsers.Served) -> None:
    page = opened(served, chromium)
    expect(page.locator("#guess")).to_contain_text("person ×2, dog")
    assert browsers.serious(page) == []
    page.keyboard.press("Enter")  # the model's boxes, but for the one that it is not sure of
    expect(page.locator("#drawing")).to_have_attribute("aria-label", "Sample cam-1.main.1.1: boxes")
    page.locator("#drawing").focus()
    page.keyboard.press("Tab")
    expect(page.locator("#box-said")).to_contain_text("box 1 of 3: person, by the model, left 13 %")
    for _ in range(16):
        page.keyboard.press("ArrowRight")
    for _ in range(12):
        page.keyboard.press("Shift+ArrowDown")
    page.keyboard.press("3")
    page.keyboard.press("Tab")
    page.keyboard.press("Delete")
    page.keyboard.press("Tab")
    page.keyboard.press("2")  # the box that the model was not sure of is a dog, and counts now
    page.keyboard.press("n")
    page.keyboard.press("1")
    expect(page.locator("#accept")).to_contain_text("These 3 boxes are right")
    page.keyboard.press("Enter")
    expect(page.locator("#drawing")).to_have_attribute("aria-label", "Sample cam-1.main.1.2: boxes")
    for key in ("n", "u", "c"):  # a box too many is undone, and this one nobody can tell
        page.keyboard.press(key)
    found = truths(served, 3)
    assert found[0]["boxes"] == near(*MODELS)
    edited, sure, new = (2, 0.225, 0.25, 0.475, 0.85), (1, 0.8, 0.1, 0.9, 0.2), (0, 0.25, 0.25, 0.75, 0.75)
    assert found[1]["boxes"] == near(edited, sure, new)
    assert found[2] is None
    page.keyboard.press("u")  # the last answer
    truths(served, 2)
    assert page.problems == []
    page.close()


@boxes
def test_boxes_by_mouse(chromium: Browser, served: browsers.Served) -> None:
    page = opened(served, chromium, viewport={"width": 1280, "height": 900})
    page.locator("#classes button", has_text="bicycle").click()
    pull(page, (0.1, 0.8), (0.3, 0.95))  # a new one
    pull(page, (0.25, 0.5), (0.35, 0.4))  # the whole of another
    page.mouse.click(*at(page, 0.6, 0.6))
    pull(page, (0.75, 0.75), (0.9, 0.9))  # a corner
    pull(page, (0.5, 0.7), (0.4, 0.7))  # an edge
    page.locator("#boxes li", has_text="not sure").get_by_role("button", name="Delete").click()
    page.locator("#accept").click()
    found = truths(served, 1)[0]["boxes"]
    assert found == near((0, 0.225, 0.15, 0.475, 0.65), (1, 0.4, 0.5, 0.9, 0.9), (2, 0.1, 0.8, 0.3, 0.95))
    page.click("#larger")
    pull(page, (0.45, 0.45), (0.55, 0.55))  # in a picture that is zoomed
    page.click("#accept")
    assert truths(served, 2)[1]["boxes"] == near(*MODELS, (1, 0.45, 0.45, 0.55, 0.55))
    assert page.problems == []
    page.close()


@boxes
def test_pictures_that_show_nothing_are_answered_at_once(chromium: Browser, served: browsers.Served) -> None:
    page = opened(served, chromium)
    page.click("#grid-mode")
    expect(page.locator("#grid-title")).to_have_text("2 in which models find nothing")
    page.keyboard.press("Enter")
    assert truths(served, 2) == {4: {"boxes": []}, 5: {"boxes": []}}
    assert page.problems == []
    page.close()


@boxes
def test_boxes_by_finger(chromium: Browser, served: browsers.Served) -> None:
    context = chromium.new_context(viewport={"width": 390, "height": 800}, has_touch=True, is_mobile=True)
    page = opened(served, context)
    session = context.new_cdp_session(page)
    page.locator("#drawing").scroll_into_view_if_needed()
    start, end = at(page, 0.1, 0.8), at(page, 0.4, 0.95)
    for kind, spot in (("touchStart", start), ("touchMove", end), ("touchEnd", None)):
        points = [] if spot is None else [{"x": spot[0], "y": spot[1]}]
        session.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})
    expect(page.locator("#boxes li")).to_have_count(4)
    page.click("#accept")
    assert truths(served, 1)[0]["boxes"] == near(*MODELS, (0, 0.1, 0.8, 0.4, 0.95))
    assert browsers.serious(page) == []
    context.close()


@boxes
def test_boxes_of_label_and_model_are_drawn_where_samples_are_looked_at(
    chromium: Browser, served: browsers.Served
) -> None:
    page = opened(served, chromium)
    page.keyboard.press("Enter")
    truths(served, 1)
    page.goto(f"{served.url}/samples/cam-1.main.1.0")
    expect(page.locator("[data-drawn] .box.person")).to_have_count(2)
    expect(page.locator("[data-drawn] .box.model")).to_have_count(3)
    expect(page.locator("[data-drawn] .box.model text").first).to_have_text("person, model 90 %")
    expect(page.locator("[data-drawn] .box.person text").first).to_have_text("person, label")
    expect(page.get_by_role("img", name="labelled person, dog")).to_be_visible()
    assert browsers.serious(page) == []
    page.goto(f"{served.url}/data?labelled_as=dog")
    expect(page.locator("#tiles li")).to_have_count(1)
    expect(page.locator("#tiles .box.person")).to_have_count(2)
    assert browsers.serious(page) == []
    assert page.problems == []
    page.close()


@pytest.mark.parametrize("served", ["multilabel"], indirect=True)
def test_several_classes_are_turned_on_and_off(chromium: Browser, served: browsers.Served) -> None:
    page = opened(served, chromium)
    expect(page.locator("#classes [aria-pressed=true]")).to_have_count(2)
    assert browsers.serious(page) == []
    for key in ("Enter", "2", "1", "Enter", "1", "3", "Enter"):
        page.keyboard.press(key)
    found = truths(served, 3)
    assert [[row[0] for row in found[seq]["applies"]] for seq in range(3)] == [[0, 2], [1, 2], []]
    assert page.locator("#grid-mode").count() == 0
    assert page.problems == []
    page.close()


@pytest.mark.parametrize("served", ["regression"], indirect=True)
def test_numbers_are_taken_or_typed(chromium: Browser, served: browsers.Served) -> None:
    page = opened(served, chromium)
    expect(page.locator("#numbers")).to_contain_text("model: 3.25 ± 0.5")
    assert browsers.serious(page) == []
    page.keyboard.press("Enter")
    expect(page.locator("#picture")).to_have_attribute("alt", "Sample cam-1.main.1.1")
    page.fill("#numbers input[name=person]", "4.5")
    page.keyboard.press("Enter")
    page.keyboard.press("s")
    found = truths(served, 2)
    assert found[0]["values"] == [[0, 3.25, 0.0], [1, -2.0, 0.0]]
    assert found[1]["values"] == [[0, 4.5, 0.0], [1, -2.0, 0.0]]
    assert page.problems == []
    page.close()


@boxes
def test_what_was_drawn_stays_while_one_looks_elsewhere(chromium: Browser, served: browsers.Served) -> None:
    page = opened(served, chromium)
    for key in ("n", "Escape", "ArrowRight"):
        page.keyboard.press(key)
    expect(page.locator("#boxes li")).to_have_count(3)
    page.keyboard.press("ArrowLeft")
    expect(page.locator("#boxes li")).to_have_count(4)
    page.locator("#boxes li").last.get_by_role("button", name="Delete").click()
    assert page.evaluate("document.activeElement.id") == "drawing"
    page.reload()
    expect(page.locator("#boxes-title")).to_have_text("2 boxes")
    for key in ("c", "u"):  # taken back, the box that the model is not sure of counts no more than before
        page.keyboard.press(key)
    expect(page.locator("#said")).to_contain_text("yours again")
    expect(page.locator("#boxes-title")).to_have_text("2 boxes")
    assert page.problems == []
    page.close()


@boxes
def test_a_box_without_a_class_is_asked_for_one(chromium: Browser, served: browsers.Served) -> None:
    with served.store.database.write() as connection:
        connection.execute(sa.delete(class_name))
    page = opened(served, chromium)
    page.on("dialog", lambda dialog: dialog.accept())
    for _ in range(4):
        page.keyboard.press("ArrowRight")
    expect(page.locator("#boxes li")).to_have_count(0)
    for key in ("n", "Enter"):
        page.keyboard.press(key)
    expect(page.locator("#said")).to_contain_text("which class is this box")
    page.fill("#new-class input", "cat")
    page.keyboard.press("Enter")
    page.click("#accept")
    assert truths(served, 1)[4]["boxes"] == near((0, 0.25, 0.25, 0.75, 0.75))
    assert page.problems == []
    page.close()


@pytest.mark.parametrize("served", ["multilabel"], indirect=True)
def test_an_answer_that_is_refused_comes_again(chromium: Browser, served: browsers.Served) -> None:
    page = opened(served, chromium)
    page.on("dialog", lambda dialog: dialog.accept())
    page.fill("#new-class input", "Cannot tell")  # no class may be called so
    page.keyboard.press("Enter")
    page.click("#accept")
    expect(page.locator("#said")).to_contain_text("it comes again: class 'Cannot tell'")
    for seq in range(1, 6):
        expect(page.locator("#picture")).to_have_attribute("alt", f"Sample cam-1.main.1.{seq}")
        page.click("#accept")
    expect(page.locator("#picture")).to_have_attribute("alt", "Sample cam-1.main.1.0")
    page.locator("#classes button", has_text="Cannot tell").click()
    page.click("#accept")
    assert [row[0] for row in truths(served, 6)[0]["applies"]] == [0, 2]
    assert page.problems == []
    page.close()


@pytest.mark.parametrize("served", ["regression"], indirect=True)
def test_numbers_that_were_typed_stay(chromium: Browser, served: browsers.Served) -> None:
    page = opened(served, chromium)
    page.fill("#numbers input[name=person]", "4.5")
    for number, key in (("3.25", "ArrowRight"), ("4.5", "ArrowLeft")):
        page.locator("#larger").focus()
        page.keyboard.press(key)
        expect(page.locator("#numbers input[name=person]")).to_have_value(number)
    assert page.problems == []
    page.close()
