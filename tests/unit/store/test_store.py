"""What the store has acknowledged is there, once, in order, whatever is sent twice. Real SQLite."""

import asyncio
import json
import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import func, select
from sqlalchemy.exc import IntegrityError

from controller.store import engine, schema
from controller.store.engine import writer_engine
from controller.store.lanes import Arrival
from controller.store.ledger import AuditEntry, DecisionRecord, OrderRow, pack, unpack
from controller.store.retention import Retention
from controller.store.store import Store
from controller.store.writer import StoreClosed
from gridpivot.clock import Instant, SystemClock
from gridpivot.errors import GridpivotError, Refused
from gridpivot.link.cursors import ALSO_MAX, LaneCursor
from gridpivot.v1 import plan_pb2
from gridpivot.v1 import telemetry_pb2 as pb
from gridpivot.v1.session_pb2 import LANE_DEVICES, LANE_EVENTS, LANE_SITE

pytestmark = pytest.mark.unit

BOOT = b"b" * 16
NOW = Instant(1.0, 1_700_000_000.0)


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    opened = await Store.open(tmp_path / "store.db", SystemClock(), group_s=0.01)
    yield opened
    await opened.close()


async def count(store: Store, table) -> int:
    async with store._reading.connect() as connection:
        return (await connection.execute(select(func.count()).select_from(table))).scalar_one()


def event(seq: int) -> Arrival:
    return Arrival(seq, pb.SiteEvent(occurred_at_unix_ms=seq * 1000, kind="meter_fault", message=f"no. {seq}"))


def rollup(seq: int) -> Arrival:
    return Arrival(seq, pb.SiteRollup(observed_at_unix_ms=seq * 1000, metered_power_w=1e6))


def signed(site: str, epoch: int, version: int) -> plan_pb2.SignedPlan:
    plan = plan_pb2.Plan(site=site, epoch=epoch, version=version, issued_at_unix_ms=NOW.unix_ms + version)
    return plan_pb2.SignedPlan(plan=plan.SerializeToString(), signature=b"s" * 64, key_id="k1")


def decision(number: int) -> DecisionRecord:
    return DecisionRecord(f"d{number}", NOW, "interval", 12.5, pack({"sites": [number]}), pack({"ok": True}))


async def test_migrations_build_exactly_the_tables_of_the_schema(store: Store) -> None:
    engine = writer_engine(store.path)
    async with engine.connect() as connection:
        difference = await connection.run_sync(
            lambda c: compare_metadata(MigrationContext.configure(c, opts={"compare_type": True}), schema.metadata)
        )
        mode = (await connection.exec_driver_sql("PRAGMA journal_mode")).scalar()
        synchronous = (await connection.exec_driver_sql("PRAGMA synchronous")).scalar()
    await engine.dispose()
    assert difference == []
    assert (mode, synchronous) == ("wal", 2)


async def test_record_sent_twice_is_stored_once(store: Store) -> None:
    await store.append("falcon-1", BOOT, LANE_EVENTS, [event(1), event(2)])
    cursor = await store.append("falcon-1", BOOT, LANE_EVENTS, [event(2), event(3)])
    assert cursor == LaneCursor(3)
    assert await count(store, schema.site_events) == 3
    assert store.lanes.records_committed == 3
    assert store.lanes.records_repeated == 1
    assert [e.message for e in await store.lanes.events("falcon-1")] == ["no. 1", "no. 2", "no. 3"]


async def test_acknowledged_records_survive_a_reopen(tmp_path: Path) -> None:
    first = await Store.open(tmp_path / "s.db", SystemClock(), group_s=0.01)
    await first.append("falcon-1", BOOT, LANE_SITE, [rollup(1), rollup(2)])
    await first.close()
    second = await Store.open(tmp_path / "s.db", SystemClock(), group_s=0.01)
    assert await second.acked_through("falcon-1", BOOT) == {LANE_SITE: LaneCursor(2)}
    assert await second.append("falcon-1", BOOT, LANE_SITE, [rollup(2), rollup(3)]) == LaneCursor(3)
    assert await count(second, schema.rollups) == 3
    await second.close()


