"""The demo's result: figures from referees, processes and the controller's own database, held against the bars. Pure."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

BARS: Mapping[str, float] = {
    "sites_connected_s": 45.0,
    "reallocation_max_s": 15.0,
    "ceiling_excess_max_pct": 2.0,
    "ceiling_excess_max_s": 5.0,
    "controller_rss_mb": 500.0,
}
ZERO = ("protection_limit_reached", "ceiling_window_exceeded", "reports_lost", "reallocations_unfinished")
LEAST_AI_STEPS = 100


@dataclass(frozen=True, slots=True)
class Measured:
    """What the parent measured itself."""

    sites: int
    devices: int
    sites_connected: int
    sites_connected_s: float
    devices_reporting: int
    reports_received: int
    reports_lost: int
    controller_rss_mb: float
    controller_cpu_s: float
    agent_rss_mb: float | None
    host_rss_mb_max: float
    duration_s: float
    shed_s_max: float  # slowest family at the sites whose ceiling was lowered
    agent_commands: int
    agent_commands_confirmed: int
    agent_commands_open: int
    full_tour: bool  # the bars on counts are for forty sites and 90 s


def build(findings: Sequence[Mapping[str, Any]], measured: Measured) -> dict[str, Any]:
    """The summary document; `misses` names every bar that was not reached and by how much."""
    fast = [f for f in findings if not f["stock_only"]]
    slow = [f for f in findings if f["stock_only"]]
    fast_s, fast_open = _reallocations(fast, under_order=False)
    order_s, order_open = _reallocations(fast, under_order=True)
    slow_s, slow_open = _reallocations(slow)
    grace = [g for f in findings for g in f["grace_s"]]
    summary: dict[str, Any] = {
        "schema_version": 1,
        "sites_connected": measured.sites_connected,
        "sites_connected_s": round(measured.sites_connected_s, 1),
        "devices_reporting": measured.devices_reporting,
        "duration_s": round(measured.duration_s, 1),
        "ai_steps": sum(f["ai_steps"] for f in findings),
        "reallocations": len(fast_s),
        "reallocation_p50_s": _rounded(statistics.median(fast_s) if fast_s else None),
        "reallocation_max_s": _rounded(max(fast_s, default=None)),
        "reallocations_unfinished": fast_open,
        "under_orders": {
            "reallocations": len(order_s),
            "reallocation_max_s": _rounded(max(order_s, default=None)),
            "unfinished": order_open,
        },
        "slow_families": {
            "reallocations": len(slow_s),
            "reallocation_max_s": _rounded(max(slow_s, default=None)),
            "unfinished": slow_open,
        },
        "protection_limit_reached": sum(f["protection_limit_reached"] for f in findings),
        "ceiling_excess_max_pct": round(100.0 * max((f["excess_max_ratio"] for f in findings), default=0.0), 3),
        "ceiling_excess_max_s": _rounded(max((f["excess_max_s"] for f in findings), default=0.0)),
        "ceiling_window_exceeded": sum(f["window_exceeded"] for f in findings),
        "ceiling_grace_s_max": _rounded(max(grace, default=None)),
        "ceiling_grace_open": sum(f["grace_open"] for f in findings),
        "commands": sum(f.get("commands", 0) for f in findings) + measured.agent_commands,
        "commands_confirmed": sum(f.get("commands_confirmed", 0) for f in findings) + measured.agent_commands_confirmed,
        "commands_short": sum(f.get("commands_short", 0) for f in findings),
        "commands_open": sum(f.get("commands_open", 0) for f in findings) + measured.agent_commands_open,
        "reports_received": measured.reports_received,
        "reports_lost": measured.reports_lost,
        "controller_rss_mb": round(measured.controller_rss_mb, 1),
        "controller_cpu_s": round(measured.controller_cpu_s, 1),
        "agent_rss_mb": _rounded(measured.agent_rss_mb),
        "host_rss_mb_max": round(measured.host_rss_mb_max, 1),
        "governor_tick_max_ms": round(1000.0 * max((f.get("tick_max_s", 0.0) for f in findings), default=0.0), 1),
        "late_ticks": sum(f.get("late_ticks", 0) for f in findings),
    }
    summary["misses"] = _misses(summary, measured)
    summary["ok"] = not summary["misses"]
    return summary


def _reallocations(findings: Sequence[Mapping[str, Any]], under_order: bool | None = None) -> tuple[list[float], int]:
    """Seconds of those that were completed, and how many were not before demand changed again or time ran out."""
    every = [r for f in findings for r in f["reallocations"] if under_order in (None, r["under_order"])]
    return [r["took_s"] for r in every if r["took_s"] is not None], sum(r["took_s"] is None for r in every)


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 2)


def _misses(summary: Mapping[str, Any], measured: Measured) -> list[str]:
    misses = []
    for name, bar in BARS.items():
        value = summary[name]
        if value is not None and value > bar:
            misses.append(f"{name} is {value}, at most {bar:g}")
    misses += [f"{name} is {summary[name]}, must be 0" for name in ZERO if summary[name]]
    if summary["sites_connected"] < measured.sites:
        misses.append(f"sites_connected is {summary['sites_connected']} of {measured.sites}")
    least_devices = 0.997 * measured.devices
    if summary["devices_reporting"] < least_devices:
        misses.append(f"devices_reporting is {summary['devices_reporting']}, at least {least_devices:.0f}")
    grace = summary["ceiling_grace_s_max"]
    if grace is not None and grace > measured.shed_s_max:
        misses.append(f"ceiling_grace_s_max is {grace}, at most {measured.shed_s_max:g} (the families' shed time)")
    if summary["ceiling_grace_open"]:
        misses.append(f"{summary['ceiling_grace_open']} lowered ceilings were never reached")
    if measured.full_tour and summary["ai_steps"] < LEAST_AI_STEPS:
        misses.append(f"ai_steps is {summary['ai_steps']}, at least {LEAST_AI_STEPS}")
    if measured.full_tour and not summary["reallocations"]:
        misses.append("no reallocation was measured")
    return misses
