"""What would keep an agent from working: checks in order of how often they are the reason. Bounded in time, read-only."""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from pathlib import Path

from agent.doctor_ai import ai_checks
from agent.reaching import CONNECT_DEADLINE_S, reach
from agent.settings import AgentSettings
from gridpivot.errors import GridpivotError
from gridpivot.shapes import CheckFigures, DoctorShape

YEAR_2025_UNIX_S = 1_735_689_600.0


def examine(settings: AgentSettings) -> DoctorShape:
    """Run every check; a failed one says what to do."""
    if settings.role == "node":
        from agent.node.doctor import node_checks

        checks = [state_dir_check(settings.state_dir), clock_check(), *node_checks(settings)]
        return DoctorShape(ok=all(c.outcome != "failed" for c in checks), checks=checks)
    checks = [
        state_dir_check(settings.state_dir),
        clock_check(),
        _identity(settings),
        _controller(settings),
        _inventory(settings),
        _credentials(settings),
        _locks(settings),
        _ranges(settings),
        _meter(settings),
        *ai_checks(settings),
        _descriptors(settings),
    ]
    return DoctorShape(ok=all(c.outcome != "failed" for c in checks), checks=checks)


def state_dir_check(path: Path) -> CheckFigures:
    """Whether state can be kept."""
    try:
        path.mkdir(parents=True, exist_ok=True)
        probe = path / ".probe"
        with probe.open("wb") as file:
            file.write(b"x")
            file.flush()
            os.fsync(file.fileno())
        probe.unlink()
    except OSError as error:
        return CheckFigures(
            name="state directory",
            outcome="failed",
            detail=f"{path}: {error}",
            remedy="correct its owner or free space",
        )
    return CheckFigures(name="state directory", outcome="ok", detail=f"{path} is writable")


def clock_check() -> CheckFigures:
    """Whether certificates can be judged."""
    if time.time() < YEAR_2025_UNIX_S:
        return CheckFigures(
            name="clock", outcome="failed", detail="the wall clock is years behind", remedy="start chrony or timesyncd"
        )
    return CheckFigures(name="clock", outcome="ok", detail="the wall clock is plausible")


def _identity(settings: AgentSettings) -> CheckFigures:
    from agent.identity.trust import addresses_of, load_planner_keys, uplink_target
    from gridpivot.link.certificates import load_pem

    if addresses_of(settings) is None:
        return CheckFigures(name="identity", outcome="skipped", detail="no controller in settings, and not enrolled")
    try:
        uplink_target(settings)
        keys = load_planner_keys(settings.path(settings.uplink.planner_keys))
    except GridpivotError as error:
        return CheckFigures(name="identity", outcome="failed", detail=str(error), remedy="enrol this site again")
    ends = load_pem(settings.path(settings.uplink.certificate).read_bytes()).not_valid_after_utc
    days = (ends.timestamp() - time.time()) / 86_400.0
    if days < 0:
        return CheckFigures(
            name="identity",
            outcome="failed",
            detail=f"the certificate ran out on {ends:%Y-%m-%d}",
            remedy="let the agent run: it asks to come back, and its log names the command for an admin",
        )
    if not keys:
        return CheckFigures(
            name="identity",
            outcome="failed",
            detail="no planner key: no plan will be believed",
            remedy=f"put <key_id>.pub into {settings.path(settings.uplink.planner_keys)}",
        )
    return CheckFigures(
        name="identity", outcome="ok", detail=f"certificate good for {days:.0f} days, {len(keys)} planner keys"
    )


def _controller(settings: AgentSettings) -> CheckFigures:
    from agent.identity.trust import addresses_of

    addresses = addresses_of(settings)
    if addresses is None:
        return CheckFigures(name="controller", outcome="skipped", detail="no controller in settings, and not enrolled")
    host, _, port = addresses.session.rpartition(":")
    return reach("controller", host, int(port) if port.isdigit() else 7443)


def _meter(settings: AgentSettings) -> CheckFigures:
    if settings.meter is None:
        return CheckFigures(
            name="meter",
            outcome="warning",
            detail="no meter in settings",
            remedy="without [meter] every figure is an estimate and nothing is raised",
        )
    return reach("meter", settings.meter.host, settings.meter.port)


