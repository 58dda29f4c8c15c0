"""What models learned from: snapshots, what is different between two, and copies to take away."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from fastapi import APIRouter, Form, HTTPException, Query, Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import FileResponse, RedirectResponse

from server.store import chores, snapshots, trail
from server.store.chores import Chore
from server.teach import listing
from server.teach.export.journal import NAME, Chunk, Finished
from server.teach.export.run import FORMATS, Format
from server.teach.splits import WHY
from server.web.access import Operator, Viewer
from server.web.frame import Frame
from server.web.table import csv_of

ABOUT = {
    "parquet": "Parquet, with Croissant metadata",
    "images": "images, a folder for each class",
    "coco": "COCO, images and annotations",
    "csv": "CSV, all but the samples themselves",
}
IDS_SHOWN = 60  # of each group of a difference


def router(frame: Frame) -> APIRouter:
    """Its routes."""
    made = APIRouter(prefix="/data/snapshots")

    @made.get("")
    async def every(request: Request, person: Viewer) -> Response:
        rows = await run_in_threadpool(listing.listed, frame.store)
        exports = await run_in_threadpool(_exports, frame)
        formats = {name: ABOUT[name] for name in FORMATS}
        return frame.page(request, "snapshots.html", person=person, rows=rows[::-1], exports=exports, formats=formats)

    @made.get(".csv")
    async def as_csv(_: Viewer) -> Response:
        rows = await run_in_threadpool(listing.listed, frame.store)
        columns = list(rows[0]) if rows else ["snapshot"]
        return csv_of("snapshots", columns, ([row[name] for name in columns] for row in rows))

    @made.get("/diff")
    async def diff(
        request: Request,
        person: Viewer,
        before: Annotated[str, Query(max_length=64)],
        after: Annotated[str, Query(max_length=64)],
    ) -> Response:
        old, new, found = await run_in_threadpool(listing.compared, frame.store, before, after)
        return frame.page(
            request,
            "snapshot-diff.html",
            person=person,
            before=old,
            after=new,
            found=found,
            most=IDS_SHOWN,
            why=dict(WHY),
        )

    @made.get("/exports")
    async def exports(request: Request, person: Viewer) -> Response:
        found = await run_in_threadpool(_exports, frame)
        return frame.page(request, "exports.html", person=person, exports=found)

    @made.post("/exports")
    async def begin(
        person: Operator,
        snapshot: Annotated[str, Form(max_length=64)],
        form: Annotated[Format, Form()],
        why: Annotated[str, Form(min_length=1, max_length=500)],
        share: Annotated[bool, Form()] = False,
    ) -> Response:
        await run_in_threadpool(_ask, frame, person.name, snapshot, form, share, why)
        return RedirectResponse("/data/snapshots#exports", status_code=303)

    @made.get("/exports/{number}")
    async def fetch(number: int, person: Operator) -> Response:
        return await run_in_threadpool(_fetched, frame, number, person.name)

    @made.get("/{said}")
    async def one(request: Request, said: str, person: Viewer) -> Response:
        view = await run_in_threadpool(listing.shown, frame.store, said)
        return frame.page(request, "snapshot.html", person=person, one=view, why=dict(WHY))

    return made


def _ask(frame: Frame, who: str, said: str, form: Format, share: bool, why: str) -> None:
    with frame.store.database.write() as connection:
        found = snapshots.find(connection, said)
        order = {"snapshot": found.id, "form": form, "share": share}
        chores.ask(connection, "export", order, who=who, why=why, now_ms=frame.now_ms())


def _exports(frame: Frame) -> list[dict[str, Any]]:
    """The newest, with how far they are."""
    with frame.store.database.read() as connection:
        found = chores.of_kind(connection, "export", limit=20)
        sizes = {one.id: one.train_count + one.holdout_count for one in snapshots.every(connection)}
    return [
        one._asdict() | {"short": one.order["snapshot"][: listing.SHORT]} | _progress(frame, one, sizes)
        for one in found
    ]


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
    name = f"winnow-{snapshot_id[: listing.SHORT]}-{one.order['form']}.zip"
    return FileResponse(path, media_type="application/zip", filename=name)
