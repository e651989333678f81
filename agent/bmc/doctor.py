"""What would keep a BMC from telling power, or from being asked for off and on. Read-only."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from agent.bmc.outcomes import BmcOutcome, BmcTrouble
from agent.bmc.reader import BmcReader
from agent.bmc.settings import BmcSettings
from gridpivot.clock import SystemClock
from gridpivot.shapes import CheckFigures

AT_ONCE = 16
LOOK_S = 30.0  # a first look follows a dozen links, and a BMC may need seconds for each


def bmc_checks(asked: Sequence[tuple[str, BmcSettings, bool]]) -> list[CheckFigures]:
    """Each BMC once, some at a time: (host, settings, whether it is to switch its host off and on too)."""

    async def all_of_them() -> list[CheckFigures]:
        turn = asyncio.Semaphore(AT_ONCE)

        async def one(host: str, settings: BmcSettings, switches: bool) -> CheckFigures:
            async with turn:
                return await _look(host, settings, switches)

        return await asyncio.gather(*(one(*line) for line in asked))

    return asyncio.run(all_of_them())


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
