"""The reader and the unmodified NVIDIA bindings over the stand-in library: real ctypes, a process for each."""

import json
import math
import subprocess
import sys

import pytest

from sim.nvml.state import NvmlState, uuid_of

pytestmark = pytest.mark.system

FOREIGN = """
import json, pynvml as n
n.nvmlInit()
h = n.nvmlDeviceGetHandleByUUID("GPU-51300000-0000-4000-8000-000000000002")
n.nvmlDeviceSetPowerManagementLimit(h, 345000)
try:
    n.nvmlDeviceGetFanSpeed(h)
    fan = "there"
except n.NVMLError_FunctionNotFound:
    fan = "no function"
try:
    n.nvmlDeviceSetPowerManagementLimit(h, 100000)
    low = "taken"
except n.NVMLError_InvalidArgument:
    low = "refused"
print(json.dumps({
    "count": n.nvmlDeviceGetCount(), "name": n.nvmlDeviceGetName(h), "driver": n.nvmlSystemGetDriverVersion(),
    "limit": n.nvmlDeviceGetPowerManagementLimit(h), "enforced": n.nvmlDeviceGetEnforcedPowerLimit(h),
    "range": n.nvmlDeviceGetPowerManagementLimitConstraints(h), "power": n.nvmlDeviceGetPowerUsage(h),
    "pstate": n.nvmlDeviceGetPerformanceState(h), "persistence": n.nvmlDeviceGetPersistenceMode(h),
    "clock": n.nvmlDeviceGetClockInfo(h, n.NVML_CLOCK_SM), "memory": n.nvmlDeviceGetMemoryInfo(h).total,
    "reasons": [n.nvmlDeviceGetCurrentClocksEventReasons(h), n.nvmlDeviceGetCurrentClocksThrottleReasons(h)],
    "fan": fan, "low": low,
}))
n.nvmlShutdown()
"""


def test_foreign_client_meets_an_ordinary_driver(plain, state: NvmlState):
    found = json.loads(plain(FOREIGN))
    assert found["count"] == 8 and "H100" in found["name"] and found["driver"] == "580.0.0-simulated"
    assert found["limit"] == found["enforced"] == 345_000 and found["range"] == [200_000, 700_000]
    assert found["power"] == 75_000 and found["memory"] == 80 * 2**30 and found["clock"] == 1980
    assert (found["pstate"], found["persistence"], found["reasons"]) == (8, 1, [1, 1])
    assert (found["fan"], found["low"]) == ("no function", "refused")
    with state.settled() as devices:  # what the other process did is seen here, and touched one GPU only
        assert devices["limit_mw"].tolist() == [700_000] * 2 + [345_000] + [700_000] * 5


def test_every_figure_of_a_working_gpu_is_read(over):
    readings = over("reads_everything")["readings"]
    assert [r["uuid"] for r in readings] == [uuid_of(i) for i in range(8)]
    one = readings[0]
    assert one["power_w"] == pytest.approx(387.5) and one["util_ratio"] == 0.5 and one["energy_j"] > 0
    assert (one["limit_min_w"], one["limit_max_w"], one["limit_default_w"]) == (200.0, 700.0, 700.0)
    assert one["throttled_by_power"] is False and one["lost"] is False
    assert all(value is not None for value in one.values())


def test_limit_is_set_read_back_and_not_written_twice(over):
    found = over("limit_is_set_once")
    assert set(found["first"].values()) == {"ok"} and len(found["first"]) == 8
    assert found["second"] == {}
    assert found["limits"] == [[400.0, 400.0]] * 8


def test_limits_that_do_not_take_say_why(over):
    found = over("limits_that_do_not_take")
    words = ["no_permission", "ignored", "clamped", "lost", "unsupported", "clamped", "ok", "unchanged"]
    assert [found["first"][uuid_of(i)] for i in range(8)] == words
    assert "root" in found["details"][uuid_of(0)]
    assert found["details"][uuid_of(1)] == "asked 400 W, stayed at 700 W"
    assert found["details"][uuid_of(2)] == "the board enforces 350 W"
    assert found["again"] == {}  # a fresh refusal is not repeated every second
    assert found["later"][uuid_of(0)] == "ok" and found["later"][uuid_of(1)] == "ignored"


def test_lost_gpu_leaves_the_others_and_gets_its_limit_when_it_is_back(over):
    found = over("lost_gpu_leaves_the_others")
    assert found["lost"] == [i == 5 for i in range(8)]
    assert [p is None for p in found["power"]] == found["lost"]
    assert not any(found["back"]) and found["limit_back_w"] == 300.0


def test_gpu_that_no_longer_enumerates_is_lost_and_not_forgotten(over):
    found = over("gone_from_the_bus")
    assert found["first"] == found["second"] == [False] * 7 + [True]


