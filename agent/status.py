"""The agent's own account of itself, as JSON shape. Pure."""

from __future__ import annotations

import datetime as dt

import numpy as np

from agent.site import SiteAgent
from agent.uplink.reports import states_now
from gridpivot import __version__
from gridpivot.clock import Instant
from gridpivot.link.lanes import LANES
from gridpivot.shapes import AgentStatusShape, SpoolFigures
from gridpivot.v1 import session_pb2 as wire
from gridpivot.vocabulary import DeviceState

NO_CIRCUIT_W = 1e12  # the ceiling that stands for "no [circuit] in settings"; not a figure to show anybody
LANE_NAMES = {wire.LANE_EVENTS: "events", wire.LANE_SITE: "site", wire.LANE_DEVICES: "devices"}


def status_of(agent: SiteAgent, now: Instant) -> AgentStatusShape:
    """Everything a technician asks first."""
    actions, orders, uplink = agent.actions, agent.orders, agent.uplink
    picture = actions.picture if actions is not None else None
    device_state = states_now(agent.table)
    counts = np.bincount(device_state, minlength=len(DeviceState))
    notes = [] if agent.journal.degraded is None else [f"plan journal: {agent.journal.degraded}"]
    if uplink is not None and uplink.spool.degraded:
        notes.append(f"spool: {uplink.spool.degraded}")
    if uplink is not None and not uplink.state.connected and uplink.state.last_error:
        notes.append(f"link: {uplink.state.last_error}")
    certificate = agent.certificate
    if certificate is not None and certificate.waiting is not None:
        told = f"gridpivot identity approve {agent.site} --fingerprint {certificate.waiting[:16]} --reason ..."
        notes.append(f"certificate: has run out; an admin has to run: {told}")
    elif certificate is not None and certificate.trouble:
        notes.append(f"certificate: {certificate.trouble}")
    epoch, version = agent.book.highest
    table = agent.table
    hashing = device_state == DeviceState.HASHING.code
    return AgentStatusShape(
        site=agent.site,
        agent_version=__version__,
        running=True,
        observed_at=dt.datetime.fromtimestamp(now.unix_s, dt.UTC),
        link=None if uplink is None else ("connected" if uplink.state.connected else "down"),
        stage=agent.policy.stage.value,
        rung=orders.rung.value if orders is not None else None,
        meter_trust=picture.meter_trust.value if picture is not None else None,
        metered_power_w=picture.metered_w if picture is not None else None,
        assumed_power_w=picture.assumed_w if picture is not None else None,
        mining_power_w=picture.mining_w if picture is not None else None,
        ai_power_w=picture.ai_w if picture is not None else None,
        live_ceiling_w=orders.ceiling_w if orders is not None and orders.ceiling_w < NO_CIRCUIT_W else None,
        hashrate_hs=float(np.nansum(table["hashrate_hs"], where=hashing, dtype=np.float64))
        if table.device_count
        else None,
        device_count=table.device_count,
        state_counts={state.value: int(counts[state.code]) for state in DeviceState if counts[state.code]},
        plan_epoch=epoch or None,
        plan_version=version or None,
        lease_remaining_s=agent.book.lease_remaining_s(now),
        certificate_ends_at=None
        if certificate is None or certificate.not_after_unix_s is None
        else dt.datetime.fromtimestamp(certificate.not_after_unix_s, dt.UTC),
        spool=[]
        if uplink is None
        else [
            SpoolFigures(
                lane=LANE_NAMES[lane], records=uplink.outbox.waiting(lane), bytes=uplink.outbox.waiting_bytes(lane)
            )
            for lane in LANES
        ],
        notes=notes,
    )
