"""A node off and on again, over real BMC sockets and a real scheduler script: empty, held, proven, room first, nothing lost."""

from __future__ import annotations

import json

import pytest

from agent.ai.desk import PullState
from agent.ai.exporter import ai_metrics
from agent.off.order import STANDBY_W, OffState
from agent.off.record import FILE
from gridpivot.errors import Refused
from gridpivot.vocabulary import EventKind, LeverName
from tests.unit.off.rig import GIVEN_W, HOST_W, Rig

pytestmark = pytest.mark.unit

IDLE_NODE_W = 4 * 60.0 + 4 * HOST_W


async def test_an_empty_node_is_held_shut_down_gracefully_and_off_only_by_its_wall_power(rig: Rig) -> None:
    before_w = rig.reading().power_w
    order = await rig.by_hand.off("a", 4 * 3600.0, "ana", "filters are changed")
    await rig.look()
    assert rig.held_by("a") == f"gridpivot:{order.order_id}"
    assert rig.hosts["a"].resets == [], "one look is not enough"
    rig.hosts["a"].ignores = True
    await rig.until(OffState.STOPPING)
    await rig.look()
    assert rig.hosts["a"].resets == ["GracefulShutdown"]
    assert order.state is OffState.STOPPING, "a request that was taken is no proof"
    assert order.promised_w == pytest.approx(IDLE_NODE_W - STANDBY_W)
    assert rig.reading().power_w == pytest.approx(before_w)
    rig.hosts["a"].on = False
    await rig.until(OffState.OFF)
    assert order.delivered_w == pytest.approx(IDLE_NODE_W - 50.0)
    assert rig.reading().power_w == pytest.approx(before_w - order.delivered_w)
    kinds = [(kind, actor) for kind, _, actor in rig.said]
    assert kinds == [(EventKind.LOCAL_ORDER, "ana"), (EventKind.AI_LEVER, ""), (EventKind.AI_LEVER, "")]
    assert "filters are changed" in rig.said[0][1]


async def test_it_comes_back_at_its_end_with_room_first_and_is_given_work_only_with_limits_read_back(rig: Rig) -> None:
    await rig.by_hand.off("a", 3600.0, "ana", "")
    order = await rig.until(OffState.OFF)
    assert order is not None
    rig.clock.s += 3600.0
    await rig.until(OffState.WANTS_ROOM)
    assert rig.reading().comes_w == pytest.approx(4 * 700.0 + 4 * HOST_W - 50.0)
    rig.give(2000.0)
    await rig.look(30.0)
    assert rig.hosts["a"].resets == ["GracefulShutdown"], "no room, no power"
    rig.give(GIVEN_W)
    rig.see(may_raise=False)
    await rig.look()
    assert order.state is OffState.WANTS_ROOM, "nothing is raised now"
    rig.see()
    await rig.until(OffState.STARTING)
    assert rig.hosts["a"].resets == ["GracefulShutdown", "On"]
    assert rig.reading().limit_w <= GIVEN_W + 1.0, "charged at its most, and the pool inside what it was given"
    assert rig.held_by("a"), "held until its limits are read back"
    rig.boot("a")
    assert rig.nodes["a"].limit_w["a-0"] == 700.0
    assert rig.desk.orders, "its limits are its boards' own"
    await rig.until(None)
    assert rig.held_by("a") == ""
    assert max(rig.nodes["a"].limit_w.values()) < 700.0
    assert rig.reading().limit_w <= GIVEN_W + 1.0


async def test_a_pool_never_passes_what_it_was_given_on_the_way_off_and_back(rig: Rig) -> None:
    await rig.by_hand.off("a", 120.0, "ana", "")
    seen = []
    for step in range(80):
        await rig.look()
        order = rig.desk.orders.get("a")
        if order is not None and order.state is OffState.STARTING and not rig.nodes["a"].node.connected:
            rig.boot("a")
        running_w = sum(
            sum(node.limit_w.values()) + 4 * HOST_W for name, node in rig.nodes.items() if rig.hosts[name].on
        )
        seen.append(running_w)
        assert running_w <= GIVEN_W + 1.0, step
    assert rig.hosts["a"].resets == ["GracefulShutdown", "On"] and "a" not in rig.desk.orders
    assert min(seen) < GIVEN_W


@pytest.mark.parametrize("priority", ["guaranteed", "standard", "spot"])
async def test_a_node_with_any_work_on_it_stays_on_and_is_not_even_held(rig: Rig, priority: str) -> None:
    rig.run_job("a", priority)
    with pytest.raises(Refused, match=r"1 (guaranteed )?jobs run on it"):
        await rig.by_hand.off("a", None, "ana", "")
    assert (rig.desk.orders, rig.held_by("a"), rig.hosts["a"].resets) == ({}, "", [])


