"""What dispatch is told follows from what sites said; gaps are filled in on the careful side."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.connection import BacklogSettings, PoolTerms
from controller.dispatch.terms import Queue, WorkDue
from controller.events.windows import Orders, override
from controller.fleet.backlogs import demanded
from controller.fleet.state import SiteTerms, class_state, fleet_state, margin_usd_per_h, overhead_ratio
from controller.fleet.tables import SiteLive
from controller.markets.ai_backlog import Piece
from controller.markets.book import MarketBook
from controller.markets.settings import MarketSettings
from gridpivot.clock import Instant
from gridpivot.curves import gpu_pool, miner_class
from gridpivot.v1 import telemetry_pb2 as pb
from gridpivot.vocabulary import AiPriority, DeviceState

pytestmark = pytest.mark.unit

NOW = Instant(100.0, 1_700_000_000.0)
S19 = miner_class("s19", "luxos", "Antminer S19", shed_s=5, wake_s=10)


def live(**rollup: object) -> SiteLive:
    site = SiteLive("falcon-1", "ercot")
    site.take_inventory(
        pb.Inventory(
            inventory_hash=b"h",
            device_count=10,
            classes=[S19.to_proto()],
            class_indexes=bytes(10),
            pools=[gpu_pool("train", AiPriority.STANDARD, 8).to_proto()],
        )
    )
    site.take_rollup(pb.SiteRollup(observed_at_unix_ms=NOW.unix_ms, assumed_power_w=30_000.0, **rollup), NOW)
    return site


def state_of(site: SiteLive, orders: Orders | None = None, **terms: object):
    book = MarketBook(MarketSettings(), {"ercot"}, NOW)
    known = SiteTerms("falcon-1", 40_000.0, **terms)
    return fleet_state([(known, site)], book, orders or Orders(), NOW)


def test_site_that_never_reported_is_left_out_and_not_planned_as_empty() -> None:
    assert state_of(SiteLive("falcon-1", "ercot")).sites == ()


def test_lower_of_both_ceilings_counts_and_an_override_lowers_it_further() -> None:
    assert state_of(live(site_ceiling_w=35_000.0)).sites[0].ceiling_w == 35_000.0
    assert state_of(live(site_ceiling_w=90_000.0)).sites[0].ceiling_w == 40_000.0
    assert state_of(live()).sites[0].ceiling_w == 40_000.0
    lowered = Orders().adding(override("o", "falcon-1", 40_000.0, 10_000.0, None, "x", NOW))
    assert state_of(live(), lowered).sites[0].ceiling_w == 10_000.0


def test_plan_ceiling_reported_back_does_not_ratchet_the_site_down() -> None:
    assert state_of(live(live_ceiling_w=5_000.0)).sites[0].ceiling_w == 40_000.0


def test_unknown_power_and_demand_stay_unknown() -> None:
    (site,) = state_of(live()).sites
    assert site.metered_power_w is None
    assert (site.pools[0].power_w, site.pools[0].demand_w) == (None, None)


def test_income_of_a_pool_in_the_settings_stands_over_the_markets() -> None:
    (site,) = state_of(live(), None, pools={"train": PoolTerms(usd_per_gpu_hour=9.5)}).sites
    assert site.pools[0].income_usd_per_gpu_hour == 9.5
    assert state_of(live()).sites[0].pools[0].income_usd_per_gpu_hour > 0


@given(
    st.lists(st.integers(0, 500), min_size=0, max_size=4),
    st.integers(0, 1000),
    st.integers(0, 500),
    st.integers(0, 500),
)
def test_commanded_machines_add_up_to_those_that_obey(
    modes: list[int], available: int, silent: int, waking: int
) -> None:
    counts = [0] * len(DeviceState)
    counts[DeviceState.WAKING.code] = waking
    rollup = pb.ClassRollup(name="s19", mode_counts=modes, available=available, silent=silent, state_counts=counts)
    state = class_state(S19, rollup)
    assert sum(state.commanded) == pytest.approx(available)
    assert min(state.commanded) >= 0
    assert 0 <= state.waking <= state.commanded[2] + 1e-9
    assert state.silent_power_w == silent * 3250.0


def test_overhead_is_as_measured_within_reason() -> None:
    def rollup(mining_w: float, overhead_w: float | None) -> pb.SiteRollup:
        return pb.SiteRollup(mining_power_w=mining_w, overhead_power_w=overhead_w, site_ceiling_w=1e6)

    assert overhead_ratio(rollup(1e6, 7e4), 0.05) == 0.07
    assert overhead_ratio(rollup(1e6, None), 0.05) == 0.05
    assert overhead_ratio(rollup(100.0, 5e4), 0.05) == 0.05
    assert overhead_ratio(rollup(1e6, 5e6), 0.05) == 0.5


def test_margin_is_income_less_power_and_unknown_without_a_hashrate() -> None:
    site = live(hashrate_hs=1e15, metered_power_w=30_000.0)
    (state,) = state_of(site).sites
    assert site.rollup is not None
    expected = 48.0 / 24 * 0.99 - 0.03 * 45.0
    assert margin_usd_per_h(state, site.rollup, 48.0) == pytest.approx(expected)
    assert margin_usd_per_h(state, pb.SiteRollup(), 48.0) is None


def queued(pending: float | None, deferrable: float, *, terms: dict[str, PoolTerms] | None = None, **pool: object):
    work = pb.WorkRollup(priority="standard", running_gpu_h=8.0, pending_gpu_h=pending, deferrable_gpu_h=deferrable)
    rollup = pb.PoolRollup(name="train", demand_w=6_000.0, work=[work], backlog_gpu_h=deferrable, **pool)
    return state_of(live(pools=[rollup]), None, pools=terms or {})


def test_deferrable_work_of_a_pool_is_a_backlog_of_its_own_with_the_deadline_that_its_agent_told() -> None:
    state = queued(50.0, 30.0, defer_within_s=7_200.0)
    (backlog,) = state.backlogs
    assert state.sites[0].pools[0].backlog == backlog.name == "falcon-1/train"
    assert (backlog.work_gpu_h, backlog.deadline_s, backlog.due_in_s) == (30.0, 7_200.0, 3_600.0)
    assert backlog.follows_demand and backlog.region == "ercot"


def test_a_pool_has_no_backlog_of_its_own_while_settings_name_one_or_its_queue_is_not_known() -> None:
    named = {"train": PoolTerms(backlog="batch")}
    assert queued(50.0, 30.0, terms=named, defer_within_s=7_200.0).backlogs == ()
    assert queued(50.0, 30.0).backlogs == ()  # an older agent tells no deadline
    assert queued(None, 30.0, defer_within_s=7_200.0).backlogs == ()
    assert queued(50.0, 30.0, defer_within_s=float("inf")).backlogs == ()
    idle_paid = {"train": PoolTerms(idle_paid=True)}
    assert queued(50.0, 30.0, terms=idle_paid, defer_within_s=7_200.0).backlogs == ()


def test_deferrable_work_is_demand_where_no_backlog_takes_it() -> None:
    (site,) = queued(50.0, 30.0).sites
    assert demanded(site.pools[0]) == Queue(8.0, 50.0, 0.0)
    (site,) = queued(50.0, 30.0, defer_within_s=7_200.0).sites
    assert demanded(site.pools[0]) == Queue(8.0, 50.0, 30.0)


class Remembering:
    """A memory of what waits, and of nothing else."""

    def __init__(self, *pieces: Piece) -> None:
        self._pieces = pieces

    def demand_charge(self, site: str, region: str, now: Instant) -> None:
        return None

    def demand_ahead(self, site, pool, present_w, queue, now):
        return ()

    def waited(self, site: str, pool: str) -> tuple[Piece, ...]:
        return self._pieces


def test_work_of_a_backlog_grows_older_and_is_not_put_off_for_ever() -> None:
    settings = BacklogSettings(name="batch", region="ercot", deadline_h=8, usd_per_gpu_hour=1.5)
    site = live(pools=[pb.PoolRollup(name="train", demand_w=6_000.0, backlog_gpu_h=30.0)])
    terms = SiteTerms("falcon-1", 40_000.0, pools={"train": PoolTerms(backlog="batch")})
    book = MarketBook(MarketSettings(), {"ercot"}, NOW)
    came = Piece(NOW.unix_s - 9 * 3600.0, 10.0), Piece(NOW.unix_s - 3600.0, 20.0)

    def due_of(*pieces: Piece) -> tuple[WorkDue, ...]:
        memory = Remembering(*pieces)
        (backlog,) = fleet_state([(terms, site)], book, Orders(), NOW, backlogs=[settings], memory=memory).backlogs
        return backlog.due

    assert [(d.due_in_s, d.gpu_h) for d in due_of(*came)] == [(-3600.0, 10.0), (7 * 3600.0, 20.0)]
    assert due_of(came[0]) == ()  # these ages are of other work
