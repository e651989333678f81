"""`gridpivot-controller agent-token` and `operator`: who may be let in, typed by somebody who may read the CA's key.

They write into the controller's database, whether it runs or not; a running controller sees it within two seconds.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from controller.cli_options import Config, Json, StateDir, load_settings
from gridpivot import console
from gridpivot.durations import seconds
from gridpivot.errors import Refused, SettingsError
from gridpivot.shapes_identity import AgentTokenShape, AgentTokensShape, OperatorFigures, OperatorsShape, TokenFigures
from gridpivot.vocabulary import Role

if TYPE_CHECKING:
    from controller.settings import ControllerSettings
    from controller.store.store import Store

T = TypeVar("T")
DEFAULT_VALID = "48h"
LONGEST_VALID_S = 30 * 86_400.0
NAME = re.compile(r"^[a-z0-9][a-z0-9._-]{0,62}$")

agent_token = typer.Typer(help="Tokens that let a site's agent in: single use, revocable.", no_args_is_help=True)
operator = typer.Typer(help="People and programs that may call the controller, and their roles.", no_args_is_help=True)


@asynccontextmanager
async def _store(settings: ControllerSettings) -> AsyncIterator[Store]:
    from controller.store.store import Store
    from gridpivot.clock import SystemClock

    if not settings.state_dir.is_dir():
        raise SettingsError(f"{settings.state_dir}: no such directory; run gridpivot-controller init first")
    store = await Store.open(settings.state_dir / "controller.db", SystemClock(), group_s=0.001)
    try:
        yield store
    finally:
        await store.close()


def _with_store(settings: ControllerSettings, work: Callable[[Store], Awaitable[T]]) -> T:
    async def run() -> T:
        async with _store(settings) as store:
            return await work(store)

    return asyncio.run(run())


def _moment(unix_ms: int) -> dt.datetime:
    return dt.datetime.fromtimestamp(unix_ms / 1000, dt.UTC)


@agent_token.command("create")
def create_token(
    site: Annotated[str, typer.Argument(help="Site, as in controller.toml.")],
    valid: Annotated[str, typer.Option(help="How long it may be used: 30m, 48h, 7d.")] = DEFAULT_VALID,
    config: Config = None,
    state_dir: StateDir = None,
    as_json: Json = False,
) -> None:
    """Print one token for one site. It is shown once, good once, and names the controller and its CA."""
    from controller.identity.enrolment import Enrolment
    from controller.identity.files import load_ca
    from controller.identity.upkeep import enrolment_terms
    from controller.service import read_signer
    from gridpivot.clock import SystemClock

    settings, valid_s = (
        load_settings(config, state_dir),
        seconds(valid, "--valid", least_s=60.0, most_s=LONGEST_VALID_S),
    )
    terms, known = enrolment_terms(settings, read_signer(settings)), {s.name for s in settings.sites}
    authority = load_ca(settings)

    async def work(store: Store) -> AgentTokenShape:
        enrolment = Enrolment(authority, terms, store.identities, None, SystemClock(), known.__contains__)
        text, row = await enrolment.create_token(site, valid_s)
        return AgentTokenShape(token=text, token_id=row.token_id, site=site, expires_at=_moment(row.expires_at_unix_ms))

    shape = _with_store(settings, work)
    if as_json:
        console.print_json(shape)
        return
    typer.echo(shape.token)
    told = f"token {shape.token_id} for {site}, good once until {shape.expires_at:%Y-%m-%d %H:%MZ}; at the site: gridpivot-agent enroll --token-file -"
    typer.echo(told, err=True)


@agent_token.command("list")
def list_tokens(config: Config = None, state_dir: StateDir = None, as_json: Json = False) -> None:
    """Every token by state; the tokens themselves are kept nowhere."""
    settings = load_settings(config, state_dir)
    now_ms = round(dt.datetime.now(dt.UTC).timestamp() * 1000)

    async def work(store: Store) -> AgentTokensShape:
        return AgentTokensShape(
            tokens=[
                TokenFigures(
                    token_id=row.token_id,
                    site=row.site,
                    state=row.state(now_ms),
                    created_at=_moment(row.created_at_unix_ms),
                    expires_at=_moment(row.expires_at_unix_ms),
                    used_from=row.used_from,
                )
                for row in await store.identities.tokens()
            ]
        )

    shape = _with_store(settings, work)
    if as_json:
        console.print_json(shape)
        return
    table = Table(box=None)
    for column in ("token", "site", "state", "expires", "used from"):
        table.add_column(column)
    for entry in shape.tokens:
        until = f"{entry.expires_at:%Y-%m-%d %H:%MZ}"
        table.add_row(entry.token_id, escape(entry.site), entry.state, until, escape(entry.used_from or ""))
    Console().print(table)


@agent_token.command("revoke")
def revoke_token(
    token_id: Annotated[str, typer.Argument(help="As agent-token list shows it.")],
    config: Config = None,
    state_dir: StateDir = None,
) -> None:
    """An unused token is good no more."""
    settings = load_settings(config, state_dir)
    now_ms = round(dt.datetime.now(dt.UTC).timestamp() * 1000)
    _with_store(settings, lambda store: store.identities.revoke_token(token_id, now_ms))
    typer.echo(f"token {token_id} is revoked")


@operator.command("add")
def add_operator(
    name: Annotated[str, typer.Argument(help="Who: small letters, digits, . _ -")],
    role: Annotated[Role, typer.Option(help="viewer looks, operator orders, admin decides about identities too.")],
    certificate: Annotated[
        Path | None, typer.Option(help="Write PREFIX.crt and PREFIX.key (0600) instead of printing a token.")
    ] = None,
    config: Config = None,
    state_dir: StateDir = None,
) -> None:
    """Let somebody call the controller; prints an API token once, or writes a client certificate."""
    import secrets

    from controller.identity.files import fleet_name, load_ca, write_new
    from controller.store.identities import CertificateRow, OperatorRow
    from gridpivot.link.certificates import issue_operator, load_pem, serial_of
    from gridpivot.link.token import secret_sha256

    if not NAME.match(name):
        raise SettingsError(f"operator {name!r}: use small letters, digits, dots, hyphens and underscores")
    settings, now = load_settings(config, state_dir), dt.datetime.now(dt.UTC)
    now_ms = round(now.timestamp() * 1000)
    token = secrets.token_urlsafe(32) if certificate is None else None
    row = OperatorRow(name, role.value, secret_sha256(token.encode()) if token else None, now_ms)

    async def work(store: Store) -> None:
        await store.identities.add_operator(row)
        if certificate is None:
            return
        authority = load_ca(settings)
        if authority is None:
            raise Refused("the CA's key is not kept here; add the operator without --certificate")
        pair = issue_operator(authority, fleet_name(settings), name, now)
        issued = load_pem(pair.chain_pem)
        await store.identities.add_certificate(
            CertificateRow(
                serial_of(issued),
                "operator",
                name,
                now_ms,
                round(issued.not_valid_after_utc.timestamp() * 1000),
                pair.chain_pem,
            )
        )
        write_new(certificate.with_suffix(".key"), pair.key_pem, 0o600)
        write_new(certificate.with_suffix(".crt"), pair.chain_pem, 0o644)

    _with_store(settings, work)
    if token is not None:
        typer.echo(token)
        typer.echo(f"token of {name} ({role.value}), shown once: keep it in a file of mode 0600", err=True)
    else:
        typer.echo(
            f"{name} ({role.value}): {certificate}.crt, {certificate}.key; use them with --cert and --key on port 7443"
        )


@operator.command("list")
def list_operators(config: Config = None, state_dir: StateDir = None, as_json: Json = False) -> None:
    """Who may call, and as what."""
    settings = load_settings(config, state_dir)

    async def work(store: Store) -> OperatorsShape:
        standing = await store.identities.standing(0)
        return OperatorsShape(
            operators=[
                OperatorFigures(
                    name=row.name,
                    role=row.role,
                    by="token" if row.token_sha256 is not None else "certificate",
                    created_at=_moment(row.created_at_unix_ms),
                    revoked=row.revoked_at_unix_ms is not None,
                )
                for row in standing.operators.values()
            ]
        )

    shape = _with_store(settings, work)
    if as_json:
        console.print_json(shape)
        return
    table = Table(box=None)
    for column in ("name", "role", "by", "since", "state"):
        table.add_column(column)
    table.add_row("operator", "admin", "token", "init", "the token file of init")
    for entry in shape.operators:
        state = "revoked" if entry.revoked else "good"
        table.add_row(escape(entry.name), entry.role, entry.by, f"{entry.created_at:%Y-%m-%d}", state)
    Console().print(table)


@operator.command("revoke")
def revoke_operator(
    name: Annotated[str, typer.Argument(help="Who.")], config: Config = None, state_dir: StateDir = None
) -> None:
    """Token and certificates of an operator are good no more."""
    settings = load_settings(config, state_dir)
    now_ms = round(dt.datetime.now(dt.UTC).timestamp() * 1000)
    if not _with_store(settings, lambda store: store.identities.revoke("operator", name, now_ms)):
        raise Refused(f"no operator {name!r} with anything to revoke; see operator list")
    typer.echo(f"{name} is revoked")
