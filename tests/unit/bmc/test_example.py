"""The examples of docs/redfish.md are settings, and the stand-in of its example is one that doctor accepts."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from agent.bmc.doctor import bmc_checks
from agent.settings import AgentSettings
from gridpivot.settings import load
from tests.conftest import ROOT

pytestmark = pytest.mark.unit


def examples() -> list[str]:
    return re.findall(r"```toml\n(.*?)```", (ROOT / "docs/redfish.md").read_text(), re.DOTALL)


def settings_of(path: Path, text: str) -> AgentSettings:
    path.write_text(text)
    return load(AgentSettings, path, "GRIDPIVOT_AGENT", {})


def test_both_examples_load(tmp_path: Path) -> None:
    node, site = examples()
    assert settings_of(tmp_path / "node.toml", node).bmc is not None
    made = settings_of(tmp_path / "site.toml", f'site = "falcon-1"\n{site}')
    assert made.gpu.pools[0].bmcs[0].node == "gpu-001"


def test_the_stand_in_prints_settings_with_which_it_is_read(tmp_path: Path) -> None:
    words = [sys.executable, "-m", "sim.redfish", str(tmp_path / "bmc")]
    with subprocess.Popen(words, stdout=subprocess.PIPE, cwd=ROOT, text=True) as process:
        assert process.stdout is not None
        try:
            table = "".join(process.stdout.readline() for _ in range(5))
            made = settings_of(tmp_path / "agent.toml", f'site = "falcon-1"\nrole = "node"\nnode = "gpu-001"\n{table}')
            assert made.bmc is not None
            (found,) = bmc_checks([("gpu-001", made.bmc, False)])
        finally:
            process.kill()
    assert found.outcome == "ok", found
