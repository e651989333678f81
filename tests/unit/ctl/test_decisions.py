"""Previews, explanations ahead, lists and replays of decisions, from the shell to a running controller."""

from __future__ import annotations

import asyncio
import sqlite3
from typing import TYPE_CHECKING

import pytest

from controller.identity.caller import Caller
from controller.service import ControllerService
from controller.store.ledger import pack, unpack
from gridpivot.vocabulary import Role

if TYPE_CHECKING:
    from tests.unit.ctl.conftest import Operator

pytestmark = pytest.mark.unit
OPS = Caller("ops", Role.OPERATOR)


async def newest(operator: Operator) -> dict:
    """The newest decision, once one stands in the store."""
    async with asyncio.timeout(30):
        while not (found := (await operator.document("decisions"))["decisions"]):
            await asyncio.sleep(0.01)
    return found[-1]


def rewrite(controller: ControllerService, column: str, change) -> None:
    """Change a column of every stored decision, as a fault on the disk or another version would have left it."""
    with sqlite3.connect(controller.settings.state_dir / "controller.db") as connection:
        for decision_id, blob in connection.execute(f"SELECT decision_id, {column} FROM decisions").fetchall():
            value = unpack(blob)
            change(value)
            connection.execute(f"UPDATE decisions SET {column} = ? WHERE decision_id = ?", (pack(value), decision_id))
    connection.close()


async def test_explanation_shows_every_period_with_its_rung_and_worth(operator: Operator, controller) -> None:
    await controller.operations.set_override("falcon-1", 2e5, None, "tight", "", OPS)
    controller.loop.wake()
    async with asyncio.timeout(30):
        while controller.operations.board.posted("falcon-1").plan.ceiling_w > 2e5:
            await asyncio.sleep(0.01)
    told = await operator.document("explain", "falcon-1")
    assert (told["rung"], told["rung_reason"]) == ("plan", "")
    assert len(told["outlook"]) == 80
    assert {s["kind"] for s in told["outlook"][0]["shadow"]} >= {"ceiling"}
    assert told["worth"]["interconnect_usd_per_mw"] > 0
    assert any("One more MW of interconnect over the next 48 h would be worth" in s for s in told["sentences"])
    _, near, _ = await operator("explain", "falcon-1")
    _, every, _ = await operator("explain", "falcon-1", "--all")
    assert len(every.splitlines()) - len(near.splitlines()) == 64


async def test_explanation_says_what_an_hour_more_notice_of_a_coming_event_is_worth(operator: Operator) -> None:
    words = ("event", "create", "--sites=falcon-1", "--ceiling-pct=25", "--start=+2h", "--end=+3h", "--reason=call")
    event = (await operator.document(*words))["event_id"]
    async with asyncio.timeout(30):
        while event not in (told := await operator.document("explain", "falcon-1"))["worth"]["notice_usd"]:
            await asyncio.sleep(0.01)
    assert any(
        f"One hour more notice of event {event} (the same event an hour later) would be worth" in s
        for s in told["sentences"]
    )
    held = [p for p in told["outlook"] if any(s["name"] == f"event {event}" for s in p["shadow"])]
    assert held
    assert all(p["ceiling_w"] < 4e5 for p in held)


