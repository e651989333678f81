"""What would keep a BMC from telling power, or from being asked for off and on. Read-only."""

from __future__ import annotations

import asyncio

from agent.bmc.outcomes import BmcOutcome, BmcTrouble
from agent.bmc.reader import BmcReader
from agent.bmc.settings import BmcSettings
from gridpivot.clock import SystemClock
from gridpivot.shapes import CheckFigures

LOOK_S = 30.0  # a first look follows a dozen links, and a BMC may need seconds for each


def bmc_check(host: str, settings: BmcSettings, *, switches: bool = False) -> CheckFigures:
    """Ask once. `switches`: it is to switch its host off and on too."""
    return asyncio.run(_look(host, settings, switches))


async def _look(host: str, settings: BmcSettings, switches: bool) -> CheckFigures:
    name, reader = f"BMC of {host}", BmcReader(host, settings, SystemClock())
    try:
        async with asyncio.timeout(LOOK_S):
            sample, found = await reader.read(), await reader.found()
    except BmcTrouble as error:
        detail = f"{error.outcome}: {error.said}"
        return CheckFigures(name=name, outcome="failed", detail=detail, remedy=error.remedy)
    except TimeoutError:
        remedy = "raise deadline_s and beat_s, or ask it less from elsewhere"
        detail = f"{BmcOutcome.SLOW}: {settings.url}: not done within {LOOK_S:.0f} s"
        return CheckFigures(name=name, outcome="failed", detail=detail, remedy=remedy)
    finally:
        await reader.close()
    state = {True: "on", False: "off", None: "on its way, or not told"}[sample.on]
    told = f"{sample.power_w:.0f} W, host {state}, chassis {found.chassis} by {found.resource}"
    lacking = [word for word in ("GracefulShutdown", "On") if word not in found.system.reset_types]
    if switches and lacking:
        remedy = "give shutdown_command, or leave this node on" if lacking[0] != "On" else "switch it on by hand"
        detail = f"{told}; it does not offer {', '.join(lacking)}"
        return CheckFigures(name=name, outcome="warning", detail=detail, remedy=remedy)
    return CheckFigures(name=name, outcome="ok", detail=told)
