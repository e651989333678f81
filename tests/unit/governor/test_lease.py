"""The plan in force at a site: what is refused, what renews, what holds when the link, the clock or the disk goes."""

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from agent.backends import SiteInventory
from agent.governor.journal import PlanJournal
from agent.governor.lease import PlanBook, SitePolicy
from gridpivot.clock import Instant
from gridpivot.curves import gpu_pool, miner_class
from gridpivot.plan import SIGNATURE_CONTEXT, sign, verify
from gridpivot.v1 import plan_pb2 as pb
from gridpivot.vocabulary import AiPriority, PlanState, Posture, Rung

pytestmark = pytest.mark.unit

KEY, OTHER = Ed25519PrivateKey.generate(), Ed25519PrivateKey.generate()
KEYS = {"k1": KEY.public_key()}
T0 = Instant(monotonic_s=1_000.0, unix_s=1_760_000_000.0)
POLICY = SitePolicy("falcon-1", ceiling_w=2e6, posture=Posture.HOLD, event_lead_s=0.0)
CLASSES = (miner_class("s21", "luxos", "Antminer S21", shed_s=5, wake_s=60),)
POOLS = (gpu_pool("inference", AiPriority.GUARANTEED, 8), gpu_pool("training", AiPriority.STANDARD, 8))
INVENTORY = SiteInventory(CLASSES, np.zeros(10, np.uint8), (), np.zeros(10, np.uint16), b"", POOLS)


def later(seconds: float, *, step_s: float = 0.0) -> Instant:
    """A moment after T0; `step_s` is by how much somebody has set the wall clock since."""
    return Instant(T0.monotonic_s + seconds, T0.unix_s + seconds + step_s)


def plan(version: int = 1, epoch: int = 1, **changes) -> pb.Plan:
    made = {
        "site": "falcon-1",
        "epoch": epoch,
        "version": version,
        "valid_for_ms": 20_000,
        "ceiling_w": 1.5e6,
        "classes": [pb.ClassTarget(name="s21", sleep_machines=4, normal_machines=6, value_usd_per_mwh=50)],
        "pools": [pb.PoolTarget(name="inference", max_w=9e3), pb.PoolTarget(name="training", max_w=8e3)],
        "fallback": pb.Fallback(posture="hold", ceiling_w=1.2e6),
    }
    return pb.Plan(**(made | changes))


def window(from_s: float, to_s: float | None, ceiling_w: float = 5e5, event_id: str = "e1") -> pb.EventWindow:
    made = pb.EventWindow(event_id=event_id, ceiling_w=ceiling_w, starts_at_unix_ms=round((T0.unix_s + from_s) * 1000))
    if to_s is not None:
        made.ends_at_unix_ms = round((T0.unix_s + to_s) * 1000)
    return made


def signed(made: pb.Plan) -> pb.SignedPlan:
    return sign(made, KEY, "k1")


@pytest.fixture
def open_book(tmp_path: Path):
    """Opens the site's book over one journal, as a reboot does."""
    return lambda policy=POLICY, inventory=INVENTORY, keys=KEYS: PlanBook(
        policy, inventory, keys, PlanJournal(tmp_path / "plan.pb")
    )


REFUSED = {
    "identity": lambda: signed(plan(2, site="oryx-1")),
    "signature": lambda: sign(plan(2), OTHER, "k1"),
    "epoch": lambda: signed(plan(9, epoch=0)),
    "version": lambda: signed(plan(1, ceiling_w=1e6)),
    "unit": lambda: signed(plan(2, ceiling_w=float("nan"))),
    "unknown_class": lambda: signed(plan(2, classes=[pb.ClassTarget(name="s99")])),
    "unknown_pool": lambda: signed(plan(2, pools=[pb.PoolTarget(name="video")])),
    "malformed": lambda: signed(plan(2, fallback=pb.Fallback(posture="panic"))),
}


@pytest.mark.parametrize("word", REFUSED)
def test_refused_plan_says_its_word_and_leaves_the_last_good_one_in_force(open_book, word: str) -> None:
    book = open_book()
    book.offer(signed(plan(1)), T0)
    before = book.orders(later(1))
    status = book.offer(REFUSED[word](), later(1))
    assert status.status == PlanState.REJECTED
    assert status.reason.startswith(f"{word}: ")
    assert book.highest == (1, 1)
    after = book.orders(later(1))
    assert (after.ceiling_w, after.rung, list(after.pool_max_w)) == (1.5e6, Rung.PLAN, [9e3, 8e3])
    np.testing.assert_array_equal(after.class_modes, before.class_modes)
    assert not book.leased(later(20.5))  # nor did the refusal renew anything


