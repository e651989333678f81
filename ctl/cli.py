"""`gridpivot`: what an operator asks of the controller, and the demo. A client; it knows neither agent nor controller."""

from __future__ import annotations

import importlib
import uuid
from typing import Annotated, NoReturn

import typer

from ctl import decisions, events, identities, plans
from ctl.options import (
    LOCAL,
    SOLVING_S,
    Address,
    Ca,
    Cert,
    Json,
    Key,
    KeyFile,
    Reason,
    Site,
    TokenFile,
    ask,
)
from gridpivot import __version__, console
from gridpivot.durations import seconds
from gridpivot.errors import Refused, SettingsError

app = typer.Typer(
    help="Moves grid power between Bitcoin mining and AI work: ask the controller, lower a ceiling, run the demo.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
app.add_typer(events.app, name="event")
app.add_typer(identities.app, name="identity")
app.command("audit")(identities.audit)
app.add_typer(plans.app, name="plan")
app.command("decisions")(decisions.decisions)
app.command("replay")(decisions.replay)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(__version__)
        raise typer.Exit


@app.callback()
def gridpivot(
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Version.")] = False,
) -> None:
    """Moves grid power between Bitcoin mining and AI work: ask the controller, lower a ceiling, run the demo."""


@app.command()
def sites(
    address: Address = LOCAL,
    ca: Ca = None,
    token_file: TokenFile = None,
    cert: Cert = None,
    key_file: KeyFile = None,
    as_json: Json = False,
) -> None:
    """All sites now, and the fleet's totals."""
    from ctl import shaping, tables
    from gridpivot.tables import show
    from gridpivot.v1 import operator_pb2 as op

    answer = ask(
        "ListSites", op.ListSitesRequest(), op.ListSitesResponse, address, ca, token_file, cert=cert, key_file=key_file
    )
    shape = shaping.sites_shape(answer)
    if as_json:
        console.print_json(shape)
    else:
        show(tables.sites_table(shape))


@app.command()
def site(
    name: Site,
    ai: Annotated[bool, typer.Option("--ai", help="AI pools: levers, promised and delivered, work.")] = False,
    address: Address = LOCAL,
    ca: Ca = None,
    token_file: TokenFile = None,
    cert: Cert = None,
    key_file: KeyFile = None,
    as_json: Json = False,
) -> None:
    """One site with its miners and AI pools."""
    from ctl import shaping, tables
    from gridpivot.tables import show
    from gridpivot.v1 import operator_pb2 as op

    answer = ask(
        "ListSites",
        op.ListSitesRequest(sites=[name]),
        op.ListSitesResponse,
        address,
        ca,
        token_file,
        cert=cert,
        key_file=key_file,
    )
    if ai:
        from ctl.ai import site_ai_shape
        from gridpivot.ai_figures import ai_table

        half = site_ai_shape(answer.sites[0])
        if as_json:
            console.print_json(half)
        else:
            show(ai_table(half))
        return
    shape = shaping.site_shape(answer.sites[0])
    if as_json:
        console.print_json(shape)
    else:
        show(tables.site_table(shape))


@app.command()
def explain(
    name: Site,
    every: Annotated[bool, typer.Option("--all", help="Every period ahead, not only the near ones.")] = False,
    address: Address = LOCAL,
    ca: Ca = None,
    token_file: TokenFile = None,
    cert: Cert = None,
    key_file: KeyFile = None,
    as_json: Json = False,
) -> None:
    """Which constraint binds at a site now and ahead, what it costs, and what a change would be worth."""
    from ctl import shaping, tables
    from gridpivot.tables import show
    from gridpivot.v1 import operator_pb2 as op

    answer = ask(
        "Explain",
        op.ExplainRequest(site=name),
        op.ExplainResponse,
        address,
        ca,
        token_file,
        SOLVING_S,
        cert=cert,
        key_file=key_file,
    )
    shape = shaping.explain_shape(answer)
    if as_json:
        console.print_json(shape)
    else:
        show(tables.explain_table(shape, every))


@app.command()
def override(
    name: Site,
    reason: Reason,
    ceiling_mw: Annotated[float | None, typer.Option(help="New, lower ceiling [MW].")] = None,
    duration: Annotated[str | None, typer.Option("--for", help="How long: 30m, 2h; without it until released.")] = None,
    release: Annotated[bool, typer.Option("--release", help="Let go of what operators lowered.")] = False,
    key: Key = None,
    address: Address = LOCAL,
    ca: Ca = None,
    token_file: TokenFile = None,
    cert: Cert = None,
    key_file: KeyFile = None,
    as_json: Json = False,
) -> None:
    """Lower a site's ceiling, or let go of what was lowered. Never raises it above the site's own."""
    from gridpivot import shapes
    from gridpivot.tables import mw, show
    from gridpivot.v1 import operator_pb2 as op

    if release == (ceiling_mw is not None) or (release and duration is not None):
        raise SettingsError("give either --ceiling-mw (with --for, if it should end) or --release")
    request = op.SetOverrideRequest(
        site=name,
        ceiling_w=None if ceiling_mw is None else ceiling_mw * 1e6,
        for_s=None if duration is None else seconds(duration, "--for", least_s=1.0),
        reason=reason,
        idempotency_key=key or uuid.uuid4().hex,
    )
    answer = ask("SetOverride", request, op.SetOverrideResponse, address, ca, token_file, cert=cert, key_file=key_file)
    shape = shapes.OverrideShape(site=name, released=release, ceiling_w=answer.ceiling_w, audit_id=answer.audit_id)
    if as_json:
        console.print_json(shape)
    else:
        show(f"{name}: ceiling now {mw(shape.ceiling_w)} (audit {shape.audit_id})")


@app.command(
    context_settings={"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []},
    help="One controller and forty simulated sites on this machine, with a live view (gridpivot demo --help).",
)
def demo(context: typer.Context) -> None:
    """Hand everything to `sim.demo`, which is imported only here; what it imports later may be missing too."""
    _hand_over("demo", context)


@app.command(
    context_settings={"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []},
    help="What each way of running a fleet would have earned on past prices (gridpivot backtest --help).",
)
def backtest(context: typer.Context) -> None:
    """Hand everything to `sim.backtest`, which is imported only here."""
    _hand_over("backtest", context)


def _hand_over(name: str, context: typer.Context) -> None:
    """Run the command `name` of the module `sim.name`, which the ctl extra alone does not bring."""
    try:
        play = getattr(importlib.import_module(f"sim.{name}"), name)
        command = typer.Typer(pretty_exceptions_enable=False, add_completion=False)
        command.command()(play)
        command(args=context.args, prog_name=f"gridpivot {name}")
    except ModuleNotFoundError as error:
        if error.name is None or error.name.split(".")[0] == "gridpivot":
            raise
        raise Refused(
            f"the {name} needs more than the ctl extra ({error.name} is missing): pip install 'gridpivot[sim]'"
        ) from error


def main() -> NoReturn:
    """Entry point."""
    console.run(app)
