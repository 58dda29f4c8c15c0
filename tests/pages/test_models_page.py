"""All versions on a line, each with its card, in a real browser: judged by the real gates."""

from __future__ import annotations

import csv
import shutil
import time

import browser as browsers
import planted_models
import pytest
from playwright.sync_api import expect

from server.store import curves, runs, trail


@pytest.fixture(scope="module")
def site(planted, tmp_path_factory):
    """One world for all that only look."""
    folder = shutil.copytree(planted, tmp_path_factory.mktemp("models") / "data")
    made = browsers.Served(folder, now_ms=lambda: time.time_ns() // 1_000_000)
    yield made
    made.close()
    made.store.close()


@pytest.fixture
def page(chromium, site):
    made = site.sign_in(chromium, "viewer", viewport={"width": 1280, "height": 900})
    yield made
    assert made.problems == []
    made.close()


def test_versions_stand_on_a_line_with_what_runs_where(page, site):
    page.click("nav >> text=Models")
    rows = page.locator(".versions tbody tr")
    expect(rows).to_have_count(5)
    expect(rows.nth(0)).to_contain_text("Version 5")
    expect(rows.nth(0)).to_contain_text("from version 4")
    expect(rows.nth(0).locator(".state").first).to_have_text("rolling out")
    expect(rows.nth(1)).to_contain_text("beta")
    expect(rows.nth(1)).to_contain_text("1 device")
    expect(rows.nth(2).locator(".state").first).to_have_text("halted")
    expect(rows.nth(3)).to_contain_text("2 devices")
    expect(rows.nth(3)).to_contain_text("stable")
    assert rows.nth(2).locator(".mark.bad").count() == 1  # a shape of its own, beside the line
    expect(page.locator(".rounds")).to_contain_text("stream/device cam-1")
    expect(page.locator(".rounds .state")).to_have_text("rejected")
    assert browsers.serious(page) == []
    listed = list(csv.DictReader(page.request.get(f"{site.url}/models.csv").text().splitlines()))
    assert [(row["version"], row["from"], row["devices"]) for row in listed][:2] == [("5", "4", "0"), ("4", "2", "1")]


def test_a_version_shows_its_card_and_where_it_runs(page, site):
    page.goto(f"{site.url}/models")
    page.click(".versions a >> text=Version 2")
    expect(page.locator("h1")).to_have_text("Version 2")
    expect(page.locator("#now")).to_contain_text("2 devices")
    expect(page.locator("#now")).to_contain_text("Rollout 2")
    stream = page.locator(".gates tbody tr").first
    expect(stream).to_contain_text("stream")
    expect(stream).to_contain_text("at least +0.000")
    assert page.locator(".gates svg.interval .limit").count() > 5
    heat = page.locator("#answers-stream .heat")
    expect(heat.locator("tbody tr")).to_have_count(4)
    assert heat.locator("td.right.h7, td.right.h8, td.right.h9").count() == 4
    assert page.locator("#answers-stream .reliability circle").count() == 15
    expect(page.locator("#lineage")).to_contain_text("cam-1")
    expect(page.locator("#lineage")).to_contain_text("ann")
    expect(page.locator("#data-card")).to_contain_text("shirt")
    expect(page.locator("#selection")).to_contain_text("informative")
    expect(page.locator("main")).to_contain_text("5.50 ms")  # as its devices say
    expect(page.locator("main")).to_contain_text("run 2 passed its gates")
    assert page.locator("main form[method=post]").count() == 0  # who only looks is offered nothing
    assert browsers.serious(page) == []
    card = page.request.get(f"{site.url}/models/2/card.md?which=data")
    assert "# Data card" in card.text()
    matrix = list(csv.reader(page.request.get(f"{site.url}/models/2/confusion.csv").text().splitlines()))
    assert matrix[0] == ["true class", *planted_models.NAMES]
    gates = list(csv.DictReader(page.request.get(f"{site.url}/models/rounds/2/gates.csv").text().splitlines()))
    assert {"stream", "import", "stream/class coat"} <= {row["gate"] for row in gates}
    assert {row["bound"] for row in gates} == {"least", "most"}


def test_how_it_learned_is_drawn_and_taken_away(page, site):
    page.goto(f"{site.url}/models/2")
    charts = page.locator("#curves figure")
    expect(charts).to_have_count(3)
    expect(charts.first.locator("canvas")).to_be_visible()
    assert charts.first.get_attribute("aria-label").startswith("Loss, 8 epochs: learned from ")
    expect(page.locator("#curve-said")).to_contain_text("lowest on what is kept back in epoch")
    taken = list(csv.DictReader(page.request.get(f"{site.url}/models/rounds/2/curve.csv").text().splitlines()))
    assert [float(row["loss"]) for row in taken] == [point.loss for point in planted_models.learned(2)]
    assert page.request.get(f"{site.url}/models/rounds/9/curve.csv").status == 404


def test_a_round_that_is_at_it_is_drawn_as_it_goes(chromium, governed):
    def tell(points) -> None:
        with governed.store.database.write() as connection:
            curves.add(connection, number, points)

    with governed.store.database.write() as connection:
        snapshot = runs.get(connection, 1).snapshot_id
        begun = {"snapshot_id": snapshot, "champion": 5, "recipe": "", "report": {}, "now_ms": 1}
        number = runs.insert(connection, **begun)
    page = governed.sign_in(chromium, "viewer")
    page.goto(f"{governed.url}/models/rounds/{number}")
    expect(page.locator("#curve-said")).to_have_text("No epoch has ended yet.")
    points = [point._replace(held_loss=None, held_accuracy=None) for point in planted_models.learned(1)]
    tell(points[:2])
    expect(page.locator("#curve-said")).to_contain_text("at epoch 2")
    expect(page.locator("#curves figure")).to_have_count(2)  # nothing is kept back: loss and learning rate
    tell(points[2:])
    expect(page.locator("#curve-said")).to_contain_text("at epoch 8")
    with governed.store.database.write() as connection:
        runs.mark(connection, number, state="judging")
    expect(page.locator("#round .state").first).to_have_text("judging")
    expect(page.locator("#curve-said")).to_contain_text("ended after epoch 8")
    assert page.problems == []
    page.close()


def test_two_versions_side_by_side(page, site):
    page.goto(f"{site.url}/models/5")
    page.select_option("select[name=other]", "2")
    page.click("text=Compare")
    expect(page.locator("h1")).to_have_text("Version 2 → 5")
    expect(page.locator("#data")).to_contain_text("Added 144")
    expect(page.locator("#data")).to_contain_text("cam-1 72")
    expect(page.locator("main")).to_contain_text("They were trained with the same settings")
    assert page.request.get(f"{site.url}/models/5/against/9").status == 404


def test_on_a_telephone_and_in_the_dark(chromium, site):
    page = site.sign_in(chromium, "admin", viewport={"width": 390, "height": 800}, color_scheme="dark")
    for path in ("/models", "/models/5", "/models/rounds/6", "/models/5/against/2"):
        page.goto(f"{site.url}{path}")
        assert page.evaluate("document.documentElement.scrollWidth") <= 390, path
    page.goto(f"{site.url}/models/rounds/6")  # with verdicts of every kind
    assert browsers.serious(page) == []
    assert page.problems == []
    page.close()


def test_what_is_not_there_is_said(page, site):
    for path, why in (("/models/9", "there is no version 9; the newest is 5"), ("/models/rounds/9", "no round 9")):
        assert page.goto(f"{site.url}{path}").status == 404
        expect(page.locator("main")).to_contain_text(why)
    page.problems.clear()  # the browser's own words on the 404


def test_an_empty_registry_says_what_to_do(chromium, served):
    page = served.sign_in(chromium)
    page.click("nav >> text=Models")
    expect(page.locator(".empty")).to_contain_text("winnow-server model add")
    assert browsers.serious(page) == []
    page.close()


def test_an_operator_holds_a_rollout_and_an_admin_overrules_the_gates(chromium, governed, tmp_path):
    page = governed.sign_in(chromium.new_context(), "operator")
    page.goto(f"{governed.url}/models/5")
    page.fill("#orders input[name=reason]", "the line is being moved")
    page.click("#orders >> text=Hold")
    expect(page.locator("h1")).to_contain_text("Rollout")
    page.goto(f"{governed.url}/models/rounds/6")
    expect(page.locator("main")).to_contain_text("An admin may overrule the gates")
    csrf = page.locator("meta[name=csrf]").get_attribute("content")
    answer = page.request.post(f"{governed.url}/models/rounds/6/override", form={"why": "x", "csrf": csrf})
    assert answer.status == 403
    page.context.close()
    page = governed.sign_in(chromium.new_context(), "admin")
    page.goto(f"{governed.url}/models/rounds/6")
    page.fill("input[name=why]", "cam-1 was scrapped")
    page.click("text=Overrule the gates")
    expect(page.locator("#said")).to_contain_text("was held against version 2, and the fleet has version 5 by now")
    with governed.store.database.read() as connection:
        assert runs.get(connection, 6).state == "rejected"
        (said,) = [entry for entry in trail.entries(connection) if entry.what == "pause"]
    assert (said.who, said.why) == ("operator", "the line is being moved")
    planted_models.round_of(
        governed.store, tmp_path / "again", champion=5, right=0.5, before=0.9, at_ms=time.time_ns() // 1_000_000
    )
    page.goto(f"{governed.url}/models/rounds/7")
    page.fill("input[name=why]", "cam-1 was scrapped")
    page.click("text=Overrule the gates")
    expect(page.locator("#gates")).to_contain_text("overruled by admin")
    with governed.store.database.read() as connection:
        assert runs.get(connection, 7).state == "passed"
        (said,) = trail.entries(connection, subject="run 7")[-1:]
    assert (said.what, said.who, said.why) == ("override", "admin", "cam-1 was scrapped")
    page.context.close()
