"""Avalon: real recordings of an A1246 and a Q, the dated switch, and work modes where they are known."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Callable

import pytest

from agent.asic.conversation import Line
from agent.asic.decode import decode
from agent.asic.families.avalon import packed
from agent.asic.family import Login, Memory
from agent.asic.registry import FAMILIES
from agent.asic.transport import Endpoint
from gridpivot.curves import miner_class
from gridpivot.errors import BadReply
from gridpivot.vocabulary import DeviceState, Mode, Provenance, Reason
from sim.miners.avalon import SimAvalon
from sim.miners.machine import Machine

pytestmark = pytest.mark.unit
Recorded = Callable[[str], bytes]


def replies(recorded: Recorded, *names: str) -> dict[str, bytes]:
    return {name: recorded(f"asic-rs/avalonminer/{name}.json") for name in names}


def test_recorded_a1246_at_work(recorded: Recorded) -> None:
    decoded = decode(replies(recorded, "avalon_a_stats"))
    reading = decoded.reading
    assert decoded.family == "avalon"
    assert (reading.power_w, reading.provenance) == (3189.0, Provenance.DEVICE)  # behind the supply
    assert reading.hashrate_hs == pytest.approx(81072.68e9)
    assert (reading.temp_c, reading.uptime_s, reading.fan_rpm) == (77.0, 24684.0, 5392.0)
    assert (reading.state, reading.mode) == (DeviceState.HASHING, Mode.NORMAL)
    assert (reading.power_limit_w, reading.model) == (3200.0, "Avalon 1246")
    assert reading.fault_codes == ()


def test_recorded_q_that_was_switched_off_is_asleep_and_not_idle(recorded: Recorded) -> None:
    decoded = decode(replies(recorded, "litestats", "summary", "version", "pools"))
    reading = decoded.reading
    assert decoded.family == "avalon"
    assert (reading.state, reading.mode) == (DeviceState.SLEEPING, Mode.SLEEP)
    assert (reading.hashrate_hs, reading.power_w) == (0.0, 0.0)
    assert reading.temp_c == 27.0  # the chips' 0 C is no reading
    assert (reading.accepted_shares, reading.power_limit_w) == (890, 800.0)
    assert (reading.model, reading.firmware) == ("Avalon Q", "25052801_14a19a2")
    assert (reading.mac, reading.serial) == ("AA:BB:CC:DD:EE:FF", "01234567890123456789012345678901")
    assert reading.pool_url == "stratum+tcp://pool.example.com:4444"


@pytest.mark.parametrize(
    "name",
    [
        "stats",
        "litestats",
        "avalon_a_stats",
        "devs",
        "stats_parsed",
        "litestats_parsed",
        "avalon_a_stats_parsed",
        "stats_empty_parsed",
    ],
)
def test_each_recorded_reply_with_figures_decodes_alone(recorded: Recorded, name: str) -> None:
    decoded = decode(replies(recorded, name))
    assert decoded.family == "avalon"
    assert name == "devs" or decoded.reading.uptime_s is not None


def test_recorded_reply_that_asic_rs_had_unpacked_gives_the_same_reading(recorded: Recorded) -> None:
    wire = decode(replies(recorded, "avalon_a_stats")).reading
    assert decode(replies(recorded, "avalon_a_stats_parsed")).reading == wire
    running = decode(replies(recorded, "litestats_parsed")).reading
    assert (running.power_w, running.temp_c, running.power_limit_w) == (1598.0, 77.0, 1600.0)
    assert running.hashrate_hs is None and running.state is DeviceState.UNKNOWN  # the excerpt lacks the rate of now


@pytest.mark.parametrize("name", ["version", "devdetails", "config"])
def test_recorded_replies_without_figures_are_recognised_and_no_reading(recorded: Recorded, name: str) -> None:
    with pytest.raises(BadReply, match="neither"):
        decode(replies(recorded, name))


def test_an_empty_or_foreign_reply_has_no_packed_figures() -> None:
    for reply in (None, [], {}, {"STATS": []}, {"STATS": [{"MM ID0": 3}]}, {"STATS": [{"ID": "BC50"}]}):
        assert packed(reply) == {}


class Bench:
    """One simulated machine under a clock moved by hand."""

    def __init__(self, model: str) -> None:
        self.now_s = 1_700_000_000.0
        kind = miner_class("a", "avalon", model, shed_s=5, wake_s=60, nameplate=(90.0, 3400.0))
        self.miner = SimAvalon(Machine(kind, 7, now_s=self.now_s), "02:00:00:00:00:01", clock=lambda: self.now_s)
        self.miner.wall_s = lambda: self.now_s
        self.login: Login | None = None
        self.memory = Memory()

    @property
    def line(self) -> Line:
        endpoint = Endpoint("127.0.0.1", self.miner.api_port)
        return Line(FAMILIES["avalon"], endpoint, self.login, self.memory, 1.0, Counter())

    async def mode(self, mode: Mode) -> Reason:
        return (await self.line.carry_out(mode, 0.0)).reason


@pytest.fixture
async def bench() -> AsyncIterator[Callable[[str], Bench]]:
    made: list[Bench] = []

    def make(model: str = "AvalonMiner 1246") -> Bench:
        made.append(Bench(model))
        return made[-1]

    yield make
    for each in made:
        await each.miner.stop()


async def test_reading_is_the_machine_in_one_connection(bench: Callable[..., Bench]) -> None:
    site = bench()
    await site.miner.start()
    before = site.miner.requests
    reading = await site.line.read(slow=False)
    machine = site.miner.machine
    assert site.miner.requests - before == 1
    assert reading.power_w == machine.reported_power_w(site.now_s)
    assert reading.hashrate_hs == pytest.approx(machine.hashrate_hs(site.now_s), rel=1e-4)
    assert reading.temp_c == pytest.approx(machine.temp_c(site.now_s), abs=0.5)
    assert (await site.line.read(slow=True)).mac == site.miner.mac


async def test_sleep_is_dated_ahead_and_reads_back_when_its_time_has_come(bench: Callable[..., Bench]) -> None:
    site = bench()
    await site.miner.start()
    assert await site.mode(Mode.SLEEP) is Reason.NONE
    assert site.miner.orders == ["0,softoff,1:1700000005"]
    assert (await site.line.read(slow=False)).state is DeviceState.HASHING  # accepted is not done
    site.now_s += 6
    assert (await site.line.read(slow=False)).state is DeviceState.STOPPING
    site.now_s += 100
    asleep = await site.line.read(slow=False)
    assert (asleep.state, asleep.mode, asleep.hashrate_hs) == (DeviceState.SLEEPING, Mode.SLEEP, 0.0)
    assert await site.mode(Mode.NORMAL) is Reason.NONE
    site.now_s += 6
    await site.line.read(slow=False)
    site.now_s += 5
    assert (await site.line.read(slow=False)).state is DeviceState.WAKING
    site.now_s += 1000
    assert (await site.line.read(slow=False)).state is DeviceState.HASHING


async def test_a_softon_without_an_answer_is_left_to_the_readings(bench: Callable[..., Bench]) -> None:
    site = bench()
    await site.miner.start()
    await site.mode(Mode.SLEEP)
    site.now_s += 100
    site.miner.silent_softon = True
    outcome = await site.line.carry_out(Mode.NORMAL, 0.0)
    assert outcome.accepted and "readings" in outcome.detail


async def test_low_and_turbo_are_taken_by_a_q_and_unsupported_on_the_a_series(bench: Callable[..., Bench]) -> None:
    small, large = bench("Avalon Q"), bench()
    await small.miner.start()
    await large.miner.start()
    for mode in (Mode.LOW, Mode.TURBO, Mode.NORMAL):
        assert await small.mode(mode) is Reason.NONE
        small.now_s += 6
        await small.line.read(slow=False)
        small.now_s += 1000
        assert (await small.line.read(slow=True)).mode is mode
        assert small.miner.machine.mode is mode
    assert await large.mode(Mode.LOW) is Reason.UNSUPPORTED
    assert await large.mode(Mode.UNKNOWN) is Reason.UNSUPPORTED
    assert large.miner.orders == []


async def test_refused_join_and_unknown_estats_are_remembered(bench: Callable[..., Bench]) -> None:
    site = bench()
    site.miner.joins = site.miner.knows_estats = False
    await site.miner.start()
    assert (await site.line.read(slow=False)).hashrate_hs
    assert site.memory.refuses_joined and site.memory.needs_new_api
    before = site.miner.requests
    await site.line.read(slow=False)
    assert site.miner.requests - before == 2


async def test_errors_are_told_and_make_an_idle_machine_faulty(bench: Callable[..., Bench]) -> None:
    site = bench()
    site.miner.errors = {"ECHU": "0 512 0", "ECMM": "0"}
    await site.miner.start()
    assert (await site.line.read(slow=False)).fault_codes == ("ECHU 0 512 0",)
    idle = {"stats": {"STATS": [{"MM ID0": "Elapsed[9000] GHSspd[0.00] SoftOFF[0] PS[4 0 0 0 0 0 0]"}]}}
    reading = FAMILIES["avalon"].parse(idle, Memory())
    assert (reading.state, reading.reason, reading.fault_codes) == (DeviceState.FAULT, Reason.FAULT, ("PS 4",))
