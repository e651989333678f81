"""Composition root of a node's process: settings in, GPUs held and reported, clean end on SIGTERM and SIGINT.

Without a link it holds the fallbacks it knows. It ends without touching a limit: what it held stays, and its guard,
where there is one, falls back.
"""

from __future__ import annotations

import datetime as dt
import functools
from collections.abc import Callable

import structlog

from agent.bmc.outcomes import BmcOutcome
from agent.bmc.reader import BmcReader
from agent.frame import Part, Round, keep_status, run_parts, serve_pages, serve_rounds
from agent.gpu.bindings import load_bindings
from agent.gpu.guard_service import BEAT_S as GUARD_BEAT_S
from agent.gpu.guard_service import DEADLINE_S as GUARD_DEADLINE_S
from agent.gpu.nvml import NvmlReader
from agent.gpu.pools import NvmlPools
from agent.gpu.worker import Worker
from agent.identity.trust import addresses_of, uplink_target
from agent.identity.upkeep import CertificateState, Upkeep
from agent.node.exporter import NodeExporter
from agent.node.gpus import NodeGpus
from agent.node.session import NodeLink
from agent.node.wall import HostWall
from agent.settings import AgentSettings
from gridpivot import __version__
from gridpivot.clock import Clock, SystemClock
from gridpivot.errors import GridpivotError
from gridpivot.httpd import answer
from gridpivot.shapes import AgentStatusShape
from gridpivot.vocabulary import EventKind

log = structlog.get_logger("agent.node")


def way_back(node: str) -> str:
    """What a person does when a node's certificate has run out."""
    return f"on the site: gridpivot-agent node-token create {node}; here: gridpivot-agent enroll --force --token-file -"


async def serve_node(
    settings: AgentSettings,
    clock: Clock | None = None,
    *,
    wait: bool = False,
    reload: Callable[[], AgentSettings] | None = None,
) -> None:
    """Run until SIGTERM or SIGINT. `wait`: for another agent in this state directory to end, instead of Refused.

    SIGHUP begins anew with the settings that `reload` brings.
    """
    await serve_rounds(settings, functools.partial(_serve_once, clock=clock or SystemClock()), wait=wait, reload=reload)


async def _serve_once(run: Round, clock: Clock) -> None:
    settings = run.settings
    assert settings.node is not None
    bindings, said = load_bindings()
    if bindings is None:
        raise GridpivotError("; ".join(said))
    target = uplink_target(settings)
    gpus = NodeGpus(NvmlPools(Worker("nvml"), NvmlReader(bindings), (), settings.gpu, clock), settings.state_dir, clock)
    guarded_s = None
    if settings.gpu.guard_socket is not None:
        guarded_s = settings.gpu.guard_lease_s + GUARD_BEAT_S + GUARD_DEADLINE_S
    bmc = None if settings.bmc is None else BmcReader(settings.node, settings.bmc, clock)
    link = None
    if target is None:
        log.warning("no site agent in settings, and not enrolled: GPUs are read, and nobody hears of them")
    else:
        wall = HostWall(settings.gpu, bmc, clock)
        link = NodeLink(target, settings.node, gpus, guarded_s, wall.told, clock)
    upkeep = None if link is None else _upkeep(settings, link, clock)
    certificate = None if upkeep is None else upkeep.state
    exporter = NodeExporter(settings.site, gpus, None if link is None else link.state, certificate, bmc, clock)
    pages = {"/metrics": exporter.metrics, "/healthz": answer("ok"), "/readyz": exporter.ready}
    http, address = await serve_pages(pages, settings.http)
    log.info("node up", site=settings.site, node=settings.node, http=address, guard=guarded_s is not None)
    parts: list[Part] = [
        gpus.nvml.run,
        gpus.watch,
        lambda: keep_status(settings.state_dir, lambda: node_status(settings, gpus, link, certificate, bmc, clock)),
    ]
    parts += [] if link is None else [link.run]
    parts += [] if bmc is None else [bmc.run]
    parts += [] if upkeep is None else [upkeep.run]
    try:
        await run_parts(run.stop, http, parts)
    finally:
        log.info("node down", node=settings.node)


def _upkeep(settings: AgentSettings, link: NodeLink, clock: Clock) -> Upkeep | None:
    """Who keeps the certificate alive; None where somebody else's files are used."""
    uplink, addresses = settings.uplink, addresses_of(settings)
    if addresses is None or not uplink.managed:
        return None

    def rotate() -> None:
        target = uplink_target(settings)
        if target is not None:
            link.rotate(target)

    def say(kind: EventKind, message: str) -> None:
        log.info("event", kind=kind.value, message=message)

    assert settings.node is not None
    paths = settings.path(uplink.ca), settings.path(uplink.certificate), settings.path(uplink.key)
    return Upkeep(settings.site, settings.state_dir, addresses, paths, clock, rotate, say, way_back(settings.node))


def node_status(
    settings: AgentSettings,
    gpus: NodeGpus,
    link: NodeLink | None,
    certificate: CertificateState | None,
    bmc: BmcReader | None,
    clock: Clock,
) -> AgentStatusShape:
    """How the node stands, in the shape of `gridpivot-agent status`."""
    now, readings = clock.now(), gpus.readings
    watts = [r.power_w for r in readings if r.power_w is not None]
    left_s = gpus.lease.ends_s - now.monotonic_s
    lost = sum(r.lost for r in readings)
    notes = [f"node {settings.node}: {len(readings)} GPUs, {lost} lost, NVML {gpus.nvml.state.value}"]
    if link is not None and not link.state.connected and link.state.last_error:
        notes.append(f"link: {link.state.last_error}")
    if left_s <= 0 and gpus.lease.fallback_w:
        notes.append(f"no lease: {len(gpus.lease.fallback_w)} GPUs are held to their fallbacks")
    if gpus.trouble:
        notes.append(f"fallbacks: {gpus.trouble}")
    if bmc is not None and bmc.outcome not in (None, BmcOutcome.OK):
        notes.append(f"BMC: {bmc.detail}")
    if certificate is not None and certificate.trouble:
        notes.append(f"certificate: {certificate.trouble}")
    ends_s = None if certificate is None else certificate.not_after_unix_s
    return AgentStatusShape(
        site=settings.site,
        agent_version=__version__,
        running=True,
        observed_at=dt.datetime.fromtimestamp(now.unix_s, dt.UTC),
        link=None if link is None else ("connected" if link.state.connected else "down"),
        ai_power_w=sum(watts) if watts else None,
        device_count=len(readings),
        lease_remaining_s=max(0.0, left_s) if left_s > float("-inf") else None,
        certificate_ends_at=None if ends_s is None else dt.datetime.fromtimestamp(ends_s, dt.UTC),
        notes=notes,
    )
