"""docs/markets.md: its settings load, its code runs."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

from controller.markets.settings import MarketSettings
from controller.markets.tariff import Tariff

pytestmark = pytest.mark.unit

PAGE = (Path(__file__).parents[3] / "docs" / "markets.md").read_text()


def block(language):
    (found,) = re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)
    return found


def test_example_settings_load_and_price_power_in_usd():
    settings = MarketSettings.model_validate(tomllib.loads(block("toml"))["markets"])
    tariff = Tariff("ande", settings.tariffs["ande"])
    assert 40 < tariff.usd_per_mwh(None, 0.0) < 70


def test_example_code_reads_a_file(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    rows = "".join(f"2024-11-03 {h:02d}:00,20,{30 + h}\n" for h in (0, 1, 1, 2))
    (tmp_path / "prices.csv").write_text("interval_start_local_cpt,HB_SOUTH_DAM,HB_SOUTH_RTM\n" + rows)
    exec(compile(block("python"), "docs/markets.md", "exec"), {})
    assert capsys.readouterr().out.splitlines() == ["4", "3600.0", "()"]
