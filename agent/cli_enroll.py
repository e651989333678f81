"""`gridpivot-agent enroll`: one token in, an identity on disk. The key is made here and never leaves."""

from __future__ import annotations

import asyncio
import sys
import time
from pathlib import Path
from typing import Annotated

import typer

from agent.cli_options import Config, StateDir
from gridpivot.errors import GridpivotError, Refused, SettingsError

MOST_BYTES = 64 * 1024


def enroll(
    token_file: Annotated[
        Path,
        typer.Option(help="File with the token, or - for standard input: never as an argument, which others can see."),
    ],
    config: Config = None,
    state_dir: StateDir = None,
    force: Annotated[bool, typer.Option("--force", help="Replace an identity that is there.")] = False,
) -> None:
    """Trade a token for this site's (or node's) certificate; writes key, certificate, CA, planner keys and the addresses."""
    from agent.identity import asking, files
    from gridpivot.link import token as tokens
    from gridpivot.link.certificates import key_pem, load_key, new_key
    from gridpivot.ownership import give_to_owner

    text = _read(token_file)
    token = tokens.decode(text)
    site, node, place = _where(config, state_dir, token.site, token.node)
    if (site, node) != (token.site, token.node):
        raise SettingsError(
            f"the token is for {_named(token.site, token.node)}, these settings are for {_named(site, node)}; "
            "correct `site`, `role` and `node`, or ask for another token"
        )
    if files.is_enrolled(place) and not force:
        raise Refused(f"{place}/tls/site.crt: this site is enrolled already; give --force to replace its identity")
    if time.time() * 1000 >= token.expires_at_unix_ms:
        raise Refused("the token has expired (or this machine's clock is wrong); ask for another")
    key = load_key(files.keep_pending_key(place, "enrolment", key_pem(new_key())))
    try:
        identity = asyncio.run(asking.enrol(token.operator_address, token.ca_der, text, key, site))
    except GridpivotError:
        typer.echo("nothing was changed", err=True)
        raise
    chain = asking.chain_pem(identity)
    files.write_trust(place, token.ca_der, identity.planner_keys)
    files.write_pair(place, key_pem(key), chain, f"{round(time.time() * 1000):014d}")
    files.write_addresses(place, files.Addresses(token.session_address, token.operator_address))
    files.drop_pending_key(place, "enrolment")
    give_to_owner(place, (place / "tls", place / "planner", place / "uplink.json"))
    until = time.strftime("%Y-%m-%d", time.gmtime(identity.not_after_unix_ms / 1000))
    typer.echo(
        f"{_named(site, node)} is enrolled with {token.session_address}; its certificate is good until {until} and renews itself"
    )
    typer.echo(f"identity in {place}; next: gridpivot-agent check-config, then start the service")


def _read(token_file: Path) -> str:
    try:
        if str(token_file) != "-":
            return token_file.read_text(encoding="ascii", errors="replace")[:MOST_BYTES]
        if sys.stdin.isatty():
            typer.echo("paste the token, then press Enter:", err=True)
            return sys.stdin.readline(MOST_BYTES)
        return sys.stdin.read(MOST_BYTES)
    except OSError as error:
        raise SettingsError(f"{token_file}: cannot be read: {error.strerror}") from error


def _named(site: str, node: str) -> str:
    return f"node {node} of site {site}" if node else f"site {site}"


def _where(config: Path | None, state_dir: Path | None, site: str, node: str) -> tuple[str, str, Path]:
    """Site, node and state directory: from settings where there are any, else the token's and the default place."""
    import os

    from agent.cli_options import load_settings
    from agent.settings import DEFAULT_CONFIG, DEFAULT_STATE, ENV_PREFIX

    if config is None and not DEFAULT_CONFIG.exists() and f"{ENV_PREFIX}__SITE" not in os.environ:
        return site, node, state_dir or DEFAULT_STATE
    settings = load_settings(config, state_dir)
    return settings.site, settings.node or "", settings.state_dir
