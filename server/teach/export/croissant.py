"""How is an export described, so that machines and catalogues understand it?

Croissant 1.0 (MLCommons, http://mlcommons.org/croissant/1.0), with its vocabulary for responsible AI: a JSON-LD
document that names the files, their hashes and their columns. Pure.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timezone
from typing import Any

from server.store.snapshots import Snapshot
from server.teach.export.journal import Chunk

CONTEXT: dict[str, Any] = {
    "@language": "en",
    "@vocab": "https://schema.org/",
    "citeAs": "cr:citeAs",
    "column": "cr:column",
    "conformsTo": "dct:conformsTo",
    "cr": "http://mlcommons.org/croissant/",
    "rai": "http://mlcommons.org/croissant/RAI/",
    "data": {"@id": "cr:data", "@type": "@json"},
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    "dct": "http://purl.org/dc/terms/",
    "equivalentProperty": "cr:equivalentProperty",
    "examples": {"@id": "cr:examples", "@type": "@json"},
    "extract": "cr:extract",
    "field": "cr:field",
    "fileProperty": "cr:fileProperty",
    "fileObject": "cr:fileObject",
    "fileSet": "cr:fileSet",
    "format": "cr:format",
    "includes": "cr:includes",
    "isLiveDataset": "cr:isLiveDataset",
    "jsonPath": "cr:jsonPath",
    "key": "cr:key",
    "md5": "cr:md5",
    "parentField": "cr:parentField",
    "path": "cr:path",
    "recordSet": "cr:recordSet",
    "references": "cr:references",
    "regex": "cr:regex",
    "repeated": "cr:repeated",
    "replace": "cr:replace",
    "samplingRate": "cr:samplingRate",
    "sc": "https://schema.org/",
    "separator": "cr:separator",
    "source": "cr:source",
    "subField": "cr:subField",
    "transform": "cr:transform",
}
FIELDS = {
    "sample_id": ("sc:Text", "device.stream.boot.sequence, or import.<file>.0.<row>"),
    "split": ("sc:Text", "train, or holdout: what no model may ever learn from"),
    "label": ("sc:Text", "name of the class, or what the truth says in words"),
    "class_index": ("sc:Integer", "the same as a number, for ever; -3: the label is more than a class"),
    "truth": ("sc:Text", "JSON, where the label is more than a class: boxes, applies or values, by names; else empty"),
    "labeler": ("sc:Text", "who said so"),
    "device": ("sc:Text", "that sent it"),
    "stream": ("sc:Text", "of that device"),
    "captured_at_ms": ("sc:DateTime", "by the device's clock"),
    "reason": ("sc:Text", "why the device selected it; empty for imports"),
    "probability": ("sc:Float", "of having come into its split and been labelled; weight by its inverse"),
    "licence": ("sc:Text", "SPDX expression; empty: not known"),
    "consent": ("sc:Text", "not_needed, granted or unknown"),
    "region": ("sc:Text", "where it may be kept"),
    "dtype": ("sc:Text", "of the array"),
    "data": ("sc:Text", "bytes of the array, C order, little endian: np.frombuffer(data, dtype).reshape(shape)"),
}
SHARDS = "shards"


def described(snapshot: Snapshot, chunks: Sequence[Chunk]) -> dict[str, Any]:
    """The document of a snapshot that was exported as Parquet."""
    made = datetime.fromtimestamp(snapshot.created_at_ms / 1000, timezone.utc)
    licences = sorted({rule.licence for rule in snapshot.rules if rule.licence})
    about = {
        "@context": CONTEXT,
        "@type": "sc:Dataset",
        "conformsTo": "http://mlcommons.org/croissant/1.0",
        "name": f"winnow-{snapshot.id[:12]}",
        "description": f"Labelled samples of a fleet of devices, frozen as snapshot {snapshot.id}. "
        f"Classes: {', '.join(snapshot.classes)}.",
        "version": "1.0.0",
        "datePublished": made.date().isoformat(),
        "url": f"urn:winnow:snapshot:{snapshot.id}",
        "citeAs": f"Winnow snapshot {snapshot.id}",
        "rai:dataCollection": "Devices selected samples by how much a label of each would teach, each with a recorded "
        "probability; held-out ones were drawn from the whole stream alike.",
        "rai:dataBiases": "Train is richer in what models found hard than the streams are: weight by 1 / probability. "
        "What is alike a held-out sample is left out of train.",
        "rai:personalSensitiveInformation": _personal(snapshot),
        "distribution": _distribution(chunks),
        "recordSet": [_records()],
    }
    return about | ({"license": licences} if licences else {})


def _personal(snapshot: Snapshot) -> str:
    consents = ", ".join(sorted({rule.consent for rule in snapshot.rules})) or "not stated"
    return (
        f"Consent: {consents}. Transforms for privacy were applied on the device where the column transforms says so."
    )


def _distribution(chunks: Sequence[Chunk]) -> list[dict[str, Any]]:
    form = "application/x-parquet"
    files = [
        {
            "@type": "cr:FileObject",
            "@id": file.path,
            "name": file.path,
            "contentUrl": file.path,
            "contentSize": f"{file.bytes} B",
            "encodingFormat": form,
            "sha256": file.sha256,
        }
        for chunk in chunks
        for file in chunk.files
    ]
    shards = {"@type": "cr:FileSet", "@id": SHARDS, "name": SHARDS, "encodingFormat": form}
    return [*files, shards | {"includes": "data/*.parquet"}]  # of the folder itself: readers do not join single files


def _records() -> dict[str, Any]:
    return {
        "@type": "cr:RecordSet",
        "@id": "members",
        "name": "members",
        "key": {"@id": "members/sample_id"},
        "field": [
            {
                "@type": "cr:Field",
                "@id": f"members/{name}",
                "name": name,
                "description": about,
                "dataType": kind,
                "source": {"fileSet": {"@id": SHARDS}, "extract": {"column": name}},
            }
            for name, (kind, about) in FIELDS.items()
        ],
    }