def test_unreadable_bytes_are_refused_and_not_raised(open_book) -> None:
    book = open_book()
    status = book.offer(pb.SignedPlan(plan=b"\xff\xff\xff", signature=b"x", key_id="k1"), T0)
    assert (status.status, book.plan) == (PlanState.REJECTED, None)


offers = st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4), st.booleans()), max_size=25)


@given(offers)
def test_epochs_and_versions_never_go_back_not_even_over_reboots(story: list) -> None:
    journal = _MemoryJournal()
    book, highest = PlanBook(POLICY, INVENTORY, KEYS, journal), (0, 0)
    for epoch, version, reboot in story:
        status = book.offer(signed(plan(version, epoch)), T0)
        newer = (epoch, version) > highest
        assert (status.status != PlanState.REJECTED) == (newer or (epoch, version) == highest != (0, 0))
        highest = max(highest, (epoch, version))
        if reboot:
            book = PlanBook(POLICY, INVENTORY, KEYS, journal)
        assert book.highest == highest


class _MemoryJournal(PlanJournal):
    """A disk that always works, without one."""

    def __init__(self) -> None:
        super().__init__(Path("nowhere"))
        self.kept: pb.SignedPlan | None = None
        self.full = False

    def load(self) -> pb.SignedPlan | None:
        return self.kept

    def _write_begun(self, event_ids: frozenset[str]) -> None:
        """Kept by `begun` itself."""

    def _write(self, signed: pb.SignedPlan, identity: tuple[int, int]) -> str | None:
        if self.full:
            return "full"
        self.kept, self.fence = signed, identity
        return None


def test_same_plan_again_and_heartbeats_that_name_it_renew_the_lease(open_book) -> None:
    book = open_book()
    book.offer(signed(plan(1)), T0)
    assert book.lease_remaining_s(later(15)) == pytest.approx(5.0)
    assert book.offer(signed(plan(1)), later(15)).status == PlanState.ACCEPTED
    assert book.leased(later(34))
    book.renew(1, 1, later(34))
    assert book.leased(later(53))
    book.renew(1, 2, later(53))
    book.renew(2, 1, later(53))
    assert not book.leased(later(54.5))


@pytest.mark.parametrize(
    ("posture", "rung"),
    [("hold", Rung.HOLD), ("mining_off", Rung.SAFE_POSTURE), ("guaranteed_only", Rung.SAFE_POSTURE), ("", Rung.HOLD)],
)
def test_lease_that_ends_on_the_monotonic_clock_leads_to_the_posture(open_book, posture: str, rung: Rung) -> None:
    book = open_book()
    book.offer(signed(plan(1, fallback=pb.Fallback(posture=posture, ceiling_w=1.2e6))), T0)
    assert book.orders(later(19, step_s=3_600)).rung is Rung.PLAN
    orders = book.orders(later(21, step_s=-3_600))
    assert (orders.rung, orders.ceiling_w) == (rung, 1.2e6)
    asleep = orders.class_modes[0, 0] >= len(INVENTORY.class_index) and not orders.class_modes[0, 1:].any()
    assert asleep == (rung is Rung.SAFE_POSTURE)
    training = POOLS[1].min_w if posture == "guaranteed_only" else 8e3
    assert orders.pool_max_w[1] == training
    assert orders.pool_max_w[0] in (None, 9e3)  # guaranteed AI is not touched


def test_event_begins_when_either_clock_says_so(open_book) -> None:
    book = open_book()
    book.offer(signed(plan(1, events=[window(100, 200)])), T0)
    assert book.active_events(later(99)) == {}
    assert book.active_events(later(101)) == {"e1": 5e5}
    assert book.active_events(later(101, step_s=-3_600)) == {"e1": 5e5}
    assert book.active_events(later(50, step_s=60)) == {"e1": 5e5}


@pytest.mark.parametrize("step_s", [3_600, -3_600])
def test_clock_that_is_set_does_not_lapse_a_curtailment(open_book, step_s: float) -> None:
    book = open_book()
    book.offer(signed(plan(1, valid_for_ms=10_000_000, events=[window(10, 200)])), T0)
    for second in (11, 100, 199):
        assert book.orders(later(second, step_s=step_s)).ceiling_w == 5e5
    both_agree_s = 201 if step_s > 0 else 201 - step_s
    assert book.active_events(later(both_agree_s - 2, step_s=step_s)) != {}
    assert book.active_events(later(both_agree_s, step_s=step_s)) == {}


