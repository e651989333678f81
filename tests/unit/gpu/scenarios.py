"""What happens over the stand-in NVML, each in a process of its own; prints one JSON object for the test to judge."""

import asyncio
import itertools
import json
import os
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from agent.gpu.bindings import load_bindings
from agent.gpu.nvml import NvmlReader
from agent.gpu.opening import open_pools
from agent.gpu.pools import NvmlPools
from agent.gpu.reading import Scan
from agent.settings import GpuSettings
from gridpivot.clock import Instant
from sim.gpus import SimGpus
from sim.nvml.state import Call, NvmlState, uuid_of

NOT_SUPPORTED, NO_PERMISSION = 3, 4
ALL = [uuid_of(i) for i in range(8)]
HOST_W = 8 * 400.0


def open_state() -> NvmlState:
    library = Path(os.environ["LD_LIBRARY_PATH"]) / "libnvidia-ml.so.1"
    return NvmlState(Path(os.environ["GRIDPIVOT_SIM_NVML_STATE"]), library)


def reader() -> NvmlReader:
    bindings, said = load_bindings()
    assert bindings is not None and not said, said
    return NvmlReader(bindings)


def settled(state: NvmlState) -> None:
    """Let a minute pass for the physics."""
    with state.settled():
        state.header["advanced_at_s"] -= 60.0


def outcomes(scan: Scan) -> dict[str, str]:
    return {uuid: a.outcome.value for uuid, a in scan.attempts.items()}


def pools_of(**settings: Any) -> NvmlPools:
    side = open_pools(GpuSettings.model_validate({"pools": [{"name": "inference"}], "beat_s": 0.2, **settings}))
    assert side.pools is not None and not side.missing, side.missing
    return side.pools


def now() -> Instant:
    return Instant(time.monotonic(), time.time())


def clocks(scan: Scan) -> dict[str, str]:
    return {uuid: a.outcome.value for uuid, a in scan.locks.items()}


async def until(condition: Callable[[], bool], what: str) -> None:
    async with asyncio.timeout(15.0):
        while not condition():
            await asyncio.sleep(0.01)
    assert condition(), what


# ---- clocks ---------------------------------------------------------------------------------------------------------


def clocks_are_locked_and_let_go() -> dict[str, Any]:
    state, nvml = open_state(), reader()
    state.set_load(1.0)
    settled(state)
    before = nvml.scan({}, 0.0)
    first = nvml.scan({}, 1.0, dict.fromkeys(ALL, 1200))
    settled(state)
    second = nvml.scan({}, 2.0, dict.fromkeys(ALL, 1200))
    state.reload_driver()
    settled(state)
    nvml.close()  # a driver cannot be loaded anew while somebody has it open
    nvml._clocks.forget()
    reloaded = nvml.scan({}, 3.0, dict.fromkeys(ALL, 1200))
    settled(state)
    nvml.scan({}, 4.0, {ALL[0]: 0})
    settled(state)
    after = nvml.scan({}, 5.0, {ALL[0]: 0})
    return {
        "range": [(r.clock_min_mhz, r.clock_max_mhz) for r in before.readings],
        "before": [(r.sm_clock_hz, r.power_w) for r in before.readings],
        "first": clocks(first),
        "again": clocks(second),
        "held": [(r.sm_clock_hz, r.power_w) for r in second.readings],
        "reloaded": clocks(reloaded),
        "let_go": clocks(after),
        "after": [r.sm_clock_hz for r in after.readings],
    }


def locks_that_do_not_take() -> dict[str, Any]:
    state, nvml = open_state(), reader()
    state.set_load(1.0)
    nvml.scan({}, 0.0)
    with state.settled() as devices:
        devices["call_error"][0, Call.SET] = NO_PERMISSION
        devices["call_error"][1, Call.SET] = NOT_SUPPORTED
        devices["lost"][2] = 1
    first = nvml.scan({}, 1.0, dict.fromkeys(ALL, 1200))
    again = nvml.scan({}, 2.0, dict.fromkeys(ALL[:2], 1200))
    with state.settled() as devices:
        devices["call_error"][0, Call.SET] = 0
    later = nvml.scan({}, 40.0, dict.fromkeys(ALL[:2], 1200))
    mute = reader()
    with state.settled() as devices:
        devices["call_error"][3, Call.CLOCK] = NOT_SUPPORTED
    return {
        "first": clocks(first),
        "again": clocks(again),
        "later": clocks(later),
        "mute": clocks(mute.scan({}, 0.0, {ALL[3]: 1200})),
        "detail": first.locks[ALL[0]].detail,
    }


