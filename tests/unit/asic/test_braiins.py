"""Braiins OS: its dialects, its wire codec against classes that pyasic generated, its commands over real sockets."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.asic.conversation import Line
from agent.asic.decode import decode
from agent.asic.families import braiins_grpc as grpc
from agent.asic.families import protowire
from agent.asic.families.braiins import Braiins
from agent.asic.family import Login, Memory, Token
from agent.asic.registry import FAMILIES
from agent.asic.transport import Endpoint, call
from gridpivot.curves import miner_class
from gridpivot.errors import BadReply, DeviceUnreachable
from gridpivot.vocabulary import DeviceState, Mode, Provenance, Reason
from sim.miners.braiins import SimBraiins, SimBraiins2109, SimBraiins2505, SimBraiins2511
from sim.miners.fault import WireFault
from sim.miners.machine import Machine

pytestmark = pytest.mark.unit
GENERATIONS: dict[str, type[SimBraiins]] = {"22.08": SimBraiins2109, "25.05": SimBraiins2505, "25.11": SimBraiins2511}
KIND = miner_class("s19xp", "braiins", "Antminer S19 XP", shed_s=5, wake_s=60)
CURVE = {mode: point.power_w for mode, point in KIND.modes.items()}
Recorded = Callable[[str], bytes]


class Bench:
    """One simulated machine, its clock, the line to it."""

    def __init__(self, generation: str) -> None:
        self.now_s = 1e6
        machine = Machine(KIND, 7, now_s=self.now_s)
        self.miner = GENERATIONS[generation](machine, "02:00:00:00:00:01", clock=lambda: self.now_s)
        self.login: Login | None = Login("root", "root")
        self.memory = Memory(mode_power_w=CURVE)

    @property
    def line(self) -> Line:
        # Port 1 where the generation has no gRPC: nobody listens there, as nobody does on 50051 of an old machine.
        end = Endpoint(self.miner.host, self.miner.api_port, self.miner.http_port, self.miner.aux_port or 1)
        return Line(FAMILIES["braiins"], end, self.login, self.memory, 3.0, Counter())


@pytest.fixture
async def bench() -> AsyncIterator[Callable[[str], Any]]:
    benches: list[Bench] = []

    async def make(generation: str) -> Bench:
        site = Bench(generation)
        benches.append(site)
        await site.miner.start()
        return site

    yield make
    for each in benches:
        await each.miner.stop()


@pytest.mark.parametrize("generation", list(GENERATIONS))
async def test_every_generation_reads_the_same_machine(generation: str, bench: Any) -> None:
    site = await bench(generation)
    reading = await site.line.read(slow=True, now_s=1.0)
    machine = site.miner.machine
    assert reading.hashrate_hs == pytest.approx(machine.hashrate_hs(site.now_s))
    assert (reading.power_w, reading.provenance) == (machine.reported_power_w(site.now_s), Provenance.MODELLED)
    assert (reading.state, reading.mode) == (DeviceState.HASHING, Mode.NORMAL)
    assert reading.temp_c == machine.temp_c(site.now_s)
    assert reading.accepted_shares == machine.accepted_shares(site.now_s)
    assert (reading.fan_rpm, reading.power_limit_w) == (5880, 3010)
    assert reading.firmware == site.miner.version
    assert reading.pool_url == "stratum+tcp://pool.example:3333"
    assert site.memory.dialect == ("rest" if generation == "25.11" else "graphql")
    assert reading.mac == (None if generation == "22.08" else "02:00:00:00:00:01")


@pytest.mark.parametrize("generation", list(GENERATIONS))
async def test_every_generation_sleeps_and_wakes_and_is_read_back(generation: str, bench: Any) -> None:
    site = await bench(generation)
    await site.line.read(slow=True, now_s=1.0)
    assert (await site.line.carry_out(Mode.SLEEP, 2.0)).accepted
    assert site.miner.machine.mode is Mode.SLEEP
    site.now_s += 100
    asleep = await site.line.read(slow=True, now_s=3.0)
    assert (asleep.state, asleep.mode, asleep.hashrate_hs) == (DeviceState.SLEEPING, Mode.SLEEP, 0.0)
    assert (await site.line.carry_out(Mode.NORMAL, 4.0)).accepted
    site.now_s += 1000
    awake = await site.line.read(slow=True, now_s=5.0)
    assert (awake.state, awake.mode) == (DeviceState.HASHING, Mode.NORMAL)


@pytest.mark.parametrize("generation", list(GENERATIONS))
async def test_low_is_the_power_target_of_the_class(generation: str, bench: Any) -> None:
    site = await bench(generation)
    assert (await site.line.carry_out(Mode.LOW, 1.0)).accepted
    assert site.miner.target_w == int(CURVE[Mode.LOW])
    site.now_s += 1000
    reading = await site.line.read(slow=True, now_s=2.0)
    assert (reading.mode, site.miner.machine.mode) == (Mode.LOW, Mode.LOW)


@pytest.mark.parametrize("generation", list(GENERATIONS))
async def test_low_from_sleep_never_passes_through_full_power(generation: str, bench: Any) -> None:
    site = await bench(generation)
    site.miner.pause()
    site.now_s += 100
    assert (await site.line.carry_out(Mode.LOW, 1.0)).accepted
    site.now_s += 1e4
    assert site.miner.machine.true_power_w(site.now_s) < 1.1 * CURVE[Mode.LOW]


@pytest.mark.parametrize("generation", list(GENERATIONS))
async def test_wrong_password_is_unauthorised_and_changes_nothing(generation: str, bench: Any) -> None:
    site = await bench(generation)
    site.login = Login("root", "wrong")
    outcome = await site.line.carry_out(Mode.SLEEP, 1.0)
    assert outcome.reason is Reason.UNAUTHORISED and not outcome.retry
    assert "wrong" not in outcome.detail
    assert site.miner.machine.mode is Mode.NORMAL


@pytest.mark.parametrize("generation", list(GENERATIONS))
async def test_forgotten_tokens_are_renewed_behind_the_scenes(generation: str, bench: Any) -> None:
    site = await bench(generation)
    await site.line.read(slow=True, now_s=1.0)
    site.miner.tokens.clear()
    assert (await site.line.read(slow=True, now_s=2.0)).state is DeviceState.HASHING
    site.miner.tokens.clear()
    outcome = await site.line.carry_out(Mode.SLEEP, 3.0)
    assert outcome.accepted and site.miner.machine.mode is Mode.SLEEP


async def test_graphql_reads_without_a_login_and_commands_do_not(bench: Any) -> None:
    site = await bench("25.05")
    site.login = None
    assert (await site.line.read(slow=True, now_s=1.0)).state is DeviceState.HASHING
    assert (await site.line.carry_out(Mode.SLEEP, 1.0)).reason is Reason.NO_CREDENTIALS


async def test_graphql_poll_is_one_request_once_the_device_is_known(bench: Any) -> None:
    site = await bench("25.05")
    await site.line.read(slow=True, now_s=1.0)
    before = site.miner.requests
    await site.line.read(slow=False, now_s=2.0)
    assert site.miner.requests - before == 1


async def test_machine_without_grpc_is_not_asked_to_log_in_at_every_poll(bench: Any) -> None:
    site = await bench("25.05")
    site.login = Login("root", "wrong")
    for second in range(1, 6):
        await site.line.read(slow=True, now_s=float(second))
    assert site.miner.logins == 1


async def test_firmware_updated_in_place_is_spoken_to_anew_within_the_hour(bench: Any) -> None:
    old, new = await bench("25.05"), await bench("25.11")
    await old.line.read(slow=True, now_s=1.0)
    new.memory = old.memory
    reading = await new.line.read(slow=True, now_s=3602.0)
    assert (reading.firmware, new.memory.dialect) == (new.miner.version, "rest")


async def test_target_outside_the_tuners_range_is_not_accepted(bench: Any) -> None:
    for generation in GENERATIONS:
        site = await bench(generation)
        outcome = await site.line._drive(site.line.family.limit_power(100.0, site.memory, site.login, 1.0))
        assert not outcome.accepted
        assert site.miner.target_w == 3010


async def test_low_without_watts_in_the_class_is_unsupported(bench: Any) -> None:
    site = await bench("25.05")
    site.memory.mode_power_w = {}
    assert (await site.line.carry_out(Mode.LOW, 1.0)).reason is Reason.UNSUPPORTED
    assert (await site.line.carry_out(Mode.UNKNOWN, 1.0)).reason is Reason.UNSUPPORTED


@pytest.mark.parametrize("fault", [WireFault.GARBAGE, WireFault.TRUNCATED])
async def test_garbled_answers_leave_the_known_dialect_and_become_errors(fault: WireFault, bench: Any) -> None:
    site = await bench("25.11")
    await site.line.read(slow=True, now_s=1.0)
    site.miner.fault = fault
    for now_s in (2.0, 4000.0):  # soon, and when the dialect is due to be learned again
        with pytest.raises((BadReply, DeviceUnreachable)):
            await site.line.read(slow=True, now_s=now_s)
        assert site.memory.dialect == "rest"


async def test_quick_ramping_is_set_and_read_from_the_answer(bench: Any) -> None:
    site = await bench("25.11")
    family = site.line.family
    assert isinstance(family, Braiins)
    outcome = await site.line._drive(family.set_quick_ramping(60, 5, site.memory, site.login, 1.0))
    assert outcome.accepted
    assert site.miner.quick_ramping == (60, 5)


async def test_tuner_state_and_efficiency_curve_come_over_grpc(bench: Any) -> None:
    site = await bench("25.11")
    end = site.line.endpoint
    token = Token((await call(end, grpc.login_call(Login("root", "root")), 3.0)).decode(), "grpc", 9.0)
    assert grpc.read_power_target(await call(end, grpc.tuner_state_call(token), 3.0)) == 3010
    curve = grpc.read_efficiency(await call(end, grpc.efficiency_call(token), 3.0))
    assert [point.target_w for point in curve] == [1806.0, 3010.0, 3762.0]
    assert curve[1].hashrate_hs == pytest.approx(140e12)


# -- the codec against classes that somebody else generated --------------------------------------------------------


def generated() -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return pytest.importorskip("pyasic.web.braiins_os.proto.braiins.bos.v1")


def test_requests_are_what_generated_classes_write() -> None:
    v1 = generated()
    token = Token("t", "grpc", 0.0)
    login = v1.LoginRequest(username="root", password="secret")
    assert grpc.login_call(Login("root", "secret")).body == bytes(login)
    target = v1.SetPowerTargetRequest(save_action=v1.SaveAction.SAVE_AND_APPLY, power_target=v1.Power(watt=2106))
    assert grpc.set_power_target(token, 2106).body == bytes(target)
    assert grpc.pause(token).body == bytes(v1.PauseMiningRequest())
    assert grpc.pause(token).metadata == (("authorization", "t"),)


def test_answers_of_generated_classes_are_understood() -> None:
    v1 = generated()
    details = v1.GetMinerDetailsResponse(
        miner_identity=v1.MinerIdentity(name="short", miner_model="Antminer S19 XP"),
        bos_version=v1.BosVersion(current="25.05"),
        mac_address="02:00:00:00:00:01",
        bosminer_uptime_s=1189,
        status=v1.MinerStatus.SUSPENDED,
        serial_number="S1",
    )
    assert grpc.read_details(bytes(details)) == grpc.Details(
        grpc.MinerStatus.SUSPENDED, 1189.0, "Antminer S19 XP", "25.05", "02:00:00:00:00:01", "S1"
    )
    state = v1.GetTunerStateResponse(
        power_target_mode_state=v1.PowerTargetModeState(current_target=v1.Power(watt=2431))
    )
    assert grpc.read_power_target(bytes(state)) == 2431
    assert grpc.taken_power_target(bytes(v1.SetPowerTargetResponse(power_target=v1.Power(watt=900)))) == 900


@given(st.integers(0, 2**64 - 1), st.floats(allow_nan=False), st.text(max_size=40), st.binary(max_size=40))
def test_codec_returns_what_it_was_given(whole: int, real: float, words: str, raw: bytes) -> None:
    fields = protowire.decode(protowire.encode(((1, whole), (2, real), (300, words), (4, raw))))
    assert protowire.integer(fields, 1) == whole
    assert protowire.double(fields, 2) == real
    assert protowire.text(fields, 300) == (words or None)
    assert fields[4] == [raw]


@given(st.binary(max_size=200))
def test_any_bytes_decode_or_are_a_bad_reply(data: bytes) -> None:
    for read in (protowire.decode, grpc.read_details, grpc.read_efficiency, grpc.read_power_target):
        with suppress(BadReply):
            read(data)


def test_statistics_that_are_no_object_are_a_bad_reply() -> None:
    with pytest.raises(BadReply, match="miner/stats"):
        Braiins().parse({"miner/stats": [], "miner/details": {}}, Memory(dialect="rest"))


def test_suspended_is_idle_and_no_mode() -> None:
    family, memory = Braiins(), Memory(mode_power_w=CURVE, dialect="rest")
    details = {"status": 4, "bosminer_uptime_s": 5000}
    stats = {"miner_stats": {"real_hashrate": {"last_5s": {"gigahash_per_second": 0}}}}
    reading = family.parse({"miner/details": details, "miner/stats": stats}, memory)
    assert (reading.state, reading.mode) == (DeviceState.IDLE, Mode.UNKNOWN)


def test_graphql_error_inside_a_200_is_a_bad_reply() -> None:
    with pytest.raises(BadReply, match="unknown field"):
        Braiins().parse({"graphql": {"data": None, "errors": [{"message": "unknown field"}]}}, Memory())


# -- recordings (all real, scrubbed, by their index) ---------------------------------------------------------------

FILES = {
    "v21_09": ("gql_system", "gql_boards", "gql_pools", "gql_tuning", "version"),
    "v24_09": ("gql_system", "gql_boards", "gql_pools", "gql_tuning", "gql_events", "version"),
    "v25_05": ("gql_system", "gql_boards", "gql_pools", "gql_tuning", "gql_events", "version"),
    "v25_11": (
        "miner_stats",
        "miner_details",
        "cooling_state",
        "performance_tuner_state",
        "configuration_miner",
        "miner_errors",
        "miner_hw_hashboards",
        "pools",
        "network",
        "version",
    ),
}
#          power W, limit W, GH/s,       C,      uptime s, shares
READS = {
    "v21_09": (735.0, 900.0, 7160.208945, 89.25, 1189.0, 49),
    "v25_05": (3698.0, 3878.0, 205749.605598, None, 693609.0, 92899),
    "v25_11": (2472.0, 2431.0, 121015.409028, 71.5, 20359.0, 5048),
}


def folder(recorded: Recorded, version: str) -> dict[str, bytes]:
    return {name: recorded(f"asic-rs/braiins/{version}/{name}.json") for name in FILES[version]}


@pytest.mark.parametrize("version", list(FILES))
def test_recorded_generations_decode_and_are_recognised(version: str, recorded: Recorded) -> None:
    decoded = decode(folder(recorded, version))
    reading = decoded.reading
    assert (decoded.family, reading.state) == ("braiins", DeviceState.HASHING)
    assert reading.provenance is Provenance.MODELLED
    assert reading.power_w and reading.hashrate_hs and reading.temp_c and reading.firmware and reading.pool_url
    if version in READS:
        power_w, limit_w, gigahash, temp_c, uptime_s, shares = READS[version]
        assert (reading.power_w, reading.power_limit_w) == (power_w, limit_w)
        assert reading.hashrate_hs == pytest.approx(gigahash * 1e9)
        assert temp_c is None or reading.temp_c == temp_c
        assert (reading.uptime_s, reading.accepted_shares) == (uptime_s, shares)


def test_recorded_rest_has_the_slow_facts_too(recorded: Recorded) -> None:
    reading = decode(folder(recorded, "v25_11")).reading
    assert (reading.model, reading.mac) == ("Antminer S19 XP", "90:34:86:54:14:c0")
    assert reading.serial == "YNAHEAUBCJCBA03GL" and len(reading.board_serials) == 3
    assert reading.fault_codes == ("H2", "V2")  # out of a log of mostly failed name look-ups, which have no code
    assert reading.fan_rpm == 5909


@pytest.mark.parametrize(
    "name", ["v24_09/gql_system", "v24_09/version", "v25_11/miner_stats", "v25_11/cooling_state", "v25_11/pools"]
)
def test_one_recorded_file_alone_is_recognised(name: str, recorded: Recorded) -> None:
    assert decode(recorded(f"asic-rs/braiins/{name}.json")).family == "braiins"
