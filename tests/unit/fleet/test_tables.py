"""Live tables take what fits, refuse what contradicts itself, and never mix up old and new."""

import numpy as np
import pytest

from controller.fleet.tables import MOST_NAMES_BYTES, Fleet, SiteLive, Took
from gridpivot.clock import Instant
from gridpivot.columns import DeviceTable, encode_report
from gridpivot.curves import miner_class
from gridpivot.errors import BadReport
from gridpivot.v1 import telemetry_pb2 as pb
from gridpivot.vocabulary import DeviceState, LinkState

pytestmark = pytest.mark.unit

COUNT = 6
HASH = b"h" * 32


def at(seconds: float) -> Instant:
    return Instant(seconds, 1_700_000_000.0 + seconds)


def inventory(count: int = COUNT, inventory_hash: bytes = HASH) -> pb.Inventory:
    return pb.Inventory(
        inventory_hash=inventory_hash,
        device_count=count,
        classes=[
            miner_class("a", "luxos", "Antminer S19", shed_s=5, wake_s=10).to_proto(),
            miner_class("b", "whatsminer", "Whatsminer M50", shed_s=2, wake_s=360).to_proto(),
        ],
        class_indexes=bytes([0, 1] * (count // 2)),
        feeders=["f1"],
        feeder_indexes=bytes(2 * count),
    )


def report(now: Instant, power_w: float = 3000.0, inventory_hash: bytes = HASH) -> pb.DeviceReport:
    table = DeviceTable(COUNT)
    table["power_w"][:] = power_w
    table["state"][:] = DeviceState.HASHING.code
    table["state"][0] = DeviceState.UNREACHABLE.code
    table["power_w"][0] = np.nan
    return encode_report(table, inventory_hash, now.unix_ms)


def site() -> SiteLive:
    live = SiteLive("falcon-1", "ercot")
    live.take_inventory(inventory())
    return live


def test_report_lands_in_the_columns_and_in_the_sums() -> None:
    live = site()
    assert live.take_report(report(at(10)), at(10)) is Took.TAKEN
    first, second = live.class_totals()
    assert first.name == "a"
    assert first.state_counts[DeviceState.UNREACHABLE.code] == 1
    assert first.power_w == 2 * 3000.0  # the silent one's power is unknown, and no zero is made up for it
    assert second.state_counts[DeviceState.HASHING.code] == 3
    assert live.report_age_s(at(25)) == pytest.approx(15, abs=0.01)


def test_rows_of_another_inventory_are_an_outcome_and_change_nothing() -> None:
    live = site()
    assert live.take_report(report(at(1), inventory_hash=b"x" * 32), at(1)) is Took.UNKNOWN_INVENTORY
    assert live.report_at is None
    assert SiteLive("new", "r").take_report(report(at(1)), at(1)) is Took.UNKNOWN_INVENTORY


def test_contradicting_report_is_refused_and_leaves_the_table_as_it_was() -> None:
    live = site()
    live.take_report(report(at(1)), at(1))
    bad = report(at(2), power_w=9.0)
    bad.columns[2].values = b"\0"
    with pytest.raises(BadReport, match=r"falcon-1.*temp_c"):
        live.take_report(bad, at(2))
    assert live.table["power_w"][1] == 3000.0
    assert live.reports_refused == 1


def test_late_backlog_does_not_overwrite_newer_rows() -> None:
    live = site()
    live.take_report(report(at(60), power_w=100.0), at(60))
    assert live.take_report(report(at(30), power_w=999.0), at(61)) is Took.OLDER
    assert live.table["power_w"][1] == 100.0


def test_word_of_a_newer_agent_becomes_unknown() -> None:
    live = site()
    newer = report(at(1))
    newer.columns[3].values = bytes([200] * COUNT)
    assert live.take_report(newer, at(1)) is Took.TAKEN
    assert live.class_totals()[0].state_counts[DeviceState.UNKNOWN.code] == 3


def test_new_inventory_empties_the_table_and_the_same_one_does_not() -> None:
    live = site()
    live.take_report(report(at(1)), at(1))
    live.take_inventory(inventory())
    assert live.table["power_w"][1] == 3000.0
    live.take_inventory(inventory(4, b"i" * 32))
    assert live.device_count == 4
    assert np.isnan(live.table["power_w"]).all()
    assert live.report_age_s(at(2)) is None


@pytest.mark.parametrize(
    "spoil",
    [
        lambda i: i.ClearField("inventory_hash"),
        lambda i: setattr(i, "class_indexes", bytes([9] * COUNT)),
        lambda i: setattr(i, "class_indexes", b"\0"),
        lambda i: setattr(i, "feeder_indexes", b"\1" * 2 * COUNT),
        lambda i: setattr(i, "device_count", 4_000_000_000),
        lambda i: setattr(i, "mac_addresses", bytes(2 * MOST_NAMES_BYTES)),
        lambda i: i.classes[0].ClearField("modes"),
        lambda i: i.pools.add(name="p", priority="best"),
    ],
)
def test_inventory_that_contradicts_itself_is_refused_whole(spoil) -> None:
    live = site()
    bad = inventory(COUNT, b"n" * 32)
    spoil(bad)
    with pytest.raises(BadReport):
        live.take_inventory(bad)
    assert live.inventory_hash == HASH
    assert live.device_count == COUNT


def test_wrong_agent_clock_does_not_make_a_live_site_look_old() -> None:
    live = site()
    hour_behind = at(0).unix_ms - 3_600_000
    live.note_connected("0.1.0", hour_behind, at(0))
    live.take_rollup(pb.SiteRollup(observed_at_unix_ms=hour_behind + 5_000), at(5))
    assert live.rollup_age_s(at(6)) == pytest.approx(1, abs=0.01)
    assert live.take_rollup(pb.SiteRollup(observed_at_unix_ms=hour_behind), at(7)) is Took.OLDER


def test_link_is_never_seen_then_connected_then_silent() -> None:
    live = site()
    assert live.link is LinkState.NEVER_SEEN
    live.note_disconnected(at(0))
    assert live.link is LinkState.NEVER_SEEN
    live.note_connected("0.1.0", at(1).unix_ms, at(1))
    assert live.link is LinkState.CONNECTED
    live.note_disconnected(at(2))
    assert live.link is LinkState.SILENT


def test_totals_leave_out_stale_sites_instead_of_counting_them_as_zero() -> None:
    fleet = Fleet([("falcon-1", "ercot"), ("oryx-1", "uae")])
    fleet["falcon-1"].take_inventory(inventory())
    fleet["falcon-1"].take_report(report(at(0)), at(0))
    fleet["falcon-1"].take_rollup(pb.SiteRollup(observed_at_unix_ms=at(0).unix_ms, assumed_power_w=5e6), at(0))
    assert fleet.totals(at(10), 30).sites_fresh == 1
    assert fleet.totals(at(10), 30).power_w == 5e6
    assert fleet.devices_reporting(at(10), 30) == COUNT
    assert fleet.devices_reporting(at(100), 30) == 0
    assert fleet.totals(at(100), 30).sites_fresh == 0