# ---- the reader -----------------------------------------------------------------------------------------------------


def reads_everything() -> dict[str, Any]:
    state, nvml = open_state(), reader()
    state.set_load(0.5)
    settled(state)
    scan = nvml.scan({}, 0.0)
    return {"readings": [asdict(r) for r in scan.readings]}


def limit_is_set_once() -> dict[str, Any]:
    nvml = reader()
    first = nvml.scan(dict.fromkeys(ALL, 400.0), 0.0)
    second = nvml.scan(dict.fromkeys(ALL, 400.0), 1.0)
    return {
        "first": outcomes(first),
        "second": outcomes(second),
        "limits": [(r.limit_requested_w, r.limit_enforced_w) for r in first.readings],
    }


def limits_that_do_not_take() -> dict[str, Any]:
    state, nvml = open_state(), reader()
    state.fail(0, Call.SET, NO_PERMISSION)
    with state.settled() as devices:
        devices["ignores_set"][1] = 1
        devices["cap_mw"][2] = 350_000
    state.lose(3)
    state.fail(4, Call.SET, NOT_SUPPORTED)
    wanted = dict(zip(ALL, (400.0, 400.0, 400.0, 400.0, 400.0, 100.0, 400.0, 700.0), strict=True))
    # GPU 3 was seen before it was lost
    state.lose(3, lost=False)
    nvml.scan({}, 0.0)
    state.lose(3)
    first = nvml.scan(wanted, 1.0)
    again = nvml.scan(wanted, 2.0)
    state.fail(0, Call.SET, 0)
    later = nvml.scan(wanted, 40.0)
    details = {uuid: a.detail for uuid, a in first.attempts.items()}
    return {"first": outcomes(first), "again": outcomes(again), "later": outcomes(later), "details": details}


def lost_gpu_leaves_the_others() -> dict[str, Any]:
    state, nvml = open_state(), reader()
    nvml.scan(dict.fromkeys(ALL, 300.0), 0.0)
    state.lose(5)
    lost = nvml.scan(dict.fromkeys(ALL, 300.0), 1.0)
    state.lose(5, lost=False)
    with state.settled() as devices:
        devices["limit_mw"][5] = 700_000  # it comes back as it boots
    back = nvml.scan(dict.fromkeys(ALL, 300.0), 2.0)
    return {
        "lost": [r.lost for r in lost.readings],
        "power": [r.power_w for r in lost.readings],
        "back": [r.lost for r in back.readings],
        "limit_back_w": back.readings[5].limit_enforced_w,
    }


def gone_from_the_bus() -> dict[str, Any]:
    state, nvml = open_state(), reader()
    nvml.scan({}, 0.0)
    with state.settled():
        state.header["count"] = 7
    first, second = nvml.scan({}, 1.0), nvml.scan({}, 2.0)
    return {"first": [r.lost for r in first.readings], "second": [r.lost for r in second.readings]}


def unsupported_metrics_are_none() -> dict[str, Any]:
    state, nvml = open_state(), reader()
    for call in Call:
        state.fail(0, call, 0 if call is Call.NAME else NOT_SUPPORTED)
    state.fail(1, Call.TEMP, 26)  # deprecated, and this driver has no successor
    scan = nvml.scan({}, 0.0)
    first, second = scan.readings[:2]
    none = [k for k, v in asdict(first).items() if v is None]
    return {"none": none, "lost": first.lost, "temp": second.temp_c, "power": second.power_w, "calls": scan.calls}


