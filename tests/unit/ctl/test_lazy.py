"""The operator's command starts light: a client's packages only, and the simulator not before the demo is asked for."""

import subprocess
import sys

import pytest

pytestmark = pytest.mark.unit


def loaded_by(module: str) -> set[str]:
    script = f"import sys, {module}; print(*sorted({{name.split('.')[0] for name in sys.modules}}))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=50)
    return set(done.stdout.split())


@pytest.mark.parametrize("module", ["ctl.cli", "ctl.client", "ctl.shaping", "ctl.tables", "ctl.decision_tables"])
def test_command_imports_neither_floors_below_nor_their_packages(module: str) -> None:
    heavy = {"sim", "agent", "controller", "numpy", "sqlalchemy", "cryptography", "structlog", "highspy"}
    assert not loaded_by(module) & heavy


def test_help_needs_no_grpc() -> None:
    assert "grpc" not in loaded_by("ctl.cli")
