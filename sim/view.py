"""The wall: forty sites at a glance, from the operators' API. Drawing only."""

from __future__ import annotations

from rich.console import Group
from rich.table import Table
from rich.text import Text

from gridpivot.v1 import operator_pb2 as op
from gridpivot.vocabulary import LinkState, MeterTrust, Rung


def _mw(watts: float | None) -> str:
    return "?" if watts is None else f"{watts / 1e6:.2f}"


def _age(seconds: float | None) -> str:
    return "-" if seconds is None else f"{seconds:.0f} s"


def _state(site: op.SiteSummary) -> Text:
    """What is unusual, loudest first."""
    rollup = site.rollup
    if site.link != LinkState.CONNECTED:
        return Text(site.link, style="bold red")
    if rollup.meter_trust not in ("", MeterTrust.TRUSTED):
        return Text(f"meter {rollup.meter_trust}", style="bold yellow")
    if rollup.live_ceiling_w and rollup.live_ceiling_w < 0.999 * rollup.site_ceiling_w:
        return Text("grid event", style="bold magenta")
    if rollup.rung not in ("", Rung.PLAN):
        return Text(rollup.rung, style="yellow")
    return Text(site.plan_status or "waiting", style="green")


def table(answer: op.ListSitesResponse) -> Table:
    """Per site: region, ceiling, power, split, hashrate, price, what one more MWh would earn, plan and its age, state."""
    drawn = Table(expand=False, pad_edge=False, box=None, header_style="bold")
    for name in ("site", "region"):
        drawn.add_column(name)
    for name in ("ceiling", "MW", "mining", "AI", "over", "PH/s", "$/MWh", "shadow", "plan", "age"):
        drawn.add_column(name, justify="right")
    drawn.add_column("state")
    for site in answer.sites:
        rollup = site.rollup
        metered = rollup.metered_power_w if rollup.HasField("metered_power_w") else None
        drawn.add_row(
            site.site,
            site.region,
            _mw(rollup.live_ceiling_w or None),
            _mw(metered) if metered is not None else f"~{_mw(rollup.assumed_power_w or None)}",
            _mw(rollup.mining_power_w if rollup.HasField("mining_power_w") else None),
            _mw(rollup.ai_power_w if rollup.HasField("ai_power_w") else None),
            _mw(rollup.overhead_power_w if rollup.HasField("overhead_power_w") else None),
            f"{rollup.hashrate_hs / 1e15:.0f}" if rollup.HasField("hashrate_hs") else "?",
            f"{site.price_usd_per_mwh:.0f}" if site.HasField("price_usd_per_mwh") else "?",
            f"{site.shadow_price_usd_per_mwh:.0f}" if site.HasField("shadow_price_usd_per_mwh") else "-",
            f"{rollup.plan_epoch}.{rollup.plan_version}",
            _age(site.plan_age_s if site.HasField("plan_age_s") else None),
            _state(site),
        )
    return drawn


def fleet_line(answer: op.ListSitesResponse) -> str:
    """The totals as one sentence."""
    fleet = answer.fleet
    return (
        f"{fleet.sites_connected}/{fleet.sites} sites, {fleet.devices_reporting:,} devices, "
        f"{fleet.power_w / 1e6:.1f} MW (mining {fleet.mining_power_w / 1e6:.1f}, AI {fleet.ai_power_w / 1e6:.1f}, "
        f"overhead {fleet.overhead_power_w / 1e6:.1f}), {fleet.hashrate_hs / 1e18:.2f} EH/s, "
        f"${fleet.margin_usd_per_h:,.0f}/h"
    )


def screen(answer: op.ListSitesResponse, header: str, urls: str) -> Group:
    """The whole wall."""
    reason = answer.fleet.last_dispatch_reason
    return Group(
        Text(header, style="bold"),
        Text(fleet_line(answer)),
        Text(f"last reallocation: {reason}" if reason else "no reallocation yet"),
        table(answer),
        Text(urls, style="dim"),
    )
