"""Do pages bear what is too large, too much at once, or no number of theirs?"""

from __future__ import annotations

import asyncio
from collections import Counter

import httpx
import numpy as np
import pytest
from api_scene import Scene
from device_words import FLEET, NOW_MS, uploads
from fastapi.testclient import TestClient

from server import config
from server.collect.ingest import Ingest
from server.release.signing import Policy, Signing
from server.store import trail
from server.web.app import make_app
from server.web.body import BYTES_MAX
from server.web.pages.front import REFUSALS
from server.web.pages.trail import AT_ONCE

PIECE = 1 << 16


@pytest.fixture(scope="module")
def scene(tmp_path_factory):
    made = Scene(tmp_path_factory.mktemp("pages"))
    yield made
    made.close()


def looking(scene: Scene, role: str = "admin") -> TestClient:
    return TestClient(scene.app, headers={"Authorization": f"Bearer secret of {role}"}, follow_redirects=False)


FILE = b'--edge\r\nContent-Disposition: form-data; name="a"; filename="a"\r\n\r\n'


@pytest.mark.parametrize(
    ("path", "kind", "first"),
    [("/api/v1/label/answers", "application/json", b"["), ("/sign-in", "multipart/form-data; boundary=edge", FILE)],
)
def test_a_stranger_cannot_fill_the_memory(scene, path, kind, first):
    taken = 0

    async def endless():
        nonlocal taken
        yield first
        while taken < 10 * BYTES_MAX:
            taken += PIECE
            yield b"x" * PIECE

    async def send() -> httpx.Response:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(scene.app), base_url="http://pages") as client:
            return await client.post(path, content=endless(), headers={"Content-Type": kind})

    answer = asyncio.run(send())
    assert answer.status_code == 413
    assert f"more than {BYTES_MAX} bytes" in answer.text
    assert taken <= BYTES_MAX + 2 * PIECE


def test_many_tries_at_once_are_no_way_round_the_limit(scene):
    async def tries(count: int) -> Counter[int]:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(scene.app), base_url="http://pages") as client:
            wrong = {"name": "admin", "password": "a guess"}
            answers = await asyncio.gather(*(client.post("/sign-in", data=wrong) for _ in range(count)))
        return Counter(answer.status_code for answer in answers)

    assert asyncio.run(tries(REFUSALS + 5)) == {401: REFUSALS, 429: 5}


@pytest.mark.parametrize(
    "path",
    [
        "/models/{}",
        "/models/{}/now",
        "/models/{}/card.md",
        "/models/1/against/{}",
        "/models/1/against?other={}",
        "/models/rounds/{}",
        "/models/rounds/{}/gates.csv",
        "/rollouts/{}",
        "/data/exports/{}",
        "/governance?before={}",
    ],
)
def test_what_is_no_number_of_anything_is_refused(scene, path):
    assert looking(scene).get(path.format(10**30)).status_code == 422


def test_a_sound_is_kept_by_a_browser_no_longer_than_a_picture(scene):
    sound = np.sin(np.arange(5000) / 9.0).astype(np.float32)
    Ingest(scene.store, fleet=FLEET, offline_after_s=90.0).take(uploads("cam-3", 1, data=sound))
    client = looking(scene, "viewer")
    played = client.get("/samples/cam-3.main.1.1/sound", params={"rate": 8000})
    assert (played.status_code, played.headers["content-type"]) == (200, "audio/wav")
    seen = client.get("/samples/cam-3.main.1.1/picture")
    assert played.headers["cache-control"] == seen.headers["cache-control"] == "private, max-age=600"


def test_the_page_of_a_rollout_says_when_its_version_waits_for_a_signature(tmp_path):
    scene = Scene(tmp_path)
    client = looking(scene)
    assert "is not signed" not in client.get("/rollouts/1").text
    Signing(tmp_path).init(Policy(), now_ms=NOW_MS)
    for path in ("/rollouts/1", "/rollouts/1/now"):
        assert "version 1 is not signed: winnow-server model sign 1" in client.get(path).text
    scene.close()


def test_who_is_about_to_erase_is_told_of_the_tasks_in_label_studio(scene):
    settings = config.ServerConfig(
        labeler=config.Labeler(kind="label_studio"), label_studio=config.LabelStudio(url="http://studio", project=7)
    )
    app = make_app(scene.store, settings, now_ms=lambda: NOW_MS)
    client = TestClient(app, headers={"Authorization": "Bearer secret of admin"})
    told = client.post("/governance/erasures/look", data={"kind": "device", "name": "cam-2"}).text
    assert "tasks of Label Studio, http://studio, project 7: look for sample_uid" in told


def test_the_trail_leaves_whole_however_long_it_is(scene):
    with scene.store.database.write() as connection:
        for number in range(2 * AT_ONCE):
            trail.record(connection, "note", f"thing {number}", why="", who="ada", now_ms=NOW_MS)
        last = trail.last_id(connection)
    lines = looking(scene).get("/governance/trail.csv").text.splitlines()
    assert [line.split(",")[0] for line in lines[1:]] == [str(number) for number in range(last, 0, -1)]
    mine = looking(scene).get("/governance/trail.csv", params={"what": "note"}).text.splitlines()
    assert len(mine) == 1 + 2 * AT_ONCE  # a whole number of looks
