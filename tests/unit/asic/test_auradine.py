"""Auradine: the vendor's samples, tokens, sleep and power targets over real sockets.

The recordings are vendor-documentation samples of several machines (INDEX says so), trusted for names and shapes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Callable

import pytest

from agent.asic.conversation import Line
from agent.asic.decode import decode
from agent.asic.family import Login, Memory
from agent.asic.registry import FAMILIES
from agent.asic.transport import Endpoint
from gridpivot.curves import miner_class
from gridpivot.errors import BadReply, DeviceUnreachable
from gridpivot.vocabulary import DeviceState, Mode, Provenance, Reason
from sim.miners.auradine import SimAuradine
from sim.miners.machine import Machine

pytestmark = pytest.mark.unit
Recorded = Callable[[str], bytes]
ALL = ("summary", "devs", "mode", "psu", "temperature", "fan", "led", "pools", "version", "ipreport")


def samples(recorded: Recorded, *names: str) -> dict[str, bytes]:
    return {name: recorded(f"asic-rs/auradine/v1/{name}.json") for name in names}


def test_vendor_samples_give_one_reading_without_being_told_the_family(recorded: Recorded) -> None:
    decoded = decode(samples(recorded, *ALL))
    reading = decoded.reading
    assert decoded.family == "auradine"
    assert (reading.power_w, reading.provenance) == (58.94, Provenance.DEVICE)
    assert reading.hashrate_hs == pytest.approx(20599767.1774699e6)
    assert reading.temp_c == pytest.approx(51.41231102539066, abs=1e-3)  # the hottest chip, not the control board
    assert (reading.accepted_shares, reading.uptime_s, reading.fan_rpm) == (3310, 56696.0, 7100.0)
    assert (reading.state, reading.mode) == (DeviceState.HASHING, Mode.UNKNOWN)  # custom, and no curve to place it
    assert reading.power_limit_w == 2000.0
    assert (reading.model, reading.firmware) == ("Auradine AT1500", "2023-12.27")
    assert (reading.mac, reading.serial) == ("1C:00:00:0E:3B:2B", "AU23200006")
    assert reading.pool_url == "stratum+tcp://btc.viabtc.io:3333"
    assert reading.board_serials == ("QAHB01230908001X", "QAHB01230908001Y", "QAHB01230908001Z")
    assert reading.fault_codes == ()


@pytest.mark.parametrize("name", ["summary", "devs", "mode", "psu", "temperature"])
def test_each_sample_with_figures_decodes_alone(recorded: Recorded, name: str) -> None:
    assert decode(samples(recorded, name)).family == "auradine"


@pytest.mark.parametrize("name", ["fan", "led", "pools", "version", "ipreport"])
def test_samples_without_figures_are_recognised_and_say_that_they_are_no_reading(recorded: Recorded, name: str) -> None:
    with pytest.raises(BadReply, match="no summary"):
        decode(samples(recorded, name))


def test_a_custom_power_target_is_the_nearest_mode_of_the_class() -> None:
    replies = {"mode": {"Mode": [{"Mode": "custom", "Power": 2000, "Sleep": "off"}]}}
    curve = {Mode.SLEEP: 30.0, Mode.LOW: 1950.0, Mode.NORMAL: 3250.0}
    assert FAMILIES["auradine"].parse(replies, Memory(mode_power_w=curve)).mode is Mode.LOW


class Bench:
    """One simulated machine under a clock moved by hand."""

    def __init__(self) -> None:
        self.now_s = 1e6
        kind = miner_class("a", "auradine", "Auradine AT1500", shed_s=5, wake_s=60, nameplate=(150.0, 3400.0))
        self.miner = SimAuradine(Machine(kind, 7, now_s=self.now_s), "02:00:00:00:00:01", clock=lambda: self.now_s)
        self.login: Login | None = Login("admin", "admin")
        self.memory = Memory()

    @property
    def line(self) -> Line:
        endpoint = Endpoint("127.0.0.1", self.miner.api_port, self.miner.http_port)
        return Line(FAMILIES["auradine"], endpoint, self.login, self.memory, 1.0, Counter())

    async def mode(self, mode: Mode) -> Reason:
        return (await self.line.carry_out(mode, self.now_s)).reason


@pytest.fixture
async def bench() -> AsyncIterator[Bench]:
    made = Bench()
    await made.miner.start()
    yield made
    await made.miner.stop()


async def test_reading_is_the_machine(bench: Bench) -> None:
    reading = await bench.line.read(slow=True, now_s=bench.now_s)
    machine = bench.miner.machine
    assert reading.power_w == machine.reported_power_w(bench.now_s)
    assert reading.hashrate_hs == pytest.approx(machine.hashrate_hs(bench.now_s))
    assert reading.temp_c == pytest.approx(machine.temp_c(bench.now_s))
    assert (reading.state, reading.mode, reading.reason) == (DeviceState.HASHING, Mode.NORMAL, Reason.NONE)
    assert (reading.mac, reading.pool_url) == (bench.miner.mac, "stratum+tcp://pool.example:3333")


async def test_without_a_password_hashrate_is_read_and_watts_stay_unknown(bench: Bench) -> None:
    bench.login = None
    reading = await bench.line.read(slow=True, now_s=bench.now_s)
    assert reading.hashrate_hs and reading.power_w is None
    assert (reading.mode, reading.reason) == (Mode.UNKNOWN, Reason.NO_CREDENTIALS)
    assert await bench.mode(Mode.SLEEP) is Reason.NO_CREDENTIALS


async def test_every_mode_is_taken_and_read_back(bench: Bench) -> None:
    for mode in (Mode.SLEEP, Mode.LOW, Mode.TURBO, Mode.SLEEP, Mode.NORMAL):
        assert await bench.mode(mode) is Reason.NONE
        bench.now_s += 1000
        reading = await bench.line.read(slow=False, now_s=bench.now_s)
        assert reading.mode is mode and bench.miner.machine.mode is mode
        assert reading.state is (DeviceState.SLEEPING if mode is Mode.SLEEP else DeviceState.HASHING)


async def test_one_token_serves_many_polls_and_a_forgotten_one_is_renewed(bench: Bench) -> None:
    for _ in range(3):
        await bench.line.read(slow=False, now_s=bench.now_s)
    assert bench.miner.tokens_given == 1
    bench.miner.expire_tokens()
    assert (await bench.line.read(slow=False, now_s=bench.now_s)).power_w is not None
    bench.miner.expire_tokens()
    assert await bench.mode(Mode.SLEEP) is Reason.NONE
    assert bench.miner.tokens_given == 3


async def test_power_target_is_the_devices_own_limit(bench: Bench) -> None:
    outcome = await bench.line._drive(FAMILIES["auradine"].limit_power(2100.7, bench.memory, bench.login, bench.now_s))
    assert outcome.accepted
    assert (await bench.line.read(slow=False, now_s=bench.now_s)).power_limit_w == 2100.0


async def test_wrong_password_is_unauthorised_and_changes_nothing(bench: Bench) -> None:
    bench.login = Login("admin", "wrong")
    assert await bench.mode(Mode.SLEEP) is Reason.UNAUTHORISED
    assert bench.miner.machine.mode is Mode.NORMAL
    with pytest.raises(DeviceUnreachable) as caught:
        await bench.line.read(slow=False, now_s=bench.now_s)
    assert caught.value.reason == Reason.UNAUTHORISED and "wrong" not in str(caught.value)


async def test_lamp_of_a_hashing_machine_is_told_and_of_an_idle_one_is_a_fault(bench: Bench) -> None:
    bench.miner.lamp = (8, "Hash rate low")
    reading = await bench.line.read(slow=True, now_s=bench.now_s)
    assert (reading.state, reading.fault_codes) == (DeviceState.HASHING, ("led 8 Hash rate low",))
    idle = {"summary": {"SUMMARY": [{"MHS 5s": 0, "Elapsed": 9000}]}, "mode": {"Mode": [{"Sleep": "off"}]}}
    assert FAMILIES["auradine"].parse(idle, bench.memory).state is DeviceState.FAULT


async def test_a_token_refused_in_words_is_dropped_and_said(bench: Bench) -> None:
    await bench.line.read(slow=False, now_s=bench.now_s)
    refused = {"STATUS": [{"STATUS": "E", "Code": 401, "Msg": "Token expired"}]}
    replies = {"summary": {"SUMMARY": [{"MHS 5s": 1.0}]}, "mode": refused, "psu": refused}
    assert FAMILIES["auradine"].parse(replies, bench.memory).reason is Reason.UNAUTHORISED
    assert bench.memory.token is None


async def test_unknown_is_never_commanded(bench: Bench) -> None:
    assert await bench.mode(Mode.UNKNOWN) is Reason.UNSUPPORTED
