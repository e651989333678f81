"""`gridpivot event`: ceilings over sites for a time: create, list, release."""

from __future__ import annotations

import uuid
from typing import Annotated

import typer

from ctl.options import (
    LOCAL,
    Address,
    Ca,
    CeilingMw,
    CeilingPct,
    Cert,
    End,
    Json,
    Key,
    KeyFile,
    Product,
    Reason,
    Sites,
    Start,
    TokenFile,
    ask,
    event_fields,
)
from gridpivot import console

app = typer.Typer(help="Grid events: a ceiling over sites for a time.", no_args_is_help=True)


@app.command("create")
def create_event(
    names: Sites,
    reason: Reason,
    ceiling_pct: CeilingPct = None,
    ceiling_mw: CeilingMw = None,
    start: Start = "now",
    end: End = None,
    product: Product = "",
    key: Key = None,
    address: Address = LOCAL,
    ca: Ca = None,
    token_file: TokenFile = None,
    cert: Cert = None,
    key_file: KeyFile = None,
    as_json: Json = False,
) -> None:
    """Create a grid event, or call capacity that was sold."""
    from gridpivot import shapes
    from gridpivot.tables import show
    from gridpivot.v1 import operator_pb2 as op

    request = op.CreateEventRequest(
        **event_fields(names, ceiling_pct, ceiling_mw, start, end, product=product),
        reason=reason,
        idempotency_key=key or uuid.uuid4().hex,
    )
    answer = ask("CreateEvent", request, op.CreateEventResponse, address, ca, token_file, cert=cert, key_file=key_file)
    shape = shapes.EventShape(event_id=answer.event_id, sites=list(answer.sites), audit_id=answer.audit_id)
    if as_json:
        console.print_json(shape)
    else:
        show(f"event {shape.event_id} over {', '.join(shape.sites)} (audit {shape.audit_id})")


@app.command("list")
def list_events(
    ended: Annotated[bool, typer.Option("--ended", help="Also those that ended within the last day.")] = False,
    address: Address = LOCAL,
    ca: Ca = None,
    token_file: TokenFile = None,
    cert: Cert = None,
    key_file: KeyFile = None,
    as_json: Json = False,
) -> None:
    """Grid events and overrides that are in force or to come."""
    from ctl import identity_tables
    from gridpivot.tables import show
    from gridpivot.v1 import operator_pb2 as op

    request = op.ListEventsRequest(ended=ended)
    answer = ask("ListEvents", request, op.ListEventsResponse, address, ca, token_file, cert=cert, key_file=key_file)
    shape = identity_tables.events_shape(answer)
    if as_json:
        console.print_json(shape)
    else:
        show(identity_tables.events_table(shape))


@app.command("release")
def release_event(
    event_id: Annotated[str, typer.Argument(help="As event list shows it.")],
    reason: Reason,
    key: Key = None,
    address: Address = LOCAL,
    ca: Ca = None,
    token_file: TokenFile = None,
    cert: Cert = None,
    key_file: KeyFile = None,
    as_json: Json = False,
) -> None:
    """End a grid event before its time, or one that has no end."""
    from gridpivot.shapes_identity import ReleasedShape
    from gridpivot.tables import show
    from gridpivot.v1 import operator_pb2 as op

    request = op.ReleaseEventRequest(event_id=event_id, reason=reason, idempotency_key=key or uuid.uuid4().hex)
    answer = ask(
        "ReleaseEvent", request, op.ReleaseEventResponse, address, ca, token_file, cert=cert, key_file=key_file
    )
    shape = ReleasedShape(event_id=event_id, sites=list(answer.sites), audit_id=answer.audit_id)
    if as_json:
        console.print_json(shape)
    else:
        show(f"event {event_id} no longer holds {', '.join(shape.sites)} (audit {shape.audit_id})")
