"""`python -m omni.orchestrator env|start|stop|status`: the local Prefect server from a shell.

`env` prints the settings as shell commands: `eval "$(python -m omni.orchestrator env)"`.
"""

from __future__ import annotations

import shlex
import sys

from omni.errors import OmniError
from omni.orchestrator import environment
from omni.orchestrator.server import server, status, stop


def _lines(command: str) -> list[str]:
    if command == "env":
        environment.prepare_home()
        return [f"export {name}={shlex.quote(value)}" for name, value in environment.environment().items()]
    if command == "start":
        with server(ephemeral=False) as running:
            said = "Started" if running.started else "Already running"
            return [f"{said}: {running.ui_url}", f"Next: export PREFECT_API_URL={running.url}"]
    if command == "stop":
        return ["Stopped." if stop() else "No local server runs."]
    found = status()
    if found.url is None:
        return ["No server. Next: python -m omni.orchestrator start"]
    answer = f"answers, Prefect {found.version}" if found.answers else "does not answer"
    return [f"{found.url} ({found.origin}) {answer}"]


def main(arguments: list[str]) -> int:
    """Run one command; the exit status is 2 for a wrong one, 1 when it failed."""
    if len(arguments) != 1 or arguments[0] not in {"env", "start", "stop", "status"}:
        sys.stderr.write("usage: python -m omni.orchestrator env|start|stop|status\n")
        return 2
    try:
        lines = _lines(arguments[0])
    except OmniError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    sys.stdout.write("\n".join(lines) + "\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
