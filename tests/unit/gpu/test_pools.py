"""Pools over the stand-in library: what the governor is told, and what becomes of what it asks."""

import json
from pathlib import Path

import pytest

from gridpivot.curves import gpu_pool
from gridpivot.vocabulary import AiPriority
from sim.gpus import SimGpus
from sim.nvml.state import STATE_VARIABLE, NvmlState
from tests.unit.gpu.conftest import SCENARIOS, program

pytestmark = pytest.mark.system

HOST_W = 3200.0
DECLARED = repr(gpu_pool("inference", AiPriority.GUARANTEED, 8))


def opens(environ: dict[str, str]) -> dict:
    return json.loads(program([str(SCENARIOS), "opens"], environ))


def test_limit_is_set_at_once_in_whole_watts_below_what_was_asked_and_power_follows(over):
    found = over("pool_follows_limit")
    first, limited, held = found["first"], found["limited"], found["held"]
    assert first["power_w"] == first["demand_w"] == HOST_W + 8 * 387.5
    assert first["limit_w"] == HOST_W + 5600.0 and first["gpus_present"] == 8
    assert limited["limit_w"] == HOST_W + 2000.0  # 250.5 W each becomes 250 W
    assert held["power_w"] == HOST_W + 2000.0
    assert held["demand_w"] == HOST_W + 5600.0  # held back, it wants its highest limit
    assert found["counters"]["limits"] == {"ok": 8}


def test_step_of_ai_work_is_seen_and_served_within_the_time_of_a_shed(over):
    assert over("ai_step")["took_s"] < 5.0


def test_limits_that_a_driver_reload_resets_are_set_again(over):
    found = over("limits_come_back_after_driver_reload")
    assert found["again"] == [300_000] * 8


def test_hung_driver_blocks_nobody_and_its_power_becomes_unknown(over):
    found = over("hung_driver")
    assert found["slowest_s"] < 0.1
    assert found["before"]["power_w"] is not None and found["blind"]["power_w"] is None
    assert found["blind"]["limit_w"] == found["before"]["limit_w"] and found["blind"]["gpus_present"] == 0
    assert found["scans"]["slow"] >= 1 and found["close_s"] < 3.0


def test_unloaded_driver_is_unknown_power_and_recovers(over):
    found = over("driver_unloaded_and_back")
    assert found["blind"]["power_w"] is None and found["blind"]["limit_w"] == HOST_W + 5600.0
    assert found["again"]["gpus_present"] == 8


def test_no_driver_is_one_line():
    found = opens({})
    assert found["declared"] == [] and len(found["missing"]) == 1
    assert "libnvidia-ml.so.1 is not here" in found["missing"][0] and "\n" not in found["missing"][0]


@pytest.mark.parametrize(("code", "words"), [(9, "kernel module is not loaded"), (18, "restart this machine")])
def test_driver_that_refuses_says_what_to_do(library: Path, state: NvmlState, code: int, words: str):
    with state.settled():
        state.header["init_error"] = code
    found = opens({"LD_LIBRARY_PATH": str(library.parent), STATE_VARIABLE: str(state.path)})
    assert found["declared"] == [] and len(found["missing"]) == 1 and words in found["missing"][0]


def test_hung_driver_at_start_costs_one_deadline(library: Path, state: NvmlState):
    with state.settled():
        state.header["stall_ms"] = 20_000
    found = opens({"LD_LIBRARY_PATH": str(library.parent), STATE_VARIABLE: str(state.path)})
    assert len(found["missing"]) == 1 and "does not answer" in found["missing"][0]
    assert found["took_s"] < 4.0


@pytest.mark.parametrize(
    ("source", "words"),
    [("NVMLError = OSError\n", "is an old pynvml without nvmlInitWithFlags"), ("", "pip uninstall pynvml")],
)
def test_old_package_that_shadows_the_bindings_is_named(tmp_path: Path, source: str, words: str):
    (tmp_path / "pynvml").mkdir()
    (tmp_path / "pynvml" / "__init__.py").write_text(source)
    found = opens({"PYTHONPATH": str(tmp_path)})
    assert found["declared"] == [] and len(found["missing"]) == 1 and words in found["missing"][0]


def test_simulated_gpus_are_declared_as_the_simulator_says(library: Path, tmp_path: Path):
    gpus = SimGpus.open(tmp_path, 8)
    assert gpus is not None
    found = opens({"LD_LIBRARY_PATH": str(gpus.library_dir), STATE_VARIABLE: str(gpus.state_path)})
    assert found["missing"] == [] and found["declared"] == [repr(gpus.pool)] == [DECLARED]


def test_simulated_demand_and_limits_are_wall_watts(library: Path, tmp_path: Path):
    gpus = SimGpus.open(tmp_path, 8)
    assert gpus is not None
    gpus.set_limits(0.58)
    gpus.set_demand(0.55)
    assert gpus.wall_power_w(0.0) == pytest.approx(0.55 * gpus.pool.max_w)
    gpus.set_demand(0.95)
    with gpus.state.settled():
        gpus.state.header["advanced_at_s"] -= 60.0
    assert gpus.wall_power_w(0.0) == pytest.approx(0.58 * gpus.pool.max_w)
    gpus.close()
    assert not gpus.state_path.exists()
