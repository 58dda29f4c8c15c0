"""How do questions get into Label Studio, and its annotations out?

Questions become tasks of a project, with the model's guess as a prediction; the picture travels inside the task, so
that Label Studio has to reach nothing of ours. Annotations come back by asking for the tasks that changed since the
last time: its webhooks are sent once, without a retry, and may be lost, so one that comes is a hint to ask now (`hint`)
and no more. What was asked for again counts once: an answer's key is the annotation's id and the time of its change.

The project needs a `<Choices>` over an `<Image>`, or what else the server's task wants (studio_form.py); the names of
its choices are the class names, beside "cannot tell" and "none of these". Formats and limits are those of Label Studio
1.23 (https://api.labelstud.io).
"""

from __future__ import annotations

import base64
import http.client
import json
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from edge_agent.contract.task import Task
from server.config import ServerConfig
from server.errors import LabelError
from server.label import picture
from server.label.labeler import LATER, Answer, Given, Question, Standing
from server.label.studio_form import Interface, answer, expected, interface_of, prediction

KIND = "label_studio"
UID = "sample_uid"  # key in a task's data
PAGE = 100  # tasks to one answer of the API: larger ones take seconds there
POLL_S = 30.0  # between two questions what changed: more often loads it for nothing, more seldom lets answers wait
TIMEOUT_S = 30.0  # an import of 1,000 tasks takes some 4 s
START = "1970-01-01T00:00:00.000000Z"
_HTTP_UNAUTHORIZED = 401


def project_of(config: ServerConfig) -> str:
    """The address where people find the questions; empty: they are asked elsewhere."""
    at = config.label_studio
    return f"{at.url.rstrip('/')}/projects/{at.project}/data" if config.labeler.kind == KIND else ""


class LabelStudio:
    """One project, as a labeler."""

    def __init__(
        self,
        url: str,
        token: str,
        project: int,
        *,
        now_s: Callable[[], float] = time.monotonic,
        task: Task = "classification",
    ) -> None:
        """`url`: http(s)://host:port. `token`: an access token, of the legacy kind or a personal one (a JWT)."""
        self._api = _Api(url.rstrip("/"), token)
        self._project = project
        self._task: Task = task
        self._now_s = now_s
        self._interface: Interface | None = None
        self._there: set[str] | None = None  # samples that have a task
        self._since = START
        self._next_s = now_s()

    def label(self, batch: list[Question]) -> list[Answer]:
        """Make tasks of those that have none yet; all answers come later. LabelError: nothing was asked, or all was."""
        interface = self._known()
        if self._there is None:
            self._there = {uid for task in self._tasks(START) if (uid := task.get("data", {}).get(UID))}
        new = [one for one in batch if one.id not in self._there]
        if new:
            tasks = [_task(one, interface) for one in new]
            self._api.call("POST", f"/api/projects/{self._project}/import?return_task_ids=true", tasks)
            self._there |= {one.id for one in new}
        return [LATER] * len(batch)

    def answered(self) -> Iterator[Given | Standing]:
        """Of what changed since the last time that all was taken: the annotations, and which of earlier ones are left.

        Nothing when it was asked a moment ago.
        """
        if self._now_s() < self._next_s:
            return
        newest = self._since
        for task in self._tasks(self._since):
            newest = max(newest, task.get("updated_at", ""))
            yield from _given(task, self._known())
            yield from _standing(task)
        self._since = newest[: len("2026-01-31T23:59:59")] + ".000000Z"  # what changed in the same second comes again
        self._next_s = self._now_s() + POLL_S

    def hint(self) -> None:
        """A webhook came: ask at the next opportunity."""
        self._next_s = self._now_s()

    def _known(self) -> Interface:
        """The project's interface, read once. LabelError: it has not what the task needs."""
        if self._interface is None:
            project = self._api.call("GET", f"/api/projects/{self._project}")
            self._interface = interface_of(project.get("parsed_label_config") or {}, self._task)
        if self._interface is None:
            raise LabelError(
                f"{self._api.url}: project {self._project}: expected {expected(self._task)} in its labelling interface"
            )
        return self._interface

    def _tasks(self, since: str) -> Iterator[Mapping[str, Any]]:
        """Tasks that changed after `since`; a page that changes under our feet is made up for by the next time."""
        item = {"filter": "filter:tasks:updated_at", "operator": "greater", "type": "Datetime", "value": since}
        query = {"filters": {"conjunction": "and", "items": [item]}, "ordering": ["tasks:updated_at"]}
        seen, page = 0, 1
        while True:
            asked = {"project": self._project, "fields": "all", "page_size": PAGE, "page": page}
            found = self._api.call("GET", "/api/tasks?" + urllib.parse.urlencode({**asked, "query": json.dumps(query)}))
            tasks = found.get("tasks", ())
            yield from tasks
            seen, page = seen + len(tasks), page + 1
            if not tasks or seen >= found.get("total", 0):
                return