async def test_work_that_comes_between_the_question_and_the_hold_is_not_lost(rig: Rig) -> None:
    await rig.by_hand.off("a", None, "ana", "")
    rig.run_job("a")
    await rig.until(None)
    assert rig.hosts["a"].resets == [] and rig.held_by("a") == ""
    assert "1 jobs run on it (17)" in rig.desk.endings["a"]


async def test_work_that_no_scheduler_shows_keeps_a_node_on(rig: Rig) -> None:
    rig.gpu_w["a"] = 450.0
    rig.report()
    with pytest.raises(Refused, match="GPU 0 draws 450 W"):
        await rig.by_hand.off("a", None, "ana", "")


async def test_somebody_elses_hold_keeps_a_node_on_and_stays(rig: Rig) -> None:
    def change(state):
        state["nodes"][0]["held_by"] = "admin: memory test"

    rig.work(change)
    await rig.by_hand.off("a", None, "ana", "")
    await rig.until(None)
    assert rig.hosts["a"].resets == [] and rig.held_by("a") == "admin: memory test"
    assert "not_ours" in rig.desk.endings["a"]


async def test_what_nobody_can_answer_for_is_refused(rig: Rig) -> None:
    with pytest.raises(Refused, match=r"no \[\[gpu.pools\]\] of nodes names 'z'"):
        await rig.by_hand.off("z", None, "ana", "")
    rig.ai.acts = False
    with pytest.raises(Refused, match="only watches"):
        await rig.by_hand.off("a", None, "ana", "")
    rig.ai.acts = True
    rig.nodes["a"].go()
    with pytest.raises(Refused, match="does not report"):
        await rig.by_hand.off("a", None, "ana", "")
    rig.nodes["a"].come()
    rig.clock.s += 60.0
    with pytest.raises(Refused, match="BMC tells nothing now"):
        await rig.by_hand.off("a", None, "ana", "")
    await rig.look()
    rig.file.write_text("no json")
    with pytest.raises(Refused, match="workload manager does not answer"):
        await rig.by_hand.off("a", None, "ana", "")
    rig.side.workload = None
    with pytest.raises(Refused, match="no workload manager"):
        await rig.by_hand.off("a", None, "ana", "")
    with pytest.raises(Refused, match="is not off by an order"):
        await rig.by_hand.on("a", "ana", "")


async def test_a_bmc_that_offers_no_graceful_shutdown_forces_nothing(rig: Rig) -> None:
    rig.bmcs["a"].reset_types = ("On", "ForceOff")
    for reader in rig.readers.values():
        reader._found = None
    await rig.by_hand.off("a", None, "ana", "")
    await rig.until(None)
    assert rig.hosts["a"].resets == [] and rig.held_by("a") == ""
    assert "GracefulShutdown is not offered" in rig.desk.endings["a"]


async def test_a_system_that_does_not_heed_is_told_in_time_and_held_until_somebody_gives_it_back(rig: Rig) -> None:
    rig.hosts["a"].ignores = True
    order = await rig.by_hand.off("a", None, "ana", "")
    await rig.until(OffState.STOPPING)
    rig.clock.s = order.commanded_s + order.promised_s
    await rig.look(0.5)
    assert rig.said[-1][0] is EventKind.AI_SHORT
    assert rig.clock.s - order.commanded_s - order.promised_s <= 10.0, "told within ten seconds of the promise's end"
    (pull,) = rig.side.apart()
    assert (pull.state, pull.delivered_w) == (PullState.SHORT, 0.0)
    await rig.look()
    assert rig.held_by("a"), "it may shut down yet, and would take work with it"
    await rig.by_hand.on("a", "ana", "it stays")
    await rig.until(None)
    assert rig.held_by("a") == "" and rig.hosts["a"].resets == ["GracefulShutdown"]


async def test_a_request_whose_answer_is_lost_may_have_been_taken_and_the_wall_power_tells(rig: Rig) -> None:
    rig.bmcs["a"].changes["/redfish/v1/Systems/1/Actions/ComputerSystem.Reset"] = 503
    order = await rig.by_hand.off("a", None, "ana", "")
    await rig.until(OffState.STOPPING)
    await rig.look()
    assert "503" in order.detail and rig.held_by("a")
    rig.hosts["a"].on = False
    await rig.until(OffState.OFF)
    assert order.delivered_w > 0.0


async def test_a_system_that_hangs_while_stopping_stays_held_and_counts_once_it_is_off(rig: Rig) -> None:
    rig.hosts["a"].ignores = True
    order = await rig.by_hand.off("a", None, "ana", "")
    await rig.until(OffState.STOPPING)
    rig.nodes["a"].go()
    rig.clock.s = order.commanded_s + order.promised_s
    await rig.look(0.5)
    await rig.look()
    assert order.short and order.state is OffState.STOPPING and rig.held_by("a")
    rig.hosts["a"].on = False
    await rig.until(OffState.OFF)
    assert not order.short and order.delivered_w > 0.0


