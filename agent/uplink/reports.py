"""What goes into the lanes: inventory, device report, roll-up, events. Pure: state in, messages out."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from agent.backends import PoolReading, SiteInventory
from agent.governor.circuits import achievable_w
from agent.governor.state import Actions, GovernorState, Orders, Picture, Policy
from gridpivot.clock import Instant
from gridpivot.columns import DeviceTable
from gridpivot.curves import AiPool
from gridpivot.v1 import telemetry_pb2 as pb
from gridpivot.vocabulary import DeviceState, EventKind, Provenance

_STATES = len(DeviceState)
_HASHING = DeviceState.HASHING.code
_UNREACHABLE, _UNKNOWN = DeviceState.UNREACHABLE.code, DeviceState.UNKNOWN.code
SILENT_AFTER_S = 60.0  # as the governor counts: an older reading says nothing about now


def inventory_message(inventory: SiteInventory) -> pb.Inventory:
    """The inventory with its hash, which fixes the order of rows in every report."""
    message = pb.Inventory(
        device_count=inventory.device_count,
        classes=[c.to_proto() for c in inventory.classes],
        class_indexes=inventory.class_index.astype("u1").tobytes(),
        feeder_indexes=inventory.feeder_index.astype("<u2").tobytes(),
        feeders=inventory.feeders,
        mac_addresses=inventory.mac_addresses,
        pools=[p.to_proto() for p in inventory.pools],
    )
    message.inventory_hash = hashlib.sha256(message.SerializeToString(deterministic=True)).digest()
    return message


def states_now(table: DeviceTable) -> npt.NDArray[np.uint8]:
    """DeviceState codes with stale rows as unreachable: the last row of a device that fell silent still says hashing."""
    stale = ~(table["age_s"] <= SILENT_AFTER_S) & (table["state"] != _UNKNOWN)
    return np.where(stale, np.uint8(_UNREACHABLE), table["state"])


def loads_w(picture: Picture, policy: Policy) -> tuple[float, float, float]:
    """Mining, AI and overhead [W]. Overhead is at most what the load explains; the rest stays unattributed."""
    modelled_w = policy.overhead_ratio * 0.7 * (picture.mining_w + picture.ai_w)
    return picture.mining_w, picture.ai_w, min(max(0.0, picture.overhead_w), modelled_w) if modelled_w else 0.0


def rollup(
    state: GovernorState,
    actions: Actions,
    orders: Orders,
    policy: Policy,
    table: DeviceTable,
    pools: Sequence[PoolReading],
    plan: tuple[int, int],
    import_energy_j: int | None,
    energy: pb.EnergyTotals | None,
    spool_records: int,
    now: Instant,
) -> pb.SiteRollup:
    """A site at this moment."""
    picture = actions.picture
    hashing = states_now(table) == _HASHING
    message = pb.SiteRollup(
        observed_at_unix_ms=now.unix_ms,
        assumed_power_w=picture.assumed_w,
        mining_power_w=picture.mining_w,
        ai_power_w=picture.ai_w,
        hashrate_hs=float(np.nansum(table["hashrate_hs"], where=hashing, dtype=np.float64)),
        live_ceiling_w=orders.ceiling_w,
        site_ceiling_w=policy.ceiling_w,
        meter_trust=picture.meter_trust.value,
        rung=orders.rung.value,
        stage=policy.stage.value,
        plan_epoch=plan[0],
        plan_version=plan[1],
        spool_records=spool_records,
        energy=energy,
        commands_total=state.commands_total,
        commands_confirmed_total=state.confirmed_total,
        commands_short_total=state.short_total,
        classes=_classes(state, table, policy),
        pools=pool_rollups(state.inventory.pools, pools),
    )
    if picture.metered_w is not None:
        message.metered_power_w = picture.metered_w
        message.overhead_power_w = loads_w(picture, policy)[2]
        attributed_w = picture.mining_w + picture.ai_w + message.overhead_power_w
        message.unattributed_power_w = picture.metered_w - attributed_w
    if import_energy_j is not None:
        message.import_energy_j = import_energy_j
    return message


def _provenance(reading: PoolReading) -> Provenance:
    if reading.metered:
        return Provenance.METERED
    return Provenance.BMC if reading.by_hosts else Provenance.MODELLED


def pool_rollups(declared: Sequence[AiPool], readings: Sequence[PoolReading]) -> list[pb.PoolRollup]:
    """AI pools at this moment, in the order of the inventory."""
    return [
        pb.PoolRollup(
            name=pool.name,
            power_w=reading.power_w,
            limit_w=reading.limit_w,
            demand_w=reading.demand_w,
            gpus_present=reading.gpus_present,
            power_provenance=_provenance(reading).value,
        )
        for pool, reading in zip(declared, readings, strict=True)
    ]


def _classes(state: GovernorState, table: DeviceTable, policy: Policy) -> list[pb.ClassRollup]:
    classes, of_row, device_state = state.inventory.classes, state.classes.of_row, states_now(table)
    count = len(classes)
    states = np.bincount(of_row * _STATES + device_state, minlength=count * _STATES).reshape(count, _STATES)
    modes = np.bincount(of_row * 5 + state.desired, minlength=count * 5).reshape(count, 5)
    power_w = np.bincount(of_row, weights=state.believed_w, minlength=count) * state.correction
    hashrate = np.nan_to_num(table["hashrate_hs"].astype(np.float64)) * (device_state == _HASHING)
    hashrate_hs = np.bincount(of_row, weights=hashrate, minlength=count)
    lost = (device_state == _UNREACHABLE) | (device_state == _UNKNOWN)
    silent = np.bincount(of_row[lost], minlength=count)
    silent_w = np.bincount(of_row[lost], weights=np.nan_to_num(state.believed_w)[lost], minlength=count)
    top_w = state.classes.mode_w.max(axis=1)[of_row]
    achievable = achievable_w(state.levels(policy.circuits), of_row, top_w, count)
    unable = lost | (device_state == DeviceState.FAULT.code)
    available = np.bincount(of_row[~unable], minlength=count)
    return [
        pb.ClassRollup(
            name=c.name,
            state_counts=states[index].tolist(),
            mode_counts=modes[index, 1:].tolist(),
            power_w=float(power_w[index]),
            hashrate_hs=float(hashrate_hs[index]),
            available=int(available[index]),
            silent=int(silent[index]),
            silent_power_w=float(silent_w[index]) * state.correction,
            achievable_power_w=float(achievable[index]) if np.isfinite(achievable[index]) else None,
        )
        for index, c in enumerate(classes)
    ]


def event(
    kind: EventKind,
    message: str,
    now: Instant,
    figures: Mapping[str, float] | None = None,
    plan_status: pb.PlanStatus | None = None,
    *,
    actor: str = "",
    order_id: str = "",
) -> pb.SiteEvent:
    """A site event."""
    return pb.SiteEvent(
        occurred_at_unix_ms=now.unix_ms,
        kind=kind.value,
        message=message,
        plan_status=plan_status,
        figures=dict(figures or {}),
        actor=actor,
        order_id=order_id,
    )