async def test_another_boot_starts_from_its_own_one(store: Store) -> None:
    await store.append("falcon-1", BOOT, LANE_EVENTS, [event(1)])
    assert await store.acked_through("falcon-1", b"c" * 16) == {}
    await store.append("falcon-1", b"c" * 16, LANE_EVENTS, [event(1)])
    assert await count(store, schema.site_events) == 2


async def test_device_reports_move_the_cursor_and_leave_no_row(store: Store) -> None:
    reports = [Arrival(seq, pb.DeviceReport()) for seq in (9, 8)]
    assert await store.append("falcon-1", BOOT, LANE_DEVICES, reports) == LaneCursor(0, (8, 9))
    assert await store.let_go("falcon-1", BOOT, LANE_DEVICES, 8) == LaneCursor(9)
    assert store.lanes.records_lost == 7


async def test_unreadable_record_is_acknowledged_so_that_it_is_not_sent_for_ever(store: Store) -> None:
    assert await store.append("falcon-1", BOOT, LANE_SITE, [Arrival(1, None)]) == LaneCursor(1)
    assert await count(store, schema.rollups) == 0


async def test_many_sites_share_few_commits(store: Store) -> None:
    before = store.writer.commits
    await asyncio.gather(*(store.append(f"site-{i}", BOOT, LANE_SITE, [rollup(1)]) for i in range(40)))
    assert await count(store, schema.rollups) == 40
    assert store.writer.commits - before <= 20


async def test_inventory_is_kept_and_replaced(store: Store) -> None:
    assert await store.lanes.inventory("falcon-1") is None
    for seq, devices in ((1, 10), (2, 20)):
        message = pb.Inventory(inventory_hash=b"h" * 32, device_count=devices)
        await store.append("falcon-1", BOOT, LANE_EVENTS, [Arrival(seq, message)])
    kept = await store.lanes.inventory("falcon-1")
    assert kept is not None
    assert kept.device_count == 20


async def test_epoch_never_goes_back_over_restarts(tmp_path: Path) -> None:
    epochs = []
    for _ in range(3):
        store = await Store.open(tmp_path / "s.db", SystemClock(), group_s=0.01)
        epochs.append(await store.ledger.next_epoch())
        await store.close()
    assert epochs == [1, 2, 3]


async def test_epoch_passes_any_plan_ever_written(store: Store) -> None:
    await store.ledger.record_decision(decision(1), [signed("falcon-1", 7, 1)])
    assert await store.ledger.next_epoch() == 8


async def test_decision_and_plans_are_one_and_can_be_read_back(store: Store) -> None:
    await store.ledger.record_decision(decision(1), [signed("a", 1, 1), signed("b", 1, 1)])
    await store.ledger.record_decision(decision(2), [signed("a", 1, 2)])
    last = await store.ledger.last_plans()
    assert {site: plan_pb2.Plan.FromString(s.plan).version for site, s in last.items()} == {"a": 2, "b": 1}
    record = await store.ledger.decision("d2")
    assert record is not None
    assert unpack(record.inputs) == {"sites": [2]}
    assert await store.ledger.decision("nothing") is None


async def test_used_plan_version_is_refused_and_its_decision_with_it(store: Store) -> None:
    await store.ledger.record_decision(decision(1), [signed("a", 1, 1)])
    with pytest.raises(IntegrityError):
        await store.ledger.record_decision(decision(2), [signed("a", 1, 1)])
    assert await store.ledger.decision("d2") is None


async def test_refused_change_does_not_undo_its_neighbours(store: Store) -> None:
    await store.ledger.record_decision(decision(1), [signed("a", 1, 1)])
    good, bad = await asyncio.gather(
        store.append("falcon-1", BOOT, LANE_SITE, [rollup(1)]),
        store.ledger.record_decision(decision(1), []),
        return_exceptions=True,
    )
    assert good == LaneCursor(1)
    assert isinstance(bad, IntegrityError)


