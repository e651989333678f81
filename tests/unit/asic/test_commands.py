"""Commands of each family carried out over real sockets against the simulated firmware."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import AsyncIterator, Callable

import pytest

from agent.asic.conversation import Line
from agent.asic.family import Login, Memory, Profiles
from agent.asic.registry import FAMILIES
from agent.asic.transport import Endpoint
from gridpivot.curves import miner_class
from gridpivot.vocabulary import DeviceState, Mode, Reason
from sim.miners.antminer import SimAntminer
from sim.miners.luxos import PROFILES, SimLuxOs
from sim.miners.machine import Machine
from sim.miners.whatsminer import SimWhatsminer
from sim.miners.wire import WireMiner

pytestmark = pytest.mark.unit

MODELS = {"whatsminer": "Whatsminer M60", "luxos": "Antminer S21", "antminer": "Antminer S19 Pro"}
MAKERS: dict[str, type[WireMiner]] = {"whatsminer": SimWhatsminer, "luxos": SimLuxOs, "antminer": SimAntminer}


class Hand:
    """A clock moved by hand."""

    def __init__(self) -> None:
        self.now_s = 1e6

    def __call__(self) -> float:
        return self.now_s


class Bench:
    """One simulated machine and the line to it."""

    def __init__(self, family: str) -> None:
        self.clock = Hand()
        kind = miner_class(family, family, MODELS[family], shed_s=5, wake_s=60)
        self.miner = MAKERS[family](Machine(kind, 7, now_s=self.clock()), "02:00:00:00:00:01", clock=self.clock)
        self.login: Login | None = Login("super" if family == "whatsminer" else "root", self.miner.password)
        self.family = FAMILIES[family]
        self.memory = Memory(profiles=Profiles(PROFILES[Mode.NORMAL], PROFILES[Mode.LOW], PROFILES[Mode.TURBO]))
        self.repairs: Counter[str] = Counter()

    @property
    def line(self) -> Line:
        endpoint = Endpoint(self.miner.host, self.miner.api_port, self.miner.http_port or 80)
        return Line(self.family, endpoint, self.login, self.memory, 2.0, self.repairs)

    async def mode(self, mode: Mode) -> Reason:
        outcome = await self.line.carry_out(mode, time.monotonic())
        return outcome.reason


@pytest.fixture
async def bench() -> AsyncIterator[Callable[[str], Bench]]:
    benches: list[Bench] = []

    def make(family: str) -> Bench:
        benches.append(Bench(family))
        return benches[-1]

    yield make
    for each in benches:
        await each.miner.stop()


@pytest.mark.parametrize("family", ["whatsminer", "luxos", "antminer"])
async def test_sleep_and_wake_are_taken_and_read_back(family: str, bench: Callable[[str], Bench]) -> None:
    site = bench(family)
    await site.miner.start()
    assert (await site.line.read(slow=True)).state is DeviceState.HASHING
    assert await site.mode(Mode.SLEEP) is Reason.NONE
    site.clock.now_s += 100
    asleep = await site.line.read(slow=True)
    assert (asleep.state, asleep.mode, asleep.hashrate_hs) == (DeviceState.SLEEPING, Mode.SLEEP, 0.0)
    assert await site.mode(Mode.NORMAL) is Reason.NONE
    site.clock.now_s += 5
    assert (await site.line.read(slow=True)).state is DeviceState.WAKING
    site.clock.now_s += 1000
    awake = await site.line.read(slow=True)
    assert (awake.state, awake.mode) == (DeviceState.HASHING, Mode.NORMAL)


@pytest.mark.parametrize("family", ["whatsminer", "luxos", "antminer"])
async def test_low_and_back_to_normal_are_read_back(family: str, bench: Callable[[str], Bench]) -> None:
    site = bench(family)
    await site.miner.start()
    for mode in (Mode.LOW, Mode.NORMAL):
        assert await site.mode(mode) is Reason.NONE
        site.clock.now_s += 1000
        assert (await site.line.read(slow=True)).mode is mode
        assert site.miner.machine.mode is mode


@pytest.mark.parametrize("family", ["luxos", "antminer"])
async def test_turbo_is_taken_where_it_exists(family: str, bench: Callable[[str], Bench]) -> None:
    site = bench(family)
    await site.miner.start()
    assert await site.mode(Mode.TURBO) is Reason.NONE
    assert site.miner.machine.mode is Mode.TURBO


@pytest.mark.parametrize("family", ["whatsminer", "antminer"])
async def test_wrong_password_is_unauthorised_and_changes_nothing(family: str, bench: Callable[[str], Bench]) -> None:
    site = bench(family)
    await site.miner.start()
    site.login = Login("root", "wrong")
    outcome = await site.line.carry_out(Mode.SLEEP, 0.0)
    assert outcome.reason is Reason.UNAUTHORISED
    assert "wrong" not in outcome.detail
    assert site.miner.machine.mode is Mode.NORMAL


async def test_stock_antminer_without_password_reads_but_says_no_credentials(bench: Callable[[str], Bench]) -> None:
    site = bench("antminer")
    await site.miner.start()
    site.login = None
    reading = await site.line.read(slow=True)
    assert reading.state is DeviceState.HASHING and reading.power_w is None
    assert (reading.mode, reading.reason) == (Mode.UNKNOWN, Reason.NO_CREDENTIALS)
    assert await site.mode(Mode.SLEEP) is Reason.NO_CREDENTIALS


async def test_refused_join_is_remembered_per_device(bench: Callable[[str], Bench]) -> None:
    site = bench("antminer")
    await site.miner.start()
    await site.line.read(slow=False)
    assert site.memory.refuses_joined
    before = site.miner.requests
    await site.line.read(slow=False)
    assert site.miner.requests - before == 2


async def test_pools_erased_by_a_write_are_put_back(bench: Callable[[str], Bench]) -> None:
    site = bench("antminer")
    await site.miner.start()
    miner = site.miner
    assert isinstance(miner, SimAntminer)
    pools = miner.conf["pools"]
    miner.erases_pools = True
    outcome = await site.line.carry_out(Mode.SLEEP, 0.0)
    assert outcome.reason is Reason.FAILED and "restored" in outcome.detail and "NOT" not in outcome.detail
    assert miner.conf["pools"] == pools and len(pools) == 2


async def test_antminer_write_keeps_every_other_setting(bench: Callable[[str], Bench]) -> None:
    site = bench("antminer")
    await site.miner.start()
    miner = site.miner
    assert isinstance(miner, SimAntminer)
    before = dict(miner.conf)
    await site.mode(Mode.LOW)
    assert {**miner.conf, "bitmain-work-mode": "0"} == before


async def test_antminer_already_in_the_mode_is_not_written(bench: Callable[[str], Bench]) -> None:
    site = bench("antminer")
    await site.miner.start()
    assert await site.mode(Mode.NORMAL) is Reason.NONE
    assert isinstance(site.miner, SimAntminer) and site.miner.writes == 0


async def test_antminer_configuration_without_pools_is_left_alone(bench: Callable[[str], Bench]) -> None:
    site = bench("antminer")
    await site.miner.start()
    assert isinstance(site.miner, SimAntminer)
    site.miner.conf["pools"] = []
    assert await site.mode(Mode.SLEEP) is Reason.FAILED
    assert site.miner.writes == 0


async def test_stats_with_lost_commas_are_mended_and_counted(bench: Callable[[str], Bench]) -> None:
    site = bench("antminer")
    await site.miner.start()
    assert isinstance(site.miner, SimAntminer)
    site.miner.malformed_stats = True
    assert (await site.line.read(slow=False)).temp_c is not None
    assert site.repairs["missing_comma"] == 1


async def test_modern_stats_shape_gives_the_same_reading(bench: Callable[[str], Bench]) -> None:
    site = bench("antminer")
    await site.miner.start()
    old = await site.line.read(slow=False)
    site.memory.needs_new_api = True
    new = await site.line.read(slow=False)
    assert (new.hashrate_hs, new.temp_c) == (old.hashrate_hs, old.temp_c)


async def test_expired_whatsminer_token_is_renewed_behind_the_scenes(bench: Callable[[str], Bench]) -> None:
    site = bench("whatsminer")
    await site.miner.start()
    miner = site.miner
    assert isinstance(miner, SimWhatsminer)
    assert await site.mode(Mode.SLEEP) is Reason.NONE
    miner.expire_tokens()
    assert await site.mode(Mode.NORMAL) is Reason.NONE
    assert miner.tokens_given == 2


async def test_luxos_session_of_somebody_else_is_refused_and_worth_another_try(bench: Callable[[str], Bench]) -> None:
    site = bench("luxos")
    await site.miner.start()
    miner = site.miner
    assert isinstance(miner, SimLuxOs)
    miner.open_foreign_session()
    outcome = await site.line.carry_out(Mode.SLEEP, 0.0)
    assert (outcome.reason, outcome.retry) == (Reason.REFUSED, True)
    miner.close_foreign_session()
    assert await site.mode(Mode.SLEEP) is Reason.NONE


async def test_luxos_session_is_closed_also_after_a_refused_order(bench: Callable[[str], Bench]) -> None:
    site = bench("luxos")
    await site.miner.start()
    site.memory.profiles = Profiles(low="no such profile")
    assert await site.mode(Mode.LOW) is Reason.FAILED
    assert isinstance(site.miner, SimLuxOs) and not site.miner.session_open


async def test_luxos_mode_without_a_named_profile_is_unsupported(bench: Callable[[str], Bench]) -> None:
    site = bench("luxos")
    await site.miner.start()
    site.memory.profiles = Profiles()
    assert await site.mode(Mode.TURBO) is Reason.UNSUPPORTED


@pytest.mark.parametrize("family", ["whatsminer", "luxos", "antminer"])
async def test_unknown_is_never_commanded(family: str, bench: Callable[[str], Bench]) -> None:
    assert await bench(family).mode(Mode.UNKNOWN) is Reason.UNSUPPORTED