async def test_a_node_that_comes_up_by_itself_is_charged_its_most_and_left_on(rig: Rig) -> None:
    await rig.by_hand.off("a", 3600.0, "ana", "")
    await rig.until(OffState.OFF)
    others_w = rig.reading().limit_w
    rig.hosts["a"].on = True
    await rig.until(OffState.STARTING)
    assert any("came up by itself" in said for _, said, _ in rig.said)
    assert rig.reading().limit_w >= others_w
    assert rig.hosts["a"].resets == ["GracefulShutdown"]
    rig.report()
    assert rig.reading().limit_w <= GIVEN_W + 1.0, "the others make room for it at its most"
    rig.boot("a")
    await rig.until(None)
    assert rig.held_by("a") == ""


async def test_a_bmc_that_falls_silent_proves_nothing_and_brings_nobody_back(rig: Rig) -> None:
    await rig.by_hand.off("a", 60.0, "ana", "")
    await rig.until(OffState.OFF)
    off_w = rig.reading().power_w
    rig.bmcs["a"].changes["/redfish/v1/Systems/1"] = 503
    rig.clock.s += 120.0
    for _ in range(3):
        await rig.look()
    assert rig.hosts["a"].resets == ["GracefulShutdown"]
    assert rig.reading().power_w >= off_w + 4 * 700.0 + 4 * HOST_W - 51.0, "charged its most"


async def test_the_next_process_knows_what_the_last_one_shut_down(rig: Rig) -> None:
    await rig.by_hand.off("a", 3600.0, "ana", "")
    await rig.until(OffState.OFF)
    rig.begin()
    assert rig.desk.orders["a"].state is OffState.OFF
    rig.clock.s += 3000.0
    await rig.look()
    assert rig.desk.orders["a"].state is OffState.OFF
    rig.clock.s += 600.0
    await rig.until(OffState.STARTING)
    assert rig.hosts["a"].resets == ["GracefulShutdown", "On"]


async def test_a_process_that_died_while_checking_gives_the_node_back(rig: Rig) -> None:
    await rig.by_hand.off("a", 3600.0, "ana", "")
    await rig.look()
    assert rig.held_by("a")
    rig.begin()
    await rig.until(None)
    assert rig.held_by("a") == "" and rig.hosts["a"].resets == []


async def test_a_damaged_record_is_set_aside(rig: Rig) -> None:
    (rig.place / FILE).write_text('{"format": 1, "orders": [{"node": "a"}]}')
    rig.begin()
    assert rig.desk.orders == {}
    assert not (rig.place / FILE).exists()


async def test_an_order_shows_as_a_lever_in_roll_ups_and_metrics(rig: Rig) -> None:
    await rig.by_hand.off("a", None, "ana", "")
    await rig.until(OffState.OFF)
    (pull,) = rig.side.apart()
    assert (pull.lever, pull.state, pull.promise.work_lost_gpu_h) == (LeverName.NODE_OFF, PullState.KEPT, 0.0)
    found = {
        tuple(sample.labels.values()): sample.value
        for family in ai_metrics(rig.ai)
        for sample in family.samples
        if sample.name == "gridpivot_ai_levers"
    }
    assert found == {("train", "node_off", "kept"): 1.0}
    shown = await rig.by_hand.handlers["node_orders"]({}, None)  # type: ignore[arg-type]
    assert shown["orders"][0]["state"] == "off"
    assert json.dumps(shown)


async def test_a_node_that_somebody_else_switched_off_can_be_brought_back(rig: Rig) -> None:
    rig.hosts["a"].on = False
    await rig.look()
    order = await rig.by_hand.on("a", "ana", "")
    assert order.state is OffState.OFF
    await rig.until(OffState.STARTING)
    assert rig.hosts["a"].resets == ["On"]


async def test_a_switch_that_a_bmc_refuses_is_tried_again_later(rig: Rig) -> None:
    await rig.by_hand.off("a", None, "ana", "")
    order = await rig.until(OffState.OFF)
    assert order is not None
    rig.bmcs["a"].changes["/redfish/v1/Systems/1/Actions/ComputerSystem.Reset"] = 500
    await rig.by_hand.on("a", "ana", "")
    for _ in range(8):
        await rig.look()
    assert "refused" in order.detail or "500" in order.detail
    assert rig.hosts["a"].resets == ["GracefulShutdown"]
    rig.bmcs["a"].changes.clear()
    rig.clock.s += 60.0
    await rig.until(OffState.STARTING)
    assert rig.hosts["a"].resets[-1] == "On"
