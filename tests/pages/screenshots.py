"""What do the pages look like? `make screenshots` writes docs/img/*.png.

The quick demo runs, and its pages are taken as it goes; then, over the store that it leaves, those of people who label.
"""

from __future__ import annotations

import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import sqlalchemy as sa
from playwright.sync_api import Browser, Page

ROOT = Path(__file__).resolve().parents[2]
sys.path += [str(ROOT), str(ROOT / "tests")]

import browser as browsers  # noqa: E402

from server.label.queue import Queue, Rules  # noqa: E402
from server.store.questions import Queued  # noqa: E402
from server.store.schema import sample  # noqa: E402
from server.store.store import Store  # noqa: E402

OUT, IMAGES = ROOT / "build" / "screenshots", ROOT / "docs" / "img"
SIZE = {"width": 1280, "height": 860}
LIVE_FROM = 80  # percent of the streams: a second version is about
LIVE = {"fleet": "/fleet", "device": "/devices/cam-1", "rollout": "/rollouts/2"}
AFTER = {"models": "/models", "model": "/models/2", "data": "/data", "governance": "/governance", "label": "/label"}
SETTLE_S = 2.0  # charts and news


def main() -> None:
    """Take them."""
    with browsers.started() as browser:
        demo = subprocess.Popen(
            [sys.executable, "-m", "server", "demo", "--quick", "--out", str(OUT)],
            cwd=ROOT, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        page = None
        for line in _lines(demo):
            if found := re.match(r"pages: (\S+) as (\S+), password (\S+) ", line):
                page = _visit(browser, *found.groups())
            played = re.search(r"played +(\d+)%", line)
            if page is not None and played and int(played[1]) >= LIVE_FROM:
                _take(page, page.url.rsplit("/", 1)[0], LIVE)
                page = None
        if demo.wait() != 0:
            raise SystemExit("screenshots: the demo failed")
        _take_those_of_people(browser)


def _lines(demo: subprocess.Popen[str]) -> Iterator[str]:
    assert demo.stdout is not None
    for line in demo.stdout:
        print(line, end="", flush=True)
        yield line


def _visit(browser: Browser, address: str, name: str, password: str) -> Page:
    page = browser.new_page(viewport=SIZE)
    page.goto(f"{address}sign-in")
    page.fill("input[name=name]", name)
    page.fill("input[name=password]", password)
    page.click("main button")
    page.wait_for_url(f"{address}fleet")
    return page


def _take_those_of_people(browser: Browser) -> None:
    """Over the store that the demo has left: who labels gets what is there a second time."""
    store = Store.open(OUT / "run" / "server")
    with store.database.read() as connection:
        newest = sa.select(sample.c.id).where(sample.c.origin == "device").order_by(sample.c.received_at_ms.desc())
        some = connection.scalars(newest.limit(60)).all()
    queue = Queue(store, Rules(), now_ms=_now_ms, rng=np.random.default_rng(0))
    queue.put([Queued(one, "second look", _now_ms()) for one in some])
    served = browsers.Served(OUT / "run" / "server", now_ms=_now_ms, store=store)
    _take(served.sign_in(browser, viewport=SIZE), served.url, AFTER)
    served.close()
    store.close()


def _take(page: Page, url: str, which: dict[str, str]) -> None:
    for name, path in which.items():
        page.goto(f"{url}{path}")
        time.sleep(SETTLE_S)
        page.screenshot(path=IMAGES / f"{name}.png", animations="disabled")
        print(f"docs/img/{name}.png")
    page.close()


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


if __name__ == "__main__":
    main()
