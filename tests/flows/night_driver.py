"""Runs one flow in this process and prints its summary; can kill itself at a chosen moment.

`--kill "stage|step|state"` ends the process with SIGKILL when that event is told, as a power cut would.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import signal
import sys
from contextlib import ExitStack
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from omni.orchestrator.environment import apply_environment
from omni.telemetry import Progress, listening
from omni.tenancy import get


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--flow", default="nightly")
    parser.add_argument("--tenant", default="demo")
    parser.add_argument("--kill", default="")
    parser.add_argument("--full", action="store_true")
    chosen = parser.parse_args()
    apply_environment()
    flow = getattr(importlib.import_module(f"flows.{chosen.flow}"), chosen.flow)

    def kill_at(event: Progress) -> None:
        if chosen.kill == f"{event.stage}|{event.step}|{event.state}":
            os.kill(os.getpid(), signal.SIGKILL)

    with ExitStack() as stack:
        if chosen.kill:
            stack.enter_context(listening(kill_at))
        parameters = {"tenant": chosen.tenant} | ({"full": True} if chosen.full else {})
        state = flow(**parameters, return_state=True)
    run_id = str(state.state_details.flow_run_id)
    path = get(chosen.tenant).home / "runs" / f"{run_id}.json"
    print(json.dumps(json.loads(path.read_text()) | {"state": state.name, "message": state.message}))
    return 0 if state.is_completed() else 1


if __name__ == "__main__":
    raise SystemExit(main())
