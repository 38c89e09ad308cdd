"""The catalogue as one page that needs nothing else; its script is admitted by its hash."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from html import escape
from pathlib import Path

from omni import tenancy
from omni.catalogue.content import catalogue_content
from omni.catalogue.project import load_project
from omni.files import write_atomic

TEMPLATES = Path(__file__).parent / "templates"


def publish_catalogue(company: str, out: Path | None = None) -> Path:
    """Write a company's catalogue.

    Args:
        company: whose; its snapshot gives rows, builds and check results, if it has one.
        out: the file; `catalogue/index.html` in the company's home by default.

    Returns:
        Where it was written.

    Raises:
        ConfigError: an unknown company, or declarations that do not fit each other.
        StorageError: the file cannot be written.
    """
    tenant = tenancy.get(company)
    content = catalogue_content(load_project(), tenant)
    path = out or tenant.home / "catalogue" / "index.html"
    write_atomic(path, render(content))
    return path


def render(content: dict[str, object]) -> str:
    """The page of a catalogue's content (`catalogue_content`)."""
    page, style, code = (
        (TEMPLATES / f"catalogue.{kind}").read_text(encoding="utf-8") for kind in ("html", "css", "js")
    )
    data = json.dumps(content, separators=(",", ":"), ensure_ascii=False, default=str).replace("<", "\\u003c")
    digest = base64.b64encode(hashlib.sha256(code.encode()).digest()).decode()
    parts = {
        "TITLE": escape(str(content["title"])),
        "HASH": digest,
        "STYLE": style,
        "DATA": data,
        "CODE": code,
    }
    # In one pass: what is filled in may itself hold such a name.
    return re.sub(rf"\[\[({'|'.join(parts)})\]\]", lambda found: parts[found[1]], page)
