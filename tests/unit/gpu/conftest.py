"""The stand-in NVML library, built once, and programs that run over it: the loader reads its path at start only."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sim.nvml.build import build
from sim.nvml.state import STATE_VARIABLE, NvmlState, create
from tests.conftest import missing

SCENARIOS = Path(__file__).with_name("scenarios.py")


def program(arguments: list[str], environ: dict[str, str]) -> str:
    """Standard output of a program of this interpreter; its warnings are errors, its failure is the test's."""
    clean = {k: v for k, v in os.environ.items() if k not in ("LD_LIBRARY_PATH", STATE_VARIABLE)}
    ended = subprocess.run(
        [sys.executable, "-W", "error", *arguments], env=clean | environ, capture_output=True, text=True, timeout=50
    )
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


@pytest.fixture(scope="session")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The compiled stand-in."""
    built = build(tmp_path_factory.mktemp("nvml"))
    if built is None:
        missing("a C compiler (cc or the package ziglang)")
    assert built is not None
    return built


@pytest.fixture
def state(library: Path, tmp_path: Path) -> NvmlState:
    """Eight idle GPUs of 200-700 W."""
    create(tmp_path / "state", 8)
    return NvmlState(tmp_path / "state", library)


@pytest.fixture
def over(library: Path, state: NvmlState) -> Callable[[str], dict[str, Any]]:
    """Run a function of scenarios.py over the stand-in; what it returns comes back."""
    environ = {"LD_LIBRARY_PATH": str(library.parent), STATE_VARIABLE: str(state.path)}

    def run(name: str) -> dict[str, Any]:
        found = json.loads(program([str(SCENARIOS), name], environ).splitlines()[-1])
        assert isinstance(found, dict)
        return found

    return run


@pytest.fixture
def plain(library: Path, state: NvmlState) -> Callable[[str], str]:
    """Run a foreign client: source that knows nothing of this project."""
    environ = {"LD_LIBRARY_PATH": str(library.parent), STATE_VARIABLE: str(state.path)}
    return lambda source: program(["-c", source], environ)