async def test_preview_tells_megawatts_machines_and_dollars_and_leaves_everything_as_it_was(
    operator: Operator, controller: ControllerService
) -> None:
    await newest(operator)
    orders, counts = controller.operations.orders, controller.loop.counts.plans
    posted, planner = controller.operations.board.posted("falcon-1"), controller.loop._planner
    blocks = dict(planner._blocks)
    words = ("plan", "preview", "--event", "--sites=*", "--ceiling-pct=25", "--end=+1h")
    told = await operator.document(*words)
    (site,) = told["sites"]
    assert (site["site"], site["ceiling_w"]) == ("falcon-1", 1e5)
    assert site["import_after_w"] <= 1e5 + 1.0 < site["import_before_w"]
    assert site["classes"][0]["sleep_machines_after"] > site["classes"][0]["sleep_machines_before"]
    assert told["cost_usd"] > 0
    assert told["left_out"] == ["oryx-1: has not reported yet"]
    assert controller.operations.orders.by_id == orders.by_id
    assert controller.operations.board.posted("falcon-1") == posted
    assert controller.loop.counts.plans == counts
    assert controller.loop._planner is planner and planner._blocks == blocks
    assert await controller.operations.ledger.audit_trail() == []
    code, out, err = await operator(*words)
    assert (code, err) == (0, "")
    assert "nothing was recorded, nothing was sent" in out


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (("--sites=oryx-1", "--ceiling-mw=0.1"), 4, "nothing to preview: oryx-1: has not reported yet"),
        (("--sites=nowhere", "--ceiling-mw=0.1"), 4, "no site 'nowhere'"),
        (("--sites=*",), 2, "exactly one of"),
        (("--sites=falcon-1", "--product=ECRS"), 4, "falcon-1 has sold no 'ECRS'"),
        (("--sites=*", "--ceiling-mw=0.1", "--start=+50h"), 4, "beyond the 48 h"),
        (("--sites=*", "--ceiling-mw=0.1", "--start=+2h", "--end=+1h"), 4, "ends before it starts"),
    ],
)
async def test_senseless_preview_is_one_line_and_its_exit_code(
    operator: Operator, words: tuple[str, ...], code: int, says: str
) -> None:
    given, _, err = await operator("plan", "preview", *words)
    assert (given, len(err.splitlines())) == (code, 1)
    assert says in err


async def test_plan_of_a_site_still_answers_with_options_before_its_name(operator: Operator) -> None:
    code, out, _ = await operator("plan", "--json", "falcon-1")
    assert (code, '"site": "falcon-1"' in out) == (0, True)
    assert (await operator.document("plan", "show", "falcon-1"))["site"] == "falcon-1"


async def test_recorded_decision_replays_to_the_same_bits(operator: Operator) -> None:
    line = await newest(operator)
    assert (line["rung"], line["plans"]) == ("plan", 1)
    told = await operator.document("replay", line["decision_id"])
    assert (told["same"], told["differences"], told["sites"], told["plans"]) == (True, [], 1, 1)
    code, out, _ = await operator("replay", line["decision_id"])
    assert (code, "the same, bit for bit" in out) == (0, True)


async def test_replay_names_what_differs_and_ends_with_1(operator: Operator, controller: ControllerService) -> None:
    line = await newest(operator)
    rewrite(controller, "inputs", lambda fleet: fleet["sites"][0].update(ceiling_w=2e5))
    code, out, err = await operator("replay", line["decision_id"])
    assert (code, err) == (1, "")
    assert "NOT the same" in out
    assert "falcon-1: " in out and "differ" in out and "the plan's bytes differ" in out


async def test_replay_says_so_when_the_solver_is_another(operator: Operator, controller: ControllerService) -> None:
    line = await newest(operator)
    rewrite(controller, "start", lambda start: start.update(solver="HiGHS 0.0.1"))
    code, out, _ = await operator("replay", line["decision_id"])
    assert code == 1
    assert "was HiGHS 0.0.1: the same bits cannot be promised" in out


async def test_decision_that_solved_nothing_cannot_be_replayed_and_says_so(
    operator: Operator, controller: ControllerService, monkeypatch: pytest.MonkeyPatch
) -> None:
    await newest(operator)

    def broken(_fleet: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(controller.loop._planner, "solve", broken)
    await controller.operations.set_override("falcon-1", 1e5, None, "x", "", OPS)
    controller.loop.wake()
    async with asyncio.timeout(30):
        while (line := await newest(operator))["rung"] == "plan":
            await asyncio.sleep(0.01)
    assert (line["rung"], line["objective_usd"]) == ("clipped_plan", None)
    code, _, err = await operator("replay", line["decision_id"])
    assert (code, len(err.splitlines())) == (4, 1)
    assert "nothing was solved (clipped_plan)" in err
    explained = await operator.document("explain", "falcon-1")
    assert (explained["rung"], explained["worth"], explained["outlook"]) == ("clipped_plan", None, [])
    assert any("the solver broke: ZeroDivisionError" in s for s in explained["sentences"])


async def test_unknown_decision_is_refused_with_where_to_look(operator: Operator) -> None:
    code, _, err = await operator("replay", "decision-0")
    assert code == 4
    assert "gridpivot decisions lists them" in err
