"""Each extra installed alone runs its commands; what it lacks is said in one line. Real environments, from the wheel."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests.conftest import ROOT, missing

pytestmark = [pytest.mark.system, pytest.mark.slow, pytest.mark.timeout(180)]

COMMANDS = {
    "ctl": ["gridpivot"],
    "agent": ["gridpivot-agent"],
    "controller": ["gridpivot-controller"],
    "sim": ["gridpivot", "gridpivot-agent", "gridpivot-controller"],
}


@pytest.fixture(scope="session")
def uv() -> Path:
    """uv, which makes environments in seconds; it comes with `make setup`."""
    beside = Path(sys.executable).parent / "uv"
    found = beside if beside.exists() else shutil.which("uv")
    if not found:
        missing("uv")
    return Path(str(found))


@pytest.fixture(scope="session")
def wheel(uv: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel as a user would get it."""
    out = tmp_path_factory.mktemp("dist")
    done = subprocess.run([uv, "build", "--wheel", "--out-dir", out, ROOT], capture_output=True, text=True, timeout=120)
    if done.returncode:
        missing(f"what building a wheel needs ({done.stderr.strip().splitlines()[-1]})")
    return next(out.glob("*.whl"))


def run(command: list[str], **environ: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, timeout=60, env={**os.environ, **environ})


def test_the_wheel_carries_what_is_not_python(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    assert "sim/nvml/nvml.c" in names
    assert "gridpivot/v1/session_pb2.pyi" in names
    assert any(name.startswith("controller/store/migrations/versions/") for name in names)


@pytest.mark.parametrize("extra", list(COMMANDS))
def test_an_extra_alone_runs_its_commands(extra: str, uv: Path, wheel: Path, tmp_path: Path) -> None:
    place = tmp_path / "venv"
    subprocess.run([uv, "venv", "--quiet", "--python", sys.executable, place], check=True, timeout=60)
    install = [uv, "pip", "install", "--quiet", "--python", place / "bin" / "python"]
    install += ["-c", ROOT / "constraints.txt", f"gridpivot[{extra}] @ file://{wheel}"]
    subprocess.run(install, check=True, timeout=150)
    for command in COMMANDS[extra]:
        done = run([str(place / "bin" / command), "--help"])
        assert done.returncode == 0, done.stderr
        assert "Usage" in done.stdout
    if extra == "ctl":
        done = run([str(place / "bin" / "gridpivot"), "demo", "--duration", "5s"])
        assert done.returncode == 4
        assert "gridpivot[sim]" in done.stderr
        assert len(done.stderr.strip().splitlines()) == 1
