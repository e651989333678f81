"""`gridpivot demo`: one controller, forty sites, a wall; then the bars.

Every process is a real one: `gridpivot-controller run`, `gridpivot-agent run` for the wire site, host processes for the
others; certificates are made at start, traffic stays on loopback. What happened is measured from true power.
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import json
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Annotated

import typer

from gridpivot.durations import seconds
from gridpivot.errors import SettingsError


def demo(
    sites: Annotated[int, typer.Option(min=1, max=200, help="Sites, the wire site included.")] = 40,
    devices_per_site: Annotated[int, typer.Option(min=50, max=50_000, help="Miners per virtual site.")] = 11_250,
    duration: Annotated[
        str | None,
        typer.Option(help="Such as 90s or 5m, counted from the last site connected; until Ctrl-C if left out."),
    ] = None,
    scenario: Annotated[
        str | None,
        typer.Option(
            help="tour (steps, spike, event, faults), quiet (AI steps only), day (AI steps in data time); "
            "tour, or day with --prices."
        ),
    ] = None,
    summary: Annotated[Path | None, typer.Option(help="Write the measured figures to this JSON file.")] = None,
    prices: Annotated[Path | None, typer.Option(help="CSV (or .gz): interval_start_utc,price_usd_per_mwh.")] = None,
    hashprice: Annotated[Path | None, typer.Option(help="CSV with date and hashprice_usd_ph_day.")] = None,
    start: Annotated[str | None, typer.Option(help="Data time to begin at, UTC, such as 2024-08-20T23:30Z.")] = None,
    speed: Annotated[
        float, typer.Option(min=0.1, max=1000, help="Compresses prices, wake times and the dispatch period.")
    ] = 4.0,
    seed: Annotated[int, typer.Option(help="Everything random comes from it.")] = 1,
    wire_site: Annotated[
        int, typer.Option(min=0, max=12_000, help="Miners on real sockets at the first site; 0 = no wire site.")
    ] = 200,
    wire_gpus: Annotated[int, typer.Option(min=0, max=16, help="GPUs behind the stand-in NVML.")] = 8,
    hosts: Annotated[int, typer.Option(min=1, max=4, help="Processes for the virtual sites.")] = 4,
    keep: Annotated[Path | None, typer.Option(help="Keep state and logs in this new directory.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the summary as JSON and nothing else.")] = False,
) -> None:
    """Forty simulated sites and one controller on this machine."""
    from sim.scenario import SCENARIOS
    from sim.stage import Stage, Wishes

    scenario = scenario or ("tour" if prices is None else "day")
    if scenario not in SCENARIOS:
        raise SettingsError(f"--scenario {scenario}: unknown; one of {', '.join(SCENARIOS)}")
    for option, path in (("--prices", prices), ("--hashprice", hashprice)):
        if path is not None and not path.is_file():
            raise SettingsError(f"{option} {path}: no such file; give a CSV file")
    directory = _directory(keep)
    wishes = Wishes(
        sites=sites,
        devices=devices_per_site,
        duration_s=None if duration is None else seconds(duration, "--duration", least_s=1.0, most_s=86_400.0),
        scenario=scenario,
        prices=prices.resolve() if prices else None,
        hashprice=hashprice.resolve() if hashprice else None,
        start_unix_s=None if start is None else utc(start),
        speed=speed,
        seed=seed,
        wire_miners=wire_site,
        wire_gpus=wire_gpus,
        hosts=hosts,
        summary_wanted=summary is not None or as_json or duration is not None,
    )
    try:
        result = asyncio.run(Stage(directory, wishes, quiet=as_json).perform())
    finally:
        if keep is None:
            shutil.rmtree(directory, ignore_errors=True)
    if result is None:
        return
    text = json.dumps(result, indent=2)
    if summary is not None:
        summary.write_text(text + "\n", encoding="utf-8")
    sys.stdout.write((text if as_json else json.dumps(result)) + "\n")
    if not result["ok"]:
        raise typer.Exit(1)


def _directory(keep: Path | None) -> Path:
    if keep is None:
        return Path(tempfile.mkdtemp(prefix="gridpivot-demo-"))
    with contextlib.suppress(FileExistsError):
        keep.mkdir(parents=True)
    if any(keep.iterdir()):
        raise SettingsError(f"--keep {keep}: not empty; give a new directory")
    return keep.resolve()


def utc(text: str) -> float:
    """Unix seconds of an ISO 8601 moment with its zone; raises SettingsError."""
    try:
        moment = dt.datetime.fromisoformat(text)
    except ValueError:
        raise SettingsError(f"--start {text}: expected something like 2024-08-20T23:30Z") from None
    if moment.tzinfo is None:
        raise SettingsError(f"--start {text}: has no zone; write 2024-08-20T23:30Z for UTC")
    return moment.timestamp()
