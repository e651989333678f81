"""Whatsminer API V3: recorded replies, signed writes over a real socket, refusals in words.

The V3 recordings are mostly hand-made (their INDEX says so) and are trusted for the names of their keys only.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import AsyncIterator, Callable

import orjson
import pytest

from agent.asic.conversation import Line
from agent.asic.decode import decode
from agent.asic.families.whatsminer_v3 import sign
from agent.asic.family import Login, Memory
from agent.asic.registry import FAMILIES
from agent.asic.transport import Endpoint
from gridpivot.curves import miner_class
from gridpivot.errors import BadReply, DeviceUnreachable
from gridpivot.vocabulary import DeviceState, Mode, Provenance, Reason
from sim.miners.fault import WireFault
from sim.miners.machine import Machine
from sim.miners.whatsminer_v3 import SimWhatsminerV3

pytestmark = pytest.mark.unit
Recorded = Callable[[str], bytes]
PARTS = ("get_device_info", "get_miner_status_summary", "get_miner_status_pools", "get_miner_status_edevs")


def replies(recorded: Recorded, *names: str) -> dict[str, bytes]:
    return {name: recorded(f"asic-rs/whatsminer/v3/{name}.json") for name in names}


def test_recorded_v3_replies_give_one_reading_without_being_told_the_family(recorded: Recorded) -> None:
    decoded = decode(replies(recorded, *PARTS))
    reading = decoded.reading
    assert decoded.family == "whatsminer_v3"
    assert (reading.power_w, reading.provenance) == (3156.0, Provenance.DEVICE)
    assert reading.hashrate_hs == pytest.approx(171.259e12)
    assert (reading.temp_c, reading.uptime_s, reading.fan_rpm) == (82.0, 50000.0, 5400.0)
    assert (reading.state, reading.mode) == (DeviceState.HASHING, Mode.NORMAL)
    assert reading.accepted_shares is None  # in no V3 reply
    assert reading.power_limit_w == 3600.0
    assert (reading.model, reading.firmware) == ("Whatsminer M60S VK40", "20251209.16.Rel2")
    assert (reading.mac, reading.pool_url) == ("CE:02:01:00:8C:36", "stratum+tcp://btc.example.pool:3333")
    assert reading.board_serials[0] == "BKM3CSE1404807K42757" and len(reading.board_serials) == 3


@pytest.mark.parametrize("name", [*PARTS[:2], "get_miner_status_edevs", "get_device_info_with_errors"])
def test_each_recorded_reply_with_figures_decodes_alone(recorded: Recorded, name: str) -> None:
    assert decode(replies(recorded, name)).family == "whatsminer_v3"


def test_boards_alone_give_their_sum(recorded: Recorded) -> None:
    reading = decode(replies(recorded, "get_miner_status_edevs")).reading
    assert reading.hashrate_hs == pytest.approx(171.3e12)


def test_recorded_error_codes_keep_the_firmwares_words_and_do_not_make_a_hashing_miner_faulty(
    recorded: Recorded,
) -> None:
    reading = decode(replies(recorded, "get_device_info_with_errors", "get_miner_status_summary")).reading
    assert reading.fault_codes[0] == "264 Power xfer error. code: 0xffffffffc0000000"
    assert len(reading.fault_codes) == 5
    assert reading.state is DeviceState.HASHING


def test_pools_alone_are_no_reading(recorded: Recorded) -> None:
    with pytest.raises(BadReply, match="neither"):
        decode(replies(recorded, "get_miner_status_pools"))


def test_token_is_the_head_of_the_base64_of_the_hash() -> None:
    # sha256("set.miner.servicesuperabc1700000000"), computed with openssl dgst -sha256 -binary | base64
    assert sign("set.miner.service", "super", "abc", 1_700_000_000) == "o64IxoZD"


class Bench:
    """One simulated machine under a clock moved by hand."""

    def __init__(self) -> None:
        self.now_s = 1e6
        kind = miner_class("v3", "whatsminer_v3", "Whatsminer M60", shed_s=5, wake_s=60)
        self.miner = SimWhatsminerV3(Machine(kind, 7, now_s=self.now_s), "02:00:00:00:00:01", clock=lambda: self.now_s)
        self.login: Login | None = Login("super", "super")
        self.memory = Memory()

    @property
    def line(self) -> Line:
        family = FAMILIES["whatsminer_v3"]
        return Line(family, Endpoint("127.0.0.1", self.miner.api_port), self.login, self.memory, 0.5, Counter())

    async def mode(self, mode: Mode) -> Reason:
        return (await self.line.carry_out(mode, time.monotonic())).reason


@pytest.fixture
async def bench() -> AsyncIterator[Bench]:
    made = Bench()
    await made.miner.start()
    yield made
    await made.miner.stop()


async def test_reading_is_the_machine(bench: Bench) -> None:
    reading = await bench.line.read(slow=True)
    machine = bench.miner.machine
    assert reading.power_w == machine.reported_power_w(bench.now_s)
    assert reading.hashrate_hs == pytest.approx(machine.hashrate_hs(bench.now_s), rel=1e-3)
    assert (reading.state, reading.mode) == (DeviceState.HASHING, Mode.NORMAL)
    assert reading.pool_url == "stratum+tcp://pool.example:3333"


async def test_sleep_low_and_normal_are_taken_and_read_back(bench: Bench) -> None:
    for mode, state in (
        (Mode.SLEEP, DeviceState.SLEEPING),
        (Mode.LOW, DeviceState.HASHING),
        (Mode.SLEEP, DeviceState.SLEEPING),
        (Mode.NORMAL, DeviceState.HASHING),
    ):
        assert await bench.mode(mode) is Reason.NONE
        bench.now_s += 2000
        reading = await bench.line.read(slow=False)
        assert (reading.mode, reading.state) == (mode, state)
        assert bench.miner.machine.mode is mode


async def test_waking_is_told_from_idle(bench: Bench) -> None:
    await bench.mode(Mode.SLEEP)
    bench.now_s += 100
    await bench.mode(Mode.NORMAL)
    bench.now_s += 5
    reading = await bench.line.read(slow=False)
    assert (reading.state, reading.reason) == (DeviceState.WAKING, Reason.WAKING)


async def test_limit_is_the_devices_own_and_stays(bench: Bench) -> None:
    outcome = await bench.line._drive(bench.line.family.limit_power(2500.4, bench.memory, bench.login, 0.0))
    assert outcome.accepted
    assert (await bench.line.read(slow=False)).power_limit_w == 2500.0


async def test_wrong_password_is_unauthorised_and_changes_nothing(bench: Bench) -> None:
    bench.login = Login("super", "wrong")
    outcome = await bench.line.carry_out(Mode.SLEEP, 0.0)
    assert outcome.reason is Reason.UNAUTHORISED and not outcome.retry
    assert "wrong" not in outcome.detail
    assert bench.miner.machine.mode is Mode.NORMAL


async def test_without_a_password_nothing_is_sent(bench: Bench) -> None:
    bench.login = None
    assert await bench.mode(Mode.SLEEP) is Reason.NO_CREDENTIALS
    assert bench.miner.requests == 0


async def test_a_device_whose_clock_is_years_off_still_takes_writes(bench: Bench) -> None:
    bench.miner.wall_s = lambda: 1_000_000.0
    assert await bench.mode(Mode.SLEEP) is Reason.NONE


async def test_turbo_and_unknown_are_unsupported(bench: Bench) -> None:
    assert await bench.mode(Mode.TURBO) is Reason.UNSUPPORTED
    assert await bench.mode(Mode.UNKNOWN) is Reason.UNSUPPORTED


async def test_idle_miner_with_error_codes_is_faulty(bench: Bench) -> None:
    reading = bench.line.family.parse(
        {
            "status_summary": {"msg": {"summary": {"hash-realtime": 0, "elapsed": 5000}}},
            "device_info": {"msg": {"miner": {"working": "true"}, "error-code": [{"264": "2026-05-23 09:19:10"}]}},
        },
        Memory(),
    )
    assert (reading.state, reading.reason, reading.fault_codes) == (DeviceState.FAULT, Reason.FAULT, ("264",))


@pytest.mark.parametrize(
    ("fault", "word"),
    [(WireFault.SILENT, Reason.SLOW), (WireFault.TRUNCATED, Reason.GARBLED), (WireFault.HUGE, Reason.GARBLED)],
)
async def test_misbehaviour_has_its_word(bench: Bench, fault: WireFault, word: Reason) -> None:
    bench.miner.fault = fault
    with pytest.raises(DeviceUnreachable) as caught:
        await bench.line.read(slow=False)
    assert caught.value.reason == word


async def test_garbage_in_a_frame_is_a_bad_reply(bench: Bench) -> None:
    bench.miner.fault = WireFault.GARBAGE
    with pytest.raises(BadReply):
        await bench.line.read(slow=False)


def test_refusal_in_other_words_is_failed_and_worth_another_try() -> None:
    family = FAMILIES["whatsminer_v3"]
    dialogue = family.command(Mode.SLEEP, Memory(), Login("super", "super"), 0.0)
    next(dialogue)
    order = dialogue.send({"msg": {"salt": "abc"}, "when": 1_700_000_000})
    sent = orjson.loads(order.payload)  # type: ignore[union-attr]
    assert (sent["cmd"], sent["param"], sent["account"], sent["ts"]) == (
        "set.miner.service",
        "stop",
        "super",
        1_700_000_000,
    )
    with pytest.raises(StopIteration) as stop:
        dialogue.send({"code": -1, "msg": "btminer busy"})
    assert (stop.value.value.reason, stop.value.value.retry) == (Reason.FAILED, True)
