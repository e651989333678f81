"""Composition root of the agent's process: settings in, one site running, clean end on SIGTERM and SIGINT.

What a machine does not have (miners, GPUs, a meter, a controller) is said once and left out; the host always reports.
"""

from __future__ import annotations

import asyncio
import functools
import gc
from collections.abc import Callable, Coroutine
from typing import Any

import structlog

from agent.commissioner import Commissioner
from agent.equipment import Equipment, find_equipment
from agent.exporter import AgentExporter
from agent.frame import Part, Round, keep_status, run_parts, serve_pages, serve_rounds
from agent.hardware import Beats
from agent.identity.trust import addresses_of, load_planner_keys, uplink_target
from agent.identity.upkeep import Upkeep
from agent.settings import AgentSettings
from agent.site import SiteAgent
from agent.stage_record import meter_mark
from agent.status import status_of
from gridpivot.clock import Clock, SystemClock
from gridpivot.httpd import answer
from gridpivot.limits import raise_file_limit
from gridpivot.vocabulary import Stage

log = structlog.get_logger("agent.service")
SETTLED_AFTER_S = 90.0  # a first sweep with its slow facts, and a moment


async def serve(
    settings: AgentSettings,
    clock: Clock | None = None,
    *,
    wait: bool = False,
    reload: Callable[[], AgentSettings] | None = None,
) -> None:
    """Run until SIGTERM or SIGINT. `wait`: for another agent in this state directory to end, instead of Refused.

    SIGHUP begins anew with the settings that `reload` brings; so does equipment that was missing at the start.
    """
    clock = clock or SystemClock()
    raise_file_limit()
    await serve_rounds(settings, functools.partial(_serve_once, clock=clock), wait=wait, reload=reload)


async def _serve_once(run: Round, clock: Clock) -> None:
    settings = run.settings
    equipment = find_equipment(settings, clock)
    for line in equipment.missing:
        log.info("not found", what=line)
    agent = site_agent(settings, equipment, clock)
    per_device, bmcs = settings.http.per_device_series, equipment.bmcs
    exporter = AgentExporter(agent, equipment.miners, clock, per_device=per_device, bmcs=bmcs)
    pages = {"/metrics": exporter.metrics, "/healthz": answer("ok"), "/readyz": exporter.ready}
    http, address = await serve_pages(pages, settings.http)
    log.info("agent up", site=settings.site, http=address, stage=agent.policy.stage.value)
    governor = settings.governor
    if agent.policy.stage is Stage.FULL and not governor.wake_batch_devices and not governor.wake_interval_s:
        told = (
            "no interval and no count: machines wake as fast as power allows; set wake_interval_s or wake_batch_devices"
        )
        log.warning("wakes come at once", why=told)
    parts: list[Part] = [*equipment.work, agent.run, _settle_memory]
    parts += [functools.partial(work, agent.say) for work in equipment.telling]
    parts += [functools.partial(_anew_after, run, change) for change in equipment.changes]
    parts.append(
        lambda: keep_status(
            settings.state_dir, lambda: None if agent.actions is None else status_of(agent, clock.now())
        )
    )
    upkeep = upkeep_of(settings, agent, clock)
    if upkeep is not None:
        agent.certificate = upkeep.state
        parts.append(upkeep.run)
    try:
        await run_parts(run.stop, http, parts)
    finally:
        log.info("agent down", site=settings.site)


async def _anew_after(run: Round, change: Callable[[], Coroutine[Any, Any, str]]) -> None:
    """What a site is made of is laid out once; when that is no longer so, the layout is made again."""
    run.begin_anew(await change())
    await asyncio.Event().wait()


def site_agent(settings: AgentSettings, equipment: Equipment, clock: Clock) -> SiteAgent:
    """The site's loop over what was found on this machine."""
    commissioner = Commissioner(
        equipment.inventory,
        settings.state_dir,
        settings.governor.stage,
        meter_mark(settings.meter),
        required=settings.governor.commissioning,
    )
    agent = SiteAgent(
        settings.site,
        settings.policy(),
        equipment.inventory,
        equipment.hardware(settings),
        uplink_target(settings),
        load_planner_keys(settings.path(settings.uplink.planner_keys)),
        settings.state_dir,
        clock,
        Beats(settings.governor.beat_s, settings.report.rollup_s, settings.report.devices_s),
        settings.governor.event_lead_s,
        commissioner,
    )
    agent.more_handlers = equipment.handlers
    return agent


def upkeep_of(settings: AgentSettings, agent: SiteAgent, clock: Clock) -> Upkeep | None:
    """Who keeps the certificate alive; None where there is no link, or somebody else's files."""
    uplink, addresses = settings.uplink, addresses_of(settings)
    if addresses is None or not uplink.managed:
        return None

    def rotate() -> None:
        target = uplink_target(settings)
        if target is not None and agent.uplink is not None:
            agent.book.trust(load_planner_keys(settings.path(uplink.planner_keys)))
            agent.uplink.rotate(target)

    paths = settings.path(uplink.ca), settings.path(uplink.certificate), settings.path(uplink.key)
    return Upkeep(settings.site, settings.state_dir, addresses, paths, clock, rotate, agent.say)


async def _settle_memory() -> None:
    """Take what the first sweeps brought out of the garbage collector's sight: eleven thousand devices' memories live as
    long as the process, and looking through them again and again would hold the event loop for a tenth of a second."""
    await asyncio.sleep(SETTLED_AFTER_S)
    gc.collect()
    gc.freeze()
    await asyncio.Event().wait()
