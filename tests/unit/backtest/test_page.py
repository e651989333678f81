"""docs/backtest.md names every option, every policy and every key of a fleet file, with its default."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydantic import BaseModel

from controller.dispatch.parameters import Parameters
from controller.settlement.fleet_file import FleetFile, read_fleet
from gridpivot.errors import SettingsError
from gridpivot.shapes_backtest import AccountFigures
from sim.backtest import backtest
from sim.backtest_run import policy_of

pytestmark = pytest.mark.unit

PAGE = (Path(__file__).parents[3] / "docs" / "backtest.md").read_text()


def section(name: str) -> str:
    return PAGE.split(f"\n## {name}\n")[1].split("\n## ")[0]


def rows(name: str) -> list[tuple[str, ...]]:
    return re.findall(r"^\| `([^`]+)` \| (.+?) \| .+ \|$", section(name), re.M)


def section_in(annotation: object) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((s for inner in getattr(annotation, "__args__", ()) if (s := section_in(inner))), None)


def shown(value: object) -> str:
    match value:
        case None | () | "":
            return "none"
        case bool():
            return str(value).lower()
        case int() | float():
            return f"{value:.10g}"
        case tuple():
            return "all" if len(value) == 4 else repr(value)
        case _:
            return f"`{value}`"


def keys(model: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, str]]:
    for name, field in model.model_fields.items():
        inner = section_in(field.annotation)
        if inner is not None:
            yield from keys(inner, f"{prefix}{name}{'[]' if 'tuple' in str(field.annotation) else ''}.")
        elif not (name == "sites" and prefix):
            yield prefix + name, "required" if field.is_required() else shown(field.default)


def test_page_names_every_key_of_a_fleet_file_with_its_default() -> None:
    assert rows("The fleet file") == list(keys(FleetFile))


def test_page_names_every_option() -> None:
    renamed = {"begin": "from", "end": "to", "as_json": "json"}
    options = {"--" + renamed.get(n, n).replace("_", "-") for n in backtest.__annotations__ if n != "return"}
    assert {name for name, _ in rows("Options")} == options


def test_page_names_only_policies_that_exist_and_all_of_them() -> None:
    named = set(re.findall(r"^\| `([a-z-]+)` \|", section("Policies"), re.M))
    for name in named - {"foresight"}:
        assert policy_of(name, 900.0, Parameters()).name == name
    with pytest.raises(SettingsError) as refused:
        policy_of("none", 900.0, Parameters())
    words = str(refused.value).split("more of ")[1]
    assert named == set(re.findall(r"[a-z][a-z-]+", words.replace("(all but static also with -current)", "")))


def test_page_explains_every_figure_of_an_account() -> None:
    assert set(re.findall(r"`([a-z_]+)`", section("The account"))) >= set(AccountFigures.model_fields)


def test_examples_of_the_page_load(tmp_path: Path) -> None:
    (example,) = re.findall(r"```toml\n(.*?)```", PAGE, re.DOTALL)
    path = tmp_path / "fleet.toml"
    path.write_text(example)
    (plant,) = read_fleet(path)
    assert (len(plant.classes), len(plant.pools), len(plant.events)) == (1, 1, 1)
