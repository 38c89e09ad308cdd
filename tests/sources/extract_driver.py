"""Reads one stream in a process of its own, and dies by SIGKILL once it has seen so many records."""

from __future__ import annotations

import argparse
import os
import signal
import sys
from datetime import datetime
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from pydantic import SecretStr

from omni import tenancy
from omni.sources.connection import Connection
from omni.sources.extract import extract


def main() -> None:
    parser = argparse.ArgumentParser()
    for name in ("vendor", "stream", "url", "token", "folder", "until"):
        parser.add_argument(f"--{name}", required=True)
    parser.add_argument("--die-at", type=int, required=True)
    chosen = parser.parse_args()

    def watch(records: int) -> None:
        if records >= chosen.die_at:
            os.kill(os.getpid(), signal.SIGKILL)

    extract(
        tenancy.get("demo"),
        chosen.vendor,
        chosen.stream,
        Connection(chosen.vendor, chosen.url, SecretStr(chosen.token), requests_per_10s=100_000),
        since=None,
        until=datetime.fromisoformat(chosen.until),
        run_id="killed",
        folder=Path(chosen.folder),
        progress=watch,
    )


if __name__ == "__main__":
    main()
