"""docs/discovery.md: its examples load, and the doctor's word on what they are about."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from agent.asic.keyring import read_logins
from agent.asic.locks import FILE, parse_target, set_locks
from agent.asic.registry import FAMILIES
from agent.doctor import examine
from agent.settings import ENV_PREFIX, AgentSettings
from gridpivot.settings import load

pytestmark = pytest.mark.unit

PAGE = (Path(__file__).resolve().parents[3] / "docs" / "discovery.md").read_text()


def outcomes(tmp_path: Path, **asic: object) -> dict[str, tuple[str, str]]:
    settings = AgentSettings.model_validate({"site": "falcon-1", "state_dir": tmp_path, "asic": asic})
    return {check.name: (check.outcome, check.detail) for check in examine(settings).checks}


def test_examples_of_the_page_load(tmp_path: Path) -> None:
    settings, credentials = re.findall(r"```toml\n(.*?)```", PAGE, re.DOTALL)
    (tmp_path / "agent.toml").write_text('site = "falcon-1"\n' + settings)
    loaded = load(AgentSettings, tmp_path / "agent.toml", ENV_PREFIX, {})
    assert loaded.asic.discovery.ranges == ("10.1.0.0/18",)
    path = tmp_path / "credentials.toml"
    path.write_text(credentials)
    path.chmod(0o600)
    assert repr(read_logins(path, tuple(FAMILIES))) == "Logins(1 devices, 1 families, 1 of the site)"


def test_every_target_form_of_the_page_is_understood() -> None:
    forms = re.findall(r"`((?:rack|pdu|container|feeder):NAME)`", PAGE)
    assert len(forms) == 4
    for form in forms:
        assert str(parse_target(form)) == form


def test_site_login_comes_from_the_environment_and_never_shows(tmp_path: Path) -> None:
    environ = {f"{ENV_PREFIX}__SITE": "falcon-1", f"{ENV_PREFIX}__ASIC__CREDENTIALS__SITE__PASSWORD": "s3cret"}
    settings = load(AgentSettings, None, ENV_PREFIX, environ)
    (login,) = settings.asic.keyring().candidates("antminer", "")
    assert (login.username, login.password) == ("root", "s3cret")
    assert "s3cret" not in repr(settings) + settings.model_dump_json()


def test_doctor_tells_of_a_credentials_file_that_others_can_read(tmp_path: Path) -> None:
    path = tmp_path / "credentials.toml"
    path.write_text('[[site]]\nusername = "root"\npassword = "s3cret"\n')
    path.chmod(0o644)
    outcome, detail = outcomes(tmp_path, credentials_file=path)["credentials"]
    assert outcome == "failed" and "chmod 600" in detail and "s3cret" not in detail
    path.chmod(0o600)
    assert outcomes(tmp_path, credentials_file=path)["credentials"][0] == "ok"


def test_doctor_tells_of_locks_that_cannot_be_read(tmp_path: Path) -> None:
    assert outcomes(tmp_path)["locks"] == ("ok", "0 in force")
    set_locks(tmp_path, [parse_target("rack:R1")], "ana", 1.0)
    assert outcomes(tmp_path)["locks"] == ("ok", "1 in force")
    (tmp_path / FILE).write_text("{")
    assert outcomes(tmp_path)["locks"][0] == "failed"


def test_doctor_tells_of_ranges_that_cannot_be_walked_in_time(tmp_path: Path) -> None:
    assert outcomes(tmp_path)["re-discovery"][0] == "skipped"
    ranges = {"ranges": ["10.0.0.0/8"]}
    assert outcomes(tmp_path, discovery=ranges)["re-discovery"][0] == "warning"


def test_ranges_that_are_none_are_told_when_settings_are_read() -> None:
    with pytest.raises(ValueError, match=r"10\.0\.0\.0/99"):
        AgentSettings.model_validate({"site": "falcon-1", "asic": {"discovery": {"ranges": ["10.0.0.0/99"]}}})
