"""`make chaos`: run the faults, print the table, last line one JSON object; exit code 1 when a bar is missed."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import Progress

from gridpivot import console
from gridpivot.errors import SettingsError
from gridpivot.limits import raise_file_limit
from sim.chaos.outcome import Outcome, summary, table
from sim.chaos.scenarios import SCENARIOS, Scenario

LONGEST_S = {True: 120.0, False: 900.0}
app = typer.Typer(pretty_exceptions_enable=False, add_completion=False)


async def attempt(name: str, scenario: Scenario, short: bool) -> Outcome:
    """One scenario in a directory of its own; whatever breaks is its outcome."""
    began_s = time.monotonic()
    with tempfile.TemporaryDirectory(prefix=f"chaos-{name}-") as place:
        try:
            async with asyncio.timeout(LONGEST_S[short]):
                outcome = await scenario(Path(place), short)
        except Exception as error:  # a scenario that breaks is a finding, not the end of the others
            outcome = Outcome(name, ok=False, saw="", how="", note=f"{type(error).__name__}: {error}"[:300])
    return dataclasses.replace(outcome, took_s=round(time.monotonic() - began_s, 1))


@app.command()
def chaos(
    short: Annotated[bool, typer.Option("--short", help="Shorter times, as in CI.")] = False,
    only: Annotated[list[str] | None, typer.Option(help="Scenarios whose names begin so; more than once.")] = None,
    show: Annotated[bool, typer.Option("--list", help="Only name them.")] = False,
) -> None:
    """Every fault of the book against a real controller and complete agents, on loopback."""
    from gridpivot.observability import configure

    if show:
        typer.echo("\n".join(SCENARIOS))
        return
    chosen = {n: s for n, s in SCENARIOS.items() if not only or any(n.startswith(word) for word in only)}
    if not chosen:
        raise SettingsError(f"--only {only}: no such scenario; see --list")
    with Path(tempfile.gettempdir(), "gridpivot-chaos.log").open("w", encoding="utf-8") as log:
        configure("json", "warning", stream=log)
        raise_file_limit(1_000_000)
        outcomes = []
        with Progress(console=Console(stderr=True), transient=True) as progress:
            task = progress.add_task("", total=len(chosen))
            for name, scenario in chosen.items():
                progress.update(task, description=name)
                outcomes.append(asyncio.run(attempt(name, scenario, short)))
                progress.advance(task)
    Console(width=200).print(table(outcomes))
    found = summary(outcomes, short)
    sys.stdout.write(json.dumps(found) + "\n")
    if not found["ok"]:
        raise typer.Exit(1)


if __name__ == "__main__":
    console.run(app)
