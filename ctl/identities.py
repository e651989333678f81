"""`gridpivot identity` and `gridpivot audit`: certificates of sites, who asks to come back, who changed what."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from ctl.options import LOCAL, Address, Ca, Cert, Json, KeyFile, Reason, Site, TokenFile, ask
from gridpivot import console

app = typer.Typer(help="Certificates of sites: who may speak, who asks to come back.", no_args_is_help=True)
Fingerprint = Annotated[str, typer.Option(help="As the agent shows it; at least its first 16 digits.")]


@app.command("list")
def identities(
    address: Address = LOCAL,
    ca: Ca = None,
    token_file: TokenFile = None,
    cert: Cert = None,
    key_file: KeyFile = None,
    as_json: Json = False,
) -> None:
    """Certificates of sites with their ends, and sites that wait for an approval."""
    from ctl import identity_tables
    from gridpivot.tables import show
    from gridpivot.v1 import operator_pb2 as op

    answer = ask(
        "ListIdentities",
        op.ListIdentitiesRequest(),
        op.ListIdentitiesResponse,
        address,
        ca,
        token_file,
        cert=cert,
        key_file=key_file,
    )
    shape = identity_tables.identities_shape(answer)
    if as_json:
        console.print_json(shape)
    else:
        show(identity_tables.identities_table(shape))


@app.command()
def approve(
    site: Site,
    fingerprint: Fingerprint,
    reason: Reason,
    address: Address = LOCAL,
    ca: Ca = None,
    token_file: TokenFile = None,
    cert: Cert = None,
    key_file: KeyFile = None,
    as_json: Json = False,
) -> None:
    """Let a site whose certificate has run out come back; compare the fingerprint by telephone."""
    _decide(site, fingerprint, True, reason, (address, ca, token_file), {"cert": cert, "key_file": key_file}, as_json)


@app.command()
def refuse(
    site: Site,
    fingerprint: Fingerprint,
    reason: Reason,
    address: Address = LOCAL,
    ca: Ca = None,
    token_file: TokenFile = None,
    cert: Cert = None,
    key_file: KeyFile = None,
    as_json: Json = False,
) -> None:
    """Refuse it."""
    _decide(site, fingerprint, False, reason, (address, ca, token_file), {"cert": cert, "key_file": key_file}, as_json)


def _decide(
    site: str, fingerprint: str, yes: bool, reason: str, where: tuple[Any, ...], own: dict[str, Any], as_json: bool
) -> None:
    from gridpivot.shapes_identity import DecidedShape
    from gridpivot.tables import show
    from gridpivot.v1 import operator_pb2 as op

    request = op.DecideRecoveryRequest(site=site, fingerprint=fingerprint, approve=yes, reason=reason)
    answer = ask("DecideRecovery", request, op.DecideRecoveryResponse, *where, **own)
    shape = DecidedShape(site=site, state=answer.state, audit_id=answer.audit_id)
    if as_json:
        console.print_json(shape)
    else:
        show(f"{site}: {shape.state} (audit {shape.audit_id})")


@app.command()
def revoke(
    site: Site,
    reason: Reason,
    address: Address = LOCAL,
    ca: Ca = None,
    token_file: TokenFile = None,
    cert: Cert = None,
    key_file: KeyFile = None,
    as_json: Json = False,
) -> None:
    """End every certificate and unused token of a site; its live stream is closed within seconds."""
    from gridpivot.shapes_identity import DecidedShape
    from gridpivot.tables import show
    from gridpivot.v1 import operator_pb2 as op

    request = op.RevokeSiteRequest(site=site, reason=reason)
    answer = ask("RevokeSite", request, op.RevokeSiteResponse, address, ca, token_file, cert=cert, key_file=key_file)
    shape = DecidedShape(site=site, state="revoked", audit_id=answer.audit_id)
    if as_json:
        console.print_json(shape)
    else:
        show(f"{site}: {answer.revoked} certificates and tokens revoked (audit {shape.audit_id})")


def audit(
    limit: Annotated[int, typer.Option(min=1, max=1000, help="Newest ones.")] = 50,
    address: Address = LOCAL,
    ca: Ca = None,
    token_file: TokenFile = None,
    cert: Cert = None,
    key_file: KeyFile = None,
    as_json: Json = False,
) -> None:
    """Who changed what, why, from where; orders given at sites too."""
    from ctl import identity_tables
    from gridpivot.tables import show
    from gridpivot.v1 import operator_pb2 as op

    answer = ask(
        "ListAudit",
        op.ListAuditRequest(limit=limit),
        op.ListAuditResponse,
        address,
        ca,
        token_file,
        cert=cert,
        key_file=key_file,
    )
    shape = identity_tables.audit_shape(answer)
    if as_json:
        console.print_json(shape)
    else:
        show(identity_tables.audit_table(shape))
