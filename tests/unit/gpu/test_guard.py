"""The GPU guard: what it takes, what it refuses, and what GPUs may draw when agent, guard or both are killed."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import stat
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.gpu.guard import (
    GpuWish,
    GuardRequest,
    Lease,
    check,
    due,
    keep_fallbacks,
    load_fallbacks,
    parse,
    renewed,
)
from agent.gpu.reading import GpuReading
from gridpivot.errors import Refused
from sim.nvml.state import STATE_VARIABLE, NvmlState, uuid_of

GUARDED = Path(__file__).with_name("guarded.py")
ALL = [uuid_of(i) for i in range(8)]
LIMIT_W, FALLBACK_W, LEASE_S = 650.0, 300.0, 5.0


# ---- deciding -------------------------------------------------------------------------------------------------------


def reading(uuid: str = "g", requested_w: float | None = 700.0, enforced_w: float | None = None) -> GpuReading:
    enforced_w = requested_w if enforced_w is None else enforced_w
    return GpuReading(
        uuid,
        limit_requested_w=requested_w,
        limit_enforced_w=enforced_w,
        limit_min_w=200.0,
        limit_max_w=700.0,
        clock_min_mhz=210,
        clock_max_mhz=1980,
    )


pytestmark = pytest.mark.unit


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (b"", "Invalid JSON"),
        (b"[]", "should be an object"),
        (b'{"lease_s": 15}', "gpus: Field required"),
        (b'{"lease_s": 1e9, "gpus": {}}', "lease_s"),
        (b'{"lease_s": 15, "gpus": {"g": {"limit_w": 300}}}', "fallback_w: Field required"),
        (b'{"lease_s": 15, "gpus": {"g": {"limit_w": NaN, "fallback_w": 300}}}', "finite"),
        (b'{"lease_s": 15, "gpus": {"g": {"limit_w": "300", "fallback_w": 300}}}', "valid number"),
        (b'{"lease_s": 15, "gpus": {"g": {"fallback_w": -1}}}', "greater than 0"),
        (b'{"lease_s": 15, "gpus": {}, "run": "reset"}', "not permitted"),
    ],
)
def test_line_that_is_not_a_lease_is_refused_in_one_line(line: bytes, words: str) -> None:
    with pytest.raises(Refused) as refused:
        parse(line)
    assert words in str(refused.value) and "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("uuid", "wish", "words"),
    [
        ("other", GpuWish(fallback_w=300.0), "no such GPU"),
        ("g", GpuWish(limit_w=701.0, fallback_w=300.0), "outside 200-700 W"),
        ("g", GpuWish(limit_w=300.0, fallback_w=199.0), "outside 200-700 W"),
        ("mute", GpuWish(fallback_w=300.0), "tells no range"),
        ("g", GpuWish(fallback_w=300.0, clock_max_mhz=100), "outside 210-1980 MHz"),
        ("g", GpuWish(fallback_w=300.0, clock_max_mhz=2000), "outside 210-1980 MHz"),
    ],
)
def test_wish_outside_what_the_board_takes_is_refused_whole(uuid: str, wish: GpuWish, words: str) -> None:
    known = {"g": reading(), "mute": GpuReading("mute")}
    with pytest.raises(Refused, match=words):
        check(GuardRequest(lease_s=15.0, gpus={"g": GpuWish(fallback_w=250.0), uuid: wish}), known)


watts = st.floats(200.0, 700.0)


@given(
    leases=st.dictionaries(
        st.sampled_from("abcd"), st.builds(Lease, watts, st.none() | watts, st.floats(-50.0, 50.0)), max_size=4
    ),
    now=st.dictionaries(st.sampled_from("abcd"), st.none() | watts, max_size=4),
)
def test_ended_lease_lowers_to_the_fallback_and_never_raises(
    leases: dict[str, Lease], now: dict[str, float | None]
) -> None:
    readings = {uuid: reading(uuid, stands_w) for uuid, stands_w in now.items()}
    limits = due(leases, readings, 0.0)
    for uuid, lease in leases.items():
        if lease.ends_s > 0.0:
            assert limits.get(uuid) == lease.limit_w
            continue
        stands_w = now.get(uuid)
        after_w = limits.get(uuid, stands_w)
        assert after_w is None or stands_w is None or after_w <= stands_w
        assert stands_w is None or after_w is None or after_w <= lease.fallback_w + 0.5
        assert stands_w is not None or uuid not in limits


def test_renewal_without_a_limit_keeps_the_one_that_holds_and_no_ended_one() -> None:
    leases = {"a": Lease(300.0, 600.0, 10.0), "b": Lease(300.0, 600.0, 1.0)}
    wishes = {"a": GpuWish(fallback_w=250.0), "b": GpuWish(fallback_w=250.0)}
    after = renewed(leases, GuardRequest(lease_s=15.0, gpus=wishes), 5.0)
    assert after == {"a": Lease(250.0, 600.0, 20.0), "b": Lease(250.0, None, 20.0)}


def test_fallbacks_outlive_the_process_and_their_leases_do_not(tmp_path: Path) -> None:
    keep_fallbacks(tmp_path, {"a": Lease(300.0, 650.0, 1e9)})
    leases, trouble = load_fallbacks(tmp_path)
    assert (leases["a"].fallback_w, leases["a"].limit_w, trouble) == (300.0, None, "")
    assert due(leases, {"a": reading("a")}, -1e9) == {"a": 300.0}
    (tmp_path / "fallbacks.json").write_text('{"fallback_w": {"a": 1e999}}')
    assert load_fallbacks(tmp_path)[0] == {} and "damaged" in load_fallbacks(tmp_path)[1] + "damaged"
    assert (tmp_path / "fallbacks.json.damaged").is_file()


# ---- processes ------------------------------------------------------------------------------------------------------


async def until(condition: Callable[[], bool], what: str, deadline_s: float = 30.0) -> None:
    try:
        async with asyncio.timeout(deadline_s):
            while not condition():
                await asyncio.sleep(0.02)
    except TimeoutError:
        pytest.fail(what)


class House:
    """Eight GPUs, a guard, an agent's GPU side; each can be killed."""

    def __init__(self, place: Path, state: NvmlState, library: Path) -> None:
        self.place, self.state = place, state
        self.socket, self.files = place / "guard.sock", place / "guard"
        drop = ("LD_LIBRARY_PATH", STATE_VARIABLE)
        self._environ = {k: v for k, v in os.environ.items() if k not in drop}
        self._environ |= {"LD_LIBRARY_PATH": str(library.parent), STATE_VARIABLE: str(state.path)}
        self.running: list[asyncio.subprocess.Process] = []

    async def _start(self, name: str, *words: str) -> asyncio.subprocess.Process:
        with (self.place / f"{name}.log").open("ab") as log:
            process = await asyncio.create_subprocess_exec(
                sys.executable, *words, env=self._environ, stdout=log, stderr=log
            )
        self.running.append(process)
        return process

    async def guard(self) -> asyncio.subprocess.Process:
        before = self.said("guard").count("gpu guard up")
        words = ("-m", "agent.cli", "gpu-guard", "--socket", str(self.socket), "--state-dir", str(self.files))
        process = await self._start("guard", *words)
        await until(lambda: self.said("guard").count("gpu guard up") > before, "the guard starts")
        return process

    async def agent(self) -> asyncio.subprocess.Process:
        return await self._start("agent", str(GUARDED), str(self.socket), *map(str, (LIMIT_W, FALLBACK_W, LEASE_S)))

    def said(self, name: str) -> str:
        path = self.place / f"{name}.log"
        return path.read_text() if path.exists() else ""

    def limits_w(self) -> set[float]:
        with self.state.settled() as devices:
            return {limit / 1000.0 for limit in devices["limit_mw"].tolist()}

    async def close(self) -> None:
        for process in self.running:
            if process.returncode is None:
                with contextlib.suppress(ProcessLookupError):
                    process.send_signal(signal.SIGCONT)
                    process.kill()
                await process.wait()


