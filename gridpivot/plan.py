"""Plans: signing, verifying, fencing. Pure; keys and clocks come in.

Order of refusal: signature, identity, epoch, version, units, names. A refused plan changes nothing.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Collection, Mapping

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from gridpivot.errors import BadPlan
from gridpivot.v1 import plan_pb2 as pb
from gridpivot.vocabulary import PlanRefusal

SIGNATURE_CONTEXT = b"gridpivot-plan-v1\0"


def key_id(public_raw: bytes) -> str:
    """Name of a planner key: the first 16 hex digits of the SHA-256 of its 32 raw bytes."""
    return hashlib.sha256(public_raw).hexdigest()[:16]


def sign(plan: pb.Plan, key: Ed25519PrivateKey, key_name: str) -> pb.SignedPlan:
    """The exact bytes of the plan with their signature."""
    exact = plan.SerializeToString(deterministic=True)
    return pb.SignedPlan(plan=exact, signature=key.sign(SIGNATURE_CONTEXT + exact), key_id=key_name)


def verify(signed: pb.SignedPlan, keys: Mapping[str, Ed25519PublicKey]) -> pb.Plan:
    """The plan inside, if one of the agent's planner keys signed exactly these bytes; raises BadPlan otherwise."""
    key = keys.get(signed.key_id)
    if key is None:
        raise BadPlan(PlanRefusal.SIGNATURE, f"plan signed by unknown key {signed.key_id!r}; enrol this agent again")
    try:
        key.verify(signed.signature, SIGNATURE_CONTEXT + signed.plan)
    except InvalidSignature as error:
        raise BadPlan(PlanRefusal.SIGNATURE, f"plan signature by {signed.key_id!r} does not match its bytes") from error
    try:
        return pb.Plan.FromString(signed.plan)
    except Exception as error:  # protobuf's DecodeError has no public base on every runtime
        raise BadPlan(PlanRefusal.MALFORMED, "signed bytes are not a plan") from error


def _watts(name: str, value: float) -> None:
    if not math.isfinite(value) or value < 0 or value > 2e9:
        raise BadPlan(PlanRefusal.UNIT, f"{name} = {value!r}: expected watts between 0 and 2e9")


def check(
    plan: pb.Plan,
    site: str,
    highest: tuple[int, int],
    classes: Collection[str],
    pools: Collection[str],
) -> None:
    """Raise BadPlan unless the plan is for this site, newer than `highest` (epoch, version), sane, and names known things."""
    if plan.site != site:
        raise BadPlan(PlanRefusal.IDENTITY, f"plan is for site {plan.site!r}, this is {site!r}")
    if plan.epoch < highest[0]:
        raise BadPlan(PlanRefusal.EPOCH, f"plan epoch {plan.epoch} is older than {highest[0]}")
    if (plan.epoch, plan.version) <= highest:
        raise BadPlan(
            PlanRefusal.VERSION, f"plan {plan.epoch}.{plan.version} is not newer than {highest[0]}.{highest[1]}"
        )
    _watts("ceiling_w", plan.ceiling_w)
    _watts("fallback.ceiling_w", plan.fallback.ceiling_w)
    _watts("drop_ramp_w_per_min", plan.drop_ramp_w_per_min)
    _watts("pick_up_ramp_w_per_min", plan.pick_up_ramp_w_per_min)
    for event in plan.events:
        _watts(f"event {event.event_id} ceiling_w", event.ceiling_w)
    for target in plan.classes:
        if target.name not in classes:
            raise BadPlan(PlanRefusal.UNKNOWN_CLASS, f"plan names class {target.name!r}, which this site does not have")
        counts = (target.sleep_machines, target.low_machines, target.normal_machines, target.turbo_machines)
        if not all(math.isfinite(c) and 0 <= c <= 1e7 for c in counts) or not math.isfinite(target.value_usd_per_mwh):
            raise BadPlan(PlanRefusal.UNIT, f"class {target.name}: machine counts {counts!r} are not counts")
    for pool in plan.pools:
        if pool.name not in pools:
            raise BadPlan(PlanRefusal.UNKNOWN_POOL, f"plan names pool {pool.name!r}, which this site does not have")
        for field in ("max_w", "expected_w", "fallback_w"):
            _watts(f"pool {pool.name} {field}", getattr(pool, field))
        for node in pool.nodes:
            _watts(f"pool {pool.name} node {node.name} fallback_w", node.fallback_w)
