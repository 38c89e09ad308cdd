"""Commands of webhooks: serve the door, look into the inbox, replay, deliver, subscribe."""

from __future__ import annotations

from datetime import UTC, datetime
from enum import StrEnum
from typing import Annotated

import typer

from omni.cli.errors import FAILED, clear_errors

app = typer.Typer(
    help="Webhooks: deliveries coming in, and events told to subscribers.", no_args_is_help=True
)

Company = Annotated[str, typer.Option("--company", "--tenant", "-c", help="Whose.")]


class State(StrEnum):
    """States of events in the inbox."""

    new = "new"
    failed = "failed"
    dead = "dead"
    done = "done"
    ignored = "ignored"


@app.command(epilog="Example: `omni webhooks serve --port 8090`")
def serve(
    host: Annotated[str, typer.Option(help="Where to listen; put a TLS proxy in front.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535, help="Which port.")] = 8090,
) -> None:
    """Receive webhooks and hook subscriptions until interrupted."""
    with clear_errors():
        from omni.control.database import engine
        from omni.settings import settings
        from omni.webhooks.hook_routes import routes
        from omni.webhooks.receiver import build_app
        from omni.webhooks.receiver import serve as run_server
        from omni.webhooks.secrets import secrets_of

        chosen = settings()
        engine()  # a database that cannot be opened is said now, not to the first vendor
        public = str(chosen.public_url) if chosen.public_url else None
        more = routes(loopback=chosen.webhooks.loopback)
        typer.echo(f"http://{host}:{port}/webhooks/<company>/<sender>" + (f"  as {public}" if public else ""))
        run_server(build_app(secrets_of, public_url=public, more=more), host, port)


def _shown(value: object) -> object:
    return f"{value:%Y-%m-%d %H:%M:%S}" if isinstance(value, datetime) else value


@app.command("list", epilog="Example: `omni webhooks list --state dead`")
def list_events(
    company: Company = "demo",
    state: Annotated[State | None, typer.Option(help="Only events in this state.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="Most events to show.")] = 20,
) -> None:
    """Show what came in, what was refused, and who is subscribed. Never shows contents."""
    with clear_errors():
        from rich.console import Console

        from omni import tenancy
        from omni.cli.inspect import _table
        from omni.webhooks import deliveries, hooks, inbox

        tenancy.get(company)
        found, console = inbox.listing(company, state=state, limit=limit), Console()
        subscribed = [
            (one.id, one.event, one.created_at, one.ended_at, one.ended_because)
            for one in hooks.subscriptions(company)
        ]
        for title, columns, rows in (
            ("events by state", ["sender", "state", "events"], found.counts),
            ("events", ["id", "sender", "topic", "state", "attempts", "received", "reason"], found.events),
            ("refused", ["day", "sender", "reason", "deliveries"], found.refusals),
            ("subscriptions", ["id", "event", "since", "ended", "because"], subscribed),
            ("outgoing", ["event", "state", "deliveries", "last reason"], deliveries.listing(company)),
        ):
            if rows:
                console.print(_table(title, columns, [tuple(map(_shown, row)) for row in rows]))
        if not (found.counts or found.refusals or subscribed):
            console.print("Nothing came in and nobody is subscribed.", highlight=False)


@app.command(epilog="Examples: `omni webhooks replay --failed` · `omni webhooks replay --since 2026-01-15`")
def replay(
    company: Company = "demo",
    number: Annotated[list[int] | None, typer.Option("--id", help="This one; repeat for several.")] = None,
    failed: Annotated[bool, typer.Option("--failed", help="Those that failed or were given up.")] = False,
    since: Annotated[
        datetime | None, typer.Option(help="All received since then (UTC), done ones too.")
    ] = None,
    sender: Annotated[str | None, typer.Option(help="Of this sender only.")] = None,
    outgoing: Annotated[bool, typer.Option("--outgoing", help="Deliveries to subscribers instead.")] = False,
) -> None:
    """Let events be acted upon again, or deliveries be sent again."""
    with clear_errors():
        from omni import tenancy
        from omni.errors import ConfigError
        from omni.webhooks import deliveries, inbox

        tenancy.get(company)
        if outgoing and (since or sender):
            raise ConfigError("--outgoing goes with --id or --failed")
        if outgoing:
            if not (number or failed):
                raise ConfigError("Say what to send again: --id or --failed.")
            again = deliveries.replay(company, ids=number or None)
            typer.echo(f"{again} deliveries will be sent again: omni webhooks deliver --company {company}")
            return
        moment = since.replace(tzinfo=UTC) if since else None
        again = inbox.replay(company, ids=number or (), failed=failed, since=moment, vendor=sender)
        typer.echo(f"{again} events wait again: omni run drain_webhooks --company {company}")


@app.command(epilog="Example: `omni webhooks deliver --company demo`")
def deliver(company: Company = "demo") -> None:
    """Send what subscribers are owed and due. Exit status 1 if something was given up."""
    with clear_errors():
        from omni import tenancy
        from omni.settings import settings
        from omni.webhooks import deliveries

        tenancy.get(company)
        outcome = deliveries.deliver(company, loopback=settings().webhooks.loopback)
    typer.echo(
        ", ".join(f"{number} {what}" for what, number in outcome.items() if number) or "Nothing is owed."
    )
    if outcome["dead"]:
        raise typer.Exit(FAILED)


@app.command(epilog="Example: `omni webhooks subscribe segment.entered https://hooks.example/catch/1`")
def subscribe(
    event: Annotated[str, typer.Argument(help="For example segment.entered.", show_default=False)],
    target_url: Annotated[str, typer.Argument(help="Where to tell it; https.", show_default=False)],
    company: Company = "demo",
) -> None:
    """Tell an address of an event from now on. Prints the secret its deliveries are signed with."""
    with clear_errors():
        from omni import tenancy
        from omni.settings import settings
        from omni.webhooks import hooks

        tenancy.get(company)
        loopback = settings().webhooks.loopback
        number, secret = hooks.subscribe(company, event, target_url, loopback=loopback)
    typer.echo(f"{number}  signed with {secret}")


@app.command(epilog="Example: `omni webhooks unsubscribe sub_0123`")
def unsubscribe(
    number: Annotated[str, typer.Argument(help="The subscription.", show_default=False)],
    company: Company = "demo",
) -> None:
    """End a subscription and what it is still owed."""
    with clear_errors():
        from omni.errors import ConfigError
        from omni.webhooks import hooks

        if not hooks.unsubscribe(company, number):
            raise ConfigError(f"{company} has no subscription {number}; see omni webhooks list")
    typer.echo("Ended.")


@app.command(epilog="Example: `omni webhooks key zapier --company demo`")
def key(
    name: Annotated[str, typer.Argument(help="What it is for, or with --revoke its number.")],
    company: Company = "demo",
    revoke: Annotated[bool, typer.Option("--revoke", help="Make the key of this number worthless.")] = False,
) -> None:
    """Make an API key with which Zapier may subscribe; it is shown this once."""
    with clear_errors():
        from omni import tenancy
        from omni.errors import ConfigError
        from omni.webhooks import hooks

        tenancy.get(company)
        if not revoke:
            typer.echo(hooks.create_key(company, name))
        elif hooks.revoke_key(company, name):
            typer.echo("Revoked.")
        else:
            raise ConfigError(f"{company} has no key {name}: give the part between omk_ and the next _")


@app.command(epilog="Example: `omni webhooks secret`")
def secret() -> None:
    """Make a signing secret for a sender, to put into OMNI_WEBHOOKS__SECRETS."""
    with clear_errors():
        from omni.webhooks.hooks import new_secret

        typer.echo(new_secret())


@app.command(epilog="Example: `omni webhooks address zapier --source forms`")
def address(
    sender: Annotated[str, typer.Argument(help="hubspot, shopify, stripe, zapier, generic.")],
    company: Company = "demo",
    source: Annotated[str, typer.Option(help="A name that tells senders apart.")] = "main",
    token: Annotated[
        bool, typer.Option("--token", help="With a token in it, for a Zap that cannot sign.")
    ] = False,
) -> None:
    """Print the address to give to a sender."""
    with clear_errors():
        from omni import tenancy
        from omni.errors import ConfigError
        from omni.settings import settings
        from omni.webhooks.secrets import secrets_of
        from omni.webhooks.signatures import SCHEMES, TOKENS, path_token

        tenancy.get(company)
        if sender not in SCHEMES or (token and sender not in TOKENS):
            known = sorted(TOKENS if token else SCHEMES)
            raise ConfigError(f"Senders here: {', '.join(known)}")
        if not (secrets := secrets_of(company, sender)):
            raise ConfigError(
                f'{sender} has no secret yet. Set OMNI_WEBHOOKS__SECRETS=\'{{"{company}/{sender}": "…"}}\''
            )
        base = str(settings().public_url or "http://127.0.0.1:8090").rstrip("/")
        tail = f"/{path_token(secrets[0], company, sender)}" if token else ""
    typer.echo(f"{base}/webhooks/{company}/{sender}/{source}{tail}")