@pytest.fixture
async def house(tmp_path: Path, state: NvmlState, library: Path) -> AsyncIterator[House]:
    made = House(tmp_path, state, library)
    state.set_load(0.4)
    yield made
    await made.close()


async def governed(house: House) -> tuple[asyncio.subprocess.Process, asyncio.subprocess.Process]:
    guard, agent = await house.guard(), await house.agent()
    await until(lambda: house.limits_w() == {LIMIT_W}, f"the agent's limits hold: {house.said('agent')[-500:]}")
    return guard, agent


@pytest.mark.system
@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGSTOP, signal.SIGTERM])
async def test_agent_that_ends_or_hangs_while_ai_wants_twice_as_much_leaves_fallbacks(
    house: House, end: signal.Signals
) -> None:
    _, agent = await governed(house)
    agent.send_signal(end)
    house.state.set_load(0.8)
    await until(lambda: house.limits_w() == {FALLBACK_W}, "every GPU at its fallback")
    await until(lambda: house.state.power_w() <= 8 * FALLBACK_W + 1.0, "power follows")


@pytest.mark.system
async def test_guard_that_is_killed_is_replaced_and_goes_on(house: House) -> None:
    guard, _ = await governed(house)
    guard.kill()
    await guard.wait()
    await house.guard()
    before = house.said("agent").count("\n")
    await until(lambda: house.said("agent").count("\n") > before + 10, "the agent goes on")
    await until(lambda: house.limits_w() == {LIMIT_W}, "the agent has its limits back")


