"""VNish: readings out of mixed units, presets at or below, tokens, and what is left alone."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Callable

import pytest

from agent.asic.conversation import Line
from agent.asic.decode import decode
from agent.asic.families.vnish import VNish
from agent.asic.family import Login, Memory, Outcome
from agent.asic.registry import FAMILIES
from agent.asic.transport import Endpoint
from gridpivot.curves import miner_class
from gridpivot.errors import BadReply
from gridpivot.vocabulary import DeviceState, Mode, Provenance, Reason
from sim.miners.machine import Machine
from sim.miners.vnish import SimVNish

pytestmark = pytest.mark.unit
KIND = miner_class("s21pro", "vnish", "Antminer S21 Pro", shed_s=5, wake_s=60)
CURVE = {mode: point.power_w for mode, point in KIND.modes.items()}
Recorded = Callable[[str], bytes]


class Bench:
    """One simulated machine, its clock, the line to it."""

    def __init__(self) -> None:
        self.now_s = 1e6
        machine = Machine(KIND, 7, now_s=self.now_s)
        self.miner = SimVNish(machine, "02:00:00:00:00:01", clock=lambda: self.now_s)
        self.login: Login | None = Login("", "admin")
        self.memory = Memory(mode_power_w=CURVE)

    @property
    def line(self) -> Line:
        end = Endpoint(self.miner.host, self.miner.api_port, self.miner.http_port)
        return Line(FAMILIES["vnish"], end, self.login, self.memory, 3.0, Counter())

    async def limit(self, watts: float) -> Outcome:
        return await self.line._drive(self.line.family.limit_power(watts, self.memory, self.login, 1.0))


@pytest.fixture
async def site() -> AsyncIterator[Bench]:
    bench = Bench()
    await bench.miner.start()
    yield bench
    await bench.miner.stop()


async def test_reading_is_in_base_units_and_one_request(site: Bench) -> None:
    reading = await site.line.read(slow=True, now_s=1.0)
    machine = site.miner.machine
    assert reading.hashrate_hs == pytest.approx(machine.hashrate_hs(site.now_s))
    assert (reading.power_w, reading.provenance) == (machine.reported_power_w(site.now_s), Provenance.MODELLED)
    assert (reading.state, reading.mode, reading.power_limit_w) == (DeviceState.HASHING, Mode.NORMAL, 3510.0)
    assert (reading.model, reading.mac, reading.firmware) == ("Antminer S21 Pro", site.miner.mac, "1.2.7")
    assert reading.accepted_shares == machine.accepted_shares(site.now_s)  # without those of the developer's fee
    before = site.miner.requests
    await site.line.read(slow=False, now_s=2.0)
    assert site.miner.requests - before == 1


async def test_sleep_and_wake_are_taken_and_read_back(site: Bench) -> None:
    assert (await site.line.carry_out(Mode.SLEEP, 1.0)).accepted
    assert (await site.line.read(slow=True, now_s=1.0)).state is DeviceState.STOPPING
    site.now_s += 100
    asleep = await site.line.read(slow=True, now_s=1.0)
    assert (asleep.state, asleep.mode) == (DeviceState.SLEEPING, Mode.SLEEP)
    assert (await site.line.carry_out(Mode.NORMAL, 1.0)).accepted
    assert (await site.line.read(slow=True, now_s=1.0)).state is DeviceState.WAKING
    site.now_s += 1000
    assert (await site.line.read(slow=True, now_s=1.0)).mode is Mode.NORMAL


@pytest.mark.parametrize("mode", [Mode.LOW, Mode.TURBO])
async def test_modes_are_presets_at_the_classes_watts(mode: Mode, site: Bench) -> None:
    overclock = dict(site.miner.overclock)
    assert (await site.line.carry_out(mode, 1.0)).accepted
    site.now_s += 1000
    assert (await site.line.read(slow=True, now_s=1.0)).mode is mode
    assert site.miner.machine.mode is mode
    assert site.miner.overclock == overclock  # everything else in the section went back as it came


async def test_limit_takes_the_preset_below_never_the_nearer_one_above(site: Bench) -> None:
    assert (await site.limit(3500.0)).accepted
    assert site.miner.preset == "2106"


async def test_limit_below_every_preset_is_unsupported_and_names_the_lowest(site: Bench) -> None:
    outcome = await site.limit(1000.0)
    assert outcome.reason is Reason.UNSUPPORTED and "2106" in outcome.detail
    assert site.miner.preset == "3510"


async def test_presets_for_a_modified_power_supply_are_left_alone(site: Bench) -> None:
    assert (await site.limit(9999.0)).accepted
    assert site.miner.preset == "4387"


async def test_preset_that_was_answered_but_not_taken_is_a_failure(site: Bench) -> None:
    site.miner.ignores_presets = True
    assert (await site.limit(2200.0)).reason is Reason.FAILED


async def test_mining_is_restarted_where_the_firmware_says_it_must_be(site: Bench) -> None:
    site.miner.needs_restart = True
    assert (await site.limit(2200.0)).accepted
    assert (site.miner.restarts, site.miner.machine.mode) == (1, Mode.LOW)


async def test_limit_of_a_sleeping_machine_does_not_wake_it(site: Bench) -> None:
    await site.line.carry_out(Mode.SLEEP, 1.0)
    site.miner.needs_restart = True
    assert (await site.limit(2200.0)).accepted
    assert site.miner.machine.mode is Mode.SLEEP


async def test_wrong_password_is_unauthorised_and_changes_nothing(site: Bench) -> None:
    site.login = Login("", "wrong")
    outcome = await site.line.carry_out(Mode.SLEEP, 1.0)
    assert outcome.reason is Reason.UNAUTHORISED and "wrong" not in outcome.detail
    assert site.miner.machine.mode is Mode.NORMAL


async def test_wrong_password_still_reads_and_is_not_tried_at_every_poll(site: Bench) -> None:
    site.login = Login("", "wrong")
    for second in range(1, 5):
        assert (await site.line.read(slow=True, now_s=float(second))).state is DeviceState.HASHING
    assert site.miner.unlocks == 1


async def test_without_a_password_it_reads_and_commands_nothing(site: Bench) -> None:
    site.login = None
    assert (await site.line.read(slow=True, now_s=1.0)).state is DeviceState.HASHING
    assert (await site.line.carry_out(Mode.SLEEP, 1.0)).reason is Reason.NO_CREDENTIALS
    assert (await site.limit(2200.0)).reason is Reason.NO_CREDENTIALS


async def test_lapsed_token_is_renewed_behind_the_scenes(site: Bench) -> None:
    await site.line.read(slow=True, now_s=1.0)
    site.miner.tokens.clear()
    assert (await site.line.carry_out(Mode.SLEEP, 1.0)).accepted
    assert (site.miner.unlocks, site.miner.machine.mode) == (2, Mode.SLEEP)


async def test_failed_machine_is_a_fault_with_its_words_and_is_started_again(site: Bench) -> None:
    site.miner.failed = True
    reading = await site.line.read(slow=True, now_s=1.0)
    assert (reading.state, reading.reason) == (DeviceState.FAULT, Reason.FAULT)
    assert reading.fault_codes == ("chain break",)
    assert (await site.line.carry_out(Mode.NORMAL, 1.0)).accepted
    assert not site.miner.failed


async def test_low_without_watts_in_the_class_is_unsupported(site: Bench) -> None:
    site.memory.mode_power_w = {}
    assert (await site.line.carry_out(Mode.LOW, 1.0)).reason is Reason.UNSUPPORTED
    assert (await site.line.carry_out(Mode.UNKNOWN, 1.0)).reason is Reason.UNSUPPORTED


def test_unit_of_the_realtime_hashrate_is_what_info_says() -> None:
    summary = {"miner": {"miner_status": {"miner_state": "mining"}, "hr_realtime": 173.87}}
    memory = Memory(slow_replies={"info": {"hr_measure": "TH/s"}})
    assert VNish().parse({"summary": summary}, memory).hashrate_hs == pytest.approx(173.87e12)
    only_instant = {"miner": {"miner_status": {"miner_state": "mining"}, "instant_hashrate": 173.87}}
    assert VNish().parse({"summary": only_instant}, Memory()).hashrate_hs == pytest.approx(173.87e12)


@pytest.mark.parametrize("reply", [{}, [], {"miner": None}, {"miner": []}, "text"])
def test_summary_without_a_miner_is_a_bad_reply(reply: object) -> None:
    with pytest.raises(BadReply):
        VNish().parse({"summary": reply}, Memory())


# -- recordings (a real S21 Pro with VNish 1.2.7, by their index) --------------------------------------------------

WEB = "proto-fleet/antminer-vnish/web"


def test_recorded_machine_decodes_with_its_units_sorted_out(recorded: Recorded) -> None:
    names = ("summary", "info", "perf-summary", "settings", "autotune/presets")
    decoded = decode({name: recorded(f"{WEB}/{name}.json") for name in names})
    reading = decoded.reading
    assert decoded.family == "vnish"
    assert reading.hashrate_hs == pytest.approx(173.87094e12)
    assert (reading.power_w, reading.provenance) == (2583.0, Provenance.MODELLED)
    assert (reading.state, reading.temp_c, reading.fan_rpm) == (DeviceState.HASHING, 65.0, 5940.0)  # auto-tuning
    assert (reading.uptime_s, reading.accepted_shares) == (4422.0, 1599)
    assert (reading.model, reading.firmware) == ("Antminer S21 Pro", "1.2.7")
    assert (reading.mac, reading.serial) == ("02:95:23:B3:E0:79", None)  # "N/A"
    assert (reading.power_limit_w, reading.pool_url) == (2800.0, "stratum.braiins.com:3333")


@pytest.mark.parametrize("name", ["web/summary", "web/info", "web/perf-summary", "rpc/stats"])
def test_one_recorded_file_alone_is_recognised(name: str, recorded: Recorded) -> None:
    assert decode(recorded(f"proto-fleet/antminer-vnish/{name}.json")).family == "vnish"


def test_recorded_cgminer_stats_give_the_same_figures(recorded: Recorded) -> None:
    reading = decode(recorded("proto-fleet/antminer-vnish/rpc/stats.json")).reading
    assert reading.hashrate_hs == pytest.approx(173.87094e12)
    assert (reading.power_w, reading.temp_c, reading.firmware) == (2583.0, 65.0, "1.2.7")


async def test_recorded_presets_are_chosen_at_or_below(recorded: Recorded) -> None:
    from agent.asic.families.vnish import _preset_watts
    from agent.asic.families.watts import at_or_below
    from agent.asic.repair import parse_reply

    presets = parse_reply(recorded(f"{WEB}/autotune/presets.json")).value
    watts = _preset_watts(presets, modded=False)
    assert at_or_below(watts, 3339.0) == "3250"
    assert at_or_below(watts, 2549.0) is None
    assert "disabled" not in watts
