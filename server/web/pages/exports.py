"""Copies of snapshots to take away: asked for, how far they are, fetched."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from fastapi import APIRouter, Form, HTTPException, Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import FileResponse, RedirectResponse

from server.store import chores, snapshots, trail
from server.store.chores import Chore
from server.teach.export.journal import NAME, Chunk, Finished
from server.teach.export.run import Format
from server.teach.listing import SHORT
from server.web.access import Operator, Viewer
from server.web.api.answers import Number, Why
from server.web.frame import Frame

ABOUT: dict[Format, str] = {
    "parquet": "Parquet, with Croissant metadata",
    "images": "images, a folder for each class",
    "coco": "COCO, images and annotations",
    "csv": "CSV, all but the samples themselves",
}
SHOWN = 20


def router(frame: Frame) -> APIRouter:
    """Its routes."""
    made = APIRouter(prefix="/data/exports")

    @made.get("")
    async def exports(request: Request, person: Viewer) -> Response:
        found = await run_in_threadpool(listed, frame)
        return frame.page(request, "exports.html", person=person, exports=found)

    @made.post("")
    async def begin(
        person: Operator,
        snapshot: Annotated[str, Form(max_length=64)],
        form: Annotated[Format, Form()],
        why: Annotated[Why, Form()],
        share: Annotated[bool, Form()] = False,
    ) -> Response:
        await run_in_threadpool(_ask, frame, person.name, snapshot, form, share, why)
        return RedirectResponse("/data/snapshots#exports", status_code=303)

    @made.get("/{number}")
    async def fetch(number: Number, person: Operator) -> Response:
        return await run_in_threadpool(_fetched, frame, number, person.name)

    return made


def _ask(frame: Frame, who: str, said: str, form: Format, share: bool, why: str) -> None:
    with frame.store.database.write() as connection:
        found = snapshots.find(connection, said)
        order = {"snapshot": found.id, "form": form, "share": share}
        chores.ask(connection, "export", order, who=who, why=why, now_ms=frame.now_ms())


def listed(frame: Frame) -> list[dict[str, Any]]:
    """The newest, with how far they are."""
    with frame.store.database.read() as connection:
        found = chores.of_kind(connection, "export", limit=SHOWN)
        sizes = {one.id: one.train_count + one.holdout_count for one in snapshots.every(connection)}
    return [one._asdict() | {"short": one.order["snapshot"][:SHORT]} | _progress(frame, one, sizes) for one in found]


def _progress(frame: Frame, one: Chore, sizes: dict[str, int]) -> dict[str, int]:
    """Members that were gone through, by the journal of the export; one that is being written may lack its end."""
    total = sizes.get(one.order["snapshot"], 0)
    if one.state != "running":
        return {"through": total if one.state == "done" else 0, "total": total}
    decode = msgspec.json.Decoder(Chunk | Finished).decode
    through = 0
    try:
        whole = (chores.folder_of(frame.store, one.id) / NAME).read_bytes().split(b"\n")[1:-1]
        chunks = [said for line in whole if isinstance(said := decode(line), Chunk)]
        through = sum(said.records + sum(said.left_out.values()) for said in chunks)
    except (OSError, msgspec.DecodeError):
        pass  # not begun, or done by now
    return {"through": through, "total": total}


def _fetched(frame: Frame, number: int, who: str) -> Response:
    """The file; who takes it away is kept: what is erased later is to be erased there too."""
    with frame.store.database.read() as connection:
        one = chores.get(connection, number)
    path = chores.archive_of(frame.store, number)
    if one is None or one.kind != "export" or one.state != "done" or not path.exists():
        raise HTTPException(404, f"export {number} is not here: it is kept for a day, and until something is erased")
    use, snapshot_id = "share" if one.order["share"] else "export", one.order["snapshot"]
    with frame.store.database.write() as connection:
        detail = {"format": one.order["form"], "export": number, "bytes": one.result["bytes"]}
        subject = f"snapshot {snapshot_id}"
        trail.record(connection, use, subject, why=f"fetched: {one.why}", who=who, detail=detail, now_ms=frame.now_ms())
    name = f"winnow-{snapshot_id[:SHORT]}-{one.order['form']}.zip"
    return FileResponse(path, media_type="application/zip", filename=name)