def copies(config: ServerConfig) -> tuple[str, ...]:
    """What is there of samples, which an erasure here does not reach; () where it is not asked."""
    if config.labeler.kind != KIND:
        return ()
    place = config.label_studio
    return (f"tasks of Label Studio, {place.url}, project {place.project}: look for {UID}",)


class _Api:
    """HTTP with a token."""

    def __init__(self, url: str, token: str) -> None:
        if urllib.parse.urlsplit(url).scheme not in ("http", "https"):
            raise LabelError(f"[label_studio] url = {url!r}: expected http://host:port or https://host")
        self.url = url
        self._token = token
        self._bearer = ""

    def call(self, method: str, path: str, body: object = None) -> Any:
        """The answer, decoded; LabelError says what was asked, and what came instead."""
        personal = self._token.count(".") == 2  # a JWT, that is to be exchanged for one of a few minutes
        if personal and not self._bearer:
            self._bearer = self._send("POST", "/api/token/refresh", {"refresh": self._token}, "")["access"]
        try:
            return self._send(method, path, body, f"Bearer {self._bearer}" if personal else f"Token {self._token}")
        except LabelError as error:
            cause = error.__cause__
            if not (personal and isinstance(cause, urllib.error.HTTPError) and cause.code == _HTTP_UNAUTHORIZED):
                raise
        self._bearer = self._send("POST", "/api/token/refresh", {"refresh": self._token}, "")["access"]
        return self._send(method, path, body, f"Bearer {self._bearer}")

    def _send(self, method: str, path: str, body: object, authorization: str) -> Any:
        data = None if body is None else json.dumps(body).encode()
        headers = {"Content-Type": "application/json"} | ({"Authorization": authorization} if authorization else {})
        request = urllib.request.Request(self.url + path, data, headers, method=method)  # noqa: S310 - checked above
        what = f"label_studio: {method} {self.url}{path.partition('?')[0]}"
        try:
            with urllib.request.urlopen(request, timeout=TIMEOUT_S) as answer:  # noqa: S310
                return json.loads(answer.read())
        except urllib.error.HTTPError as error:
            said = error.read(500).decode(errors="replace").strip()
            raise LabelError(f"{what}: {error.code} {error.reason}: {said}") from error
        except (OSError, http.client.HTTPException) as error:
            raise LabelError(f"{what}: {error}: is it running, and [label_studio] url right?") from error
        except ValueError as error:
            raise LabelError(f"{what}: the answer is not JSON: {error}") from error


def _task(question: Question, interface: Interface) -> dict[str, Any]:
    array = question.array()
    shown = picture.of(array)
    body = base64.b64encode(shown.body).decode()
    task: dict[str, Any] = {
        "data": {
            interface.key: f"data:{shown.media_type};base64,{body}",
            UID: question.id,
            "device_id": question.id.split(".")[0],
            "ref": question.ref,
        }
    }
    if results := prediction(question, interface, array.shape):
        task["predictions"] = [{"model_version": "edge", "score": question.confidence, "result": results}]
    return task


def _given(task: Mapping[str, Any], interface: Interface) -> Iterator[Given]:
    """Of one task: what was submitted. A cancelled annotation is a skip, and no answer."""
    uid = task.get("data", {}).get(UID)
    for one in task.get("annotations", ()) if uid else ():
        if not one.get("was_cancelled"):
            who = one.get("completed_by")
            name = who.get("email") or who.get("id") if isinstance(who, Mapping) else who
            told = answer(one.get("result", ()), interface)
            yield Given(
                id=uid,
                said=told.said,
                truth=told.truth,
                labeler=f"{KIND}:{name}"[:100],
                kind=KIND,
                seconds=float(one.get("lead_time") or 0.0),
                key=f"{_begin(one)}{one.get('updated_at', '')}",
            )


def _standing(task: Mapping[str, Any]) -> Iterator[Standing]:
    """Its annotations; one that was turned into a skip stands no more."""
    if uid := task.get("data", {}).get(UID):
        given = [one for one in task.get("annotations", ()) if not one.get("was_cancelled")]
        yield Standing(uid, KIND, tuple(_begin(one) for one in given))


def _begin(annotation: Mapping[str, Any]) -> str:
    """Of the keys of its answers."""
    return f"{KIND}:{annotation['id']}:"
