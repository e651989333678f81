"""ePIC: one summary, a password in every write, watts through the perpetual tuner."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from agent.asic.conversation import Line
from agent.asic.decode import decode
from agent.asic.families.epic import Epic
from agent.asic.family import Login, Memory, Outcome
from agent.asic.registry import FAMILIES
from agent.asic.transport import Endpoint
from gridpivot.curves import miner_class
from gridpivot.errors import BadReply
from gridpivot.vocabulary import DeviceState, Mode, Provenance, Reason
from sim.miners.epic import SimEpic
from sim.miners.machine import Machine

pytestmark = pytest.mark.unit
KIND = miner_class("s19xp", "epic", "Antminer S19 XP", shed_s=5, wake_s=60)
CURVE = {mode: point.power_w for mode, point in KIND.modes.items()}
Recorded = Callable[[str], bytes]


class Bench:
    """One simulated machine, its clock, the line to it."""

    def __init__(self, *, power_tune: bool) -> None:
        self.now_s = 1e6
        machine = Machine(KIND, 7, now_s=self.now_s)
        self.miner = SimEpic(machine, "02:00:00:00:00:01", clock=lambda: self.now_s, power_tune=power_tune)
        self.login: Login | None = Login("", "letmein")
        self.memory = Memory(mode_power_w=CURVE)

    @property
    def line(self) -> Line:
        end = Endpoint(self.miner.host, self.miner.api_port, self.miner.http_port)
        return Line(FAMILIES["epic"], end, self.login, self.memory, 3.0, Counter())

    async def limit(self, watts: float) -> Outcome:
        return await self.line._drive(self.line.family.limit_power(watts, self.memory, self.login, 1.0))


@pytest.fixture(params=[False, True], ids=["tune presets", "PowerTune"])
async def site(request: Any) -> AsyncIterator[Bench]:
    bench = Bench(power_tune=request.param)
    await bench.miner.start()
    yield bench
    await bench.miner.stop()


async def test_reading_is_in_base_units_and_one_request(site: Bench) -> None:
    reading = await site.line.read(slow=True)
    machine = site.miner.machine
    assert reading.hashrate_hs == pytest.approx(machine.hashrate_hs(site.now_s))
    assert (reading.power_w, reading.provenance) == (machine.reported_power_w(site.now_s), Provenance.MODELLED)
    assert (reading.state, reading.mode, reading.power_limit_w) == (DeviceState.HASHING, Mode.NORMAL, 3010.0)
    assert (reading.model, reading.mac, reading.fan_rpm) == ("Antminer S19 XP", site.miner.mac, 5971.0)
    before = site.miner.requests
    await site.line.read(slow=False)
    assert site.miner.requests - before == 1


async def test_sleep_and_wake_are_taken_and_read_back(site: Bench) -> None:
    assert (await site.line.carry_out(Mode.SLEEP, 1.0)).accepted
    assert (await site.line.read(slow=True)).state is DeviceState.STOPPING
    site.now_s += 100
    asleep = await site.line.read(slow=True)
    assert (asleep.state, asleep.mode, asleep.hashrate_hs) == (DeviceState.SLEEPING, Mode.SLEEP, 0.0)
    assert (await site.line.carry_out(Mode.NORMAL, 1.0)).accepted
    site.now_s += 5
    assert (await site.line.read(slow=True)).state is DeviceState.WAKING
    site.now_s += 1000
    assert (await site.line.read(slow=True)).mode is Mode.NORMAL


@pytest.mark.parametrize("mode", [Mode.LOW, Mode.TURBO])
async def test_modes_are_tuner_targets_at_the_classes_watts(mode: Mode, site: Bench) -> None:
    algorithm = site.miner.algorithm
    assert (await site.line.carry_out(mode, 1.0)).accepted
    site.now_s += 1000
    assert (await site.line.read(slow=True)).mode is mode
    assert site.miner.machine.mode is mode
    assert (site.miner.algorithm, site.miner.tuner["Throttle Step"]) == (algorithm, 5)


async def test_limit_never_sets_more_than_asked(site: Bench) -> None:
    assert (await site.limit(3000.0)).accepted
    assert (await site.line.read(slow=True)).power_limit_w in (1806.0, 3000.0)
    assert site.miner.machine.mode is Mode.LOW


async def test_limit_below_everything_is_refused_and_changes_nothing(site: Bench) -> None:
    before = dict(site.miner.tuner)
    outcome = await site.limit(500.0)
    assert outcome.reason in (Reason.UNSUPPORTED, Reason.FAILED)
    assert site.miner.tuner == before


async def test_wrong_password_inside_a_200_is_unauthorised(site: Bench) -> None:
    site.login = Login("", "wrong")
    outcome = await site.line.carry_out(Mode.SLEEP, 1.0)
    assert outcome.reason is Reason.UNAUTHORISED and not outcome.retry and "wrong" not in outcome.detail
    assert site.miner.machine.mode is Mode.NORMAL


async def test_without_a_password_it_reads_and_commands_nothing(site: Bench) -> None:
    site.login = None
    assert (await site.line.read(slow=True)).state is DeviceState.HASHING
    assert (await site.line.carry_out(Mode.SLEEP, 1.0)).reason is Reason.NO_CREDENTIALS


async def test_password_of_a_write_is_in_no_repr(site: Bench) -> None:
    dialogue = Epic().command(Mode.SLEEP, site.memory, Login("", "secret-word"), 1.0)
    assert "secret-word" not in repr(next(dialogue))


async def test_last_error_is_shown(site: Bench) -> None:
    site.miner.last_error = "Board 1 over temperature"
    assert (await site.line.read(slow=True)).fault_codes == ("Board 1 over temperature",)


async def test_low_without_watts_in_the_class_is_unsupported(site: Bench) -> None:
    site.memory.mode_power_w = {}
    assert (await site.line.carry_out(Mode.LOW, 1.0)).reason is Reason.UNSUPPORTED
    assert (await site.line.carry_out(Mode.UNKNOWN, 1.0)).reason is Reason.UNSUPPORTED


def test_idling_without_boards_hashes_nothing_and_an_unknown_word_is_no_sleep() -> None:
    idle = {"HBs": None, "Session": {}, "Status": {"Operating State": "Idling"}}
    reading = Epic().parse({"summary": idle}, Memory())
    assert (reading.state, reading.hashrate_hs) == (DeviceState.SLEEPING, 0.0)
    odd = {"HBs": None, "Session": {}, "Status": {"Operating State": "Rebooting"}}
    assert Epic().parse({"summary": odd}, Memory()).state is DeviceState.UNKNOWN


@pytest.mark.parametrize("reply", [{}, [], "text", None])
def test_summary_that_is_nothing_is_a_bad_reply(reply: object) -> None:
    with pytest.raises(BadReply):
        Epic().parse({"summary": reply}, Memory())


# -- recordings (one real S19 XP, by their index) ------------------------------------------------------------------


def test_recorded_machine_decodes(recorded: Recorded) -> None:
    names = ("summary", "capabilities", "network", "temps", "chip_temps", "chip_clocks")
    decoded = decode({name: recorded(f"asic-rs/epic/v1/{name}.json") for name in names})
    reading = decoded.reading
    assert decoded.family == "epic"
    assert reading.hashrate_hs == pytest.approx((49440724.0 + 49925124.0) * 1e6)
    assert (reading.power_w, reading.provenance) == (2166.6174, Provenance.MODELLED)  # its input current reads 0
    assert (reading.state, reading.temp_c) == (DeviceState.HASHING, 67.0)
    assert (reading.accepted_shares, reading.uptime_s, reading.fan_rpm) == (1862, 23170.0, 5971.0)
    assert (reading.model, reading.mac) == ("AntMiner S19 XP", "E6:D4:41:51:64:28")
    assert (reading.firmware, reading.pool_url) == ("PowerPlay-BMS v1.5.13", "mine.ocean.xyz:3334")
    assert reading.power_limit_w == 3850.0  # the least preset that covers its 143 TH/s
    assert len(reading.board_serials) == 2


@pytest.mark.parametrize("name", ["summary", "capabilities", "network", "temps"])
def test_one_recorded_file_alone_is_recognised(name: str, recorded: Recorded) -> None:
    assert decode(recorded(f"asic-rs/epic/v1/{name}.json")).family == "epic"
