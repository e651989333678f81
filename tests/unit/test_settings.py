"""A fault in the controller's settings is one line: file, line, what, and what to do."""

from pathlib import Path

import pytest

from controller.settings import ENV_PREFIX, ControllerSettings
from gridpivot.errors import SettingsError
from gridpivot.settings import load

pytestmark = pytest.mark.unit

GOOD = """\
state_dir = "/tmp/x"

[dispatch]
speed = 60

[[sites]]
name = "falcon-1"
region = "ercot"
ceiling_mw = 21.5
time_zone = "America/Chicago"

[[sites]]
name = "oryx-1"
region = "uae"
ceiling_w = 9e6
"""


def read(tmp_path: Path, text: str, **environ: str) -> ControllerSettings:
    path = tmp_path / "controller.toml"
    path.write_text(text)
    return load(ControllerSettings, path, ENV_PREFIX, environ)


def fault(tmp_path: Path, text: str) -> str:
    with pytest.raises(SettingsError) as caught:
        read(tmp_path, text)
    message = str(caught.value)
    assert len(message.splitlines()) == 1
    return message.removeprefix(f"{tmp_path}/")


def test_good_file_gives_watts_whatever_unit_was_written(tmp_path: Path) -> None:
    settings = read(tmp_path, GOOD)
    assert [s.own_ceiling_w for s in settings.sites] == [21.5e6, 9e6]
    assert settings.dispatch.thresholds().period_s == 300
    assert settings.path(settings.tls.ca) == Path("/tmp/x/tls/ca.crt")


def test_environment_overrides_the_file(tmp_path: Path) -> None:
    settings = read(tmp_path, GOOD, GRIDPIVOT_CONTROLLER__LISTEN__HTTP_PORT="0")
    assert settings.listen.http_port == 0


def test_two_sites_of_one_name_name_the_second_ones_line(tmp_path: Path) -> None:
    message = fault(tmp_path, GOOD.replace("oryx-1", "falcon-1"))
    assert message.startswith("controller.toml:13: sites.1.name: second site of this name; rename or remove")


def test_negative_ceiling_names_its_line_and_value(tmp_path: Path) -> None:
    message = fault(tmp_path, GOOD.replace("21.5", "-21.5"))
    assert message.startswith("controller.toml:9: sites.0.ceiling_mw: a ceiling is positive")
    assert "-21.5" in message


def test_unknown_key_suggests_the_nearest(tmp_path: Path) -> None:
    message = fault(tmp_path, GOOD.replace("ceiling_mw", "ceilling_mw"))
    assert "controller.toml:9: unknown key" in message
    assert "did you mean 'ceiling_mw'?" in message


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("ceiling_mw = 21.5\n", "", "give exactly one of ceiling_mw and ceiling_w"),
        ("America/Chicago", "Texas/Dallas", "not a time zone"),
        ("speed = 60", "speed = 0", "greater than 0"),
        ("falcon-1", "Falcon 1", "should match pattern"),
    ],
)
def test_senseless_value_says_what_to_do(tmp_path: Path, old: str, new: str, says: str) -> None:
    assert says in fault(tmp_path, GOOD.replace(old, new, 1))


def test_a_password_in_the_wrong_place_is_not_repeated(tmp_path: Path) -> None:
    from agent.settings import AgentSettings

    path = tmp_path / "agent.toml"
    for line in ('whatsminer = "hunter2"', 'password = "hunter2"', 'whatsminer = ["hunter2"]', "whatsminer = 17"):
        path.write_text(f'site = "a"\n[asic.credentials]\n{line}\n')
        with pytest.raises(SettingsError) as caught:
            load(AgentSettings, path, "GRIDPIVOT_AGENT", {})
        assert "asic.credentials" in str(caught.value)
        assert "hunter2" not in str(caught.value) and "17" not in str(caught.value).split(": ", 1)[1]
