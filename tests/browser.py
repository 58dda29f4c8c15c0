"""The pages of a real server in a real browser."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest
from argon2 import PasswordHasher
from playwright.sync_api import Browser, BrowserContext, Error, Page, expect, sync_playwright

from edge_agent.contract.task import Task
from server import config
from server.store import users
from server.store.store import Store
from server.web.chores import Chores
from server.web.service import Pages

NAMES = ("chromium", "chromium-browser", "google-chrome")
ARGUMENTS = (
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
)  # fmt: skip
PASSWORD = "correct horse battery"
HASHED = PasswordHasher(time_cost=1, memory_cost=64, parallelism=1).hash(PASSWORD)  # tried in no time
WAIT_MS = 30_000  # for what a page shall show: three tests share two cores, and each may start a server


@contextmanager
def started() -> Iterator[Browser]:
    """The system's chromium, or Playwright's own; skips the test where there is none."""
    expect.set_options(timeout=WAIT_MS)
    with sync_playwright() as playwright:
        path = next((found for name in NAMES if (found := shutil.which(name))), None)
        try:
            browser = playwright.chromium.launch(executable_path=path, args=list(ARGUMENTS))
        except Error as error:
            pytest.skip(f"no browser: {error.message.splitlines()[0]}: python3 scripts/browser.py gets one")
        yield browser
        browser.close()


class Served:
    """Pages over a store, for people of each role."""

    def __init__(
        self, folder: Path, *, now_ms: Callable[[], int], store: Store | None = None, task: Task = "classification"
    ) -> None:
        # Nothing is left to chance: every guess is shown, and no gold is mixed in.
        self.folder = folder
        self.store = store or Store.open(folder)
        settings = config.ServerConfig(
            server=config.Server(fleet="test", data_dir=str(folder), task=task),
            labeler=config.Labeler(blind_share=0.0, gold_share=0.0, overlap_share=0.0),
            web=config.Web(port=0),
        )
        with self.store.database.write() as connection:
            for role in users.ROLES:
                users.add(connection, role, role, password_hash=HASHED, by="test", now_ms=now_ms())
        self._pages = Pages(self.store, settings, now_ms=now_ms)
        self._chores = Chores(self.store, now_ms=now_ms)
        self._chores.start()
        self.url = self._pages.start().rstrip("/")

    def close(self) -> None:
        self._pages.stop()
        self._chores.stop()

    def sign_in(self, browser: Browser | BrowserContext, name: str = "admin", **options: Any) -> Page:
        """A page of somebody who has signed in; what goes wrong in its scripts fails the test that asks `problems`."""
        page = browser.new_page(**options)
        page.problems = []
        page.on("pageerror", lambda error: page.problems.append(str(error)))
        page.on("console", lambda said: page.problems.append(said.text) if said.type == "error" else None)
        page.goto(f"{self.url}/sign-in")
        page.fill("input[name=name]", name)
        page.fill("input[name=password]", PASSWORD)
        page.click("main button")
        page.wait_for_url(f"{self.url}/fleet")
        return page


def plant_devices(store: Store, count: int, *, now_ms: int) -> None:
    """Devices that have said a birth and a heartbeat each, in every state."""
    from device_words import birth, heartbeat

    from edge_agent.contract.wire import DriftState, LinkState
    from server.store.schema import device

    said, beat = birth("a"), heartbeat("a")
    drift = DriftState(epoch=1, watching=True, group_samples=1, statistic=3.0, threshold=9.0, differs=("confidence",))
    rows = []
    for n in range(count):
        slot = "trial" if n % 29 == 0 else "steady"
        word = msgspec.structs.replace(
            beat,
            model=msgspec.structs.replace(beat.model, version=3 + n % 2, refused={}, slot=slot),
            link=LinkState(sent_bytes=0, received_bytes=0, held="quiet" if n % 37 == 0 else ""),
            samples_per_s=1.0 + n % 7,
            label_tokens=n % 20,
            drift=drift if n % 23 == 0 else None,
        )
        rows.append(
            {
                "name": f"cam-{n:05d}", "first_seen_ms": now_ms, "last_seen_ms": now_ms - 1000 * (n % 60),
                "online": n % 11 != 0, "session": "a", "boot": 1, "messages_bad": 0, "throttled": 0,
                "desired_revision": 0, "channel": "beta" if n % 13 == 0 else "stable", "site": f"site-{n % 12}",
                "birth": msgspec.to_builtins(said, str_keys=True),
                "heartbeat": msgspec.to_builtins(word, str_keys=True),
            }
        )  # fmt: skip
    with store.database.write() as connection:
        connection.execute(device.insert(), rows)


def serious(page: Page) -> list[str]:
    """What axe-core finds wrong for people who cannot see or use a mouse, of those that matter."""
    from axe_playwright_python.sync_playwright import Axe

    found = Axe().run(page).response["violations"]
    return [
        f"{one['id']}: {one['help']}: {one['nodes'][0]['html'][:200]}"
        for one in found
        if one["impact"] in ("serious", "critical")
    ]
