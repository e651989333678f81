"""Stock Antminer beyond work modes: the power page of newer models, slow facts, and trouble in the firmware's words."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Callable

import pytest

from agent.asic.conversation import Line
from agent.asic.decode import decode
from agent.asic.families.antminer import fault_codes
from agent.asic.family import Login, Memory
from agent.asic.registry import FAMILIES
from agent.asic.transport import Endpoint
from gridpivot.curves import miner_class
from gridpivot.vocabulary import DeviceState, Mode, Provenance, Reason
from sim.miners.antminer import SimAntminer
from sim.miners.machine import Machine

pytestmark = pytest.mark.unit
Recorded = Callable[[str], bytes]
ANTMINER = FAMILIES["antminer"]


class Bench:
    """One simulated machine under a clock moved by hand."""

    def __init__(self) -> None:
        self.now_s = 1e6
        kind = miner_class("a", "antminer", "Antminer S21 Pro", shed_s=5, wake_s=60)
        self.miner = SimAntminer(Machine(kind, 7, now_s=self.now_s), "02:00:00:00:00:01", clock=lambda: self.now_s)
        self.login: Login | None = Login("root", "root")
        self.memory = Memory()

    @property
    def line(self) -> Line:
        miner = self.miner
        endpoint = Endpoint("127.0.0.1", miner.api_port, miner.http_port, miner.aux_port or self.closed_port)
        return Line(ANTMINER, endpoint, self.login, self.memory, 1.0, Counter())

    @property
    def closed_port(self) -> int:
        return 1  # tcpmux: nobody listens there


@pytest.fixture
async def bench() -> AsyncIterator[Bench]:
    made = Bench()
    yield made
    await made.miner.stop()


async def test_power_page_of_a_newer_model_is_read_at_every_poll_without_a_login(bench: Bench) -> None:
    bench.miner.newer_model = True
    await bench.miner.start()
    bench.login = None
    reading = await bench.line.read(slow=False)
    assert reading.power_w == bench.miner.machine.reported_power_w(bench.now_s)
    assert reading.provenance is Provenance.DEVICE
    assert reading.hashrate_hs and reading.fan_rpm == 5890.0  # the newer stats alone
    await bench.line.read(slow=False)
    assert bench.miner.power_page_hits == 2


async def test_an_s19_without_the_page_is_asked_once_per_slow_beat_and_has_no_watts(bench: Bench) -> None:
    await bench.miner.start()
    reading = await bench.line.read(slow=False)
    assert reading.power_w is None and reading.hashrate_hs
    assert "miner_power" in bench.memory.refused


async def test_a_page_that_is_not_found_is_remembered(bench: Bench) -> None:
    bench.miner.newer_model, bench.miner.has_power_page = True, False
    await bench.miner.start()
    for _ in range(3):
        assert (await bench.line.read(slow=False)).power_w is None
    assert bench.miner.power_page_hits == 1


@pytest.mark.parametrize(
    ("text", "watts"),
    [("power:3245\n", 3245.0), ("3245.5 W", 3245.5), ("Power: 12", 12.0), ("<html>404</html>", None), ("", None)],
)
def test_the_power_page_is_believed_only_where_it_is_a_figure(text: str, watts: float | None) -> None:
    replies = {"summary": {"SUMMARY": [{"GHS 5s": 1000.0}]}, "miner_power": text}
    assert ANTMINER.parse(replies, Memory()).power_w == watts


def test_chain_power_is_used_where_there_is_no_page() -> None:
    replies = {"stats": {"STATS": [{"chain": [], "rate_5s": 200_000.0, "chain_power": "3405 W"}]}}
    assert ANTMINER.parse(replies, Memory()).power_w == 3405.0


async def test_slow_facts_are_pool_address_and_serial(bench: Bench) -> None:
    bench.miner.serial = "SIMSERIAL"
    await bench.miner.start()
    reading = await bench.line.read(slow=True)
    assert (reading.mac, reading.serial) == (bench.miner.mac, "SIMSERIAL")
    assert reading.pool_url == "stratum+tcp://pool.example:3333"
    assert (reading.mode, reading.fault_codes) == (Mode.NORMAL, ())


async def test_trouble_of_the_web_summary_is_told_while_it_hashes(bench: Bench) -> None:
    bench.miner.trouble = [("fans", "fan 3 lost")]
    await bench.miner.start()
    reading = await bench.line.read(slow=True)
    assert (reading.state, reading.fault_codes) == (DeviceState.HASHING, ("fans: fan 3 lost",))


def test_trouble_and_no_hashing_is_a_fault_but_sleep_is_not() -> None:
    page = {"SUMMARY": [{"status": [{"type": "temp", "status": "e", "code": 7, "msg": ""}]}]}
    replies = {"summary": {"SUMMARY": [{"GHS 5s": 0, "Elapsed": 9000}]}}
    for mode, state in (("0", DeviceState.FAULT), ("1", DeviceState.SLEEPING)):
        slow = {"web_summary": page, "get_miner_conf": {"bitmain-work-mode": mode}}
        reading = ANTMINER.parse(replies, Memory(slow_replies=slow))
        assert (reading.state, reading.fault_codes) == (state, ("temp: code 7",))
    assert reading.reason is Reason.NONE


def test_dead_chips_are_counted_and_an_empty_slot_is_no_fault() -> None:
    stats = {"chain_acs1": " ooo oox", "chain_acs2": " ooo ooo", "chain_acs4": "", "chain_acn4": 0}
    assert fault_codes(stats, None) == ("chain 1: 1 chips dead",)


def test_recorded_pools_and_system_info_belong_to_the_reading(recorded: Recorded) -> None:
    names = ("summary", "stats", "version", "pools", "system_info")
    decoded = decode({name: recorded(f"asic-rs/antminer/v2020/{name}.json") for name in names})
    reading = decoded.reading
    assert decoded.family == "antminer"
    assert (reading.mac, reading.serial) == ("02:55:97:22:3M:72", "THQING0BDJAB024NF")  # scrubbed by its publisher
    assert reading.pool_url == "stratum+tcp://btc.global.luxor.tech:700"
    assert (reading.fan_rpm, reading.fault_codes, reading.state) == (6000.0, (), DeviceState.HASHING)
