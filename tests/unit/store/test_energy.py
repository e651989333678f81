"""Totals of energy ledgers: durable with the roll-up that brought them, and never going back. Real SQLite."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.store.energy import SiteEnergy, energy_of
from controller.store.lanes import Arrival
from controller.store.store import Store
from gridpivot.clock import SystemClock
from gridpivot.errors import BadReport
from gridpivot.v1 import telemetry_pb2 as pb
from gridpivot.v1.session_pb2 import LANE_SITE

pytestmark = pytest.mark.unit

BOOT, FIRST, SECOND = b"b" * 16, b"1" * 16, b"2" * 16


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    opened = await Store.open(tmp_path / "store.db", SystemClock(), group_s=0.01)
    yield opened
    await opened.close()


def totals(import_j: int, ledger_id: bytes = FIRST, **changes: int) -> pb.EnergyTotals:
    split = {"mining_j": import_j // 2, "ai_j": import_j // 4, "overhead_j": import_j // 8, **changes}
    rest = import_j - split["mining_j"] - split["ai_j"] - split["overhead_j"]
    return pb.EnergyTotals(**({"ledger_id": ledger_id, "import_j": import_j, "unattributed_j": rest} | split))


def rollup(seq: int, energy: pb.EnergyTotals | None) -> Arrival:
    return Arrival(seq, pb.SiteRollup(observed_at_unix_ms=seq * 1000, energy=energy))


async def test_newest_totals_are_there_after_a_restart(store: Store, tmp_path: Path) -> None:
    await store.append("falcon-1", BOOT, LANE_SITE, [rollup(1, totals(1000)), rollup(2, totals(5000))])
    await store.append("falcon-1", BOOT, LANE_SITE, [rollup(3, None)])
    await store.close()
    again = await Store.open(tmp_path / "store.db", SystemClock())
    energy = again.lanes.energy.of_site("falcon-1")
    await again.close()
    assert energy == SiteEnergy(5000, 2500, 1250, 625, 625, 0, 0)
    assert again.lanes.energy.of_site("falcon-2") is None


async def test_what_comes_late_or_twice_takes_nothing_back(store: Store, tmp_path: Path) -> None:
    await store.append("falcon-1", BOOT, LANE_SITE, [rollup(9, totals(9000))])
    await store.append("falcon-1", BOOT, LANE_SITE, [rollup(3, totals(3000))])
    await store.append("falcon-1", BOOT, LANE_SITE, [rollup(8, totals(8000)), rollup(7, totals(7000))])
    assert store.lanes.energy.of_site("falcon-1").import_j == 9000
    await store.close()
    again = await Store.open(tmp_path / "store.db", SystemClock())
    assert again.lanes.energy.of_site("falcon-1").import_j == 9000
    await again.close()


async def test_site_is_the_sum_of_its_ledgers(store: Store) -> None:
    await store.append("falcon-1", BOOT, LANE_SITE, [rollup(1, totals(9000)), rollup(2, totals(500, SECOND))])
    await store.append("falcon-2", BOOT, LANE_SITE, [rollup(1, totals(1))])
    assert store.lanes.energy.of_site("falcon-1").import_j == 9500


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        (totals(1000, b"short"), "16"),
        (totals(2**63), "2\\^63"),
        (totals(1000, unmetered_j=2**64 - 1), "2\\^63"),
        (pb.EnergyTotals(ledger_id=FIRST, import_j=1000, mining_j=999), "parts"),
    ],
)
def test_totals_that_no_ledger_says_are_refused(bad: pb.EnergyTotals, words: str) -> None:
    with pytest.raises(BadReport, match=words):
        energy_of(bad)


@given(st.permutations(range(1, 9)), st.integers(0, 7))
def test_order_of_arrival_does_not_matter(order: list[int], cut: int) -> None:
    from controller.store.energy import EnergyStore

    seen = EnergyStore(None)  # type: ignore[arg-type]  # nothing is read
    for part in (order[:cut], order[cut:]):
        batch: dict = {}
        for number in part:
            seen.note(batch, "falcon-1", rollup(number, totals(1000 * number)).message)  # type: ignore[arg-type]
        seen.written(batch)
    energy = seen.of_site("falcon-1")
    assert energy is not None and energy.import_j == 8000
