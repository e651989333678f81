"""Whatsminer V2 beyond figures: error codes, pool, fans, limit and address; and when codes make a fault."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import pytest

from agent.asic.conversation import Line
from agent.asic.decode import decode
from agent.asic.families.whatsminer import fault_codes
from agent.asic.family import Memory
from agent.asic.registry import FAMILIES
from agent.asic.repair import parse_reply
from agent.asic.transport import Endpoint
from gridpivot.curves import miner_class
from gridpivot.vocabulary import DeviceState, Reason
from sim.miners.machine import Machine
from sim.miners.whatsminer import SimWhatsminer

pytestmark = pytest.mark.unit
Recorded = Callable[[str], bytes]
WHATSMINER = FAMILIES["whatsminer"]


def folder(recorded: Recorded, version: str, *names: str) -> dict[str, bytes]:
    return {name: recorded(f"asic-rs/whatsminer/{version}/{name}.json") for name in names}


def test_recorded_v2_replies_give_codes_pool_fans_limit_and_address(recorded: Recorded) -> None:
    names = ("summary", "status", "get_error_code_with_errors", "pools", "get_miner_info", "get_version")
    reading = decode(folder(recorded, "v2", *names)).reading
    assert reading.fault_codes == ("218", "110")
    assert reading.state is DeviceState.HASHING  # it complains and hashes on
    assert reading.pool_url == "stratum+tcp://btc.example.pool:3333"
    assert (reading.fan_rpm, reading.power_limit_w, reading.mac) == (5400.0, 3300.0, "D4:01:02:03:04:05")


def test_recorded_v1_summary_carries_its_codes_itself(recorded: Recorded) -> None:
    assert decode(folder(recorded, "v1", "summary_with_errors")).reading.fault_codes == ("110", "600")
    assert decode(folder(recorded, "v1", "summary", "status")).reading.fault_codes == ()


def test_error_codes_in_a_list_that_is_no_json_are_read_too() -> None:
    mended = parse_reply(b'{"STATUS":"S","Code":131,"Msg":{"error_code":["329":"2022-01-01 00:00:00"]}}').value
    assert fault_codes(mended, {}) == ("329",)


@pytest.mark.parametrize(
    ("off", "elapsed", "state"),
    [("false", 9000, DeviceState.FAULT), ("false", 10, DeviceState.WAKING), ("true", 9000, DeviceState.SLEEPING)],
)
def test_codes_are_a_fault_only_where_a_miner_should_hash_and_does_not(
    off: str, elapsed: int, state: DeviceState
) -> None:
    replies = {"summary": {"SUMMARY": [{"MHS 5s": 0, "Elapsed": elapsed}]}, "status": {"Msg": {"mineroff": off}}}
    memory = Memory(slow_replies={"get_error_code": {"Msg": {"error_code": [{"218": "2024-06-15 10:30:00"}]}}})
    reading = WHATSMINER.parse(replies, memory)
    assert (reading.state, reading.fault_codes) == (state, ("218",))
    assert (reading.reason is Reason.FAULT) is (state is DeviceState.FAULT)


async def test_the_facts_come_over_the_wire_at_the_slow_beat() -> None:
    kind = miner_class("w", "whatsminer", "Whatsminer M60", shed_s=5, wake_s=60)
    miner = SimWhatsminer(Machine(kind, 7, now_s=1e6), "02:00:00:00:00:01", clock=lambda: 1e6)
    miner.errors = [{"2010": "2024-06-15 10:30:00"}]
    await miner.start()
    try:
        line = Line(WHATSMINER, Endpoint("127.0.0.1", miner.api_port), None, Memory(), 1.0, Counter())
        fast = await line.read(slow=False)
        assert (fast.fault_codes, fast.pool_url, fast.fan_rpm) == ((), None, 5400.0)
        reading = await line.read(slow=True)
        assert reading.fault_codes == ("2010",)
        assert reading.pool_url == "stratum+tcp://pool.example:3333"
        assert reading.power_limit_w == round(kind.modes[miner.machine.mode].power_w)
    finally:
        await miner.stop()
