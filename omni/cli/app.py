"""The commands. Each says what it did, and fails with a message that says what to do next."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from omni.cli.errors import FAILED, clear_errors
from omni.cli.events import app as events
from omni.cli.exports import export, outbox
from omni.cli.formats import Format
from omni.cli.lake import app as lake
from omni.cli.metrics import app as metrics
from omni.cli.models import app as models
from omni.cli.partners import app as partners
from omni.cli.spark import app as spark
from omni.cli.usage import app as usage
from omni.cli.webhooks import app as webhooks

app = typer.Typer(
    name="omni",
    help="A company's nightly data work: ingestion, models, metrics, experiments, documents, reports.",
    no_args_is_help=True,
    rich_markup_mode="markdown",
    pretty_exceptions_show_locals=False,
)
sandbox = typer.Typer(help="A local server that speaks the vendors' protocols.", no_args_is_help=True)
servers = typer.Typer(help="The local Prefect server.", no_args_is_help=True)
app.add_typer(sandbox, name="sandbox")
app.add_typer(servers, name="server")
app.add_typer(lake, name="lake")
app.add_typer(outbox, name="outbox")
app.command(
    epilog="Examples: `omni export` · `omni export daily_sales --format csv` · "
    "`omni export marts.pipeline -o pipeline.parquet -f parquet`"
)(export)
app.add_typer(metrics, name="metrics")
app.add_typer(models, name="models")
app.add_typer(partners, name="partners")
app.add_typer(spark, name="spark")
app.add_typer(usage, name="usage")
app.add_typer(events, name="events")
app.add_typer(webhooks, name="webhooks")

Companies = Annotated[
    list[str],
    typer.Option("--company", "--tenant", "-c", help="Whose data; repeat for several.", show_default="demo"),
]
Company = Annotated[str, typer.Option("--company", "--tenant", "-c", help="Whose data.")]
Full = Annotated[
    bool, typer.Option("--full", help="Read everything again and remove what the vendors no longer have.")
]
Ephemeral = Annotated[
    bool, typer.Option("--ephemeral", help="A Prefect server for this run only, stopped at its end.")
]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Say nothing unless something failed.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print the summary as JSON and nothing else.")]
Verbose = Annotated[bool, typer.Option("--verbose", "-v", help="Print Prefect's logs too.")]


MaybeCompany = Annotated[
    str | None, typer.Option("--company", "--tenant", "-c", help="Whose; all when not given.")
]


class GrantName(StrEnum):
    """The ways tokens are obtained: a person's consent, the app's own name, a signed assertion."""

    code = "code"
    client_credentials = "client-credentials"
    jwt = "jwt"


@app.command(
    epilog="Examples: `omni nightly` · `omni nightly --company olist` · `omni nightly --json --ephemeral`"
)
def nightly(
    company: Companies = ["demo"],  # noqa: B006  typer reads it, nobody changes it
    full: Full = False,
    ephemeral: Ephemeral = False,
    quiet: Quiet = False,
    as_json: AsJson = False,
    verbose: Verbose = False,
) -> None:
    """Run the whole night: everything, for each company. Exit status 1 if anything failed."""
    run("nightly", company, full, ephemeral, quiet, as_json, verbose)


@app.command(epilog="Examples: `omni run ingest_crm` · `omni run build_models --company olist`")
def run(
    flow: Annotated[str, typer.Argument(help="A flow's name, as its file in flows/.", show_default=False)],
    company: Companies = ["demo"],  # noqa: B006  typer reads it, nobody changes it
    full: Full = False,
    ephemeral: Ephemeral = False,
    quiet: Quiet = False,
    as_json: AsJson = False,
    verbose: Verbose = False,
) -> None:
    """Run one flow. Exit status 1 if anything failed, 2 if it could not start."""
    with clear_errors():
        from omni.cli.night import run_flow

        good = run_flow(
            flow, company, full=full, ephemeral=ephemeral, quiet=quiet, as_json=as_json, verbose=verbose
        )
    if not good:
        raise typer.Exit(FAILED)


@app.command(
    epilog="Examples: `omni ingest` · `omni ingest --stream hubspot.contacts --dry-run` · "
    "`omni ingest --stream stripe --since 2026-10-01T00:00:00Z --until 2026-11-01T00:00:00Z` · "
    "`omni ingest --replay`"
)
def ingest(
    company: Company = "demo",
    stream: Annotated[
        list[str] | None,
        typer.Option("--stream", "-s", help="A vendor, a stream or vendor.stream; repeat for several."),
    ] = None,
    full: Full = False,
    since: Annotated[
        str | None, typer.Option(help="Read changes from this moment on again; cursors stay.")
    ] = None,
    until: Annotated[str | None, typer.Option(help="And only those before this one.")] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Ask the vendors what there is; read and write nothing.")
    ] = False,
    replay: Annotated[
        bool, typer.Option("--replay", help="Read the records in the dead letters again.")
    ] = False,
    ephemeral: Ephemeral = False,
    quiet: Quiet = False,
    as_json: AsJson = False,
    verbose: Verbose = False,
) -> None:
    """Bring vendors' data in: what changed since the last time, a window, or everything."""
    with clear_errors():
        from omni.cli.ingest import check_selection, show_plans
        from omni.cli.night import run_flow

        check_selection(full, since, until)
        if dry_run:
            show_plans(company, stream or [], full=full, since=since, until=until, as_json=as_json)
            return
        good = run_flow(
            "ingest_crm", [company], full=full, ephemeral=ephemeral, quiet=quiet, as_json=as_json,
            verbose=verbose, parameters={"streams": stream, "since": since, "until": until, "replay": replay},
        )  # fmt: skip
    if not good:
        raise typer.Exit(FAILED)


