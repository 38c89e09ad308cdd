"""Commands of usage events: serve the door, load files and the spool, keep metrics live, try it out."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from omni.cli.errors import FAILED, clear_errors

app = typer.Typer(help="Usage events: collect them, load them, and keep metrics live.", no_args_is_help=True)

Company = Annotated[str, typer.Option("--company", "--tenant", "-c", help="Whose.")]
Every = Annotated[float, typer.Option(min=0.2, max=3600, help="Seconds from one turn to the next.")]
Metric = Annotated[
    list[str] | None,
    typer.Option(
        "--metric", "-m", help="Keep these live; repeat for several.", show_default="the cheap ones"
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead.")]


@app.command(epilog="Examples: `omni events serve` · `omni events serve --company demo --live --every 5`")
def serve(
    company: Annotated[
        list[str] | None,
        typer.Option("--company", "--tenant", "-c", help="Whose; all when left out."),
    ] = None,
    host: Annotated[str, typer.Option(help="Where to listen; put a TLS proxy in front.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535, help="Which port.")] = 8091,
    live: Annotated[bool, typer.Option("--live", help="Load and keep metrics live in this process.")] = False,
    every: Every = 5.0,
) -> None:
    """Accept events and show live metrics until interrupted. Keys: `omni events key`."""
    with clear_errors():
        from omni.cli import events_run

        events_run.serve(company, host, port, every if live else None)


@app.command(epilog="Examples: `omni events live --every 5` · `omni events live --once`")
def live(
    company: Company = "demo",
    every: Every = 5.0,
    metric: Metric = None,
    once: Annotated[bool, typer.Option("--once", help="Take one turn and end.")] = False,
    as_json: AsJson = False,
) -> None:
    """Load what was collected every few seconds and bring the live metrics up to date, until interrupted.

    A turn waits a second for a warehouse that another process holds, then leaves it for the next time.
    """
    with clear_errors():
        from omni.cli import events_run

        good = events_run.live(company, every, metric, once=once, as_json=as_json)
    if not good:
        raise typer.Exit(FAILED)


@app.command(
    epilog="Examples: `omni events load` · `omni events load history.parquet` · `omni events load *.ndjson`"
)
def load(
    files: Annotated[
        list[Path] | None, typer.Argument(help="NDJSON, JSON, Parquet or CSV.", show_default="only the spool")
    ] = None,
    company: Company = "demo",
    as_json: AsJson = False,
) -> None:
    """Load files of events, and whatever waits in the spool. Loading a file again changes nothing.

    Exit status 1 if an event was refused or a segment of the spool is damaged.
    """
    with clear_errors():
        from omni.cli import events_run

        good = events_run.load(company, files or [], as_json=as_json)
    if not good:
        raise typer.Exit(FAILED)


@app.command(
    epilog="Examples: `omni events send page_view -p page=/ --actor u1` · `omni events send --sample 100`"
)
def send(
    event: Annotated[str | None, typer.Argument(help="An event of data/events.", show_default=False)] = None,
    company: Company = "demo",
    actor: Annotated[str, typer.Option(help="Whose event it is.")] = "someone",
    given: Annotated[
        list[str] | None, typer.Option("--property", "-p", metavar="NAME=VALUE", help="Repeat for several.")
    ] = None,
    sample: Annotated[int, typer.Option(min=0, max=100_000, help="Send made-up ones instead.")] = 0,
    url: Annotated[
        str | None, typer.Option(help="Where `omni events serve` is; into the spool when left out.")
    ] = None,
    key_env: Annotated[
        str, typer.Option(metavar="NAME", help="Environment variable with the write key.")
    ] = "OMNI_EVENTS_KEY",
) -> None:
    """Send an event, or made-up ones, to try things out. Exit status 1 if one was refused."""
    with clear_errors():
        from omni.cli import events_run

        good = events_run.send(company, event, actor, given or [], sample, url, key_env)
    if not good:
        raise typer.Exit(FAILED)


@app.command(epilog="Examples: `omni events key` · `omni events key --read --company acme`")
def key(
    company: Company = "demo",
    read: Annotated[bool, typer.Option("--read", help="One that may watch instead of send.")] = False,
) -> None:
    """Make a key, shown this once, and the digest to put into the settings."""
    with clear_errors():
        from omni import tenancy
        from omni.usage.keys import new_key

        tenancy.get(company)
        made, digest = new_key("read" if read else "write")
    typer.echo(made)
    typer.echo(f'OMNI_EVENTS__{"READ" if read else "WRITE"}_KEYS=\'{{"{company}": "{digest}"}}\'')


@app.command(epilog="Example: `omni events status`")
def status(company: Company = "demo", as_json: AsJson = False) -> None:
    """Show what waits in the spool, and the window that was published last."""
    with clear_errors():
        from omni.cli import events_run

        events_run.status(company, as_json=as_json)


@app.command("list", epilog="Example: `omni events list`")
def list_events(as_json: AsJson = False) -> None:
    """List the declared events with their properties."""
    with clear_errors():
        from omni.cli import events_run

        events_run.list_declared(as_json=as_json)
