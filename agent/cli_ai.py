"""`gridpivot-agent ai`: AI pools and levers at the site, and a way to free what an agent held that is gone for good."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from agent.cli_options import Config, Json, StateDir, load_settings
from agent.local_control import ask
from gridpivot import console
from gridpivot.errors import Refused

if TYPE_CHECKING:
    from agent.ai.workload import Step
    from agent.settings import GpuPoolSettings

RELEASE_S = 120.0  # a pool's whole release; each call inside has a deadline of its own
ai = typer.Typer(help="AI pools and what levers hold of them, at the site.", no_args_is_help=True)


@ai.command("show")
def show_pools(config: Config = None, state_dir: StateDir = None, as_json: Json = False) -> None:
    """Pools, levers, promised and delivered, work; as the running agent has it, with or without a link."""
    from gridpivot.ai_figures import ai_table
    from gridpivot.shapes_ai import SiteAiShape
    from gridpivot.tables import show

    settings = load_settings(config, state_dir)
    told = ask(settings.state_dir, {"op": "ai"})
    shape = SiteAiShape.model_validate({"site": settings.site, "report_age_s": 0.0, "pools": told["pools"]})
    watts = [pool.power_w for pool in shape.pools if pool.power_w is not None]
    shape = shape.model_copy(update={"ai_power_w": sum(watts) if len(watts) == len(shape.pools) else None})
    if as_json:
        console.print_json(shape)
    else:
        show(ai_table(shape))


@ai.command("release")
def release(
    pool: Annotated[str | None, typer.Argument(help="One pool; all of them without it.")] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    config: Config = None,
    state_dir: StateDir = None,
) -> None:
    """Give back drained nodes, closed queues and held jobs that carry gridpivot's mark, where no agent runs any more.

    Work starts again and draws power, and nobody watches the ceiling until an agent runs. A running agent gives back
    by itself, when there is room.
    """
    from agent.frame import take_lock

    settings = load_settings(config, state_dir)
    managed = [
        p for p in settings.gpu.pools if p.slurm is not None or p.kubernetes is not None or p.commands is not None
    ]
    wanted = [p for p in managed if pool in (None, p.name)]
    if not wanted:
        known = ", ".join(p.name for p in managed) or "none"
        raise Refused(f"{pool or 'settings'}: no pool with a workload manager; there are: {known}")
    try:
        lock = take_lock(settings.state_dir)
    except Refused as error:
        raise Refused(f"{error}; it gives back by itself when there is room (gridpivot-agent ai show)") from None
    with contextlib.closing(lock):
        _ask_first(yes, wanted)
        bad = sum(asyncio.run(_release(one)) for one in wanted)
        _forget(settings.state_dir / "ai-pulls.json", {one.name for one in wanted})
    raise typer.Exit(1 if bad else 0)


def _ask_first(yes: bool, wanted: list[GpuPoolSettings]) -> None:
    names = ", ".join(one.name for one in wanted)
    if yes:
        return
    if not sys.stdin.isatty():
        raise Refused(f"{names}: work starts again and draws power, unwatched; say --yes if that is meant")
    typer.confirm(f"{names}: work starts again and draws power, and no agent watches the ceiling. Go on?", abort=True)


async def _release(pool: GpuPoolSettings) -> int:
    """Release one pool and say each step; how many did not come back."""
    from agent.ai.assembly import workload_of
    from agent.ai.workload import WorkloadRefused
    from gridpivot.clock import SystemClock
    from gridpivot.vocabulary import LeverOutcome

    workload, _ = workload_of(pool, SystemClock())
    assert workload is not None
    steps: tuple[Step, ...] = ()
    try:
        async with asyncio.timeout(RELEASE_S):
            steps = await workload.release(None)
    except (WorkloadRefused, TimeoutError) as error:
        console.complain(f"{pool.name}: {error or f'no answer within {RELEASE_S:.0f} s'}")
        return 1
    finally:
        await workload.close()
    for step in steps:
        typer.echo(f"{pool.name}: {step.subject} {step.outcome.value} {step.detail}".rstrip())
    if not steps:
        typer.echo(f"{pool.name}: nothing there carries gridpivot's mark")
    return sum(step.outcome not in (LeverOutcome.DONE, LeverOutcome.GONE) for step in steps)


def _forget(path: Path, names: set[str]) -> None:
    """An agent that comes back must not renew what a person has given back."""
    from agent.ai.record import load_pulls, pulls_bytes
    from agent.durable import replace_file

    kept = load_pulls(path)
    if kept.keys() & names:
        replace_file(path, pulls_bytes({name: pulls for name, pulls in kept.items() if name not in names}))
