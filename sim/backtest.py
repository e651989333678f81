"""`gridpivot backtest`: what each way of running a fleet would have earned on past prices, and what it missed."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer
from rich.box import SIMPLE
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from controller.dispatch.parameters import Parameters
from controller.settlement.account import Account
from gridpivot.errors import SettingsError
from gridpivot.shapes_backtest import AccountFigures, BacktestShape, PolicyFigures, SiteAccountFigures
from sim.backtest_run import Backtest, Files, Past, Told, moment, run

POLICIES = "static,threshold,merit-order,lp,foresight"
EVERY = 50  # intervals between two turns of the progress bar


def backtest(
    fleet: Annotated[Path, typer.Option(help="Fleet file (TOML); docs/backtest.md shows every key.")],
    prices: Annotated[
        list[str], typer.Option(help="Real-time prices: FILE or REGION=FILE, CSV or Parquet; may be repeated.")
    ],
    day_ahead: Annotated[
        list[str] | None, typer.Option(help="Day-ahead prices, FILE or REGION=FILE; known once published.")
    ] = None,
    hashprice: Annotated[
        Path | None, typer.Option(help="Daily CSV with date and hashprice_usd_ph_day; 50 USD/PH/day without.")
    ] = None,
    policies: Annotated[
        str, typer.Option(help="Separated by commas; docs/backtest.md says what each one does.")
    ] = POLICIES,
    begin: Annotated[str | None, typer.Option("--from", help="First moment, such as 2024-07-01 (UTC).")] = None,
    end: Annotated[str | None, typer.Option("--to", help="End, not included, such as 2024-08-01 (UTC).")] = None,
    report: Annotated[Path | None, typer.Option(help="Write charts and tables to this HTML file.")] = None,
    time_column: Annotated[str | None, typer.Option(help="Column of interval starts; guessed without.")] = None,
    price_column: Annotated[str | None, typer.Option(help="Column of prices; guessed without.")] = None,
    day_ahead_column: Annotated[str | None, typer.Option(help="The same in day-ahead files.")] = None,
    timezone: Annotated[str | None, typer.Option(help="Zone (IANA) of times without an offset.")] = None,
    published_at: Annotated[
        float, typer.Option(min=0, max=24, help="Local hour at which tomorrow's day-ahead prices are out.")
    ] = 14.0,
    as_json: Annotated[
        bool, typer.Option("--json", help="One JSON document, in one line, on standard output.")
    ] = False,
) -> None:
    """Policies settled on the same past prices, demand and events, against perfect foresight."""
    names = tuple(dict.fromkeys(word.strip() for word in policies.split(",") if word.strip()))
    if not names:
        raise SettingsError(f"--policies: names none; such as {POLICIES}")
    if report is not None and not report.parent.is_dir():
        raise SettingsError(f"--report {report}: no such directory; make it first")
    files = Files(
        fleet, tuple(prices), tuple(day_ahead or ()), hashprice, time_column, price_column, day_ahead_column,
        timezone, published_at,
    )  # fmt: skip
    past = Past(files)
    scenario = past.scenario(
        None if begin is None else moment(begin, "--from"), None if end is None else moment(end, "--to")
    )
    with progress() as told:
        result = Backtest(files, scenario, run(scenario, names, Parameters(), told), tuple(past.notes))
    shape = shape_of(result)
    if report is not None:
        from sim.report import write_report

        write_report(result, shape, report)
    if as_json:
        sys.stdout.write(shape.model_dump_json() + "\n")
    else:
        Console().print(table_of(shape))
        for note in shape.notes:
            sys.stdout.write(f"{note}\n")


@contextmanager
def progress() -> Iterator[Told]:
    """A bar per policy on standard error."""
    columns = (TextColumn("{task.description:>20}"), BarColumn(), TextColumn("{task.percentage:>3.0f} %"))
    with Progress(*columns, TimeRemainingColumn(), console=Console(stderr=True)) as bars:
        tasks: dict[str, int] = {}

        def told(policy: str, done: int, of: int) -> None:
            if policy not in tasks:
                tasks[policy] = bars.add_task(policy, total=of)
            if done % EVERY == 0 or done == of:
                bars.update(tasks[policy], completed=done)  # type: ignore[arg-type]

        yield told


def shape_of(result: Backtest) -> BacktestShape:
    """The document."""
    scenario = result.scenario
    return BacktestShape(
        fleet=str(result.files.fleet),
        begins_at=datetime.fromtimestamp(float(scenario.starts_unix_s[0]), UTC),
        ends_at=datetime.fromtimestamp(float(scenario.starts_unix_s[-1]) + scenario.width_s, UTC),
        interval_s=scenario.width_s,
        intervals=scenario.intervals,
        prices=list(result.files.prices),
        day_ahead=list(result.files.day_ahead),
        hashprice=str(result.files.hashprice or "50 USD/PH/day"),
        calls=sum(len(site.calls) for site in scenario.sites),
        notes=[*result.notes, *scenario.notes],
        policies=[
            PolicyFigures(
                policy=outcome.policy,
                regret_ratio=result.regret(outcome),
                wall_s=outcome.wall_s,
                sites=[SiteAccountFigures(site=s.account.site, **_figures(s.account)) for s in outcome.sites],
                **_figures(outcome.account),
            )
            for outcome in result.outcomes
        ],
    )


def _figures(account: Account) -> dict[str, float]:
    figures = {"margin_usd": account.margin_usd, **asdict(account)}
    return {name: float(figures[name]) for name in AccountFigures.model_fields}


def table_of(shape: BacktestShape) -> Table:
    """The document for a person."""
    days = (shape.ends_at - shape.begins_at).total_seconds() / 86_400
    table = Table(
        box=SIMPLE,
        padding=(0, 1),
        title=f"{shape.begins_at:%Y-%m-%d %H:%M}Z, {days:g} days, {shape.intervals} intervals",
    )
    for name in ("policy", "margin USD", "regret %", "MWh", "wakes", "SLA\nMWh", "DR\nMWh", "other\nMWh"):
        table.add_column(name, justify="left" if name == "policy" else "right", no_wrap=True)
    for p in shape.policies:
        other = p.ceiling_excess_mwh + p.feeder_excess_mwh + p.sold_shortfall_mwh
        table.add_row(
            p.policy,
            f"{p.margin_usd:,.0f}",
            "-" if p.regret_ratio is None else f"{100 * p.regret_ratio:.3f}",
            f"{p.energy_mwh:,.0f}",
            f"{p.wakes:,.0f}",
            f"{p.guaranteed_unserved_mwh:.3f}",
            f"{p.dr_shortfall_mwh:.3f}",
            f"{other:.3f}",
        )
    return table
