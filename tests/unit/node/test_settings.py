"""Settings of sites with nodes and of nodes: the page's examples load, what makes no sense is refused."""

import os
import re
from pathlib import Path
from typing import Any

import pytest

from agent.node.host_power import host_power
from agent.settings import AgentSettings, GpuSettings
from gridpivot.errors import SettingsError
from gridpivot.settings import load

pytestmark = pytest.mark.unit

BMC = 'url = "https://10.0.0.21"\nusername = "meter"\npassword_file = "/etc/gridpivot/bmc.password"\n'

PAGE = Path(__file__).resolve().parents[3] / "docs/nodes.md"


def settings_of(place: Path, text: str) -> AgentSettings:
    (place / "agent.toml").write_text(text)
    return load(AgentSettings, place / "agent.toml", "GRIDPIVOT_TEST", {})


def test_examples_of_the_page_load(tmp_path: Path) -> None:
    site, node = re.findall(r"```toml\n(.*?)```", PAGE.read_text(), re.DOTALL)
    assert settings_of(tmp_path, site).gpu.pools[0].nodes == ("gpu-001", "gpu-002")
    assert settings_of(tmp_path, node).node == "gpu-001"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('role = "node"', "needs the node's name"),
        ('node = "a"', "set the role"),
        ('role = "node"\nnode = "A b"', "node"),
        ('role = "node"\nnode = "a"\n[circuit]\nceiling_w = 5', "circuit belongs to the site's agent"),
        ('role = "node"\nnode = "a"\n[[gpu.pools]]\nname = "p"', "gpu.pools belongs to the site's agent"),
        ('[[gpu.pools]]\nname = "p"\nnodes = ["a"]\n[[gpu.pools]]\nname = "q"\nnodes = ["a"]', "stands in two pools"),
        ('[[gpu.pools]]\nname = "p"\nnodes = ["a"]\nuuids = ["GPU-1"]', "one of nodes, uuids and dcgm"),
        ('[nodes]\nlisten = "7445"', "listen"),
        (f"[bmc]\n{BMC}", "[[gpu.pools.bmcs]]"),
        (f'role = "node"\nnode = "a"\n[gpu]\nhost_power_file = "/run/watts"\n[bmc]\n{BMC}', "measured in one way"),
        (f'role = "node"\nnode = "a"\n[bmc]\n{BMC}pin_sha256 = "12"', "64 hex digits"),
        (
            f'role = "node"\nnode = "a"\n[bmc]\n{BMC}pin_sha256 = "{"ab" * 32}"\nca_file = "/ca"',
            "pin_sha256 and ca_file",
        ),
        (f'role = "node"\nnode = "a"\n[bmc]\n{BMC.replace("https", "http")}', "url"),
        (
            f'[[gpu.pools]]\nname = "p"\nnodes = ["a"]\n[[gpu.pools.bmcs]]\nnode = "b"\n{BMC}',
            "'b', which is not in nodes",
        ),
        (f'[[gpu.pools]]\nname = "p"\n[[gpu.pools.bmcs]]\nnode = "b"\n{BMC}', "GPUs of this machine"),
    ],
)
def test_settings_that_make_no_sense_are_refused_in_one_line(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(SettingsError) as refused:
        settings_of(tmp_path, f'site = "falcon-1"\n{text}\n')
    assert said in str(refused.value) and len(str(refused.value).splitlines()) == 1


def test_host_power_comes_from_the_kernels_meter_or_from_a_fresh_file(tmp_path: Path) -> None:
    def told(hwmon: Path = tmp_path / "hwmon", **gpu: Any) -> tuple[float, str] | None:
        found = host_power(GpuSettings(**gpu), hwmon)
        return None if found is None else (found.power_w, found.source)

    assert told() is None
    for name, kind in (("hwmon0", "coretemp"), ("hwmon1", "power_meter")):
        (tmp_path / "hwmon" / name).mkdir(parents=True)
        (tmp_path / "hwmon" / name / "name").write_text(f"{kind}\n")
    assert told() is None, "a meter without its figure"
    (tmp_path / "hwmon/hwmon1/power1_average").write_text("6123000000\n")
    assert told() == (6123.0, "bmc")
    file = tmp_path / "watts"
    assert told(host_power_file=file) is None
    for text, expected in (("5900.5\n", (5900.5, "pdu")), ("nan", None), ("-3", None), ("1e9", None), ("watts", None)):
        file.write_text(text)
        assert told(host_power_file=file, host_power_source="pdu") == expected, text
    file.write_text("5900")
    os.utime(file, (1, 1))
    assert told(host_power_file=file) is None, "old"
