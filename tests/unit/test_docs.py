"""What the pages say is so: examples load, keys and defaults agree, generated pages are fresh, links lead somewhere."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from enum import Enum
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from agent.settings import AgentSettings
from controller.settings import ControllerSettings
from gridpivot import console

pytestmark = pytest.mark.unit

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
PAGES = [*sorted(DOCS.glob("*.md")), ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md"]


def blocks(page: str, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", (DOCS / page).read_text(), re.DOTALL)


def python(*words: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *map(str, words)], cwd=ROOT, capture_output=True, text=True, timeout=50, check=False
    )


# ---- examples -------------------------------------------------------------------------------------------------


def test_controller_example_passes_check_config(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from controller.cli import app

    (example,) = blocks("controller.md", "toml")
    config = tmp_path / "controller.toml"
    config.write_text(example)
    code = console.exit_code(lambda: app(args=["check-config", "--config", str(config), "--json"]))
    shape = json.loads(capsys.readouterr().out)
    assert (code, shape["problems"]) == (0, [])
    assert shape["notes"] == ["2 sites in 2 regions"]


def test_agent_example_passes_check_config(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from agent.cli import app as agent

    give_identity(tmp_path / "agent")
    config, inventory = blocks("agent.md", "toml")
    (devices,) = blocks("agent.md", "csv")
    (tmp_path / "agent.toml").write_text(config.replace("/etc/gridpivot", str(tmp_path)))
    (tmp_path / "miners.toml").write_text(inventory)
    (tmp_path / "miners.csv").write_text(devices)
    password = os.open(tmp_path / "whatsminer.password", os.O_WRONLY | os.O_CREAT, 0o600)
    os.write(password, b"not-a-password\n")
    os.close(password)
    words = ["check-config", "--config", str(tmp_path / "agent.toml"), "--state-dir", str(tmp_path / "agent"), "--json"]
    code = console.exit_code(lambda: agent(args=words))
    shape = json.loads(capsys.readouterr().out)
    assert (code, shape["problems"]) == (0, [])
    assert shape["notes"] == ["2 miners of 2 classes", "1 planner keys", "stage observe"]


def give_identity(state_dir: Path) -> None:
    """As enrolment leaves it."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import Encoding

    from agent.identity import files
    from gridpivot.link.certificates import issue_site, make_authority
    from gridpivot.plan import key_id

    now = datetime.now(UTC)
    authority = make_authority("test", now)
    pair = issue_site(authority, "test", "falcon-1", now)
    planner = Ed25519PrivateKey.generate().public_key().public_bytes_raw()
    files.write_trust(state_dir, authority.certificate.public_bytes(Encoding.DER), {key_id(planner): planner})
    files.write_pair(state_dir, pair.key_pem, pair.chain_pem, "1")


# ---- settings tables ------------------------------------------------------------------------------------------


def shown(value: Any) -> str:
    """A default as the pages write it."""
    match value:
        case None | () | []:
            return "none"
        case bool():
            return str(value).lower()
        case Enum():
            return f"`{value.value}`"
        case int() | float():
            return f"{value:.10g}"
        case dict():
            return "none" if not value else repr(value)
        case _:
            return f"`{value}`"


