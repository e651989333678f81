"""What every command of the operator shares: where the controller is, whom to trust, how to answer; and the one call."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from gridpivot.errors import SettingsError

Address = Annotated[
    str,
    typer.Option("--controller", envvar="GRIDPIVOT_CONTROLLER", help="Operator port, HOST:PORT.", show_default=True),
]
Ca = Annotated[Path | None, typer.Option("--ca", envvar="GRIDPIVOT_CA", help="CA to trust (PEM).")]
TokenFile = Annotated[
    Path | None,
    typer.Option("--token-file", envvar="GRIDPIVOT_TOKEN_FILE", help="File with the operator token (0600)."),
]
Cert = Annotated[
    Path | None,
    typer.Option("--cert", envvar="GRIDPIVOT_CERT", help="Operator's certificate, instead of a token; port 7443."),
]
KeyFile = Annotated[Path | None, typer.Option("--key", envvar="GRIDPIVOT_KEY", help="Key of that certificate (0600).")]
Json = Annotated[bool, typer.Option("--json", help="One JSON document on standard output.")]
Site = Annotated[str, typer.Argument(help="Site name.")]
Reason = Annotated[str, typer.Option("--reason", help="Why; goes into the audit record.")]
Key = Annotated[
    str | None, typer.Option("--idempotency-key", help="Same key, same effect: give it to be able to retry.")
]
LOCAL = "localhost:7444"
DEADLINE_S = 10.0
SOLVING_S = 120.0  # for questions that are solved before they are answered
Sites = Annotated[str, typer.Option("--sites", help="Sites with commas between them, or '*'.")]
CeilingPct = Annotated[float | None, typer.Option(help="Ceiling in per cent of each site's own.")]
CeilingMw = Annotated[float | None, typer.Option(help="Ceiling at each site [MW].")]
Start = Annotated[str, typer.Option(help="2024-08-20T19:00Z, now, or +15m.")]
Product = Annotated[
    str, typer.Option(help="Sold capacity that is called (ECRS); without a ceiling, what each site sold of it.")
]
End = Annotated[str | None, typer.Option(help="As --start; without it until released.")]


def ask(
    method: str,
    request: Any,
    answer: Any,
    address: str,
    ca: Path | None,
    token_file: Path | None,
    deadline_s: float = DEADLINE_S,
    *,
    cert: Path | None = None,
    key_file: Path | None = None,
) -> Any:
    """One call; the heavy import waits until there is one."""
    from ctl.client import Controller, connected

    with connected(Controller(address, ca, token_file, cert, key_file)) as client:
        return client.call(getattr(client.stub, method), request, answer, deadline_s)


def event_fields(
    names: str,
    ceiling_pct: float | None,
    ceiling_mw: float | None,
    start: str,
    end: str | None,
    product: str | None = None,
) -> dict[str, Any]:
    """An event as typed, as the fields of its request; raises SettingsError."""
    from datetime import UTC, datetime

    from ctl import words

    given = (ceiling_pct is not None) + (ceiling_mw is not None)
    if given > 1 or (given == 0 and not product):
        raise SettingsError("give exactly one of --ceiling-pct and --ceiling-mw")
    now = datetime.now(UTC)
    called = {} if product is None else {"product": product}
    return called | {
        "sites": [part.strip() for part in names.split(",") if part.strip()],
        "ceiling_w": None if ceiling_mw is None else ceiling_mw * 1e6,
        "ceiling_ratio": None if ceiling_pct is None else ceiling_pct / 100,
        # The controller's clock says when "now" is.
        "starts_at_unix_ms": None if start == "now" else words.moment_unix_ms(start, now),
        "ends_at_unix_ms": None if end is None else words.moment_unix_ms(end, now),
    }
