"""`gridpivot backtest`, as typed: from files to a table, a document and a page."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest

from ctl.cli import app
from gridpivot import console
from gridpivot.shapes_backtest import BacktestShape

pytestmark = pytest.mark.unit

EXAMPLES = Path(__file__).parents[3] / "docs" / "examples"
FLEET = """
[[sites]]
name = "mesa"
ceiling_mw = 3.0
time_zone = "America/Chicago"
[[classes]]
name = "s21"
model = "Antminer S21"
machines = 500
[[pools]]
name = "serve"
priority = "guaranteed"
gpus = 800
usd_per_gpu_hour = 1.5
demand_mw = 0.7
[[events]]
name = "evening"
ceiling_ratio = 0.5
from_hour = 17
until_hour = 19
"""


@pytest.fixture
def files(tmp_path):
    (tmp_path / "fleet.toml").write_text(FLEET)
    prices = 40 + 60 * np.sin(np.arange(192) / 10) ** 3
    rows = [f"2024-06-{3 + k // 96:02d}T{k // 4 % 24:02d}:{15 * (k % 4):02d}Z,{p:.2f}" for k, p in enumerate(prices)]
    (tmp_path / "rt.csv").write_text("\n".join(["time,price_usd_per_mwh", *rows]) + "\n")
    return tmp_path


def ask(files, *words, policies="static,threshold,merit-order,lp,foresight"):
    args = ["backtest", "--fleet", files / "fleet.toml", "--prices", files / "rt.csv", "--policies", policies, *words]
    return console.exit_code(lambda: app(args=[str(a) for a in args]))


def test_last_line_is_one_document_with_every_policy(files, capsys) -> None:
    assert ask(files, "--json") == 0
    shape = BacktestShape.model_validate_json(capsys.readouterr().out.splitlines()[-1])
    assert [p.policy for p in shape.policies] == ["static", "threshold", "merit-order", "lp", "foresight"]
    assert (shape.schema_version, shape.intervals, shape.interval_s, shape.calls) == (1, 192, 900.0, 2)
    regrets = [p.regret_ratio for p in shape.policies]
    assert regrets[-1] == 0 and min(regrets) == 0
    for p in shape.policies:
        parts = (
            p.mining_usd,
            p.ai_usd,
            p.power_usd,
            p.wear_usd,
            p.demand_charge_usd,
            p.availability_usd,
            p.penalty_usd,
        )
        assert p.margin_usd == pytest.approx(sum(parts))
        assert p.margin_usd == pytest.approx(sum(s.margin_usd for s in p.sites))


def test_table_fits_a_terminal_and_progress_stays_on_standard_error(files, capsys) -> None:
    assert ask(files) == 0
    said = capsys.readouterr()
    assert "merit-order" in said.out and "regret %" in said.out
    assert max(map(len, said.out.splitlines())) <= 80
    assert "100 %" in said.err and "100 %" not in said.out


def test_window_is_cut_by_from_and_to(files, capsys) -> None:
    assert ask(files, "--json", "--from", "2024-06-03T12:00Z", "--to", "2024-06-04", policies="threshold") == 0
    shape = json.loads(capsys.readouterr().out)
    assert (shape["begins_at"], shape["ends_at"]) == ("2024-06-03T12:00:00Z", "2024-06-04T00:00:00Z")
    assert shape["policies"][0]["regret_ratio"] is None


def test_files_that_follow_each_other_are_one_series(files, capsys) -> None:
    head, *rows = (files / "rt.csv").read_text().splitlines()
    assert ask(files, "--json", policies="lp,foresight") == 0
    whole = json.loads(capsys.readouterr().out)
    for name, part in (("rt.csv", rows[:100]), ("b.csv", rows[100:])):
        (files / name).write_text("\n".join([head, *part]) + "\n")
    assert ask(files, "--prices", files / "b.csv", "--json", policies="lp,foresight") == 0
    joined = json.loads(capsys.readouterr().out)
    assert [p["margin_usd"] for p in joined["policies"]] == [p["margin_usd"] for p in whole["policies"]]


def test_regions_have_prices_of_their_own(files, capsys) -> None:
    text = (files / "rt.csv").read_text()
    (files / "dear.csv").write_text(
        "\n".join(re.sub(r",.*", ",400.0", r) if "Z" in r else r for r in text.splitlines())
    )
    (files / "fleet.toml").write_text(
        FLEET.replace('name = "mesa"', 'name = "mesa"\nregion = "west"')
        + '[[sites]]\nname = "far"\nregion = "east"\nceiling_mw = 3.0\n'
    )
    args = ["backtest", "--fleet", str(files / "fleet.toml"), "--policies", "threshold", "--json"]
    for region, name in (("west", "rt.csv"), ("east", "dear.csv")):
        args += ["--prices", f"{region}={files / name}"]
    assert console.exit_code(lambda: app(args=args)) == 0
    (policy,) = json.loads(capsys.readouterr().out)["policies"]
    mesa, far = policy["sites"]
    assert mesa["mining_usd"] > 0 == far["mining_usd"]


def test_columns_are_chosen_by_name_and_gaps_are_told(files, capsys) -> None:
    rows = (files / "rt.csv").read_text().splitlines()
    text = "\n".join(["stamp,east,west", *(f"{r},1.0" for r in rows[1:50] + rows[53:])])
    (files / "rt.csv").write_text(text + "\n")
    words = ("--time-column", "stamp", "--price-column", "east", "--json")
    assert ask(files, *words, policies="threshold") == 0
    notes = json.loads(capsys.readouterr().out)["notes"]
    assert any("no interval from 2024-06-03T12:15Z to 2024-06-03T13:00Z" in note for note in notes)
    assert any("3 intervals without a price took the last one before them" in note for note in notes)


def test_hourly_prices_do(files, capsys) -> None:
    rows = (files / "rt.csv").read_text().splitlines()
    (files / "rt.csv").write_text("\n".join([rows[0], *rows[1::4]]) + "\n")
    assert ask(files, "--json", policies="lp,foresight") == 0
    shape = json.loads(capsys.readouterr().out)
    assert (shape["interval_s"], shape["intervals"]) == (3600.0, 48)
    assert shape["policies"][0]["regret_ratio"] < 0.2


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--policies", "lp,oracle"), "--policies oracle: unknown; one or more of static, threshold"),
        (("--policies", ","), "--policies: names none"),
        (("--from", "yesterday"), "--from yesterday: expected something like 2024-07-01"),
        (("--from", "2024-06-05", "--to", "2024-06-04"), "give --from before --to"),
        (("--from", "2024-05-01"), "no price for 2024-05-01T00:00:00Z"),
        (("--prices", "nowhere.csv"), "--prices nowhere.csv: no such file"),
        (("--prices", "{files}/rt.csv"), "they overlap or differ in their interval"),
        (("--report", "{files}/no/such/r.html"), "no such directory; make it first"),
        (("--hashprice", "{files}/fleet.toml"), "no column 'date'"),
    ],
)
def test_bad_words_are_one_line_and_code_2(files, capsys, words, said) -> None:
    code = ask(files, *(str(w).format(files=files) for w in words), policies="threshold")
    err = capsys.readouterr().err.strip().splitlines()
    assert code == 2
    assert len(err) == 1 and err[0].startswith("error: ") and said in err[0]


def test_report_is_one_page_that_needs_no_network(files, capsys) -> None:
    page = files / "report.html"
    assert ask(files, "--report", page) == 0
    text = page.read_text()
    assert re.search(r"<(script|link|img)[^>]+(src|href)=", text) is None
    assert text.count("<h2>") == 4 and "Plotly.newPlot" in text
    table = text[text.index("<table>") : text.index("</table>")]
    for policy in ("static", "threshold", "merit-order", "lp", "foresight"):
        assert f"<td>{policy}</td>" in table
    assert capsys.readouterr().out


def test_report_escapes_what_files_say(files) -> None:
    (files / "fleet.toml").rename(files / "<b>x.toml")
    args = ["backtest", "--fleet", files / "<b>x.toml", "--prices", files / "rt.csv", "--policies", "threshold"]
    page = files / "r.html"
    assert console.exit_code(lambda: app(args=[*map(str, args), "--report", str(page)])) == 0
    assert "<b>x" not in page.read_text()[:3000] and "&lt;b&gt;x.toml" in page.read_text()
