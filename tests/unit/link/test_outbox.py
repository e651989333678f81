"""What goes out next under a window, for any order of adding, taking, acknowledging, forgetting and reconnecting."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from gridpivot.link.lanes import LANES, Outbox, Pending
from gridpivot.v1 import session_pb2 as wire

pytestmark = pytest.mark.unit

EVENTS, SITE, DEVICES = LANES
sizes = st.integers(1, 5_000)


class OutboxMachine(RuleBasedStateMachine):
    """The outbox beside a naive model: two sets of records, and who is live."""

    @initialize(window=st.integers(1, 12_000))
    def begin(self, window: int) -> None:
        self.outbox = Outbox(window)
        self.window = window
        self.waiting: dict[tuple[int, int], int] = {}
        self.flying: dict[tuple[int, int], int] = {}
        self.live: set[tuple[int, int]] = set()
        self.last = dict.fromkeys(LANES, 0)

    @rule(lane=st.sampled_from(LANES), size=sizes)
    def add(self, lane: wire.Lane.ValueType, size: int) -> None:
        self.last[lane] += 1
        key = (lane, self.last[lane])
        self.outbox.add(Pending(lane, self.last[lane], size))
        self.waiting[key] = size
        self.live.add(key)

    @rule()
    def take(self) -> None:
        record = self.outbox.take()
        if record is None:
            smallest = self.expected()
            assert smallest is None or (self.flying and sum(self.flying.values()) + smallest[1] > self.window)
            return
        key = (record.lane, record.seq)
        assert (key, record.size) == self.expected()
        self.flying[key] = self.waiting.pop(key)

    def expected(self) -> tuple[tuple[int, int], int] | None:
        """Events, live site, live devices newest first, old site, old devices newest first."""

        def rank(key: tuple[int, int]) -> tuple[int, int]:
            lane, seq = key
            group = 0 if lane == EVENTS else (1 if key in self.live else 3) + (lane == DEVICES)
            return group, -seq if lane == DEVICES else seq

        key = min(self.waiting, key=rank, default=None)
        return None if key is None else (key, self.waiting[key])

    @rule(lane=st.sampled_from(LANES), through=st.integers(0, 30), also=st.sets(st.integers(1, 40), max_size=4))
    def ack(self, lane: wire.Lane.ValueType, through: int, also: set[int]) -> None:
        done = self.outbox.acked(wire.LaneAck(lane=lane, through_seq=through, also_seqs=sorted(also)))
        mine = {k for k in (*self.waiting, *self.flying) if k[0] == lane and (k[1] <= through or k[1] in also)}
        assert sorted(done) == sorted(seq for _, seq in mine)
        self.drop(mine)

    @rule(lane=st.sampled_from(LANES), seqs=st.sets(st.integers(1, 40), max_size=4))
    def forget(self, lane: wire.Lane.ValueType, seqs: set[int]) -> None:
        self.outbox.forget(lane, seqs)
        self.drop({(lane, seq) for seq in seqs})

    def drop(self, keys: set[tuple[int, int]]) -> None:
        for key in keys:
            self.waiting.pop(key, None)
            self.flying.pop(key, None)

    @precondition(lambda self: self.waiting or self.flying)
    @rule()
    def reconnect(self) -> None:
        self.outbox.restart()
        self.waiting |= self.flying
        self.flying.clear()
        self.live.clear()

    @invariant()
    def sums_agree(self) -> None:
        if not hasattr(self, "outbox"):
            return
        flying = sum(self.flying.values())
        assert self.outbox.in_flight_bytes == flying
        assert flying <= self.window or len(self.flying) == 1
        for lane in LANES:
            mine = {k: v for k, v in (self.waiting | self.flying).items() if k[0] == lane}
            assert self.outbox.waiting(lane) == len(mine)
            assert self.outbox.waiting_bytes(lane) == sum(mine.values())
            assert self.outbox.lowest(lane) == min((seq for _, seq in mine), default=None)


TestOutboxAgreesWithItsModel = OutboxMachine.TestCase


@given(st.lists(st.tuples(st.sampled_from(LANES), sizes), max_size=60), st.integers(1, 20_000))
def test_everything_added_is_taken_exactly_once_when_acks_come(added: list, window: int) -> None:
    outbox, last, taken = Outbox(window), dict.fromkeys(LANES, 0), []
    for lane, size in added:
        last[lane] += 1
        outbox.add(Pending(lane, last[lane], size))
    while (record := outbox.take()) is not None:
        taken.append((record.lane, record.seq))
        outbox.acked(wire.LaneAck(lane=record.lane, also_seqs=[record.seq]))
    assert sorted(taken) == sorted((lane, seq) for lane in LANES for seq in range(1, last[lane] + 1))
    assert outbox.in_flight_bytes == 0


def test_record_that_became_durable_late_keeps_the_lane_in_order() -> None:
    outbox = Outbox(1_000_000)
    for seq in (3, 1, 2):
        outbox.add(Pending(SITE, seq, 10))
    assert [outbox.take().seq for _ in range(3)] == [1, 2, 3]
    assert outbox.acked(wire.LaneAck(lane=SITE, through_seq=2)) == [1, 2]


def test_one_record_larger_than_the_window_goes_out_alone() -> None:
    outbox = Outbox(100)
    outbox.add(Pending(DEVICES, 1, 5_000))
    outbox.add(Pending(DEVICES, 2, 5_000))
    assert outbox.take() == Pending(DEVICES, 2, 5_000)
    assert outbox.take() is None
    outbox.acked(wire.LaneAck(lane=DEVICES, also_seqs=[2]))
    assert outbox.take() == Pending(DEVICES, 1, 5_000)


def test_acknowledgement_of_a_lane_that_nobody_knows_changes_nothing() -> None:
    outbox = Outbox(100)
    outbox.add(Pending(EVENTS, 1, 5))
    assert outbox.acked(wire.LaneAck(lane=9, through_seq=10)) == []
    assert outbox.waiting(EVENTS) == 1
