"""The application over a store in which there is a little of everything, and a token of each role."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import quadrants
from device_words import FLEET, NOW_MS, birth, event, heartbeat, image, message, uploads
from fastapi.testclient import TestClient

from edge_agent.contract.artifact import encode_manifest, read_artifact
from edge_agent.contract.task import Applies, Box, Said, Task, Value
from edge_agent.contract.wire import encode
from server import config
from server.collect.ingest import Ingest
from server.label import orders
from server.release import commands
from server.release.registry import add_artifact
from server.store import labels, runs, users
from server.store.labels import VALUED, Label
from server.store.store import Store
from server.teach.gates.verdict import Verdict, checked
from server.teach.snapshot import freeze
from server.web.access import digest
from server.web.app import API, make_app

SAMPLES = 12
SAID: dict[Task, Said | None] = {
    "classification": None,
    "detection": Said(boxes=(Box(0, 0.1, 0.1, 0.5, 0.5, 0.9), Box(2, 0.5, 0.5, 0.9, 0.9, 0.4))),
    "multilabel": Said(applies=(Applies(0, 0.9), Applies(1, 0.1))),
    "regression": Said(values=(Value(0, 2.5, 0.25),)),
}
TRUTHS: dict[Task, tuple[dict[str, Any], dict[str, Any]]] = {
    "detection": ({"boxes": [[0, 0.1, 0.1, 0.5, 0.5, 1.0], [3, 0.5, 0.1, 0.9, 0.5, 1.0]]}, {"boxes": []}),
    "multilabel": ({"applies": [[0, 1.0], [3, 1.0]]}, {"applies": []}),
    "regression": ({"values": [[0, 2.0, 0.0]]}, {"values": [[0, 3.0, 0.0], [3, 1.0, 0.0]]}),
}
VOUCHED: dict[Task, dict[str, Any]] = {
    "detection": {"boxes": [["cat", 0.1, 0.1, 0.5, 0.5]]},
    "multilabel": {"applies": ["cat"]},
    "regression": {"values": [["cat", 2.0]]},
}
BAD = checked("stream/device cam-2", False, -0.4, -0.03, n=40, why="it was moved")


class Scene:
    """Two devices, samples with labels, a snapshot, a rejected run, a version, a rollout, and people.

    task: what models say and people label; of another than classification only devices, labels and a snapshot.
    """

    def __init__(self, folder: Path, task: Task = "classification") -> None:
        self.now_ms, self.task = NOW_MS, task
        self.store = Store.open(folder)
        self._plant_devices()
        self._plant_models()
        with self.store.database.write() as connection:
            for role in users.ROLES:
                users.add(connection, role, role, password_hash="", by="test", now_ms=NOW_MS)
                secret = {"secret_sha256": digest(f"secret of {role}"), "expires_at_ms": None}
                users.add_token(connection, role, "test", **secret, by="test", now_ms=NOW_MS)
        settings = config.ServerConfig(
            server=config.Server(fleet=FLEET, data_dir=str(folder), task=task), labeler=config.Labeler(kind="human")
        )
        self.app = make_app(self.store, settings, now_ms=lambda: self.now_ms)

    def _plant_devices(self) -> None:
        ingest = Ingest(self.store, fleet=FLEET, offline_after_s=90.0)
        for name in ("cam-1", "cam-2"):
            said = [message(name, "birth", encode(birth("a"))), message(name, "heartbeat", encode(heartbeat("a")))]
            said += [message(name, "event", encode(event(n))) for n in range(1, 4)]
            how = SAID[self.task]
            said += [one for seq in range(SAMPLES) for one in uploads(name, seq, data=image(seq, (8, 8)), said=how)]
            ingest.take(said)
        with self.store.database.write() as connection:
            labels.ensure_names(connection, ["cat", "dog", "fox", "owl"])
            labels.add(connection, [self._label(seq) for seq in range(8)])
            told = {"said": "cat"} if self.task == "classification" else {"said": "", "truth": VOUCHED[self.task]}
            orders.vouch(connection, "cam-1.main.1.0", **told, task=self.task, who="ada", why="seen", now_ms=NOW_MS)

    def _label(self, seq: int) -> Label:
        truth = None if self.task == "classification" else TRUTHS[self.task][seq % 2]
        return Label(f"cam-1.main.1.{seq}", seq % 4 if truth is None else VALUED, "ann", NOW_MS, truth=truth)

    def _plant_models(self) -> None:
        self.snapshot = freeze(self.store, now_ms=NOW_MS).id
        if self.task != "classification":
            return
        add_artifact(self.store, quadrants.ARTIFACT, weights=None, now_ms=NOW_MS)
        manifest, _ = read_artifact(quadrants.ARTIFACT)
        sha256 = self.store.blobs.put(encode_manifest(msgspec.structs.replace(manifest, version=77, parent=1)))
        verdict = msgspec.to_builtins(Verdict.of([BAD]))
        report = {"candidate": {"manifest_sha256": sha256, "weights_sha256": ""}, "verdict": verdict}
        with self.store.database.write() as connection:
            begun = {"snapshot_id": self.snapshot, "champion": 1, "recipe": "", "report": {}, "now_ms": NOW_MS}
            runs.finish(connection, runs.insert(connection, **begun), state="rejected", report=report, now_ms=NOW_MS)
        rules = config.Rollout(rings=("canary=1", "all"))
        commands.start(self.store, 1, channel="stable", rings=(), rules=(), default=rules, now_ms=NOW_MS)

    def close(self) -> None:
        self.store.close()

    def client(self, role: str = "", *, token: str = "") -> TestClient:
        secret = token or (f"secret of {role}" if role else "")
        headers = {"Authorization": f"Bearer {secret}"} if secret else {}
        return TestClient(self.app, base_url=f"http://testserver{API}/", headers=headers)

    def known(self, key: str, path: str) -> Any:
        """Something that is there, for a parameter of a path."""
        if key == "name":
            return "viewer" if "/users/" in path else "cam-1"
        return {
            "sample_id": "cam-1.main.1.3",
            "snapshot_id": self.snapshot,
            "other_id": self.snapshot,
            "number": 1,
        }.get(key)