def section_in(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((s for inner in getattr(annotation, "__args__", ()) if (s := section_in(inner))), None)


def keys(model: type[BaseModel], held: BaseModel | None = None, prefix: str = "") -> Iterator[tuple[str, str]]:
    """Every key with its default; a list of tables is `name[]`, tables by name are `name.NAME`."""
    for name, field in model.model_fields.items():
        default = getattr(held, name) if held is not None else None
        if held is None and not field.is_required():
            default = field.get_default(call_default_factory=True)
        section = section_in(field.annotation)
        if section is not None:
            kind = str(field.annotation)
            place = f"{prefix}{name}" + ("[]" if "tuple" in kind else ".NAME" if "dict" in kind else "")
            yield from keys(section, default if isinstance(default, BaseModel) else None, f"{place}.")
        else:
            yield prefix + name, "required" if held is None and field.is_required() else shown(default)


@pytest.mark.parametrize(("page", "model"), [("agent.md", AgentSettings), ("controller.md", ControllerSettings)])
def test_page_names_every_settings_key_with_its_default(page: str, model: type[BaseModel]) -> None:
    table = re.findall(r"^\| `([^`]+)` \| (.+?) \| .+ \|$", (DOCS / page).read_text().split("## All keys")[1], re.M)
    assert table == list(keys(model))


# ---- the demo and the command lines ---------------------------------------------------------------------------


def test_demo_page_names_every_option_and_every_field_of_the_summary() -> None:
    from sim.demo import demo
    from sim.summary import BARS, ZERO, Measured, build

    text = (DOCS / "demo.md").read_text()
    options = {"--" + name.removeprefix("as_").replace("_", "-") for name in demo.__annotations__ if name != "return"}
    assert set(re.findall(r"^\| `(--[a-z-]+)`", text, re.M)) == options
    nothing: dict[str, Any] = dict.fromkeys(Measured.__dataclass_fields__, 0)
    fields = set(build([], Measured(**nothing)))
    named = set(re.findall(r"^\| `([a-z_0-9]+)`", text, re.M))
    assert named == fields - {"schema_version"}
    for field, bar in BARS.items():
        assert re.search(rf"^\| `{field}` \|.*\| {bar:g} \|$", text, re.M), field
    for field in ZERO:
        assert re.search(rf"^\| `{field}` \|.*\| 0 \|$", text, re.M), field


def test_cli_page_names_every_command() -> None:
    import typer

    from agent.cli import app as agent
    from controller.cli import app as controller
    from ctl.cli import app as ctl

    text = (DOCS / "cli.md").read_text()
    named = set(re.findall(r"^\| `(gridpivot[a-z-]*(?: [a-z-]+)+)", text, re.M))
    there = set()
    for name, app in (("gridpivot", ctl), ("gridpivot-agent", agent), ("gridpivot-controller", controller)):
        top = typer.main.get_command(app)
        for word, command in top.commands.items():  # type: ignore[attr-defined]
            inner = getattr(command, "commands", None)
            there |= {f"{name} {word} {sub}" for sub in inner} if inner else {f"{name} {word}"}
    assert named == there


# ---- generated pages, names and links -------------------------------------------------------------------------


@pytest.mark.parametrize("script", ["metrics_doc", "vocabulary_doc", "firmware_doc"])
def test_generated_page_is_up_to_date(script: str) -> None:
    done = python(f"deploy/{script}.py", "--check")
    assert done.returncode == 0, done.stderr


def test_rules_dashboard_and_pages_name_only_metrics_that_exist() -> None:
    known = set(re.findall(r"^\| `(gridpivot_\w+)`", (DOCS / "metrics.md").read_text(), re.M))
    places = [ROOT / "deploy/grafana/fleet.json", *sorted((ROOT / "deploy/prometheus").rglob("*.yml")), *PAGES]
    for path in places:
        text = re.sub(r"gridpivot-\w+", "", path.read_text())
        assert set(re.findall(r"\bgridpivot_[a-z_]+", text)) - known == set(), path.name


def test_every_panel_has_a_description_a_unit_and_queries() -> None:
    dashboard = json.loads((ROOT / "deploy/grafana/fleet.json").read_text())
    names = [variable["name"] for variable in dashboard["templating"]["list"]]
    assert names == ["datasource", "region", "site"]
    panels = [panel for panel in dashboard["panels"] if panel["type"] != "row"]
    for panel in panels:
        assert panel["description"] and panel["fieldConfig"]["defaults"]["unit"] and panel["targets"], panel["title"]
    ids = [panel["id"] for panel in dashboard["panels"]]
    assert len(ids) == len(set(ids))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_to_pages_and_headings_that_exist(page: Path) -> None:
    for target in re.findall(r"\]\(([^)]+)\)", page.read_text()):
        name, _, anchor = target.partition("#")
        path = page.parent / name if name else page
        assert path.is_file(), target
        assert not anchor or anchor in anchors(path), target


def anchors(page: Path) -> set[str]:
    headings = re.findall(r"^#+ (.+)$", page.read_text(), re.M)
    return {re.sub(r"[^a-z0-9 -]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_every_alert_has_its_paragraph() -> None:
    rules = (ROOT / "deploy/prometheus/rules/gridpivot.yml").read_text()
    named = re.findall(r"runbook_url: (\S+)#(\S+)", rules)
    assert len(named) == 8
    for page, anchor in named:
        assert anchor in anchors(ROOT / page)
