"""Where a BMC tells its host's power and takes its reset: found once by following links, then asked directly.

Which chassis: those that the host's ComputerSystem links to (all of them where it links to none), without those that are
part of another of them, and of the rest the one that tells a figure. Where two tell one they may overlap or not, and
nobody here can know: the settings have to name the chassis. Figures are never added up.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from agent.bmc.client import Redfish
from agent.bmc.outcomes import BmcOutcome, BmcTrouble
from agent.bmc.payload import (
    ROOT,
    ChassisFacts,
    SystemFacts,
    action_types,
    chassis_facts,
    environment_w,
    link,
    members,
    power_control_w,
    system_facts,
)
from agent.bmc.settings import BmcSettings

MOST_CHASSIS = 32  # an HGX baseboard alone shows two dozen


@dataclass(frozen=True, slots=True)
class Found:
    """Where to ask from now on."""

    system: SystemFacts
    chassis: str  # its Id
    resource: str  # that tells power
    newer: bool  # EnvironmentMetrics; else Power

    def watts(self, body: Mapping[str, Any]) -> float | None:
        """The figure of the resource [W]."""
        return environment_w(body) if self.newer else power_control_w(body)


async def find_system(client: Redfish, settings: BmcSettings) -> SystemFacts:
    """The host; raises BmcTrouble. Of several the physical one, or the one that the settings name."""
    root = await client.get(ROOT)
    place = link(root, "Systems")
    if place is None:
        raise BmcTrouble(BmcOutcome.GARBLED, f"{settings.url}: a root without Systems")
    found = [system_facts(await client.get(path), path) for path in members(await client.get(place))[:MOST_CHASSIS]]
    if settings.system is not None:
        named = [one for one in found if one.name == settings.system]
    else:
        named = [one for one in found if one.physical]
    if len(named) != 1:
        told = ", ".join(one.name for one in found) or "none"
        raise BmcTrouble(BmcOutcome.SEVERAL, f"{settings.url}: which system is this host? it has {told}")
    system = named[0]
    if not system.reset_types and system.action_info is not None:
        system = replace(system, reset_types=action_types(await client.get(system.action_info)))
    return system


async def find(client: Redfish, settings: BmcSettings) -> Found:
    """Where power and reset are; raises BmcTrouble."""
    system = await find_system(client, settings)
    telling: list[Found] = []
    for chassis in await _chassis(client, settings, system):
        for resource, newer in ((chassis.environment, True), (chassis.power, False)):
            if resource is None:
                continue
            found = Found(system, chassis.name, resource, newer)
            if await _tells(client, found):
                telling.append(found)
                break
    if not telling:
        raise BmcTrouble(BmcOutcome.NO_POWER, f"{settings.url}: no chassis of {system.name} tells power")
    if len(telling) > 1:
        names = ", ".join(one.chassis for one in telling)
        raise BmcTrouble(BmcOutcome.SEVERAL, f"{settings.url}: chassis {names} tell power each")
    return telling[0]


async def _tells(client: Redfish, found: Found) -> bool:
    """Whether there is a figure; a link that leads nowhere, as some BMCs show, tells none."""
    try:
        return found.watts(await client.get(found.resource)) is not None
    except BmcTrouble as error:
        if error.outcome is BmcOutcome.GARBLED:
            return False
        raise


async def _chassis(client: Redfish, settings: BmcSettings, system: SystemFacts) -> list[ChassisFacts]:
    paths = system.chassis
    if settings.chassis is not None or not paths:
        place = link(await client.get(ROOT), "Chassis")
        paths = () if place is None else members(await client.get(place))
    found = [chassis_facts(await client.get(path), path) for path in paths[:MOST_CHASSIS]]
    if settings.chassis is not None:
        named = [one for one in found if one.name == settings.chassis]
        if not named:
            told = ", ".join(one.name for one in found) or "none"
            raise BmcTrouble(
                BmcOutcome.NO_POWER, f"{settings.url}: there is no chassis {settings.chassis!r}; it has {told}"
            )
        return named
    own = {one.path.rstrip("/") for one in found}
    return [one for one in found if (one.contained_by or "").rstrip("/") not in own]
