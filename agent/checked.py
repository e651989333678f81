"""Settings, and every file they name, looked at as the agent will use them; no device is touched."""

from __future__ import annotations

from agent.identity.trust import load_planner_keys, uplink_target
from agent.settings import AgentSettings


def checked(settings: AgentSettings) -> list[str]:
    """What a person may want to know of them, a few words each; raises SettingsError for what the agent could not run with."""
    notes: list[str] = []
    if settings.asic.inventory is not None:
        from agent.asic.inventory import load_inventory

        inventory = load_inventory(settings.asic.inventory)
        notes.append(f"{inventory.site.device_count} miners of {len(inventory.site.classes)} classes")
    settings.asic.logins()
    uplink_target(settings)
    if settings.role == "node":
        notes.append(f"node {settings.node} of site {settings.site}")
    nodes = sum(len(pool.nodes) for pool in settings.gpu.pools)
    if nodes:
        notes.append(f"{nodes} nodes")
    if settings.role == "site":
        notes.append(f"{len(load_planner_keys(settings.path(settings.uplink.planner_keys)))} planner keys")
        notes.append(f"stage {settings.governor.stage.value}")
    return notes