async def test_same_idempotency_key_does_nothing_twice(store: Store) -> None:
    entry = AuditEntry("ops", "override", "ercot", "{}", json.dumps({"ceiling_w": 1}), "key-1")
    order = OrderRow("o1", "override", 1, None, "{}")
    first = await store.ledger.record_order(entry, [order], NOW)
    again = await store.ledger.record_order(entry, [OrderRow("o2", "override", 2, None, "{}")], NOW)
    assert again.repeated
    assert again.audit_id == first.audit_id
    assert [o.order_id for o in await store.ledger.open_orders(0)] == ["o1"]
    with pytest.raises(Refused, match="key-1"):
        await store.ledger.record_order(AuditEntry("ops", "event", "", "{}", "{}", "key-1"), [], NOW)
    assert (await store.ledger.audited("key-1")) is not None
    assert len(await store.ledger.audit_trail()) == 1


async def test_statuses_come_back_newest_last(store: Store) -> None:
    for word in ("accepted", "applied"):
        await store.ledger.record_status("a", pb.PlanStatus(epoch=1, version=1, status=word), NOW)
    assert [s.status for s in await store.ledger.statuses("a")] == ["accepted", "applied"]


async def test_purge_is_counted_and_keeps_the_plan_in_force(store: Store) -> None:
    await store.append("a", BOOT, LANE_SITE, [rollup(1), rollup(2), rollup(1_700_000_000)])
    await store.ledger.record_decision(decision(1), [signed("a", 1, 1), signed("a", 1, 2), signed("b", 1, 1)])
    later = Instant(0.0, NOW.unix_s + 40 * 86_400)
    counts = await store.purge(Retention(rollups_s=41 * 86_400), later)
    assert counts["rollups"] == 2
    assert counts["plans"] == 1
    assert counts["decisions"] == 1
    assert set(await store.ledger.last_plans()) == {"a", "b"}
    assert store.purged["rollups"] == 2


async def test_closed_store_takes_nothing_and_says_so(tmp_path: Path) -> None:
    store = await Store.open(tmp_path / "s.db", SystemClock(), group_s=0.01)
    await store.close()
    with pytest.raises(StoreClosed):
        await store.ledger.next_epoch()


async def test_closing_commits_what_waits(tmp_path: Path) -> None:
    store = await Store.open(tmp_path / "s.db", SystemClock(), group_s=30.0)
    waiting = asyncio.create_task(store.append("a", BOOT, LANE_SITE, [rollup(1)]))
    async with asyncio.timeout(10):
        while store.writer._task is None or store.writer._queue._unfinished_tasks == 0:
            await asyncio.sleep(0)
        await store.close()
        assert await waiting == LaneCursor(1)


async def test_file_that_is_no_database_is_one_sentence(tmp_path: Path) -> None:
    path = tmp_path / "s.db"
    path.write_bytes(b"not a database at all" * 100)
    with pytest.raises(GridpivotError, match=r"s\.db.*cannot be opened"):
        await Store.open(path, SystemClock())


@given(st.lists(st.lists(st.integers(1, 40), max_size=10), max_size=12))
def test_cursor_holds_exactly_what_was_committed(batches: list[list[int]]) -> None:
    cursor, came = LaneCursor(), set()
    for batch in batches:
        cursor = cursor.after(batch)
        came |= set(batch)
        assert {s for s in range(1, 45) if cursor.holds(s)} == came
        assert list(cursor.also_seqs) == sorted(set(cursor.also_seqs))
        assert cursor.through_seq + 1 not in cursor.also_seqs


def test_cursor_with_endless_gaps_stays_bounded() -> None:
    cursor = LaneCursor().after(range(2, 6 * ALSO_MAX, 2), may_let_go=True)
    assert len(cursor.also_seqs) <= ALSO_MAX
    assert cursor.holds(2)


async def test_records_are_taken_again_after_a_lock_that_outlasted_the_store(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "BUSY_MS", 50)
    store = await Store.open(tmp_path / "s.db", SystemClock(), group_s=0.01)
    holder = sqlite3.connect(tmp_path / "s.db", isolation_level=None)
    try:
        await store.append("s1", BOOT, LANE_SITE, [rollup(1)])
        holder.execute("BEGIN IMMEDIATE")
        for _ in range(2):  # a group whose transaction never began must not be joined by who comes after
            with pytest.raises(GridpivotError, match="locked"):
                await store.append("s1", BOOT, LANE_SITE, [rollup(2)])
        holder.rollback()
        assert (await store.append("s1", BOOT, LANE_SITE, [rollup(2)])).through_seq == 2
    finally:
        holder.close()
        await store.close()