@given(st.floats(-7_200, 7_200), st.floats(0, 8_000))
def test_curtailment_holds_unless_both_clocks_are_past_it(step_s: float, second: float) -> None:
    book = PlanBook(POLICY, INVENTORY, KEYS, _MemoryJournal())
    book.offer(signed(plan(1, valid_for_ms=10_000_000, events=[window(100, 1_000)])), T0)
    wall_s, elapsed_s = second + step_s, second
    running = (wall_s >= 100.01 or elapsed_s >= 100.01) and (wall_s < 999.99 or elapsed_s < 999.99)
    if running:
        assert book.orders(later(second, step_s=step_s)).ceiling_w == 5e5


def test_open_ended_event_ends_only_with_a_newer_plan_that_does_not_name_it(open_book) -> None:
    book = open_book()
    book.offer(signed(plan(1, events=[window(0, None)])), T0)
    assert book.active_events(later(1e6)) == {"e1": 5e5}
    book.offer(signed(plan(2, events=[window(0, None)])), later(10))
    assert book.active_events(later(11)) == {"e1": 5e5}
    book.offer(signed(plan(3)), later(20))
    assert book.active_events(later(21)) == {}


def test_event_begins_early_by_its_lead_so_that_slow_families_are_down_in_time(open_book) -> None:
    book = open_book(replace(POLICY, event_lead_s=30.0))
    book.offer(signed(plan(1, valid_for_ms=10_000_000, events=[window(100, 200)])), T0)
    assert book.orders(later(69)).ceiling_w == 1.5e6
    assert book.orders(later(71)).ceiling_w == 5e5
    assert book.active_events(later(71)) == {}


def test_reboot_keeps_fence_ceiling_and_windows_and_the_lease_waits_for_a_heartbeat(open_book) -> None:
    open_book().offer(signed(plan(5, events=[window(-10, 200)])), T0)
    book = open_book()
    now = Instant(3.0, T0.unix_s + 60)  # the monotonic clock began anew
    assert book.highest == (1, 5)
    assert book.offer(signed(plan(4)), now).status == PlanState.REJECTED
    assert not book.leased(now)
    assert book.lease_remaining_s(now) is None
    assert (book.orders(now).ceiling_w, book.orders(now).rung) == (5e5, Rung.HOLD)
    book.renew(1, 5, now)
    assert book.orders(now).rung is Rung.CLIPPED_PLAN


def test_event_under_way_at_a_reboot_holds_past_its_end_and_under_a_clock_gone_back(open_book, tmp_path: Path) -> None:
    open_book().offer(signed(plan(1, events=[window(-10, 200), window(5_000, 6_000, 1e5, "tomorrow")])), T0)
    os.utime(tmp_path / "plan.pb", (T0.unix_s, T0.unix_s))
    book = open_book()
    for wall_s in (-90_000, 60, 4_000):
        assert book.active_events(Instant(3.0, T0.unix_s + wall_s)) == {"e1": 5e5}
    assert set(book.active_events(Instant(3.0, T0.unix_s + 5_001))) == {"e1", "tomorrow"}
    book.offer(signed(plan(2)), Instant(9.0, T0.unix_s + 5_001))
    assert book.active_events(Instant(9.0, T0.unix_s + 5_001)) == {}


def test_plan_over_a_live_limit_is_clipped_and_says_so(open_book) -> None:
    book = open_book()
    status = book.offer(signed(plan(1, ceiling_w=3e6)), T0)
    assert (status.status, dict(status.clipped_to_w)) == (PlanState.CLIPPED, {"ceiling_w": 2e6})
    assert (book.orders(T0).ceiling_w, book.orders(T0).rung) == (2e6, Rung.CLIPPED_PLAN)
    assert book.offer(signed(plan(2)), T0).status == PlanState.ACCEPTED


@pytest.mark.parametrize("keep", [0, 1, 30, -1])
def test_truncated_journal_is_said_and_does_not_stop_the_agent(open_book, tmp_path: Path, keep: int) -> None:
    open_book().offer(signed(plan(1)), T0)
    path = tmp_path / "plan.pb"
    path.write_bytes(path.read_bytes()[:keep])
    journal = PlanJournal(path)
    book = PlanBook(POLICY, INVENTORY, KEYS, journal)
    assert journal.degraded
    assert book.orders(T0).rung is Rung.MERIT_ORDER
    assert book.offer(signed(plan(1)), T0).status == PlanState.ACCEPTED
    assert journal.degraded is None


