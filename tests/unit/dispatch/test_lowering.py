"""What may go out unrecorded never raises anything, whatever the new plan says."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.dispatch.lowering import lowered
from gridpivot.v1 import plan_pb2 as pb

pytestmark = pytest.mark.unit
WATTS = st.floats(0, 1e8)
MACHINES = st.floats(0, 1e4)


@st.composite
def plans(draw: st.DrawFn) -> pb.Plan:
    events = draw(st.lists(st.sampled_from("abc"), unique=True))
    return pb.Plan(
        site="falcon-1",
        epoch=1,
        version=draw(st.integers(1, 9)),
        ceiling_w=draw(WATTS),
        fallback=pb.Fallback(ceiling_w=draw(WATTS)),
        classes=[
            pb.ClassTarget(
                name=name,
                sleep_machines=draw(MACHINES),
                low_machines=draw(MACHINES),
                normal_machines=draw(MACHINES),
                turbo_machines=draw(MACHINES),
            )
            for name in ("s19", "s21")
        ],
        pools=[
            pb.PoolTarget(
                name="ai",
                max_w=draw(WATTS),
                expected_w=draw(WATTS),
                fallback_w=draw(WATTS),
                admits=draw(st.none() | st.booleans()),
                nodes=[pb.NodeFallback(name="gpu-1", fallback_w=draw(WATTS))],
            )
        ],
        events=[pb.EventWindow(event_id=e, ceiling_w=draw(WATTS)) for e in events],
    )


@given(plans(), plans())
def test_nothing_is_higher_than_before_and_no_event_is_let_go(old: pb.Plan, new: pb.Plan) -> None:
    plan = lowered(old, new)
    if plan is None:
        return
    assert plan.ceiling_w <= old.ceiling_w and plan.fallback.ceiling_w <= old.fallback.ceiling_w
    held = {e.event_id: e.ceiling_w for e in plan.events}
    assert all(held.get(e.event_id, 1e99) <= e.ceiling_w for e in old.events)
    for before, after in zip(old.classes, plan.classes, strict=True):
        for modes in (("turbo",), ("turbo", "normal"), ("turbo", "normal", "low")):
            total = [sum(getattr(c, f"{m}_machines") for m in modes) for c in (before, after)]
            assert total[1] <= total[0] + 1e-3
    for before, after in zip(old.pools, plan.pools, strict=True):
        assert after.max_w <= before.max_w and after.fallback_w <= before.fallback_w
        assert after.nodes[0].fallback_w <= before.nodes[0].fallback_w
        assert not after.admits or before.admits


@given(plans())
def test_lowered_ceiling_and_new_events_always_go_out(old: pb.Plan) -> None:
    new = pb.Plan()
    new.CopyFrom(old)
    new.version += 1
    new.ceiling_w = old.ceiling_w / 2
    new.events.add(event_id="new", ceiling_w=1.0)
    plan = lowered(old, new)
    assert plan is not None
    assert plan.ceiling_w == new.ceiling_w
    assert "new" in [e.event_id for e in plan.events]


@given(plans())
def test_same_plan_again_is_nothing_to_send(old: pb.Plan) -> None:
    again = pb.Plan()
    again.CopyFrom(old)
    again.version += 1
    assert lowered(old, again) is None
