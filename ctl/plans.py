"""`gridpivot plan`: the plan in force at a site, and `plan preview`: what a grid event would do before it exists."""

from __future__ import annotations

from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from ctl.options import (
    LOCAL,
    SOLVING_S,
    Address,
    Ca,
    CeilingMw,
    CeilingPct,
    Cert,
    End,
    Json,
    KeyFile,
    Product,
    Site,
    Sites,
    Start,
    TokenFile,
    ask,
    event_fields,
)
from gridpivot import console


class PlanOf(TyperGroup):
    """A group whose first word may be a site: `plan falcon-1` means `plan show falcon-1`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Put the command in where it was left out."""
        if args and args[0] not in self.commands and args[0] not in ctx.help_option_names:
            args = ["show", *args]
        return super().parse_args(ctx, args)


app = typer.Typer(
    cls=PlanOf,
    help="The plan in force at a site (gridpivot plan NAME), or what a grid event would do (gridpivot plan preview).",
    no_args_is_help=True,
)


@app.command("show")
def show(
    name: Site,
    address: Address = LOCAL,
    ca: Ca = None,
    token_file: TokenFile = None,
    cert: Cert = None,
    key_file: KeyFile = None,
    as_json: Json = False,
) -> None:
    """The plan in force at a site, and what became of it; `gridpivot plan NAME` does the same."""
    from ctl import shaping, tables
    from gridpivot.tables import show
    from gridpivot.v1 import operator_pb2 as op

    answer = ask(
        "GetPlan",
        op.GetPlanRequest(site=name),
        op.GetPlanResponse,
        address,
        ca,
        token_file,
        cert=cert,
        key_file=key_file,
    )
    shape = shaping.plan_shape(name, answer)
    if as_json:
        console.print_json(shape)
    else:
        show(tables.plan_table(shape))


@app.command("preview")
def preview(
    names: Sites,
    event: Annotated[bool, typer.Option("--event", help="Preview a grid event: the only thing so far.")] = True,
    ceiling_pct: CeilingPct = None,
    ceiling_mw: CeilingMw = None,
    start: Start = "now",
    end: End = None,
    product: Product = "",
    address: Address = LOCAL,
    ca: Ca = None,
    token_file: TokenFile = None,
    cert: Cert = None,
    key_file: KeyFile = None,
    as_json: Json = False,
) -> None:
    """What a grid event would do: MW, machines and dollars. Nothing is recorded and nothing is sent."""
    from ctl import decision_tables, shaping
    from gridpivot.tables import show
    from gridpivot.v1 import operator_pb2 as op

    request = op.PreviewEventRequest(**event_fields(names, ceiling_pct, ceiling_mw, start, end, product=product))
    answer = ask(
        "PreviewEvent",
        request,
        op.PreviewEventResponse,
        address,
        ca,
        token_file,
        SOLVING_S,
        cert=cert,
        key_file=key_file,
    )
    shape = shaping.preview_shape(answer)
    if as_json:
        console.print_json(shape)
    else:
        show(decision_tables.preview_table(shape))