def health() -> dict[str, Any]:
    state, nvml = open_state(), reader()
    state.set_load(0.5)
    with state.settled() as devices:
        devices["ecc_corrected"][0], devices["ecc_uncorrected"][0] = 3, 1
        devices["remapped_corrected"][0], devices["remapped_uncorrected"][0] = 2, 1
        devices["remap_pending"][0], devices["mig"][0] = 1, 1
    a, b = nvml.scan({}, 0.0).readings[:2]
    return {
        "ecc": [[r.ecc_corrected, r.ecc_uncorrected] for r in (a, b)],
        "rows": [a.remapped_corrected, a.remapped_uncorrected, a.remap_pending, a.remap_failed],
        "mig": [a.mig, b.mig],
        "util": [a.util_ratio, b.util_ratio],
        "clock": [a.sm_clock_hz, b.sm_clock_hz],
    }


def xids() -> dict[str, Any]:
    state, nvml = open_state(), reader()
    quiet = nvml.scan({}, 0.0).readings[3].xids
    for number in (79, 48, 48):
        state.xid(3, number)
        nvml.scan({}, 1.0)
    some = nvml.scan({}, 2.0)
    state.lose(5)
    nvml.scan({}, 3.0)
    state.lose(5, lost=False)
    state.xid(3, 48)
    nvml.scan({}, 4.0)
    after = nvml.scan({}, 5.0).readings[3].xids
    return {"quiet": quiet, "some": some.readings[3].xids, "other": some.readings[2].xids, "after": after}


def slow_figures() -> dict[str, Any]:
    state, nvml = open_state(), reader()
    found = {}
    for name, at_s in (("first", 0.0), ("soon", 10.0), ("later", 16.0)):
        found[name] = [r.ecc_corrected for r in nvml.scan({}, at_s).readings[:2]]
        with state.settled() as devices:
            devices["ecc_corrected"][0] = 7
    return found


def lag_and_energy() -> dict[str, Any]:
    state, nvml = open_state(), reader()
    nvml.scan({}, 0.0)
    settled(state)
    state.set_load(1.0)
    began = [time.monotonic()]
    samples = []
    while time.monotonic() - began[0] < 1.5:
        before_s = time.monotonic()
        r = nvml.scan({}, 0.0).readings[0]
        samples.append(((before_s + time.monotonic()) / 2, r.power_w, r.energy_j))
    energy_j = samples[-1][2] - samples[0][2]
    integral_j = sum((b[0] - a[0]) * (a[1] + b[1]) / 2 for a, b in itertools.pairwise(samples))
    curve = [(t - began[0], w) for t, w, _ in samples]
    return {"energy_j": energy_j, "integral_j": integral_j, "curve": curve}


def scan_time() -> dict[str, Any]:
    nvml = reader()
    nvml.scan({}, 0.0)
    took = []
    for _ in range(50):
        began_s = time.perf_counter()
        nvml.scan({}, 0.0)
        took.append(1000 * (time.perf_counter() - began_s))
    return {"scan_ms_p50": statistics.median(took), "scan_ms_max": max(took)}


# ---- the pools ------------------------------------------------------------------------------------------------------


async def pool_follows_limit() -> dict[str, Any]:
    state = open_state()
    state.set_load(0.5)
    settled(state)
    pools = pools_of(beat_s=60.0)  # what follows must come of being woken
    first = pools.read(now())[0]
    work = asyncio.create_task(pools.run())
    await until(lambda: pools.counters["scans"]["ok"] == 2, "first scan of its own")
    pools.set_limit(0, HOST_W + 8 * 250.5, now())
    await until(lambda: pools.read(now())[0].limit_w < first.limit_w, "limit seen")
    limited = pools.read(now())[0]
    settled(state)
    pools.set_limit(0, HOST_W + 8 * 250.5, now())
    await until(lambda: pools.read(now())[0].power_w == HOST_W + 2000.0, "power follows")
    held = pools.read(now())[0]
    work.cancel()
    await asyncio.gather(work, return_exceptions=True)
    return {"first": asdict(first), "limited": asdict(limited), "held": asdict(held), "counters": pools.counters}


