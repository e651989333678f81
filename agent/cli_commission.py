"""`gridpivot-agent commission`: walks a technician through the step test, feeder by feeder. The running agent does it."""

from __future__ import annotations

import shutil
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from agent.cli_options import Config, Json, StateDir, load_settings
from agent.local_control import ask
from gridpivot import console
from gridpivot.errors import Refused

if TYPE_CHECKING:
    from gridpivot.shapes_site import CommissionShape

LOOK_S = 1.0
PHASES = {"steady": "waiting for a steady meter", "shed": "asleep, watching the meter", "wake": "waking them again"}


def commission(
    config: Config = None,
    state_dir: StateDir = None,
    feeder: Annotated[list[str] | None, typer.Option(help="Only this one; may be given more than once.")] = None,
    percent: Annotated[float, typer.Option(help="Of the feeder's power, 2 to 5.")] = 3.0,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    stop: Annotated[bool, typer.Option("--stop", help="End a test that runs; what sleeps is woken.")] = False,
    restore: Annotated[bool, typer.Option("--restore", help="Wake what a test that was cut off left asleep.")] = False,
    json_: Json = False,
) -> None:
    """Shed a little on each feeder and see that the right meter falls, with the right sign and size."""
    settings = load_settings(config, state_dir)
    place = settings.state_dir
    if stop:
        _finish(_ask(place, "stop"), json_)
        return
    if restore:
        _ask(place, "restore")
    else:
        _confirm(feeder, percent, yes=yes)
        _ask(place, "start", feeders=feeder, percent=percent)
    try:
        shape = _watch(place, quiet=json_)
    except KeyboardInterrupt:
        _ask(place, "stop")
        console.complain("stopped; what sleeps is woken again: gridpivot-agent commission --stop shows how it stands")
        raise
    _finish(shape, json_)
    good = not shape.trouble and all(r.verdict == "passed" or restore for r in shape.results)
    raise typer.Exit(0 if good and not any(r.left_asleep for r in shape.results) else 1)


def _ask(state_dir: Path, do: str, **more: Any) -> CommissionShape:
    """One question to the running agent; raises Unreachable, or Refused with the agent's own sentence."""
    from gridpivot.shapes_site import CommissionShape

    return CommissionShape.model_validate(ask(state_dir, {"op": "commission", "do": do, **more}))


def _confirm(feeders: list[str] | None, percent: float, *, yes: bool) -> None:
    which = "feeder " + ", ".join(feeders) if feeders else "each feeder in turn"
    typer.echo(f"This puts miners to sleep that draw {percent:g} % of {which}, and wakes them again.", err=True)
    if yes:
        return
    if not sys.stdin.isatty() or typer.prompt("Type yes to begin", default="no") != "yes":
        raise Refused("nothing was done: it has to be confirmed, with yes or --yes")


def _watch(place: Path, *, quiet: bool) -> CommissionShape:
    """Look until it is over, and say what is going on."""
    with Console(stderr=True, quiet=quiet).status("") as status:
        while (shape := _ask(place, "look")).running:
            phase = PHASES.get(shape.phase or "", "getting ready")
            status.update(f"feeder {escape(shape.feeder or '?')}: {phase}; {shape.feeders_left} more")
            time.sleep(LOOK_S)
    return shape


def _finish(shape: CommissionShape, as_json: bool) -> None:
    if as_json:
        console.print_json(shape)
        return
    table = Table(box=None)
    for column in ("feeder", "verdict", "machines", "should fall", "fell", "after", "rose", "after", "what it means"):
        table.add_column(column)
    for r in shape.results:
        told = r.meaning + (f"; {r.left_asleep} still sleep: wake them by hand" if r.left_asleep else "")
        table.add_row(
            escape(r.feeder), r.verdict, str(r.machines), _kw(r.expected_w), _kw(r.fell_w), _s(r.fell_after_s),
            _kw(r.rose_w), _s(r.rose_after_s), escape(told),
        )  # fmt: skip
    Console(width=max(140, shutil.get_terminal_size().columns)).print(table)
    typer.echo(f"stage {shape.stage}" + (f": {shape.stage_reason}" if shape.stage_reason else ""))
    if shape.trouble:
        console.complain(shape.trouble)


def _kw(watts: float | None) -> str:
    return "-" if watts is None else f"{watts / 1e3:.1f} kW"


def _s(seconds: float | None) -> str:
    return "-" if seconds is None else f"{seconds:.0f} s"
