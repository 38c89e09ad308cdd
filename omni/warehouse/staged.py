"""The handle between extraction and loading: a folder of Parquet files and a manifest.

Extraction may run in parallel and writes only here; one writer then merges the folder into the
warehouse. The manifest is written last and atomically: a folder without one is an unfinished attempt.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Self

from omni.files import write_atomic

MANIFEST = "manifest.json"
REJECTED = "rejected.jsonl"


@dataclass(frozen=True)
class Staged:
    """One stream's rows of one run.

    Attributes:
        folder: holds the files and the manifest.
        tables: table name to its Parquet file names, in the order they were read.
        rows: table name to its number of rows.
        rejected: lines of `rejected.jsonl`: `{"table", "key", "column", "reason"}` and, of a child's row, its
            "parent"'s key; free of personal data.
        source_rows: how many top-level records the vendor says the window holds.
        since: start of the window, inclusive; None for the first load.
        until: end of the window, exclusive; the cursor after this load. Both UTC.
        asked: keys that were read again one by one, of which those absent are gone; None for a window.
        moves_cursor: the window begins where the last one ended.
        columns: table name to columns beside its contract's, as contracts declare them.
        gone: keys of top-level records that the source says it no longer has.
        identity: of the account and the contracts it was read by.
        token: where to go on following the source's changes after this load; None leaves it where it is.
    """

    tenant: str
    vendor: str
    stream: str
    run_id: str
    folder: Path
    tables: dict[str, list[str]]
    rows: dict[str, int]
    rejected: int
    source_rows: int
    since: datetime | None
    until: datetime
    asked: tuple[str, ...] | None = None
    moves_cursor: bool = True
    columns: dict[str, dict[str, Any]] = field(default_factory=dict)
    gone: tuple[str, ...] = ()
    identity: str = ""
    token: Any = None

    def save(self) -> Self:
        """Write the manifest; the folder counts as complete from here on."""
        content: dict[str, Any] = asdict(self) | {
            "folder": self.folder.name,
            "since": self.since.isoformat() if self.since else None,
            "until": self.until.isoformat(),
        }
        write_atomic(self.folder / MANIFEST, json.dumps(content, indent=1))
        return self

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read a complete folder's manifest."""
        content = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        return cls(
            **content
            | {
                "folder": folder,
                "since": datetime.fromisoformat(content["since"]) if content["since"] else None,
                "until": datetime.fromisoformat(content["until"]),
                "asked": None if content.get("asked") is None else tuple(content["asked"]),
                "gone": tuple(content.get("gone", ())),
            }
        )
