"""The AI half of `gridpivot-agent doctor`: GPUs, guard, exporters, schedulers, throughput, pool meters. Bounded, read-only."""

from __future__ import annotations

import asyncio
import socket
import time

from agent.settings import AgentSettings, GpuPoolSettings
from gridpivot.clock import SystemClock
from gridpivot.errors import GridpivotError
from gridpivot.shapes import CheckFigures
from gridpivot.vocabulary import Stage

DEADLINE_S = 3.0
LOOK_S = 15.0


def ai_checks(settings: AgentSettings) -> list[CheckFigures]:
    """GPUs and guard of this machine, then what each pool names."""
    checks = [_gpus(settings), _nodes(settings), gpu_guard_check(settings)]
    for pool in settings.gpu.pools:
        if pool.dcgm is not None:
            checks.append(asyncio.run(_exporters(pool)))
        if any(manager is not None for manager in (pool.slurm, pool.kubernetes, pool.commands)):
            checks.append(asyncio.run(_workload(pool)))
        if pool.throughput is not None:
            checks.append(asyncio.run(_throughput(pool)))
        if pool.meter is not None:
            checks.append(_meter(pool))
        checks += _bmcs(pool)
    return checks


def _bmcs(pool: GpuPoolSettings) -> list[CheckFigures]:
    """Each BMC once; those of nodes are to switch them too."""
    if not pool.bmcs:
        return []
    from agent.bmc.doctor import bmc_checks

    return bmc_checks([(one.node, one, bool(pool.nodes) and not one.shutdown_command) for one in pool.bmcs])


def _gpus(settings: AgentSettings) -> CheckFigures:
    local = tuple(pool for pool in settings.gpu.pools if pool.dcgm is None and not pool.nodes)
    if not local:
        return CheckFigures(name="GPUs", outcome="skipped", detail="no GPU pools of this machine in settings")
    from agent.gpu.opening import open_pools

    side = open_pools(settings.gpu.model_copy(update={"pools": local}))
    if side.pools is None:
        remedy = "install the NVIDIA driver, or drop [[gpu.pools]]"
        return CheckFigures(name="GPUs", outcome="failed", detail="; ".join(side.missing), remedy=remedy)
    side.pools.close()
    return CheckFigures(name="GPUs", outcome="ok", detail=f"{sum(p.gpu_count for p in side.declared)} GPUs answer")


def _nodes(settings: AgentSettings) -> CheckFigures:
    if not any(pool.nodes for pool in settings.gpu.pools):
        return CheckFigures(name="nodes", outcome="skipped", detail="no pool names nodes")
    from agent.cli_nodes import listed

    try:
        nodes = listed(settings).nodes
    except GridpivotError as error:
        return CheckFigures(name="nodes", outcome="failed", detail=str(error), remedy="until then no node can come")
    unknown = [one.node for one in nodes if one.state not in ("valid", "revoked")]
    down = [one.node for one in nodes if one.link == "down" and one.state == "valid"]
    if unknown or down:
        said = [f"not enrolled: {', '.join(unknown[:5])}"] if unknown else []
        said += [f"not connected: {', '.join(down[:5])}"] if down else []
        return CheckFigures(
            name="nodes",
            outcome="warning",
            detail="; ".join(said),
            remedy="gridpivot-agent node-token create NAME; on the node: gridpivot-agent doctor",
        )
    return CheckFigures(name="nodes", outcome="ok", detail=f"{len(nodes)} nodes, all enrolled")


def gpu_guard_check(settings: AgentSettings) -> CheckFigures:
    """Whether somebody holds fallbacks when this process is gone."""
    name, path = "GPU guard", settings.gpu.guard_socket
    acts = settings.governor.stage in (Stage.SHED_ONLY, Stage.FULL)
    local = any(pool.dcgm is None and not pool.nodes for pool in settings.gpu.pools)
    if settings.role == "site" and (not local or (path is None and not acts)):
        return CheckFigures(name=name, outcome="skipped", detail="no limits are set here")
    if path is None:
        return CheckFigures(
            name=name,
            outcome="warning",
            detail="when this agent dies nobody sets GPUs to their fallback limits",
            remedy="install gridpivot-gpu-guard.service and set gpu.guard_socket",
        )
    try:
        with socket.socket(socket.AF_UNIX) as guard:
            guard.settimeout(DEADLINE_S)
            guard.connect(str(path))
            guard.sendall(b'{"lease_s": 1, "gpus": {}}\n')  # renews nothing
            answered = guard.recv(4096)
    except OSError as error:
        answered, why = b"", error.strerror or str(error)
    else:
        why = answered.decode(errors="replace").strip() or "no answer"
    if b'"error":""' in answered:
        return CheckFigures(name=name, outcome="ok", detail=f"{path} answers")
    return CheckFigures(
        name=name, outcome="failed", detail=f"{path}: {why}", remedy="systemctl status gridpivot-gpu-guard"
    )


