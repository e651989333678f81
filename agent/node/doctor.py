"""What would keep a node from working: its identity, the way to its site's agent, its GPUs, its guard. Read-only."""

from __future__ import annotations

import time

from agent.bmc.doctor import bmc_checks
from agent.doctor_ai import gpu_guard_check
from agent.gpu.bindings import load_bindings
from agent.gpu.nvml import NvmlReader
from agent.gpu.worker import Worker
from agent.identity.trust import addresses_of, uplink_target
from agent.node.host_power import host_power
from agent.node.service import way_back
from agent.reaching import reach
from agent.settings import AgentSettings
from gridpivot.errors import GridpivotError
from gridpivot.link.certificates import load_pem
from gridpivot.shapes import CheckFigures


def node_checks(settings: AgentSettings) -> list[CheckFigures]:
    """In the order in which a node comes up."""
    return [_identity(settings), _site_agent(settings), _gpus(settings), gpu_guard_check(settings), _host(settings)]


def _identity(settings: AgentSettings) -> CheckFigures:
    name, remedy = "identity", way_back(settings.node or "NAME")
    if addresses_of(settings) is None:
        return CheckFigures(
            name=name, outcome="failed", detail="not enrolled: nobody hears of this node", remedy=remedy
        )
    try:
        uplink_target(settings)
        ends = load_pem(settings.path(settings.uplink.certificate).read_bytes()).not_valid_after_utc
    except (GridpivotError, OSError, ValueError) as error:
        return CheckFigures(name=name, outcome="failed", detail=str(error), remedy=remedy)
    days = (ends.timestamp() - time.time()) / 86_400.0
    if days < 0:
        detail = f"the certificate ran out on {ends:%Y-%m-%d}"
        return CheckFigures(name=name, outcome="failed", detail=detail, remedy=remedy)
    return CheckFigures(name=name, outcome="ok", detail=f"certificate good for {days:.0f} days")


def _site_agent(settings: AgentSettings) -> CheckFigures:
    addresses = addresses_of(settings)
    if addresses is None:
        return CheckFigures(name="site agent", outcome="skipped", detail="not enrolled")
    host, _, port = addresses.session.rpartition(":")
    return reach("site agent", host, int(port) if port.isdigit() else 7445)


def _gpus(settings: AgentSettings) -> CheckFigures:
    bindings, said = load_bindings()
    remedy = "install the NVIDIA driver"
    if bindings is None:
        return CheckFigures(name="GPUs", outcome="failed", detail="; ".join(said), remedy=remedy)
    worker, reader = Worker("nvml"), NvmlReader(bindings)
    try:
        scan = worker.submit(reader.scan, {}, time.monotonic()).result(settings.gpu.deadline_s)
        worker.submit(reader.close)
    except Exception as error:  # NvmlRefused says what to do, and a driver that hangs says nothing
        detail = str(error) or f"no answer within {settings.gpu.deadline_s:g} s"
        return CheckFigures(name="GPUs", outcome="failed", detail=detail, remedy=remedy)
    finally:
        worker.close(0.5)
    lost = sum(reading.lost for reading in scan.readings)
    if not scan.readings or lost:
        detail = f"{len(scan.readings)} GPUs, {lost} lost"
        return CheckFigures(name="GPUs", outcome="failed", detail=detail, remedy="look for Xid in the kernel log")
    return CheckFigures(name="GPUs", outcome="ok", detail="; ".join([*said, f"{len(scan.readings)} GPUs answer"]))


def _host(settings: AgentSettings) -> CheckFigures:
    if settings.bmc is not None:
        assert settings.node is not None
        return bmc_checks([(settings.node, settings.bmc, False)])[0]
    found = host_power(settings.gpu)
    if found is None:
        detail = "nothing measures this host: the site models it from its GPUs and host_w_per_gpu"
        return CheckFigures(name="host power", outcome="skipped", detail=detail)
    return CheckFigures(name="host power", outcome="ok", detail=f"{found.power_w:.0f} W by its {found.source.upper()}")
