"""Who decided what, data rules, erasures and evidence, in a real browser."""

from __future__ import annotations

import csv
import io
import json
import re
import time
import zipfile

import browser as browsers
from playwright.sync_api import expect

from server.govern import chain
from server.store import erasures, samples, trail
from server.teach import data_rule
from server.web.live import PERIOD_S

PAGES = ("/governance", "/governance/rules", "/governance/erasures", "/governance/evidence")


def now_ms() -> int:
    return time.time_ns() // 1_000_000


def test_the_trail_is_filtered_paged_and_verified(chromium, governed):
    with governed.store.database.write() as connection:
        for n in range(60):
            trail.record(connection, "place", f"device cam-{n}", why="it moved", who="bob", now_ms=now_ms() + n)
    page = governed.sign_in(chromium, "operator", viewport={"width": 1280, "height": 900})
    page.click("nav >> text=Governance")
    rows = page.locator("#trail tbody tr")
    expect(rows).to_have_count(50)
    expect(rows.first).to_contain_text("device cam-59")
    page.click("text=Older")
    expect(rows.first).to_contain_text("device cam-9")
    page.select_option("select[name=what]", "publish")
    page.fill("input[name=subject]", "version")
    page.click("text=Filter")
    expect(rows).to_have_count(5)
    expect(page.locator("#trail a").first).to_have_attribute("href", "/models/5")
    page.fill("input[name=until]", "2020-01-01")
    page.click("text=Filter")
    expect(page.locator(".empty")).to_contain_text("Nothing fits")
    answer = page.request.get(f"{governed.url}/governance/trail.csv?who=bob")
    rows = list(csv.DictReader(answer.text().splitlines()))
    assert (len(rows), json.loads(rows[0]["detail"])) == (60, {})
    page.goto(f"{governed.url}/governance")
    expect(page.locator("#chain")).to_contain_text("not verified yet")
    page.click("text=Verify now")
    expect(page.locator("#chain .state")).to_have_text("whole")
    expect(page.locator("#chain")).to_contain_text("asked by operator")
    assert page.request.get(f"{governed.url}/governance?since=tomorrow").status == 422
    assert page.problems == []
    page.close()


def test_an_entry_that_was_changed_is_found(chromium, governed):
    from server.store.schema import trail as table

    with governed.store.database.write() as connection:
        connection.execute(table.update().where(table.c.id == 2).values(why="somebody else's word"))
    page = governed.sign_in(chromium, "operator")
    page.goto(f"{governed.url}/governance")
    page.click("text=Verify now")
    expect(page.locator("#chain .state")).to_have_text("broken")
    expect(page.locator("#chain")).to_contain_text("entry 2: its content is not what was recorded")
    with governed.store.database.read() as connection:
        assert chain.last(connection).who == "operator"
    page.close()


def test_data_rules_and_what_is_due(chromium, governed):
    said = {"consent": "granted", "retention": "short", "licence": "CC-BY-4.0"}
    data_rule.change(governed.store, "cam-1/*", said, who="ada", why="signed", now_ms=now_ms())
    data_rule.change(governed.store, "cam-2/*", {"retention": "hour=1"}, who="ada", why="a day", now_ms=now_ms())
    page = governed.sign_in(chromium, "viewer")
    page.goto(f"{governed.url}/governance/rules")
    expect(page.locator("tbody tr").filter(has_text="cam-1/*")).to_contain_text("granted")
    expect(page.locator("main")).to_contain_text("cam-2")
    expect(page.locator("[aria-label=Due] tbody tr")).to_have_count(1)  # a day; cam-1's thirty are not over
    page.fill("input[name=stream]", "cam-1/door")
    page.click("text=Look")
    expect(page.locator("#holds")).to_contain_text("goes by cam-1/*: may be used to train, evaluate, export;")
    page.close()


