"""`gridpivot decisions` and `gridpivot replay`: what dispatch decided, and whether it would decide the same again."""

from __future__ import annotations

from typing import Annotated

import typer

from ctl.options import LOCAL, SOLVING_S, Address, Ca, Cert, Json, KeyFile, TokenFile, ask
from gridpivot import console


def decisions(
    limit: Annotated[int, typer.Option(min=1, max=1_000, help="How many of the newest.")] = 20,
    address: Address = LOCAL,
    ca: Ca = None,
    token_file: TokenFile = None,
    cert: Cert = None,
    key_file: KeyFile = None,
    as_json: Json = False,
) -> None:
    """The newest decisions of dispatch, newest last."""
    from ctl import decision_tables, shaping
    from gridpivot.tables import show
    from gridpivot.v1 import operator_pb2 as op

    request = op.ListDecisionsRequest(limit=limit)
    answer = ask(
        "ListDecisions", request, op.ListDecisionsResponse, address, ca, token_file, cert=cert, key_file=key_file
    )
    shape = shaping.decisions_shape(answer)
    if as_json:
        console.print_json(shape)
    else:
        show(decision_tables.decisions_table(shape))


def replay(
    decision: Annotated[str, typer.Argument(help="Identity, as gridpivot decisions lists it.")],
    address: Address = LOCAL,
    ca: Ca = None,
    token_file: TokenFile = None,
    cert: Cert = None,
    key_file: KeyFile = None,
    as_json: Json = False,
) -> None:
    """Take a decision again from its record and compare it bit for bit; exit code 1 if anything differs."""
    from ctl import decision_tables, shaping
    from gridpivot.tables import show
    from gridpivot.v1 import operator_pb2 as op

    request = op.ReplayDecisionRequest(decision_id=decision)
    answer = ask(
        "ReplayDecision",
        request,
        op.ReplayDecisionResponse,
        address,
        ca,
        token_file,
        SOLVING_S,
        cert=cert,
        key_file=key_file,
    )
    shape = shaping.replay_shape(answer)
    if as_json:
        console.print_json(shape)
    else:
        show(decision_tables.replay_table(shape))
    if not shape.same:
        raise typer.Exit(1)