def test_plan_of_an_older_inventory_does_not_stop_a_reboot(open_book) -> None:
    open_book().offer(signed(plan(3, events=[window(-10, None)])), T0)
    other = replace(INVENTORY, classes=(replace(CLASSES[0], name="m60"),), pools=POOLS[:1])
    book = open_book(inventory=other)
    orders = book.orders(later(1))
    assert book.highest == (1, 3)
    assert (orders.ceiling_w, orders.class_modes, list(orders.pool_max_w)) == (5e5, None, [9e3])


def test_disk_that_refuses_lets_a_plan_lower_and_never_raise_until_it_is_durable() -> None:
    journal = _MemoryJournal()
    book = PlanBook(POLICY, INVENTORY, KEYS, journal)
    book.offer(signed(plan(1, ceiling_w=1e6, events=[window(-10, None)])), T0)
    journal.full = True
    book.offer(signed(plan(2, ceiling_w=1.8e6)), T0)
    assert journal.degraded
    assert book.highest == (1, 2)
    assert book.orders(T0).ceiling_w == 5e5  # the event stands on disk: released only once that is written
    book.offer(signed(plan(3, ceiling_w=4e5)), T0)
    assert book.orders(T0).ceiling_w == 4e5
    assert not book.orders(T0).may_raise
    journal.full = False
    assert book.orders(later(6)).may_raise
    assert (journal.kept, journal.degraded) == (signed(plan(3, ceiling_w=4e5)), None)
    book.offer(signed(plan(4, ceiling_w=1.8e6)), later(7))
    assert book.orders(later(7)).ceiling_w == 1.8e6


def test_site_without_a_plan_stands_on_its_own_merit_order(open_book) -> None:
    orders = open_book().orders(T0)
    assert (orders.ceiling_w, orders.rung, orders.class_modes) == (2e6, Rung.MERIT_ORDER, None)


def test_damaged_plan_file_does_not_open_the_door_to_older_plans(open_book, tmp_path: Path) -> None:
    open_book().offer(signed(plan(7, epoch=3)), T0)
    path = tmp_path / "plan.pb"
    path.write_bytes(b"\xff" * 40)
    book = PlanBook(POLICY, INVENTORY, KEYS, PlanJournal(path))
    assert book.degraded
    assert [p.name for p in tmp_path.glob("plan.pb.corrupt-*")]  # set aside, not deleted
    assert not book.orders(T0).may_raise
    for older in (plan(6, epoch=3), plan(9, epoch=2)):
        assert book.offer(signed(older), T0).status == PlanState.REJECTED
    assert book.offer(signed(plan(7, epoch=3)), T0).status == PlanState.ACCEPTED
    assert book.orders(T0).may_raise


def test_plan_is_not_applied_before_its_time_but_what_it_lowers_counts_from_the_earlier_clock(open_book) -> None:
    book = open_book()
    book.offer(signed(plan(1, ceiling_w=1e6, valid_for_ms=10**9)), T0)
    soon = plan(2, ceiling_w=4e5, valid_for_ms=10**9)
    soon.issued_at_unix_ms = round(T0.unix_s * 1000)
    soon.not_before_unix_ms = soon.issued_at_unix_ms + 100_000
    assert book.offer(signed(soon), T0).status == PlanState.ACCEPTED
    assert book.highest == (1, 2)
    assert book.orders(later(99)).ceiling_w == 1e6
    assert book.orders(later(50, step_s=60)).ceiling_w == 4e5  # one clock says so
    assert book.plan.version == 1
    assert book.orders(later(101)).ceiling_w == 4e5
    assert book.plan.version == 2
    later_raise = plan(3, ceiling_w=1.5e6, valid_for_ms=10**9)
    later_raise.issued_at_unix_ms = round(later(101).unix_s * 1000)
    later_raise.not_before_unix_ms = later_raise.issued_at_unix_ms + 100_000
    book.offer(signed(later_raise), later(101))
    assert book.orders(later(150, step_s=3600)).ceiling_w == 4e5  # a raise waits for both
    assert book.orders(later(202)).ceiling_w == 1.5e6