@app.command("dead-letters", epilog="Example: `omni dead-letters --company olist`")
def dead_letters(company: Company = "demo", as_json: AsJson = False) -> None:
    """List rows that could not be loaded, by key and reason. `omni ingest --replay` tries them again."""
    with clear_errors():
        from omni.cli.ingest import list_dead_letters

        list_dead_letters(company, as_json=as_json)


@app.command(epilog="Example: `omni status --company olist`")
def status(company: Company = "demo", as_json: AsJson = False) -> None:
    """Show a company's last runs, its tables and how far its sources are read."""
    with clear_errors():
        from omni.cli.inspect import show_status

        show_status(company, as_json=as_json)


@app.command(epilog='Example: `omni query "SELECT order_date, revenue FROM marts.daily_sales LIMIT 5"`')
def query(
    sql: Annotated[str, typer.Argument(help="One SELECT.", show_default=False)],
    company: Company = "demo",
    format: Annotated[Format, typer.Option("--format", "-f", help="How to print rows.")] = Format.table,  # noqa: A002
    limit: Annotated[int, typer.Option(min=1, max=1_000_000, help="Most rows to print.")] = 1000,
) -> None:
    """Ask the published snapshot in SQL. It is read-only and reaches no files."""
    with clear_errors():
        from omni.cli.inspect import run_query

        run_query(company, sql, format.value, limit)


@app.command(epilog='Example: `omni ask "How long may I return an item?"`')
def ask(
    question: Annotated[str, typer.Argument(help="A question in plain words.", show_default=False)],
    company: Company = "demo",
    passages: Annotated[int, typer.Option("--passages", "-k", min=1, max=50, help="Passages to read.")] = 5,
    as_json: AsJson = False,
) -> None:
    """Answer from the company's documents, citing the passages."""
    with clear_errors():
        from omni.cli.inspect import answer_question

        answer_question(company, question, passages, as_json=as_json)


@app.command()
def doctor(company: Company = "demo") -> None:
    """Check the set-up and say what to do. Exit status 1 if something must be done."""
    with clear_errors():
        from omni.cli.doctor import examine

        good = examine(company)
    if not good:
        raise typer.Exit(FAILED)


@app.command(epilog="Example: `omni portal --port 8080`")
def portal(port: Annotated[int, typer.Option(min=1, max=65535, help="Where to listen.")] = 8080) -> None:
    """Show what is published, on this machine, until interrupted."""
    with clear_errors():
        from omni.portal.server import serve

        typer.echo(f"http://127.0.0.1:{port}")
        serve(port)


@app.command(
    epilog="Examples: `omni connect hubspot --client-id … --client-secret-env HUBSPOT_SECRET` · "
    "`omni connect shopify --at https://acme.myshopify.com --client-id …`"
)
def connect(
    vendor: Annotated[
        str, typer.Argument(help="hubspot, salesforce, shopify or stripe.", show_default=False)
    ],
    company: Company = "demo",
    client_id: Annotated[str | None, typer.Option(help="The app's client id; asked once.")] = None,
    client_secret_env: Annotated[
        str | None, typer.Option(metavar="NAME", help="Environment variable that holds the client secret.")
    ] = None,
    at: Annotated[
        str | None, typer.Option(metavar="URL", help="The account's own host, or a sandbox.")
    ] = None,
    grant: Annotated[
        GrantName | None, typer.Option(help="How tokens are obtained.", show_default="as before, else code")
    ] = None,
    user: Annotated[str | None, typer.Option(help="On whose behalf, with --grant jwt.")] = None,
    key_file: Annotated[
        Path | None, typer.Option(help="RSA private key in PEM form, with --grant jwt.")
    ] = None,
    scopes: Annotated[str | None, typer.Option(help="What to ask for instead of the usual.")] = None,
    port: Annotated[int, typer.Option(min=0, max=65535, help="Where the redirect comes; 0: any.")] = 0,
    wait: Annotated[int, typer.Option(min=1, max=3600, help="Seconds to wait for consent.")] = 300,
    browser: Annotated[bool, typer.Option(help="Open the consent page.")] = True,
) -> None:
    """Connect a vendor's account by OAuth 2. Its tokens are stored encrypted and renewed by themselves."""
    with clear_errors():
        from omni.cli.connect import Wanted, connect_account

        way = grant.value if grant else None
        wanted = Wanted(
            vendor, company, client_id, client_secret_env, at, way, user, key_file, scopes, port, wait
        )
        connect_account(wanted, browser=browser)


