"""The page's own files. They hold nothing of a repository, so they need no token; its address brings the page one."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from fastapi import APIRouter
from starlette.responses import Response

from awareness.serve.error_json import Refused

router = APIRouter(include_in_schema=False)
FOLDER = Path(__file__).with_name("page")
TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}


@cache
def _files() -> dict[str, tuple[bytes, str]]:
    """name -> (content, type) of everything that is served; no other name reaches the disk."""
    return {path.name: (path.read_bytes(), TYPES[path.suffix]) for path in FOLDER.iterdir() if path.suffix in TYPES}


@router.get("/")
async def index() -> Response:
    return _file("index.html")


@router.get("/static/{name}")
async def static(name: str) -> Response:
    return _file(name)


def _file(name: str) -> Response:
    if name not in _files():
        raise Refused(404, "there is no such file")
    content, kind = _files()[name]
    return Response(content, headers={"content-type": kind, "cache-control": "no-cache"})