def test_an_admin_erases_what_he_typed_and_sees_first_what_would_go(chromium, governed):
    viewer = governed.sign_in(chromium.new_context(), "operator")
    viewer.goto(f"{governed.url}/governance/erasures")
    assert viewer.locator("#new").count() == 0
    csrf = viewer.locator("meta[name=csrf]").get_attribute("content")
    form = {"kind": "device", "name": "cam-1", "typed": "erase cam-1", "why": "x", "csrf": csrf}
    assert viewer.request.post(f"{governed.url}/governance/erasures", form=form).status == 403
    viewer.context.close()
    page = governed.sign_in(chromium.new_context(viewport={"width": 1280, "height": 900}), "admin")
    page.goto(f"{governed.url}/governance/erasures")
    expect(page.locator(".empty")).to_contain_text("Nothing was erased")
    page.fill("#new input[name=name]", "cam-1")
    page.click("text=Look what would go")
    facts = page.locator(".facts")
    expect(facts).to_contain_text("144, ")  # samples
    expect(facts.locator("dd").nth(3)).to_have_text("1, 2, 3, 4, 5")  # learned from it
    expect(facts).to_contain_text("cam-1")
    assert browsers.serious(page) == []
    page.fill("input[name=typed]", "erase cam-2")
    page.fill("input[name=why]", "the lease of the hall has ended")
    page.click("text=Erase for ever")
    expect(page.locator("[role=alert]")).to_contain_text("expected 'erase cam-1' and a reason: nothing was erased")
    with governed.store.database.read() as connection:
        assert erasures.every(connection) == []
    page.fill("input[name=typed]", "erase cam-1")
    page.fill("input[name=why]", "the lease of the hall has ended")
    page.click("text=Erase for ever")
    row = page.locator("#erasure-1")
    expect(row).to_contain_text("the lease of the hall has ended")
    expect(row).to_contain_text("1 to purge")
    expect(page.locator("main")).to_contain_text("Versions to be taught again")
    (told,) = csv.DictReader(page.request.get(f"{governed.url}/governance/erasures.csv").text().splitlines())
    assert (told["subject"], json.loads(told["counts"])["sample"]) == ("cam-1", 144)
    with governed.store.database.read() as connection:
        assert "cam-1" not in samples.sample_counts(connection)
        (said,) = [entry for entry in trail.entries(connection) if entry.what == "erase"]
    assert said.who == "admin"
    page.goto(f"{governed.url}/models/2")
    expect(page.locator("main")).to_contain_text("It learned from what was erased since")
    page.context.close()


def test_the_evidence_is_taken_away_and_the_trail_says_so(chromium, governed):
    page = governed.sign_in(chromium, "operator")
    page.goto(f"{governed.url}/governance/evidence")
    expect(page.locator("main")).to_contain_text("NIST AI RMF 1.0")
    expect(page.locator("main")).to_contain_text("for the organisation")
    page.fill("input[name=why]", "the yearly audit")
    with page.expect_download() as download:
        page.click("text=Download the evidence")
    with zipfile.ZipFile(io.BytesIO(download.value.path().read_bytes())) as found:
        digests = json.loads(found.read("digests.json"))
        assert {"README.md", "audit.jsonl", "cards/version-5-model.md"} <= set(found.namelist())
        assert set(digests) == {*found.namelist()} - {"digests.json"}
    with governed.store.database.read() as connection:
        (said,) = trail.entries(connection, subject="evidence")
    assert (said.who, said.why, said.detail["files"]) == ("operator", "the yearly audit", len(digests))
    page.close()


def test_it_is_usable_without_eyes_or_mouse_on_a_telephone_and_in_the_dark(chromium, governed):
    page = governed.sign_in(chromium, "admin", viewport={"width": 390, "height": 800}, color_scheme="dark")
    for path in PAGES:
        page.goto(f"{governed.url}{path}")
        assert page.evaluate("document.documentElement.scrollWidth") <= 390, path
        assert browsers.serious(page) == [], path
    assert page.problems == []
    page.close()


def test_what_is_decided_while_the_trail_is_fetched_is_shown_too(chromium, governed):
    def decide(subject: str) -> None:
        with governed.store.database.write() as connection:
            trail.record(connection, "place", subject, why="it moved", who="bob", now_ms=now_ms())

    page = governed.sign_in(chromium, "operator")
    page.goto(f"{governed.url}/governance")
    fetched: list = []

    def keep_the_first(route) -> None:
        if fetched:
            route.continue_()
        else:
            fetched.append((route, route.fetch()))

    page.route(re.compile("/governance"), keep_the_first)
    with page.expect_request(re.compile("/governance")):
        decide("device cam-1")
    page.locator("#trail details summary").first.click()
    decide("device cam-2")
    page.wait_for_timeout(3000 * PERIOD_S)
    route, answer = fetched[0]
    route.fulfill(response=answer)
    expect(page.locator("#trail tbody tr").first).to_contain_text("device cam-2")
    expect(page.locator("#trail details[open]")).to_have_count(1)  # what somebody reads stays open
    assert page.problems == []
    page.close()


def test_what_cannot_be_fetched_leaves_what_is_shown(chromium, governed):
    page = governed.sign_in(chromium, "operator")
    page.goto(f"{governed.url}/governance")
    before = page.locator("#trail tbody tr").count()
    page.route(re.compile("/governance"), lambda route: route.fulfill(status=503, json={"detail": "later"}))
    with page.expect_response(re.compile("/governance")), governed.store.database.write() as connection:
        trail.record(connection, "place", "device cam-1", why="it moved", who="bob", now_ms=now_ms())
    page.wait_for_timeout(200)
    expect(page.locator("#trail tbody tr")).to_have_count(before)
    page.unroute(re.compile("/governance"))
    expect(page.locator("#trail tbody tr").first).to_contain_text("device cam-1")  # asked for again
    page.context.clear_cookies()  # the session has ended
    with governed.store.database.write() as connection:
        trail.record(connection, "place", "device cam-2", why="it moved", who="bob", now_ms=now_ms())
    page.wait_for_url(re.compile("/sign-in"))
    page.close()