@app.command()
def connections(company: MaybeCompany = None, as_json: AsJson = False) -> None:
    """List the accounts that are connected, without their secrets."""
    with clear_errors():
        from omni.cli.connect import list_accounts

        list_accounts(company, as_json=as_json)


@app.command(epilog="Example: `omni disconnect hubspot --company acme`")
def disconnect(
    vendor: Annotated[str, typer.Argument(help="The vendor.", show_default=False)], company: Company = "demo"
) -> None:
    """End an account's tokens at the vendor where it offers that, and remove them here."""
    with clear_errors():
        from omni.cli.connect import disconnect_account

        disconnect_account(vendor, company)


@app.command(
    "write-back",
    epilog="Examples: `omni write-back` · `omni write-back lead_scores --dry-run` · "
    "`omni write-back lead_scores --company demo`",
)
def write_back(
    name: Annotated[str | None, typer.Argument(help="Which one; lists them when left out.")] = None,
    company: Company = "demo",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be written only.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Write more rows than the limits allow.")] = False,
    replay: Annotated[bool, typer.Option("--replay", help="Try rows again that were refused.")] = False,
    ephemeral: Ephemeral = False,
    quiet: Quiet = False,
    as_json: AsJson = False,
    verbose: Verbose = False,
) -> None:
    """Write segments and scores back to a vendor: what is new or changed since the last time."""
    with clear_errors():
        from omni.cli import writeback

        if name is None or dry_run:
            if name is None:
                writeback.list_write_backs(as_json=as_json)
            else:
                writeback.show_plan(name, company, replay=replay, as_json=as_json)
            return
        from omni.cli.night import run_flow
        from omni.destinations.declaration import write_back_named

        write_back_named(name)
        good = run_flow(
            "write_back", [company], full=False, ephemeral=ephemeral, quiet=quiet, as_json=as_json,
            verbose=verbose, parameters={"name": name, "force": force, "replay": replay},
        )  # fmt: skip
    if not good:
        raise typer.Exit(FAILED)


@app.command("copy", epilog="Examples: `omni copy` · `omni copy daily_sales --company demo --dry-run`")
def copy_table(
    name: Annotated[str | None, typer.Argument(help="Which one; lists them when left out.")] = None,
    company: Company = "demo",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be copied only.")] = False,
    ephemeral: Ephemeral = False,
    quiet: Quiet = False,
    as_json: AsJson = False,
    verbose: Verbose = False,
) -> None:
    """Copy a published table to MongoDB or Firestore, if it has changed since the last time."""
    with clear_errors():
        from omni.cli import copies

        if name is None:
            copies.list_copies(as_json=as_json)
            return
        if dry_run:
            copies.show_plan(name, company, as_json=as_json)
            return
        from omni.cli.night import run_flow
        from omni.destinations.copy_declaration import copy_named

        copy_named(name, company)
        good = run_flow(
            "copy_tables", [company], full=False, ephemeral=ephemeral, quiet=quiet, as_json=as_json,
            verbose=verbose, parameters={"name": name},
        )  # fmt: skip
    if not good:
        raise typer.Exit(FAILED)


@app.command()
def check() -> None:
    """Check every declaration: contracts, models, metrics, tenants, experiments, predictions, dashboards."""
    with clear_errors():
        from omni.cli.inspect import check_declarations

        check_declarations()


@sandbox.command("serve", epilog="Example: `omni sandbox serve --company demo --faults 0.02`")
def serve_sandbox(
    company: Annotated[str, typer.Option("--company", "-c", help="demo or olist.")] = "demo",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes a free one.")] = 8765,
    faults: Annotated[float, typer.Option(min=0, max=0.5, help="Share of answers that fail.")] = 0.0,
    seed: Annotated[int, typer.Option(help="Seed of the faults.")] = 0,
    until: Annotated[str | None, typer.Option(help="Last day to show, e.g. 2026-06-30.")] = None,
) -> None:
    """Serve a company's vendors on this machine until interrupted."""
    with clear_errors():
        from omni.cli.inspect import serve

        serve(company, port, faults, seed, until)


@servers.command("stop")
def stop_server() -> None:
    """Stop the local Prefect server that `omni nightly` left running."""
    with clear_errors():
        from omni.orchestrator.server import stop

        typer.echo("Stopped." if stop() else "No local server was running.")