async def _exporters(pool: GpuPoolSettings) -> CheckFigures:
    import httpx

    from agent.gpu.dcgm import ScrapeFailed, scrape

    assert pool.dcgm is not None
    seen, troubles = 0, []
    async with httpx.AsyncClient(follow_redirects=False, trust_env=False) as client:
        for url in pool.dcgm.urls:
            try:
                seen += len((await scrape(client, url, pool.dcgm.deadline_s)).readings)
            except ScrapeFailed as error:
                troubles.append(str(error))
    name, expected = f"exporters of {pool.name}", pool.dcgm.gpus_expected
    if troubles or seen < expected:
        detail = "; ".join([f"{seen} of {expected} GPUs seen", *troubles[:3]])
        remedy = "start dcgm-exporter there, or correct urls and gpus_expected"
        return CheckFigures(name=name, outcome="failed", detail=detail, remedy=remedy)
    return CheckFigures(name=name, outcome="ok", detail=f"{seen} GPUs seen, {expected} expected")


async def _workload(pool: GpuPoolSettings) -> CheckFigures:
    from agent.ai.assembly import workload_of

    name = f"scheduler of {pool.name}"
    workload, _ = workload_of(pool, SystemClock())
    assert workload is not None
    try:
        async with asyncio.timeout(LOOK_S):
            work = await workload.observe(time.monotonic())
    except (GridpivotError, TimeoutError) as error:
        said = str(error) or f"no answer within {LOOK_S:.0f} s"
        return CheckFigures(name=name, outcome="failed", detail=said, remedy=_REMEDY[_manager(pool)])
    finally:
        await workload.close()
    busy, gpus = sum(n.busy_gpus for n in work.nodes), sum(n.gpus for n in work.nodes)
    told = f"{len(work.nodes)} nodes, {busy} of {gpus} GPUs busy, {len(work.jobs)} jobs run"
    if not work.nodes:
        return CheckFigures(name=name, outcome="failed", detail=told, remedy=_NO_NODES[_manager(pool)])
    return CheckFigures(name=name, outcome="ok", detail=told)


def _manager(pool: GpuPoolSettings) -> str:
    return "slurm" if pool.slurm is not None else "kubernetes" if pool.kubernetes is not None else "commands"


_REMEDY = {
    "slurm": "run sinfo and squeue by hand as the agent's user; correct gpu.pools[].slurm or its rights",
    "kubernetes": "kubectl auth can-i list pods --as=system:serviceaccount:NAMESPACE:gridpivot; "
    "correct api_url, ca_file and token_file, or apply deploy/kubernetes/rbac.yaml",
    "commands": "run the status command by hand as the agent's user; correct gpu.pools[].commands or its rights",
}
_NO_NODES = {
    "slurm": "correct gpu.pools[].slurm.partition: sinfo -p NAME has to list nodes",
    "kubernetes": "correct gpu.pools[].kubernetes.node_selector: kubectl get nodes -l SELECTOR has to list nodes",
    "commands": "the status command has to list nodes (docs/commands.md)",
}


async def _throughput(pool: GpuPoolSettings) -> CheckFigures:
    import httpx

    from agent.ai.throughput import Throughput

    assert pool.throughput is not None
    async with httpx.AsyncClient(follow_redirects=False, trust_env=False) as client:
        outcome, figure = await Throughput(pool.throughput).read(client, "doctor")
    name = f"throughput of {pool.name}"
    if figure is None:
        remedy = "try gpu.pools[].throughput.query in Prometheus: it has to bring one positive number"
        return CheckFigures(name=name, outcome="failed", detail=outcome.value, remedy=remedy)
    return CheckFigures(name=name, outcome="ok", detail=f"{figure:g} a second, in the query's own unit")


def _meter(pool: GpuPoolSettings) -> CheckFigures:
    assert pool.meter is not None
    name, where = f"meter of {pool.name}", f"{pool.meter.host}:{pool.meter.port}"
    try:
        socket.create_connection((pool.meter.host, pool.meter.port), DEADLINE_S).close()
    except OSError as error:
        detail = f"{where}: {error.strerror or error}"
        return CheckFigures(name=name, outcome="failed", detail=detail, remedy="check host, port, cable and firewall")
    return CheckFigures(name=name, outcome="ok", detail=f"{where} answers")