def test_unsupported_metric_is_none_and_never_zero(over):
    found = over("unsupported_metrics_are_none")
    figures = ["power_w", "energy_j", "limit_requested_w", "limit_enforced_w", "limit_min_w", "limit_max_w"]
    figures += ["limit_default_w", "util_ratio", "temp_c", "memory_used_bytes", "memory_total_bytes"]
    figures += [
        "throttled_by_power",
        "clock_event_reasons",
        "sm_clock_hz",
        "clock_min_mhz",
        "clock_max_mhz",
        "memory_clock_hz",
    ]
    figures += ["ecc_corrected", "ecc_uncorrected", "remapped_corrected", "remapped_uncorrected"]
    assert found["none"] == [*figures, "remap_pending", "remap_failed", "mig", "xids"]
    assert found["lost"] is False and found["temp"] is None and found["power"] == 75.0
    assert found["calls"]["not_supported"] >= 10 and found["calls"]["deprecated"] == 1


def test_health_is_read_and_a_board_in_instances_tells_no_utilisation(over):
    found = over("health")
    assert found["ecc"] == [[3, 1], [0, 0]] and found["rows"] == [2, 1, True, False]
    assert found["mig"] == [True, False] and found["util"] == [None, 0.5]
    assert found["clock"] == [1.98e9, 1.98e9]


def test_every_xid_is_counted_by_its_number_over_a_board_that_falls_off_and_comes_back(over):
    found = over("xids")
    assert found["quiet"] == {}
    assert found["some"] == {"79": 1, "48": 2}
    assert found["other"] == {} and found["after"] == {"79": 1, "48": 3}


def test_slow_figures_are_not_asked_for_at_every_scan(over):
    found = over("slow_figures")
    assert found["first"] == [0, 0] and found["soon"] == [0, 0] and found["later"] == [7, 0]


def test_power_lags_the_load_and_energy_is_its_integral(over):
    found = over("lag_and_energy")
    assert found["energy_j"] == pytest.approx(found["integral_j"], rel=0.02)
    for at_s, power_w in found["curve"]:
        assert power_w == pytest.approx(700.0 - 625.0 * math.exp(-at_s / 0.4), rel=0.05)
    assert found["curve"][0][1] < 150.0 and found["curve"][-1][1] > 650.0


def test_two_processes_see_one_power(plain, state: NvmlState):
    state.set_load(1.0)
    with state.settled():
        state.header["advanced_at_s"] -= 60.0
    before_j = state.energy_j() / 8
    seen_j = json.loads(
        plain(
            "import pynvml as n; n.nvmlInit(); h = n.nvmlDeviceGetHandleByIndex(0);"
            "print(n.nvmlDeviceGetTotalEnergyConsumption(h) / 1000)"
        )
    )
    assert before_j <= seen_j <= state.energy_j() / 8


def test_dead_holder_of_the_lock_is_succeeded(plain, state: NvmlState):
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    state.header["lock"] = ended.pid
    source = "import pynvml as n; n.nvmlInit(); print(n.nvmlDeviceGetPowerUsage(n.nvmlDeviceGetHandleByIndex(0)))"
    assert int(plain(source)) == 75_000
    assert state.header["lock"][0] == 0


def test_scan_of_eight_gpus_is_fast(over, record_property):
    found = over("scan_time")
    for name, value in found.items():
        record_property(name, value)
    assert found["scan_ms_p50"] < 50.0


def test_clocks_are_locked_within_the_boards_range_and_show_under_load(over):
    found = over("clocks_are_locked_and_let_go")
    assert found["range"] == [[210, 1980]] * 8
    assert set(found["first"].values()) == {"ok"} and found["again"] == {}
    assert all(hertz == 1980e6 for hertz, _ in found["before"])
    assert all(hertz == 1200e6 for hertz, _ in found["held"])
    assert all(held_w < 0.6 * full_w for (_, full_w), (_, held_w) in zip(found["before"], found["held"], strict=True))
    assert len(found["reloaded"]) == 8  # a driver reload ends locks: they are asked for anew
    assert found["let_go"] == {} and found["after"] == [1980e6] + [1200e6] * 7


def test_locks_that_do_not_take_say_why(over):
    found = over("locks_that_do_not_take")
    words = ["no_permission", "unsupported", "lost", "ok", "ok", "ok", "ok", "ok"]
    assert [found["first"][uuid_of(i)] for i in range(8)] == words
    assert "root" in found["detail"] and found["again"] == {}
    assert found["later"] == {uuid_of(0): "ok", uuid_of(1): "unsupported"}
    assert found["mute"] == {uuid_of(3): "unsupported"}
