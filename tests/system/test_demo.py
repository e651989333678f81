"""The loop, closed, in real processes: controller, a wire agent, virtual agents; the tour; every way to end it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

pytestmark = pytest.mark.system

DEMO = [sys.executable, "-c", "from ctl.cli import main; main()", "demo"]


def until(condition: Callable[[], bool], deadline_s: float) -> bool:
    """Wait for a condition; False when it did not come true in time."""
    end_s = time.monotonic() + deadline_s
    while time.monotonic() < end_s:
        if condition():
            return True
        time.sleep(0.05)
    return condition()


@pytest.fixture
def started() -> Iterator[list[subprocess.Popen[str]]]:
    """Processes that a test started; ended by process id, whatever happened."""
    processes: list[subprocess.Popen[str]] = []
    yield processes
    for process in processes:
        if process.poll() is None:
            process.kill()
        process.communicate(timeout=10)


def small_demo(started: list[subprocess.Popen[str]], *options: str) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [*DEMO, "--sites", "3", "--devices-per-site", "400", "--wire-site", "40", "--hosts", "2", *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    started.append(process)
    return process


def family_of(pid: int) -> list[psutil.Process]:
    return psutil.Process(pid).children(recursive=True)


@pytest.mark.timeout(120)
def test_the_tour_in_processes_loses_nothing_and_stays_under_its_ceilings(
    started: list[subprocess.Popen[str]], tmp_path: Path
) -> None:
    summary = tmp_path / "summary.json"
    process = small_demo(started, "--duration", "45s", "--summary", str(summary), "--keep", str(tmp_path / "state"))
    out, err = process.communicate(timeout=110)
    assert "Traceback" not in err
    figures = json.loads(summary.read_text())
    assert json.loads(out.strip().splitlines()[-1]) == figures
    assert figures["sites_connected"] == 3
    assert figures["protection_limit_reached"] == 0
    assert figures["ceiling_window_exceeded"] == 0
    assert figures["ceiling_excess_max_pct"] <= 2.0
    assert figures["reports_lost"] == 0
    assert figures["commands_confirmed"] > 0
    assert figures["reallocations"] + figures["reallocations_unfinished"] > 0
    assert figures["devices_reporting"] >= 1100
    logs = "".join(path.read_text() for path in (tmp_path / "state").glob("*.log"))
    assert "Traceback" not in logs


def test_ctrl_c_ends_every_process_and_cleans_up(started: list[subprocess.Popen[str]]) -> None:
    process = small_demo(started)
    assert until(lambda: len(family_of(process.pid)) >= 5, 25)
    children = family_of(process.pid)
    state = [c for c in children if c.is_running()]
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=25)
    assert "Traceback" not in err
    assert process.returncode in (0, 130)
    assert until(lambda: not any(c.is_running() and c.status() != psutil.STATUS_ZOMBIE for c in state), 10)


def test_kill_9_of_the_parent_leaves_no_child_behind(started: list[subprocess.Popen[str]], tmp_path: Path) -> None:
    process = small_demo(started, "--keep", str(tmp_path / "state"))
    assert until(lambda: len(family_of(process.pid)) >= 5, 25)
    children = family_of(process.pid)
    os.kill(process.pid, signal.SIGKILL)
    process.wait(timeout=10)
    assert until(lambda: not any(c.is_running() and c.status() != psutil.STATUS_ZOMBIE for c in children), 15)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--scenario", "opera"], "--scenario opera"),
        (["--duration", "soon"], "--duration soon"),
        (["--start", "2024-08-20T23:30"], "has no zone"),
        (["--prices", "nowhere.csv"], "--prices nowhere.csv"),
    ],
)
def test_a_wrong_option_gets_one_line_and_exit_code_2(options: list[str], words: str) -> None:
    done = subprocess.run([*DEMO, *options], capture_output=True, text=True, timeout=30)
    assert done.returncode == 2
    assert words in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
