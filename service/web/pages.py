"""The page, the description of the API, and their files; nothing of them comes from another host."""

from __future__ import annotations

from pathlib import Path

from starlette.requests import Request
from starlette.responses import FileResponse, Response
from starlette.routing import BaseRoute, Mount, Route
from starlette.staticfiles import StaticFiles

from service.web import answers
from service.web.openapi import document

_HERE = Path(__file__).resolve().parent
PAGE = _HERE / "page"
DOCS = _HERE / "docs"

# Styles are set through the CSSOM only, which the policy leaves alone.
_PAGE_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; media-src blob:; "
    "connect-src 'self'; font-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
# RapiDoc writes its styles into the elements it makes.
_DOCS_POLICY = _PAGE_POLICY.replace("style-src 'self'", "style-src 'self' 'unsafe-inline'")
_CAMERA = "camera=(self), microphone=(), geolocation=()"


def page_routes(*, page: bool) -> list[BaseRoute]:
    """`/openapi.json` and `/docs`, and with `page` the page at `/`."""
    routes: list[BaseRoute] = [
        Route("/openapi.json", _openapi, methods=["GET"]),
        Route("/docs", _docs, methods=["GET"]),
        Mount("/docs/assets", StaticFiles(directory=DOCS)),
    ]
    if page:
        routes += [Route("/", _page, methods=["GET"]), Mount("/page", StaticFiles(directory=PAGE))]
    return routes


async def _openapi(request: Request) -> Response:
    return answers.json_response(document())


async def _page(request: Request) -> Response:
    return _html(PAGE / "index.html", _PAGE_POLICY)


async def _docs(request: Request) -> Response:
    return _html(DOCS / "index.html", _DOCS_POLICY)


def _html(file: Path, policy: str) -> Response:
    headers = {
        "content-security-policy": policy,
        "permissions-policy": _CAMERA,
        "cache-control": "no-cache",
    }
    return FileResponse(file, media_type="text/html; charset=utf-8", headers=headers)
