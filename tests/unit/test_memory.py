"""What the controller remembers of sites between reports: the month's peak over a restart, and what a pool usually wants."""

from __future__ import annotations

from pathlib import Path

import pytest

from controller.dispatch.terms import Queue
from controller.fleet.tables import Fleet
from controller.markets.ai_backlog import Piece
from controller.markets.book import MarketBook
from controller.markets.settings import MarketSettings
from controller.memory import SiteMemory
from controller.store.store import Store
from gridpivot.clock import Instant, SystemClock
from gridpivot.curves import AiPool
from gridpivot.v1 import telemetry_pb2 as pb
from gridpivot.vocabulary import AiPriority

pytestmark = pytest.mark.unit

NOON = 1_735_732_800.0  # 2025-01-01T12:00Z, the beginning of a clock quarter
TRAIN = AiPool("train", AiPriority.STANDARD, 1000, 0.5e6, 1e6, 3e6, ((3e6, 1.0),))
TARIFF = {"time_zone": "America/Chicago", "demand": {"per_kw_month": 10.0, "reckoned_peak_mw": 0.1}}


def moment(after_s: float) -> Instant:
    return Instant(1_000.0 + after_s, NOON + after_s)


def report(fleet: Fleet, after_s: float, energy_j: int, demand_w: float) -> None:
    now = moment(after_s)
    pools = [pb.PoolRollup(name="train", demand_w=demand_w)]
    rollup = pb.SiteRollup(observed_at_unix_ms=now.unix_ms, import_energy_j=energy_j, pools=pools)
    fleet["falcon-1"].take_rollup(rollup, now)


async def memory_of(store: Store, fleet: Fleet) -> SiteMemory:
    settings = MarketSettings.model_validate(
        {"tariffs": {"grid": TARIFF}, "default": {"usd_per_mwh": 40, "tariff": "grid"}}
    )
    book = MarketBook(settings, {"ercot"}, moment(0.0))
    made = SiteMemory(fleet, book, store.peaks, SystemClock(), {"falcon-1": None})
    await made.restore()
    return made


async def test_peak_of_the_month_outlives_a_restart(tmp_path: Path) -> None:
    fleet = Fleet([("falcon-1", "ercot")])
    store = await Store.open(tmp_path / "c.db", SystemClock())
    try:
        memory = await memory_of(store, fleet)
        for minute in range(17):  # 2 MW from noon on
            report(fleet, 60.0 * minute, round(60.0 * minute * 2e6), 1e6)
            await memory.look(moment(60.0 * minute))
        charge = memory.demand_charge("falcon-1", "ercot", moment(1_000.0))
        assert charge is not None
        assert (charge.usd_per_kw, charge.peak_w) == (10.0, pytest.approx(2e6))
        assert charge.remaining_s == pytest.approx(30.75 * 86_400 - 1_000.0)  # Chicago's month ends at 06:00Z
    finally:
        await store.close()
    store = await Store.open(tmp_path / "c.db", SystemClock())
    try:
        again = await memory_of(store, Fleet([("falcon-1", "ercot")]))
        restored = again.demand_charge("falcon-1", "ercot", moment(2_000.0))
        assert restored is not None
        assert restored.peak_w == pytest.approx(2e6)
    finally:
        await store.close()


async def test_pool_is_expected_to_return_to_what_it_usually_wants(tmp_path: Path) -> None:
    fleet = Fleet([("falcon-1", "ercot")])
    store = await Store.open(tmp_path / "c.db", SystemClock())
    try:
        memory = await memory_of(store, fleet)
        for quarter in range(96):
            report(fleet, 900.0 * quarter, 0, 1e6)
            await memory.look(moment(900.0 * quarter))
        ahead = memory.demand_ahead("falcon-1", TRAIN, 3e6, None, moment(900.0 * 96))
        assert ahead[0].power_w == pytest.approx(3e6, rel=0.01)
        assert ahead[-1].power_w == pytest.approx(1e6, rel=0.05)
        assert memory.demand_ahead("falcon-1", TRAIN, None, None, moment(900.0 * 96)) == ()
        week = Queue(running_gpu_h=1000.0, pending_gpu_h=168_000.0, busy_gpus=1000.0)
        held = memory.demand_ahead("falcon-1", TRAIN, 3e6, week, moment(900.0 * 96))
        assert held[-1].power_w == pytest.approx(3e6)  # a week of work waits: the habit of wanting less says nothing
    finally:
        await store.close()


async def test_work_that_waits_is_remembered_by_when_it_came(tmp_path: Path) -> None:
    fleet = Fleet([("falcon-1", "ercot")])
    store = await Store.open(tmp_path / "c.db", SystemClock())
    try:
        memory = await memory_of(store, fleet)
        assert memory.waited("falcon-1", "train") is None
        for after_s, gpu_h in ((0.0, 40.0), (3_600.0, 70.0), (7_200.0, None), (7_300.0, 50.0)):
            pool = pb.PoolRollup(name="train", backlog_gpu_h=gpu_h, defer_within_s=7_200.0)
            rollup = pb.SiteRollup(observed_at_unix_ms=moment(after_s).unix_ms, pools=[pool])
            fleet["falcon-1"].take_rollup(rollup, moment(after_s))
            await memory.look(moment(after_s))
        assert memory.waited("falcon-1", "train") == (Piece(NOON - 3_600.0, 20.0), Piece(NOON + 3_600.0, 30.0))
    finally:
        await store.close()
