"""A locked database at the controller: what lowers goes out at once and is recorded after, what raises waits."""

import asyncio
import sqlite3
from collections.abc import Callable

import pytest

from controller.identity.caller import Caller
from controller.service import ControllerService
from gridpivot.errors import GridpivotError
from gridpivot.vocabulary import Role
from tests.unit.conftest import feed

pytestmark = pytest.mark.unit
OPS = Caller("ops", Role.OPERATOR, "test")


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(45):
        while not condition():
            await asyncio.sleep(0.05)


async def test_lowered_ceiling_goes_out_of_a_locked_database_and_its_record_follows(
    controller: ControllerService,
) -> None:
    operations, board, loop = controller.operations, controller.operations.board, controller.loop
    await until(lambda: board.posted("falcon-1") is not None)
    before = board.posted("falcon-1").plan
    lock = sqlite3.connect(controller.settings.state_dir / "controller.db", isolation_level=None, timeout=20)
    lock.execute("BEGIN IMMEDIATE")
    try:
        began = asyncio.get_running_loop().time()
        done = await operations.set_override("falcon-1", 1.5e5, None, "grid call", "k", OPS)
        assert done.ceiling_w == 1.5e5
        loop.wake()
        await until(lambda: board.posted("falcon-1").plan.ceiling_w <= 1.5e5)
        assert asyncio.get_running_loop().time() - began < 15.0
        cut = board.posted("falcon-1").plan
        assert (cut.epoch, cut.version > before.version) == (before.epoch, True)
        assert len(operations.pending) >= 1 and operations.pending.degraded
        with pytest.raises(GridpivotError, match="may only lower"):
            await operations.set_override("falcon-1", None, None, "over", "", OPS)
        assert operations.ceiling_w("falcon-1", controller.clock.now()) == 1.5e5
    finally:
        lock.rollback()
        lock.close()
    await until(lambda: operations.pending.degraded is None and not len(operations.pending))
    feed(controller, "falcon-1")
    trail = [(e.actor, e.action, e.reason) for e in await controller.store.ledger.audit_trail()]
    assert trail == [("ops", "override", "grid call")]
    plans = {}
    for line in await controller.store.ledger.decision_lines(50):
        for raw in await controller.store.ledger.plans_of(line.decision_id):
            plan = type(before).FromString(raw)
            plans[plan.site, plan.version] = plan
    assert plans["falcon-1", cut.version] == cut  # no plan that went out is without its record
    await operations.set_override("falcon-1", None, None, "over", "", OPS)
    loop.wake()
    await until(lambda: board.posted("falcon-1").plan.ceiling_w > 3e5)
