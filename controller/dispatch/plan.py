"""A site's decision as the plan that travels, and whether a new plan is worth sending. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from controller.dispatch.inputs import SiteDecision, SiteState
from gridpivot.clock import Instant
from gridpivot.v1 import plan_pb2 as pb
from gridpivot.vocabulary import Posture

# Less than this is not worth a plan: a share of the ceiling, with a floor for small sites.
MATERIAL_RATIO = 0.002
MATERIAL_W = 1_000.0


@dataclass(frozen=True, slots=True)
class Terms:
    """What a plan carries besides watts: its fence, its lease, and what follows when the lease ends."""

    epoch: int
    version: int
    valid_for_ms: int
    posture: Posture = Posture.HOLD
    event_reasons: Mapping[str, str] = field(default_factory=dict)  # event id -> why, for a person


def build_plan(decision: SiteDecision, site: SiteState, terms: Terms, now: Instant, reason: str) -> pb.Plan:
    """The plan [watts, UTC ms] for one site; windows counted from `now` become absolute times.

    The fallback ceiling is the lower of the decision's and the site's own, so that no fallback raises power.
    """
    plan = pb.Plan(
        site=decision.site,
        epoch=terms.epoch,
        version=terms.version,
        issued_at_unix_ms=now.unix_ms,
        not_before_unix_ms=now.unix_ms,
        valid_for_ms=terms.valid_for_ms,
        ceiling_w=decision.ceiling_w,
        expected_power_w=decision.expected_power_w,
        drop_ramp_w_per_min=site.drop_ramp_w_per_min,
        pick_up_ramp_w_per_min=site.pick_up_ramp_w_per_min,
        reason=reason,
        fallback=pb.Fallback(posture=terms.posture.value, ceiling_w=min(decision.ceiling_w, site.ceiling_w)),
    )
    for chosen in decision.classes:
        sleep, low, normal, turbo = chosen.machines
        plan.classes.add(
            name=chosen.name,
            sleep_machines=sleep,
            low_machines=low,
            normal_machines=normal,
            turbo_machines=turbo,
            value_usd_per_mwh=chosen.value_usd_per_mwh,
        )
    for pool in decision.pools:
        plan.pools.add(
            name=pool.name,
            max_w=pool.max_w,
            expected_w=pool.expected_w,
            fallback_w=pool.fallback_w,
            value_usd_per_mwh=pool.value_usd_per_mwh,
        )
    for window in sorted(site.windows, key=lambda w: (w.starts_in_s, w.event_id)):
        event = plan.events.add(
            event_id=window.event_id,
            ceiling_w=window.ceiling_w,
            starts_at_unix_ms=now.unix_ms + round(window.starts_in_s * 1000),
            reason=terms.event_reasons.get(window.event_id, ""),
        )
        if window.ends_in_s is not None:
            event.ends_at_unix_ms = now.unix_ms + round(window.ends_in_s * 1000)
    return plan


def materially_different(old: pb.Plan | None, new: pb.Plan, class_power_w: Mapping[str, float]) -> str | None:
    """What makes `new` worth sending, as a few words; None when the site may keep `old` (and only renew its lease).

    `class_power_w` is one machine's normal power [W] by class, to weigh machines against watts. Posture, ceilings
    and windows always matter; machines and AI power only past MATERIAL_RATIO of the ceiling.
    """
    raise NotImplementedError
