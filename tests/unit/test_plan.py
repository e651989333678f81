"""A plan is believed only if a known planner signed exactly these bytes, for this site, newer than any before."""

from collections.abc import Callable

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from gridpivot.errors import BadPlan
from gridpivot.plan import SIGNATURE_CONTEXT, check, sign, verify
from gridpivot.v1 import plan_pb2 as pb
from gridpivot.vocabulary import PlanRefusal

pytestmark = pytest.mark.unit

KEY = Ed25519PrivateKey.generate()
KEYS = {"k1": KEY.public_key()}


def good() -> pb.Plan:
    return pb.Plan(
        site="falcon-1",
        epoch=3,
        version=7,
        ceiling_w=2e7,
        classes=[pb.ClassTarget(name="s19", normal_machines=10)],
        pools=[pb.PoolTarget(name="train", max_w=1e6)],
        fallback=pb.Fallback(posture="hold", ceiling_w=2e7),
        events=[pb.EventWindow(event_id="e1", ceiling_w=1e7)],
    )


def refusal(plan: pb.Plan, highest: tuple[int, int] = (3, 6)) -> str | None:
    try:
        check(plan, "falcon-1", highest, {"s19"}, {"train"})
    except BadPlan as error:
        return error.refusal
    return None


def test_signed_plan_verifies_to_the_same_plan() -> None:
    assert verify(sign(good(), KEY, "k1"), KEYS) == good()
    assert refusal(good()) is None


def spoil_bytes(signed: pb.SignedPlan) -> None:
    signed.plan = signed.plan[:-1] + bytes([signed.plan[-1] ^ 1])


def spoil_signature(signed: pb.SignedPlan) -> None:
    signed.signature = bytes(64)


def spoil_length(signed: pb.SignedPlan) -> None:
    signed.signature = signed.signature[:10]


def spoil_key(signed: pb.SignedPlan) -> None:
    signed.key_id = "k2"


@pytest.mark.parametrize("spoil", [spoil_bytes, spoil_signature, spoil_length, spoil_key])
def test_anything_changed_after_signing_is_refused(spoil: Callable[[pb.SignedPlan], None]) -> None:
    signed = sign(good(), KEY, "k1")
    spoil(signed)
    with pytest.raises(BadPlan) as caught:
        verify(signed, KEYS)
    assert caught.value.refusal == PlanRefusal.SIGNATURE


def test_signature_of_another_context_does_not_count() -> None:
    exact = good().SerializeToString()
    signed = pb.SignedPlan(plan=exact, signature=KEY.sign(exact), key_id="k1")
    with pytest.raises(BadPlan):
        verify(signed, KEYS)


def test_signed_bytes_that_are_no_plan_are_malformed() -> None:
    junk = b"\xff\xff\xff"
    signed = pb.SignedPlan(plan=junk, signature=KEY.sign(SIGNATURE_CONTEXT + junk), key_id="k1")
    with pytest.raises(BadPlan) as caught:
        verify(signed, KEYS)
    assert caught.value.refusal == PlanRefusal.MALFORMED


@pytest.mark.parametrize(
    ("change", "word"),
    [
        (lambda p: setattr(p, "site", "oryx-1"), PlanRefusal.IDENTITY),
        (lambda p: setattr(p, "epoch", 2), PlanRefusal.EPOCH),
        (lambda p: setattr(p, "version", 6), PlanRefusal.VERSION),
        (lambda p: setattr(p, "ceiling_w", float("nan")), PlanRefusal.UNIT),
        (lambda p: setattr(p, "ceiling_w", -1.0), PlanRefusal.UNIT),
        (lambda p: setattr(p.fallback, "ceiling_w", 3e9), PlanRefusal.UNIT),
        (lambda p: setattr(p.events[0], "ceiling_w", float("inf")), PlanRefusal.UNIT),
        (lambda p: setattr(p.classes[0], "normal_machines", -1.0), PlanRefusal.UNIT),
        (lambda p: setattr(p.classes[0], "value_usd_per_mwh", float("nan")), PlanRefusal.UNIT),
        (lambda p: setattr(p.classes[0], "name", "s21"), PlanRefusal.UNKNOWN_CLASS),
        (lambda p: setattr(p.pools[0], "name", "infer"), PlanRefusal.UNKNOWN_POOL),
        (lambda p: setattr(p.pools[0], "max_w", float("nan")), PlanRefusal.UNIT),
    ],
)
def test_each_defect_is_refused_under_its_own_word(change: Callable[[pb.Plan], None], word: PlanRefusal) -> None:
    plan = good()
    change(plan)
    assert refusal(plan) == word


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), max_size=30))
def test_what_is_applied_only_ever_grows(offered: list[tuple[int, int]]) -> None:
    highest, applied = (0, 0), []
    for epoch, version in offered:
        plan = good()
        plan.epoch, plan.version = epoch, version
        if refusal(plan, highest) is None:
            highest = (epoch, version)
            applied.append(highest)
    assert applied == sorted(set(applied))
