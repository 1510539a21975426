"""`/docs`: the OpenAPI description as a page of our own, which needs no script and nothing from the network."""

from __future__ import annotations

import json
from html import escape
from typing import Any

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

router = APIRouter(include_in_schema=False)
STYLE = """
:root { color-scheme: light dark; font: 16px/1.5 system-ui, sans-serif; }
body { max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }
code, pre { font-family: ui-monospace, monospace; font-size: .9rem; }
pre { overflow-x: auto; padding: .5rem 1rem; border: 1px solid GrayText; border-radius: .25rem; }
h2 { margin-top: 2rem; } h2 code { font-size: 1.1rem; }
summary { cursor: pointer; }
"""


@router.get("/docs")
def page(request: Request) -> Response:
    api = request.app.openapi()
    parts = [
        _operation(path, method, about) for path, methods in api["paths"].items() for method, about in methods.items()
    ]
    schemas = [
        f"<details id='{escape(name)}'><summary><code>{escape(name)}</code></summary>{_json(schema)}</details>"
        for name, schema in api.get("components", {}).get("schemas", {}).items()
    ]
    html = (
        "<!doctype html><html lang='en'><head><meta charset='utf-8'>"
        "<meta name='viewport' content='width=device-width'>"
        f"<title>{escape(api['info']['title'])}: HTTP API</title><link rel='stylesheet' href='/docs/style.css'></head>"
        f"<body><h1>{escape(api['info']['title'])} {escape(api['info']['version'])}</h1>"
        f"<p>{escape(api['info']['description'])}</p><p>Every path but <code>/health</code> and this page needs"
        " <code>Authorization: Bearer TOKEN</code>; the token is in the address that <code>awareness serve</code>"
        " printed. The same as JSON: <a href='/openapi.json'>openapi.json</a>.</p>"
        f"{''.join(parts)}<h2>Schemas</h2>{''.join(schemas)}</body></html>"
    )
    return Response(html, media_type="text/html; charset=utf-8")


@router.get("/docs/style.css")
def style() -> Response:
    return Response(STYLE, media_type="text/css; charset=utf-8")


def _operation(path: str, method: str, about: dict[str, Any]) -> str:
    body = about.get("requestBody", {}).get("content", {}).get("application/json", {}).get("schema")
    parameters = "".join(
        f"<li><code>{escape(one['name'])}</code> ({escape(one['in'])}"
        f"{'' if one.get('required') else ', optional'}) {escape(_kind(one.get('schema', {})))}</li>"
        for one in about.get("parameters", ())
    )
    return (
        f"<h2><code>{escape(method.upper())} {escape(path)}</code></h2>"
        f"<p>{escape(about.get('description', ''))}</p>"
        + (f"<ul>{parameters}</ul>" if parameters else "")
        + (f"<p>Body: {_link(body)}</p>" if body else "")
    )


def _link(schema: dict[str, Any]) -> str:
    name = str(schema.get("$ref", "")).rpartition("/")[2]
    return f"<a href='#{escape(name)}'><code>{escape(name)}</code></a>" if name else _json(schema)


def _kind(schema: dict[str, Any]) -> str:
    return " or ".join(str(one.get("type", "")) for one in schema.get("anyOf", [schema]))


def _json(schema: dict[str, Any]) -> str:
    return f"<pre>{escape(json.dumps(schema, indent=2))}</pre>"
