"""What can programs ask? docs/reference/api.md, from the description that the server gives of itself."""

from __future__ import annotations

import inspect
from contextlib import closing
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import msgspec
from page import NOTE, table

from server.config import ServerConfig
from server.store.store import Store
from server.web import openapi
from server.web.app import make_app

OPENAPI = "/api/openapi.json"
_LIMITS = (("minimum", ">="), ("exclusiveMinimum", ">"), ("maximum", "<="), ("exclusiveMaximum", "<"))


def api_page() -> str:
    """The reference of what programs can ask."""
    made = _described()
    lines = [NOTE, "", "# The API", "", openapi.ABOUT, f"The same as OpenAPI, of a running server: `{OPENAPI}`.", ""]
    for tag, about in openapi.TAGS.items():
        lines += [f"## {tag}", "", about, ""]
        for path, way in made["paths"].items():
            for method, one in way.items():
                lines += _operation(method, path, one) if tag in one["tags"] else []
    lines += ["## What is sent and answered", ""]
    for name, schema in sorted(made["components"]["schemas"].items()):
        rows = [
            (f"`{key}`", _kind(field), _given(key, field, schema), field.get("description", ""))
            for key, field in schema.get("properties", {}).items()
        ]
        about = inspect.cleandoc(schema.get("description", ""))
        lines += [f"### {name}", "", about, "", *table(("key", "type", "default", "meaning"), rows), ""]
    return "\n".join(lines)


@cache
def _described() -> dict[str, Any]:
    with TemporaryDirectory() as folder, closing(Store.open(Path(folder))) as store:
        return make_app(store, ServerConfig(), now_ms=lambda: 0).openapi()


def _operation(method: str, path: str, one: dict[str, Any]) -> list[str]:
    rows = [
        (f"`{p['name']}`", p["in"], _kind(p["schema"]), _given(p["name"], p["schema"], p), p.get("description", ""))
        for p in one.get("parameters", ())
    ]
    sent = one.get("requestBody", {}).get("content", {}).get("application/json", {}).get("schema")
    code, answer = next((c, a) for c, a in one["responses"].items() if c.startswith("2"))
    got = answer.get("content", {}).get("application/json", {}).get("schema")
    refused = ", ".join(c for c in sorted(one["responses"]) if not c.startswith("2"))
    line = f"Role {one['x-role']}." + (f" Takes {_kind(sent)}." if sent else "")
    line += f" Answers {code}" + (f" with {_kind(got)}" if got else "") + f"; or {refused}."
    head = [f"### `{method.upper()} {path}`", "", f"{one['summary']}. {line}", ""]
    return [*head, *table(("parameter", "in", "type", "default", "meaning"), rows), ""] if rows else head


def _kind(schema: dict[str, Any]) -> str:
    """A JSON schema in a few words."""
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        return f"[{name}](#{name.lower()})"
    if "anyOf" in schema:
        return " or ".join(_kind(one) for one in schema["anyOf"])
    if "enum" in schema or "const" in schema:
        return ", ".join(f"`{value}`" for value in schema.get("enum", [schema.get("const")]))
    kind = str(schema.get("type", "anything"))
    if kind == "array":
        return f"list of {_kind(schema.get('items', {}))}"
    if isinstance(more := schema.get("additionalProperties"), dict):
        return f"object of {_kind(more)}"
    limits = [f"{sign} {schema[key]:g}" for key, sign in _LIMITS if isinstance(schema.get(key), (int, float))]
    return " ".join([kind, ", ".join(limits)]) if limits else kind


def _given(name: str, field: dict[str, Any], around: dict[str, Any]) -> str:
    if name in around.get("required", ()) if isinstance(around.get("required"), list) else around.get("required"):
        return "needed"
    return f"`{msgspec.json.encode(field['default']).decode()}`" if "default" in field else ""
