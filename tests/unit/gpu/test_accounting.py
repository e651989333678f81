"""Wall watts from readings and GPU limits from wall watts: what is not known is never counted as saved."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.gpu.accounting import Members, Settable, account, declare, distribute, shares
from agent.gpu.opening import deal
from agent.gpu.reading import GpuReading
from agent.settings import GpuPoolSettings
from gridpivot.vocabulary import AiPriority

pytestmark = pytest.mark.unit


def reading(number: int, power_w: float | None = 300.0, limit_w: float = 500.0, **more) -> GpuReading:
    facts = {"limit_min_w": 200.0, "limit_max_w": 700.0, "throttled_by_power": False}
    return GpuReading(f"GPU-{number}", power_w=power_w, limit_enforced_w=limit_w, **facts | more)


def pool(readings: list[GpuReading]) -> Members:
    declared = declare("train", AiPriority.STANDARD, readings, 400.0)
    return Members(declared, tuple(r.uuid for r in readings), 400.0)


def told(readings: list[GpuReading], last: dict[str, float] | None = None):
    return account(pool(readings), {r.uuid: r for r in readings}, last or {}, 1.0)


def test_wall_power_is_boards_and_host():
    found = told([reading(0), reading(1)])
    assert (found.power_w, found.limit_w, found.demand_w, found.gpus_present) == (1400.0, 1800.0, 1400.0, 2)


def test_lost_gpu_is_charged_its_last_limit():
    found = told([reading(0), GpuReading("GPU-1", limit_max_w=700.0, lost=True)], {"GPU-1": 450.0})
    assert found.power_w == 800.0 + 300.0 + 450.0
    assert found.gpus_present == 1


def test_gpu_that_tells_no_power_is_charged_its_limit_and_a_pool_without_any_is_unknown():
    assert told([reading(0), reading(1, power_w=None)]).power_w == 800.0 + 300.0 + 500.0
    silent = told([reading(0, power_w=None), reading(1, power_w=None)])
    assert silent.power_w is None and silent.demand_w is None and silent.limit_w == 1800.0


@pytest.mark.parametrize(
    ("power_w", "flag", "held"),
    [(300.0, True, True), (300.0, False, False), (480.0, None, True), (470.0, None, False), (495.0, False, True)],
)
def test_held_back_gpu_wants_its_highest_limit(power_w: float, flag: bool | None, held: bool):
    found = told([reading(0, power_w=power_w, throttled_by_power=flag)])
    assert found.demand_w == 400.0 + (700.0 if held else power_w)


def test_lost_gpu_leaves_less_for_the_others():
    readings = [reading(0), reading(1), GpuReading("GPU-2", lost=True)]
    given_w = shares(pool(readings), 1200.0 + 1100.0, {r.uuid: r for r in readings}, {"GPU-2": 500.0})
    assert given_w == {"GPU-0": 300.0, "GPU-1": 300.0}


@given(
    st.lists(st.tuples(st.floats(50.0, 400.0), st.floats(0.0, 600.0)), min_size=1, max_size=16),
    st.floats(0.0, 12_000.0),
)
def test_limits_never_exceed_the_budget_nor_leave_their_range(ranges: list[tuple[float, float]], budget_w: float):
    gpus = [Settable(f"GPU-{i}", low, low + span) for i, (low, span) in enumerate(ranges)]
    given_w = distribute(gpus, budget_w)
    assert sum(given_w.values()) <= max(budget_w, sum(g.min_w for g in gpus)) + 1e-6
    for gpu in gpus:
        assert gpu.min_w <= given_w[gpu.uuid] <= gpu.max_w
    if sum(g.min_w for g in gpus) <= budget_w <= sum(g.max_w for g in gpus):
        assert sum(given_w.values()) >= budget_w - 2.0 * len(gpus)  # and nothing but the rounding is wasted


def test_exact_shares_stay_exact():
    gpus = [Settable(f"GPU-{i}", 200.0, 700.0) for i in range(8)]
    assert set(distribute(gpus, 2400.0).values()) == {300.0}
    assert set(distribute(gpus, 5600.0).values()) == {700.0}
    assert set(distribute(gpus, 100.0).values()) == {200.0}


def test_named_gpus_go_to_their_pool_and_the_rest_to_the_open_one():
    wanted = [
        GpuPoolSettings(name="serve", uuids=("GPU-1", "GPU-9")),
        GpuPoolSettings(name="train"),
        GpuPoolSettings(name="none"),
    ]
    members, said = deal(wanted, [reading(i) for i in range(4)])
    assert {m.declared.name: m.uuids for m in members} == {"serve": ("GPU-1",), "train": ("GPU-0", "GPU-2", "GPU-3")}
    assert len(said) == 2 and "GPU-9" in said[0] and "none" in said[1]


def test_gpu_without_limits_is_said_and_charged_as_the_largest():
    bare = replace(reading(0), limit_min_w=None, limit_max_w=None, limit_enforced_w=None)
    members, said = deal([GpuPoolSettings(name="train")], [bare])
    assert members[0].declared.max_w == 1100.0 and "tells no limits" in said[0]
    assert shares(members[0], 800.0, {bare.uuid: bare}, {}) == {}


def test_no_gpu_at_all_is_one_line_and_no_pool():
    members, said = deal([GpuPoolSettings(name="train")], [])
    assert members == [] and said[0] == "no GPUs: the driver is here, but no GPU answers"
