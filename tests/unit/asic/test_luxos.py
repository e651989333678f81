"""LuxOS: profiles by the class's watts, thermal management left as it was found, slow facts."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Callable

import pytest

from agent.asic.conversation import Line
from agent.asic.decode import decode
from agent.asic.family import Login, Memory, Outcome, Profiles
from agent.asic.registry import FAMILIES
from agent.asic.transport import Endpoint
from gridpivot.curves import miner_class
from gridpivot.vocabulary import Mode, Reason
from sim.miners.luxos import PROFILES, SimLuxOs
from sim.miners.machine import Machine

pytestmark = pytest.mark.unit
KIND = miner_class("s21", "luxos", "Antminer S21", shed_s=5, wake_s=60)
CURVE = {mode: point.power_w for mode, point in KIND.modes.items()}
Recorded = Callable[[str], bytes]


class Bench:
    """One simulated machine, its clock, the line to it."""

    def __init__(self) -> None:
        self.now_s = 1e6
        machine = Machine(KIND, 7, now_s=self.now_s)
        self.miner = SimLuxOs(machine, "02:00:00:00:00:01", clock=lambda: self.now_s)
        self.memory = Memory(mode_power_w=CURVE)

    @property
    def line(self) -> Line:
        end = Endpoint(self.miner.host, self.miner.api_port)
        return Line(FAMILIES["luxos"], end, None, self.memory, 3.0, Counter())

    async def limit(self, watts: float) -> Outcome:
        login: Login | None = None
        return await self.line._drive(self.line.family.limit_power(watts, self.memory, login, 1.0))


@pytest.fixture
async def site() -> AsyncIterator[Bench]:
    bench = Bench()
    await bench.miner.start()
    yield bench
    await bench.miner.stop()


async def test_slow_facts_come_in_one_connection(site: Bench) -> None:
    site.miner.events = [{"Code": "NOPIC_PROTECTION"}, {"Code": "REBOOT_NOT_HASHING"}, {"Code": "NOPIC_PROTECTION"}]
    before = site.miner.requests
    reading = await site.line.read(slow=True)
    assert site.miner.requests - before == 2
    assert reading.pool_url == "stratum+tcp://pool.example:3333"
    assert reading.fault_codes == ("NOPIC_PROTECTION", "REBOOT_NOT_HASHING")
    assert (reading.fan_rpm, reading.serial) == (4200.0, "SIM020000000001")
    assert reading.power_limit_w == 3500.0


@pytest.mark.parametrize("mode", [Mode.LOW, Mode.TURBO])
async def test_mode_without_a_named_profile_takes_the_one_at_the_classes_watts(mode: Mode, site: Bench) -> None:
    assert (await site.line.carry_out(mode, 1.0)).accepted
    site.now_s += 1000
    assert site.miner.machine.mode is mode
    assert (await site.line.read(slow=True)).mode is mode
    assert (await site.line.carry_out(Mode.NORMAL, 1.0)).accepted
    site.now_s += 1000
    assert (await site.line.read(slow=True)).mode is Mode.NORMAL


async def test_no_profile_at_or_below_is_unsupported_and_names_the_lowest(site: Bench) -> None:
    site.memory.mode_power_w = {Mode.LOW: 1000.0, Mode.NORMAL: 3500.0}
    outcome = await site.line.carry_out(Mode.LOW, 1.0)
    assert outcome.reason is Reason.UNSUPPORTED and "2100" in outcome.detail
    assert site.miner.machine.mode is Mode.NORMAL


async def test_limit_takes_the_profile_below_never_the_nearer_one_above(site: Bench) -> None:
    assert (await site.limit(3499.0)).accepted
    assert site.miner.machine.mode is Mode.LOW
    assert (await site.limit(100.0)).reason is Reason.UNSUPPORTED


async def test_a_named_profile_goes_before_the_watts(site: Bench) -> None:
    site.memory.profiles = Profiles(low=PROFILES[Mode.TURBO])
    assert (await site.line.carry_out(Mode.LOW, 1.0)).accepted
    assert site.miner.machine.mode is Mode.TURBO


@pytest.mark.parametrize("was_on", [True, False])
async def test_thermal_management_is_left_as_it_was_found(was_on: bool, site: Bench) -> None:
    site.miner._atm = was_on
    assert (await site.line.carry_out(Mode.LOW, 1.0)).accepted
    assert site.miner.atm_enabled is was_on
    assert not site.miner.session_open


async def test_thermal_management_is_put_back_and_the_session_closed_after_a_refused_profile(site: Bench) -> None:
    site.memory.profiles = Profiles(low="no such profile")
    assert (await site.line.carry_out(Mode.LOW, 1.0)).reason is Reason.FAILED
    assert site.miner.atm_enabled
    assert not site.miner.session_open


async def test_machine_already_in_the_mode_is_not_logged_on_to(site: Bench) -> None:
    site.miner.open_foreign_session()  # a log-on would be refused
    assert (await site.line.carry_out(Mode.NORMAL, 1.0)).accepted


def test_recorded_machine_has_the_slow_facts(recorded: Recorded) -> None:
    names = ("summary", "power", "temps", "config", "version", "profiles", "pools", "events", "fans")
    decoded = decode({name: recorded(f"asic-rs/luxminer/v1/{name}.json") for name in names})
    reading = decoded.reading
    assert decoded.family == "luxos"
    assert (reading.fan_rpm, reading.serial) == (2340.0, "JYZZB0UBDJABF06RB")
    assert reading.power_limit_w == 1188.0  # profile 290MHz
    assert reading.pool_url == "stratum+tcp://ca.stratum.braiins.com:3333"
    assert reading.fault_codes == ("NOPIC_PROTECTION", "REBOOT_NOT_HASHING")