async def ai_step() -> dict[str, Any]:
    """Work rises past its limits; a governor with room gives at once what is wanted."""
    state = open_state()
    gpus = SimGpus(state, Path(os.environ["LD_LIBRARY_PATH"]), 8)
    gpus.set_limits(0.58)
    gpus.set_demand(0.55)
    gpus.wall_power_w(0.0)
    pools = pools_of(beat_s=1.0)
    work = asyncio.create_task(pools.run())
    await until(lambda: pools.counters["scans"]["ok"] == 2, "first scan of its own")
    gpus.set_demand(0.95)
    began_s = time.monotonic()
    await until(lambda: (pools.read(now())[0].demand_w or 0.0) > gpus.pool.max_w - 1.0, "wants its highest limit")
    pools.set_limit(0, gpus.pool.max_w, now())
    await until(lambda: gpus.wall_power_w(0.0) >= 0.95 * 0.95 * gpus.pool.max_w, "draws what it wants")
    took_s = time.monotonic() - began_s
    work.cancel()
    await asyncio.gather(work, return_exceptions=True)
    return {"took_s": took_s}


async def limits_come_back_after_driver_reload() -> dict[str, Any]:
    state, pools = open_state(), pools_of()
    work = asyncio.create_task(pools.run())
    pools.set_limit(0, HOST_W + 2400.0, now())
    await until(lambda: pools.read(now())[0].limit_w == HOST_W + 2400.0, "limit set")
    state.reload_driver()
    await until(lambda: pools.counters["limits"]["ok"] == 16, "set a second time")
    with state.settled() as devices:
        again = devices["limit_mw"].tolist()
    work.cancel()
    await asyncio.gather(work, return_exceptions=True)
    return {"again": again}


async def hung_driver() -> dict[str, Any]:
    state = open_state()
    pools = pools_of(deadline_s=0.3)
    before = pools.read(now())[0]
    with state.settled():
        state.header["stall_ms"] = 1000  # eight GPUs: a scan takes 8 s
    work = asyncio.create_task(pools.run())
    slowest_s = 0.0

    def unknown() -> bool:
        nonlocal slowest_s
        began_s = time.perf_counter()
        power_w = pools.read(now())[0].power_w
        pools.set_limit(0, HOST_W + 2400.0, now())
        slowest_s = max(slowest_s, time.perf_counter() - began_s)
        return power_w is None

    await until(unknown, "stale power is unknown")
    blind = pools.read(now())[0]
    scans = dict(pools.counters["scans"])
    began_s = time.monotonic()
    work.cancel()
    await asyncio.gather(work, return_exceptions=True)
    return {
        "before": asdict(before),
        "blind": asdict(blind),
        "slowest_s": slowest_s,
        "scans": scans,
        "close_s": time.monotonic() - began_s,
    }


async def driver_unloaded_and_back() -> dict[str, Any]:
    state, pools = open_state(), pools_of()
    work = asyncio.create_task(pools.run())
    for gpu in range(8):
        for call in Call:
            state.fail(gpu, call, 9)
    await until(lambda: pools.read(now())[0].power_w is None, "unknown")
    blind = pools.read(now())[0]
    for gpu in range(8):
        for call in Call:
            state.fail(gpu, call, 0)
    await until(lambda: pools.read(now())[0].power_w is not None, "known again")
    again = pools.read(now())[0]
    work.cancel()
    await asyncio.gather(work, return_exceptions=True)
    return {"blind": asdict(blind), "again": asdict(again)}


def opens() -> dict[str, Any]:
    """What open_pools finds with the environment as it is."""
    began_s = time.monotonic()
    pools = [{"name": "inference", "priority": "guaranteed"}]
    side = open_pools(GpuSettings.model_validate({"pools": pools, "deadline_s": 1.0}))
    if side.pools is not None:
        side.pools.close()
    return {
        "missing": side.missing,
        "declared": [repr(p) for p in side.declared],
        "took_s": time.monotonic() - began_s,
    }


if __name__ == "__main__":
    result = globals()[sys.argv[1]]()
    print(json.dumps(asyncio.run(result) if asyncio.iscoroutine(result) else result))
