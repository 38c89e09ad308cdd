"""Serving the published pages on this machine."""

from __future__ import annotations

from html import escape

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import FileResponse, HTMLResponse, Response
from starlette.routing import Route

from omni import tenancy

PAGES = {"dashboard": "dashboards/index.html", "compliance": "compliance/report.html"}

_INDEX = """<!doctype html><html lang="en"><meta charset="utf-8"><title>Omni Pipelines</title>
<meta name="viewport" content="width=device-width, initial-scale=1">
<style>body{{font:16px/1.6 system-ui,sans-serif;max-width:40rem;margin:4rem auto;padding:0 1rem;
color-scheme:light dark}}li{{margin:.5rem 0}}</style>
<h1>Published</h1><ul>{items}</ul></html>"""


async def index(_request: Request) -> Response:
    """The list of companies and what each has published."""
    items = []
    for tenant in tenancy.tenants().values():
        links = [
            f'<a href="/{tenant.tenant}/{name}">{name}</a>'
            for name, file in PAGES.items()
            if (tenant.home / file).exists()
        ]
        what = " · ".join(links) or f"nothing yet: <code>omni nightly --company {tenant.tenant}</code>"
        items.append(f"<li><b>{escape(tenant.title)}</b>: {what}</li>")
    return HTMLResponse(_INDEX.format(items="".join(items)))


async def page(request: Request) -> Response:
    """One published page of one company."""
    tenant = tenancy.tenants().get(request.path_params["tenant"])
    file = PAGES.get(request.path_params["page"])
    if tenant is None or file is None or not (tenant.home / file).exists():
        return HTMLResponse("Not published. See <a href='/'>what is</a>.", status_code=404)
    return FileResponse(tenant.home / file, headers={"Cache-Control": "no-cache"})


app = Starlette(routes=[Route("/", index), Route("/{tenant}/{page}", page)])


def serve(port: int) -> None:
    """Serve until interrupted, on the loopback address only."""
    uvicorn.run(app, host="127.0.0.1", port=port, log_level="warning")