def _inventory(settings: AgentSettings) -> CheckFigures:
    if settings.asic.inventory is None:
        return CheckFigures(name="miners", outcome="skipped", detail="no inventory in settings")
    from agent.asic.inventory import load_inventory

    try:
        inventory = load_inventory(settings.asic.inventory)
    except GridpivotError as error:
        return CheckFigures(name="miners", outcome="failed", detail=str(error), remedy="correct the inventory file")
    answered, tried = asyncio.run(_try_some([(e.host, e.api_port) for e in inventory.endpoints[:50]]))
    outcome = "ok" if answered == tried else ("warning" if answered else "failed")
    return CheckFigures(
        name="miners",
        outcome=outcome,
        detail=f"{answered} of {tried} tried answer, {inventory.site.device_count} in the inventory",
        remedy="" if answered == tried else "check the miners' network and power",
    )


def _credentials(settings: AgentSettings) -> CheckFigures:
    name = "credentials"
    try:
        logins = settings.asic.logins()
    except GridpivotError as error:
        return CheckFigures(name=name, outcome="failed", detail=str(error), remedy="correct the file, chmod 600 it")
    places = len(logins.device) + len(logins.family) + bool(logins.site)
    if settings.asic.inventory is None or places or settings.asic.try_factory_logins:
        return CheckFigures(name=name, outcome="ok" if places else "skipped", detail=repr(logins))
    return CheckFigures(
        name=name,
        outcome="warning",
        detail="no password is set: stock Antminer and Whatsminer cannot be commanded",
        remedy="set asic.credentials_file",
    )


def _locks(settings: AgentSettings) -> CheckFigures:
    from agent.asic.inventory import load_inventory
    from agent.asic.locks import covers, read_locks

    try:
        locks = read_locks(settings.state_dir)
    except GridpivotError as error:
        return CheckFigures(
            name="locks", outcome="failed", detail=str(error), remedy="an agent that starts now would lock every miner"
        )
    if settings.asic.inventory is not None and locks:
        with contextlib.suppress(GridpivotError):  # told by the check of the inventory
            rows = load_inventory(settings.asic.inventory).rows
            idle = [str(lock.target) for lock in locks if not covers(lock.target, rows).any()]
            if idle:
                return CheckFigures(
                    name="locks",
                    outcome="warning",
                    detail=f"no device of the inventory is meant by: {', '.join(idle[:5])}",
                    remedy="lock it by its new name, then unlock the old one",
                )
    return CheckFigures(name="locks", outcome="ok", detail=f"{len(locks)} in force")


def _ranges(settings: AgentSettings) -> CheckFigures:
    from agent.asic.ranges import addresses, parse_ranges

    discovery, name = settings.asic.discovery, "re-discovery"
    if not discovery.ranges:
        return CheckFigures(name=name, outcome="skipped", detail="no ranges in settings (asic.discovery.ranges)")
    spans = parse_ranges(discovery.ranges)
    count = sum(map(len, spans))
    if settings.asic.inventory is None:
        return CheckFigures(
            name=name, outcome="warning", detail="ranges without an inventory", remedy="write one with discover"
        )
    if count / discovery.rate_per_s > discovery.interval_s:
        return CheckFigures(
            name=name,
            outcome="warning",
            detail=f"{count} addresses take longer than the interval",
            remedy="narrow asic.discovery.ranges, or raise rate_per_s",
        )
    with contextlib.suppress(GridpivotError):
        from agent.asic.inventory import load_inventory

        inside = frozenset(addresses(spans))
        outside = sum(1 for e in load_inventory(settings.asic.inventory).endpoints if e.host not in inside)
        if outside:
            return CheckFigures(
                name=name,
                outcome="warning",
                detail=f"{outside} devices of the inventory stand outside the ranges and are never missed",
                remedy="widen asic.discovery.ranges",
            )
    return CheckFigures(name=name, outcome="ok", detail=f"{count} addresses every {discovery.interval_s:g} s")


async def _try_some(endpoints: list[tuple[str, int]]) -> tuple[int, int]:
    async def one(host: str, port: int) -> bool:
        with contextlib.suppress(OSError, TimeoutError):
            async with asyncio.timeout(CONNECT_DEADLINE_S):
                _, writer = await asyncio.open_connection(host, port)
                writer.close()
                return True
        return False

    answers = await asyncio.gather(*(one(host, port) for host, port in endpoints))
    return sum(answers), len(answers)


def _descriptors(settings: AgentSettings) -> CheckFigures:
    import resource

    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = 2 * settings.asic.concurrency + 128
    if soft < needed:
        return CheckFigures(
            name="descriptors", outcome="failed", detail=f"limit {soft}, {needed} needed", remedy="raise LimitNOFILE"
        )
    return CheckFigures(name="descriptors", outcome="ok", detail=f"limit {soft}")