def test_disk_that_hangs_lets_the_governor_go_on_lowering_and_says_so(tmp_path: Path) -> None:
    from concurrent.futures import Future

    class Hanging(_MemoryJournal):
        answer: Future[str | None] | None = None

        def begin(self, signed: pb.SignedPlan, identity: tuple[int, int]) -> Future[str | None]:
            self.answer = Future()
            return self.answer

    journal = Hanging()
    book = PlanBook(POLICY, INVENTORY, KEYS, journal)
    book.offer(signed(plan(1, ceiling_w=1e6)), T0)
    assert (book.orders(later(1)).ceiling_w, book.orders(later(1)).may_raise) == (1e6, False)
    assert book.degraded is None  # a write of a second is no fault yet
    assert not book.orders(later(8)).may_raise
    assert "has not taken" in book.degraded
    journal.answer.set_result(None)
    assert book.orders(later(9)).may_raise
    assert book.degraded is None


def test_events_are_reckoned_by_the_controllers_clock_where_ours_is_slow(open_book) -> None:
    book = open_book()
    book.note_controller_clock(T0.unix_s + 3_600.0, T0)  # we are an hour behind
    book.offer(signed(plan(1, valid_for_ms=10**9, events=[window(3_700, 7_300)])), T0)
    assert book.active_events(later(99)) == {}
    assert book.active_events(later(101)) == {"e1": 5e5}  # our own wall clock will only say so an hour later


def test_event_released_by_hand_stays_released_while_plans_name_it_and_not_when_it_is_called_anew(open_book) -> None:
    book = open_book()
    book.offer(signed(plan(1, events=[window(0, None)])), T0)
    assert not book.release("no-such-event")
    assert book.release("e1")
    assert book.active_events(later(1)) == {}
    book.offer(signed(plan(2, events=[window(0, None)])), later(2))
    assert book.active_events(later(3)) == {}
    again = open_book()
    again.remember_released(book.released)
    assert again.active_events(later(4)) == {}
    book.offer(signed(plan(3, events=[window(50, None)])), later(5))
    assert book.active_events(later(51)) == {"e1": 5e5}


def test_clock_that_was_never_set_holds_every_event_after_a_reboot(open_book, tmp_path: Path) -> None:
    open_book().offer(signed(plan(1, events=[window(10**6, 10**6 + 100)])), T0)
    unset = Instant(5.0, 1_000.0)
    book = PlanBook(POLICY, INVENTORY, KEYS, PlanJournal(tmp_path / "plan.pb"), unset)
    assert book.active_events(unset) == {"e1": 5e5}


def doors(**admits: bool) -> list[pb.PoolTarget]:
    made = [pb.PoolTarget(name=name, max_w=9e3, admits=open_) for name, open_ in admits.items()]
    made[-1].nodes.add(name="gpu-1", fallback_w=4e3)
    return made


def test_plan_says_who_admits_and_what_nodes_fall_back_to(open_book) -> None:
    book = open_book()
    assert book.offer(signed(plan(1, pools=doors(inference=False, training=False))), T0).status == PlanState.ACCEPTED
    orders = book.orders(T0)
    assert list(orders.pool_admits) == [None, False]  # a guaranteed pool is never closed
    assert book.node_fallbacks_w() == {"training": {"gpu-1": 4e3}}
    ended = later(60.0)
    assert list(book.orders(ended).pool_admits) == [None, None]  # nobody plans: the site decides
    assert book.node_fallbacks_w() == {"training": {"gpu-1": 4e3}}


def test_plan_of_an_older_controller_says_nothing_of_doors_and_nodes(open_book) -> None:
    book = open_book()
    book.offer(signed(plan()), T0)
    assert list(book.orders(T0).pool_admits) == [None, None] and book.node_fallbacks_w() == {}


def test_node_fallback_that_is_no_power_is_refused(open_book) -> None:
    pools = doors(training=True)
    pools[0].nodes[0].fallback_w = float("nan")
    status = open_book().offer(signed(plan(1, pools=pools)), T0)
    assert status.status == PlanState.REJECTED and "gpu-1" in status.reason


def test_plan_with_fields_of_a_newer_contract_is_taken() -> None:
    newer = plan(1).SerializeToString() + bytes([0xFA, 0x07, 0x03]) + b"new"  # field 127, length-delimited
    exact = pb.SignedPlan(plan=newer, signature=KEY.sign(SIGNATURE_CONTEXT + newer), key_id="k1")
    assert verify(exact, KEYS).ceiling_w == plan(1).ceiling_w
