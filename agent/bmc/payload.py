"""What Redfish resources say of a host, as far as power and reset go. Pure; what makes no sense is None or an error.

Facts: the data model is DMTF DSP0268. Power at a chassis is `EnvironmentMetrics.PowerWatts.Reading` (since 2020.4; the
older `Power` is deprecated and missing on newer BMCs) or `Power.PowerControl[].PowerConsumedWatts`, both in watts. Links
are opaque (DSP0266): they are followed as given, never put together from names.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

MOST_W = 100_000.0  # of one host; a rack of GPUs is fed by shelves with a chassis of their own
MOST_LINKS = 64
ROOT = "/redfish/v1/"
RESET = "#ComputerSystem.Reset"


@dataclass(frozen=True, slots=True)
class SystemFacts:
    """One ComputerSystem. `on` None: it does not tell, or it is on its way."""

    path: str
    name: str
    on: bool | None
    physical: bool
    chassis: tuple[str, ...]
    reset_target: str | None
    reset_types: tuple[str, ...]
    action_info: str | None  # where the reset types stand, when they do not stand here


@dataclass(frozen=True, slots=True)
class ChassisFacts:
    """One Chassis: what it is part of, and where it tells power."""

    path: str
    name: str
    contained_by: str | None
    environment: str | None
    power: str | None


def link(body: Mapping[str, Any], *names: str) -> str | None:
    """The target of a link, by the way to it; None where there is none, or where it leads out of /redfish/."""
    found: Any = body
    for name in names:
        found = found.get(name) if isinstance(found, Mapping) else None
    target = found.get("@odata.id") if isinstance(found, Mapping) else found
    return _inside(target)


def links(body: Mapping[str, Any], *names: str) -> tuple[str, ...]:
    """Targets of an array of links, at most 64."""
    found: Any = body
    for name in names:
        found = found.get(name) if isinstance(found, Mapping) else None
    if not isinstance(found, Sequence) or isinstance(found, str):
        return ()
    targets = (_inside(one.get("@odata.id")) for one in found[:MOST_LINKS] if isinstance(one, Mapping))
    return tuple(target for target in targets if target is not None)


def _inside(target: Any) -> str | None:
    """A path of this BMC and no other place: our password goes there."""
    if not isinstance(target, str) or not target.startswith("/redfish/") or len(target) > 512 or ".." in target:
        return None
    return target.partition("#")[0]


def members(body: Mapping[str, Any]) -> tuple[str, ...]:
    """Of a collection."""
    return links(body, "Members")


def system_facts(body: Mapping[str, Any], path: str) -> SystemFacts:
    """What a ComputerSystem says."""
    state = body.get("PowerState")
    actions = body.get("Actions")
    reset = actions.get(RESET) if isinstance(actions, Mapping) else None
    reset = reset if isinstance(reset, Mapping) else {}
    types = reset.get("ResetType@Redfish.AllowableValues")
    return SystemFacts(
        path,
        name_of(body, path),
        {"On": True, "Off": False}.get(state) if isinstance(state, str) else None,
        body.get("SystemType", "Physical") == "Physical",
        links(body, "Links", "Chassis"),
        _inside(reset.get("target")),
        words(types),
        _inside(reset.get("@Redfish.ActionInfo")),
    )


def action_types(body: Mapping[str, Any]) -> tuple[str, ...]:
    """Reset types of an ActionInfo."""
    parameters = body.get("Parameters")
    for one in parameters if isinstance(parameters, Sequence) else ():
        if isinstance(one, Mapping) and one.get("Name") == "ResetType":
            return words(one.get("AllowableValues"))
    return ()


def chassis_facts(body: Mapping[str, Any], path: str) -> ChassisFacts:
    """What a Chassis says."""
    return ChassisFacts(
        path,
        name_of(body, path),
        link(body, "Links", "ContainedBy"),
        link(body, "EnvironmentMetrics"),
        link(body, "Power"),
    )


def name_of(body: Mapping[str, Any], path: str) -> str:
    """Its Id, or the end of its path."""
    found = body.get("Id")
    return found[:128] if isinstance(found, str) and found else path.rstrip("/").rpartition("/")[2]


def words(found: Any) -> tuple[str, ...]:
    """Strings of an array; anything else is none."""
    if not isinstance(found, Sequence) or isinstance(found, str):
        return ()
    return tuple(one for one in found[:MOST_LINKS] if isinstance(one, str))


def environment_w(body: Mapping[str, Any]) -> float | None:
    """Of an EnvironmentMetrics [W]; None when it tells none."""
    watts = body.get("PowerWatts")
    return number(watts.get("Reading")) if isinstance(watts, Mapping) else None


def power_control_w(body: Mapping[str, Any]) -> float | None:
    """Of a Power [W]: the largest PowerConsumedWatts of its entries; None when it tells none.

    Entries of one chassis are the whole and its parts (Lenovo lists CPUs and memory beside the server), so that
    a sum would count watts twice, and the largest is the whole.
    """
    entries = body.get("PowerControl")
    if not isinstance(entries, Sequence) or isinstance(entries, str):
        return None
    told = [number(one.get("PowerConsumedWatts")) for one in entries[:MOST_LINKS] if isinstance(one, Mapping)]
    return max((watts for watts in told if watts is not None), default=None)


def number(found: Any) -> float | None:
    """A JSON number; text that looks like one is none."""
    if isinstance(found, bool) or not isinstance(found, int | float) or not math.isfinite(found):
        return None
    return float(found)


def absurd(watts: float, on: bool | None) -> str:
    """Why a figure cannot be this host's power; empty when it can. A host that is on draws more than nothing."""
    if not 0.0 <= watts <= MOST_W:
        return f"{watts:g} W is outside 0 to {MOST_W:g} W"
    if watts == 0.0 and on is not False:
        return "0 W of a host that is not off"
    return ""
