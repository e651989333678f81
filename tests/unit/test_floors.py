"""The floors of the house hold, and the linter that says so can say no."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.unit, pytest.mark.slow]

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("agent", "controller", "ctl", "gridpivot", "sim")


def lint(root: Path) -> subprocess.CompletedProcess[str]:
    """Runs import-linter on the packages in `root`, not on the installed ones."""
    command = [sys.executable, "-c", "from importlinter.cli import lint_imports_command as lint; lint()", "--no-cache"]
    environ = {**os.environ, "PYTHONPATH": str(root), "COLUMNS": "200"}
    return subprocess.run(command, cwd=root, env=environ, capture_output=True, text=True, timeout=50, check=False)


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    for package in PACKAGES:
        shutil.copytree(ROOT / package, tmp_path / package, ignore=shutil.ignore_patterns("__pycache__", "*.so*"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    return tmp_path


def test_untouched_copy_keeps_every_contract(copy: Path) -> None:
    result = lint(copy)
    assert result.returncode == 0, result.stdout + result.stderr


@pytest.mark.parametrize(
    ("file", "line"),
    [
        ("controller/settings.py", "import agent.backends\n"),
        ("agent/backends.py", "import controller.dispatch.inputs\n"),
        ("gridpivot/clock.py", "import controller\n"),
        ("ctl/words.py", "import controller.settings\n"),
        ("agent/backends.py", "import sim\n"),
    ],
)
def test_forbidden_import_breaks_the_contract(copy: Path, file: str, line: str) -> None:
    path = copy / file
    path.write_text(path.read_text() + line)
    result = lint(copy)
    assert result.returncode != 0
    assert "BROKEN" in result.stdout
