"""Fleet files: what loads, and what each fault says."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from controller.settlement.fleet_file import read_fleet
from gridpivot.errors import SettingsError
from gridpivot.segments import class_hull
from gridpivot.vocabulary import Mode

pytestmark = pytest.mark.unit

EXAMPLES = Path(__file__).parents[3] / "docs" / "examples"
SITE = '[[sites]]\nname = "mesa"\nceiling_mw = 10.0\n'
MINERS = '[[classes]]\nname = "s21"\nmodel = "Antminer S21"\nmachines = 100\n'


def read(tmp_path, text):
    path = tmp_path / "fleet.toml"
    path.write_text(text)
    return read_fleet(path)


def fault(tmp_path, text):
    with pytest.raises(SettingsError) as caught:
        read(tmp_path, text)
    return str(caught.value).replace(f"{tmp_path}/", "")


def test_mining_example_fits_its_connection_in_normal_mode() -> None:
    (plant,) = read_fleet(EXAMPLES / "fleet-mining.toml")
    assert 0.95 < plant.import_w(plant.all_in(Mode.NORMAL), np.zeros(0)) / plant.ceiling_w < 1.0


def test_coupled_example_is_too_large_for_its_connections_and_calls() -> None:
    for plant in read_fleet(EXAMPLES / "fleet-coupled.toml"):
        full = plant.import_w(plant.all_in(Mode.NORMAL), np.array([p.demand.level_w for p in plant.pools]))
        assert full > plant.ceiling_w
        assert [p.pool.priority.value for p in plant.pools] == ["guaranteed", "standard", "spot"]
        assert "summer-evening" in [e.event_id for e in plant.events]


def test_table_without_sites_stands_at_all_of_them(tmp_path) -> None:
    two = SITE + SITE.replace("mesa", "butte") + MINERS + MINERS.replace('"s21"', '"x"') + 'sites = ["butte"]\n'
    mesa, butte = read(tmp_path, two)
    assert [c.miner_class.name for c in mesa.classes] == ["s21"]
    assert [c.miner_class.name for c in butte.classes] == ["s21", "x"]


def test_class_from_measured_modes_keeps_its_points(tmp_path) -> None:
    modes = "modes = { sleep = [20, 0], low = [2000, 140], normal = [3500, 200] }"
    (plant,) = read(tmp_path, f'{SITE}[[classes]]\nname = "tuned"\nmachines = 10\n{modes}\n')
    assert plant.mode_w[0, :3].tolist() == [20, 2000, 3500]
    assert plant.mode_hs[0, :3].tolist() == [0, 140e12, 200e12]
    assert np.isnan(plant.mode_w[0, 3])


def test_model_has_only_the_modes_that_its_firmware_has(tmp_path) -> None:
    (plant,) = read(tmp_path, SITE + MINERS + 'mode_names = ["sleep", "normal"]\n')
    assert [mode for mode, _ in class_hull(plant.classes[0].miner_class)] == [Mode.SLEEP, Mode.NORMAL]


def test_class_that_gains_efficiency_when_it_draws_more_is_refused_with_its_line(tmp_path) -> None:
    modes = "modes = { sleep = [20, 0], low = [2000, 90], normal = [3500, 200] }"
    said = fault(tmp_path, f'{SITE}[[classes]]\nname = "odd"\nmachines = 10\n{modes}\n')
    assert said.startswith("fleet.toml:4: classes.0: mode low lies under the line between its neighbours")
    assert said.endswith("measure it again or leave the mode out")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (SITE.replace("ceiling_mw", "celing_mw"), "fleet.toml:3: unknown key 'sites.0.celing_mw'; did you mean 'ceiling_mw'?"),
        ("", "fleet.toml:1: sites is missing; add it"),
        (SITE + SITE, "fleet.toml:4: site 'mesa' stands twice; rename one"),
        (SITE + MINERS + 'sites = ["messa"]\n', "fleet.toml:4: no site 'messa'; known here: mesa"),
        (SITE + MINERS + MINERS, "fleet.toml:1: 's21' stands twice at site mesa; rename one of [[classes]]"),
        (SITE + MINERS.replace("S21", "S99"), "model 'Antminer S99' is unknown; give nameplate = [TH/s, W], or one of "),
        (SITE + MINERS + "nameplate = [200, 3500]\n", "give exactly one of model, nameplate = [TH/s, W] and modes"),
        (SITE + MINERS + 'mode_names = ["normal"]\n', "mode_names needs sleep and normal"),
        (SITE + MINERS + 'feeder = "east"\n', "no feeder 'east' at every site of 's21'; add it to [[feeders]]"),
        (SITE + 'time_zone = "Mars/Olympus"\n', "fleet.toml:4: sites.0.time_zone: "),
        (SITE + '[[events]]\nname = "e"\nceiling_ratio = 60\n', "fleet.toml:6: events.0.ceiling_ratio: "),
        (SITE + '[[events]]\nname = "e"\nceiling_mw = 1\nceiling_ratio = 0.5\n', "give either ceiling_mw or ceiling_ratio"),
        (SITE + '[[events]]\nname = "e"\nceiling_mw = 1\nfrom_hour = 22\nuntil_hour = 6\n', "for a window over midnight write two"),
        (
            SITE + '[[events]]\nname = "e"\nceiling_mw = 1\nstart = 2024-01-02T00:00:00Z\nend = 2024-01-01T00:00:00Z\n',
            "end must be after start",
        ),
        (
            SITE + '[[pools]]\nname = "p"\npriority = "spot"\ngpus = 8\nusd_per_gpu_hour = 1\ndemand_by_hour = [1, 1]\n',
            "demand_by_hour wants 24 shares",
        ),
    ],
)  # fmt: skip
def test_fault_says_file_line_and_remedy(tmp_path, text, said) -> None:
    assert said in fault(tmp_path, text)


def test_two_faults_are_two_lines(tmp_path) -> None:
    text = SITE + MINERS + 'sites = ["a"]\n' + MINERS.replace('"s21"', '"x"') + 'sites = ["b"]\n'
    assert len(fault(tmp_path, text).splitlines()) == 2


def test_demand_from_a_trace_is_read_beside_the_fleet_file_and_scaled(tmp_path) -> None:
    (tmp_path / "load.csv").write_text("time,mw\n2024-01-01T00:00Z,1.0\n2024-01-01T01:00Z,3.0\n")
    pool = '[[pools]]\nname = "p"\npriority = "spot"\ngpus = 8000\nusd_per_gpu_hour = 1\n'
    (plant,) = read(tmp_path, SITE + pool + 'demand_csv = "load.csv"\ndemand_scale = 2.0\n')
    demand = plant.pools[0].demand
    assert (demand.trace, demand.trace_span_s) == (((0.0, 2e6), (3600.0, 6e6)), 7200.0)