@pytest.mark.system
async def test_both_killed_and_limits_reset_by_a_driver_reload_the_next_guard_sets_fallbacks(house: House) -> None:
    guard, agent = await governed(house)
    for process in (agent, guard):
        process.kill()
        await process.wait()
    house.state.reload_driver()
    house.state.set_load(0.8)
    assert house.limits_w() == {700.0}
    await house.guard()
    await until(lambda: house.limits_w() == {FALLBACK_W}, "fallbacks from the disk")


@pytest.mark.system
async def test_fallback_never_raises_what_somebody_lowered(house: House) -> None:
    _, agent = await governed(house)
    agent.kill()
    await agent.wait()
    house.state.set_limits(220.0)
    await until(lambda: "lease ended" in house.said("guard"), "the lease ends")
    reader, writer = await asyncio.open_unix_connection(house.socket)
    writer.write(b'{"lease_s": 5, "gpus": {}}\n')
    assert json.loads(await reader.readline())["error"] == ""  # behind the beat that found it ended
    writer.close()
    assert house.limits_w() == {220.0}


@pytest.mark.system
async def test_socket_is_for_its_group_only_and_a_second_guard_is_refused(house: House) -> None:
    await house.guard()
    assert stat.S_IMODE(house.socket.stat().st_mode) == 0o660
    words = ("-m", "agent.cli", "gpu-guard", "--socket", str(house.socket), "--state-dir", str(house.files))
    second = await house._start("second", *words)
    async with asyncio.timeout(20.0):
        assert await second.wait() == 4
    assert "another GPU guard is running" in house.said("second")
    assert house.socket.exists()


@pytest.fixture
def lines() -> Iterator[list[bytes]]:
    yield [
        b"\n",
        b"not json\n",
        b"\xff\xfe\x00\n",
        b"[" * 5000 + b"\n",
        b'{"lease_s": 15, "gpus": {"GPU-x": {"fallback_w": 300}}}\n',
        json.dumps({"lease_s": 15, "gpus": {ALL[0]: {"limit_w": 100, "fallback_w": 300}}}).encode() + b"\n",
        json.dumps({"lease_s": 15, "gpus": {ALL[0]: {"limit_w": 700, "fallback_w": 5}}}).encode() + b"\n",
        json.dumps({"lease_s": 15, "gpus": {str(i): {"fallback_w": 300} for i in range(300)}}).encode() + b"\n",
        b"x" * 400_000 + b"\n",
    ]


@pytest.mark.system
async def test_hostile_lines_change_nothing_and_the_guard_lives(house: House, lines: list[bytes]) -> None:
    await house.guard()
    for line in lines:
        reader, writer = await asyncio.open_unix_connection(house.socket)
        writer.write(line)
        with contextlib.suppress(OSError):
            await writer.drain()
        async with asyncio.timeout(10.0):
            answered = await reader.readline()
        assert answered == b"" or json.loads(answered)["error"], line[:60]
        writer.close()
    assert house.limits_w() == {700.0}
    assert not (house.files / "fallbacks.json").exists()
    good = {"lease_s": 5, "gpus": {ALL[0]: {"limit_w": 400, "fallback_w": 300}}}
    reader, writer = await asyncio.open_unix_connection(house.socket)
    writer.write(json.dumps(good).encode() + b"\n")
    answered = json.loads(await reader.readline())
    assert answered["error"] == "" and answered["gpus"][ALL[0]]["outcome"] == "ok"
    writer.close()


def clocks_mhz(house: House) -> set[int]:
    with house.state.settled() as devices:
        return set(devices["lock_mhz"].tolist())


async def say(house: House, **wish: object) -> dict[str, object]:
    """One line to the guard about all eight boards."""
    reader, writer = await asyncio.open_unix_connection(house.socket)
    gpus = {uuid: {"fallback_w": FALLBACK_W, **wish} for uuid in ALL}
    writer.write(json.dumps({"lease_s": 1, "gpus": gpus}).encode() + b"\n")
    async with asyncio.timeout(10.0):
        answered = json.loads(await reader.readline())
    writer.close()
    assert isinstance(answered, dict)
    return answered


@pytest.mark.system
async def test_clock_lock_stays_when_the_agent_is_gone_and_goes_when_it_is_let_go(house: House) -> None:
    await house.guard()
    answered = await say(house, limit_w=600, clock_max_mhz=1200)
    assert answered["error"] == "" and clocks_mhz(house) == {1200}
    await until(lambda: house.limits_w() == {FALLBACK_W}, "the lease ends and fallbacks hold")
    assert clocks_mhz(house) == {1200}  # nothing rises when nobody governs
    assert "clocks" not in await say(house)  # an agent that knows of no clocks hears of none, and moves none
    assert clocks_mhz(house) == {1200}
    assert (await say(house, clock_max_mhz=50))["error"] and clocks_mhz(house) == {1200}
    assert (await say(house, clock_max_mhz=0))["error"] == "" and clocks_mhz(house) == {0}
