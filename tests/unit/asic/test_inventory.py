"""The inventory file: what a person writes, and one clear line for each thing that is wrong with it."""

from __future__ import annotations

from pathlib import Path

import pytest

from agent.asic.inventory import load_inventory
from agent.asic.settings import AsicSettings, CredentialSettings, read_secret
from gridpivot.errors import SettingsError
from gridpivot.vocabulary import Mode

pytestmark = pytest.mark.unit

HEADER = """devices = "miners.csv"
feeders = ["A", "B"]

[class.m60]
family = "whatsminer"
model = "Whatsminer M60"

[class.odd]
family = "luxos"
model = "Antminer Z1"
hashrate_th_per_s = 100
power_w = 3000
low_profile = "340MHz"
"""
FIRST = "host,class,feeder,mac,api_port,http_port,maintenance"


def written(tmp_path: Path, *lines: str, header: str = HEADER, first: str = FIRST) -> Path:
    (tmp_path / "inventory.toml").write_text(header, encoding="utf-8")
    (tmp_path / "miners.csv").write_text("\n".join([first, *lines, ""]), encoding="utf-8")
    return tmp_path / "inventory.toml"


def fault(path: Path) -> str:
    with pytest.raises(SettingsError) as caught:
        load_inventory(path)
    assert caught.value.exit_code == 2
    return str(caught.value)


def test_rows_become_columns_with_addresses_and_locks(tmp_path: Path) -> None:
    path = written(tmp_path, "10.0.0.11,m60,A,02:00:00:00:00:11,,,", "miner-12.site,odd,B,,4029,8080,yes")
    inventory = load_inventory(path)
    assert inventory.site.device_count == 2
    assert [e.host for e in inventory.endpoints] == ["10.0.0.11", "miner-12.site"]
    assert [(e.api_port, e.http_port) for e in inventory.endpoints] == [(4028, 80), (4029, 8080)]
    assert inventory.maintenance.tolist() == [False, True]
    assert inventory.site.class_index.tolist() == [0, 1]
    assert inventory.site.feeder_index.tolist() == [0, 1]
    assert inventory.site.mac_addresses == bytes.fromhex("020000000011") + bytes(6)


def test_classes_offer_only_what_their_family_and_profiles_can_do(tmp_path: Path) -> None:
    m60, odd = load_inventory(written(tmp_path)).site.classes
    assert set(m60.modes) == {Mode.SLEEP, Mode.LOW, Mode.NORMAL}
    assert set(odd.modes) == {Mode.SLEEP, Mode.LOW, Mode.NORMAL}  # no turbo profile is named
    assert (m60.shed_s, m60.wake_s) == (5.0, 600.0)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("10.0.0.1,m61,A,,,,", ["miners.csv:2", "m61", "[class.m61]"]),
        ("10.0.0.1,m60,C,,,,", ["miners.csv:2", "feeder 'C'", "add it"]),
        ("10.0.0.1,m60,A,nonsense,,,", ["miners.csv:2", "mac", "aa:bb"]),
        ("10.0.0.1,m60,A,,99999,,", ["miners.csv:2", "port '99999'"]),
        ("10.0.0.1,m60,A,,,,perhaps", ["miners.csv:2", "yes, no or empty"]),
        ("http://x,m60,A,,,,", ["miners.csv:2", "host"]),
        ("10.0.0.1,m60,A,,,,,extra", ["miners.csv:2", "too many fields"]),
        (",m60,A,,,,", ["miners.csv:2", "host ''"]),
    ],
)
def test_a_bad_row_is_one_line_with_place_and_remedy(tmp_path: Path, line: str, words: list[str]) -> None:
    told = fault(written(tmp_path, line))
    assert len(told.splitlines()) == 1
    for word in words:
        assert word in told


def test_duplicates_name_both_places(tmp_path: Path) -> None:
    mac = "02:00:00:00:00:11"
    told = fault(written(tmp_path, f"10.0.0.1,m60,A,{mac},,,", "10.0.0.1,m60,A,,,,", f"10.0.0.2,m60,A,{mac},,,"))
    first, second = told.splitlines()
    assert "miners.csv:3" in first and "miners.csv:2" in first and "10.0.0.1:4028" in first
    assert "miners.csv:4" in second and mac in second


def test_a_file_of_garbage_stops_after_twenty_lines(tmp_path: Path) -> None:
    assert len(fault(written(tmp_path, *["!!,,,,,,"] * 500)).splitlines()) == 21


@pytest.mark.parametrize(
    ("header", "word"),
    [
        ("devices = 3", "devices"),
        ("devices = [", "not valid TOML"),
        (HEADER.replace("whatsminer", "toaster"), "unknown family 'toaster'"),
        (HEADER.replace("Whatsminer M60", "Whatsminer M99"), "no nameplate"),
        (HEADER + "\npower = 3\n", "power"),
        (HEADER.replace("power_w = 3000", "power_w = -1"), "power_w"),
    ],
)
def test_a_bad_header_names_the_file_and_the_key(tmp_path: Path, header: str, word: str) -> None:
    told = fault(written(tmp_path, header=header))
    assert "inventory.toml" in told and word in told


def test_missing_files_and_wrong_columns_are_told(tmp_path: Path) -> None:
    assert "no such file" in fault(tmp_path / "inventory.toml")
    assert "header must be" in fault(written(tmp_path, first="ip,kind"))
    (tmp_path / "miners.csv").unlink()
    assert "miners.csv: no such file" in fault(tmp_path / "inventory.toml")


def test_binary_csv_is_refused(tmp_path: Path) -> None:
    path = written(tmp_path)
    (tmp_path / "miners.csv").write_bytes(b"\xff\xfe\x00\x01")
    assert "miners.csv" in fault(path)


def test_password_file_that_others_can_read_is_refused(tmp_path: Path) -> None:
    secret = tmp_path / "password"
    secret.write_text("hunter2\n", encoding="utf-8")
    secret.chmod(0o644)
    with pytest.raises(SettingsError, match="chmod 600") as caught:
        read_secret(secret)
    assert "hunter2" not in str(caught.value)
    secret.chmod(0o600)
    login = CredentialSettings(password_file=secret).login()
    assert login is not None and login.password == "hunter2"


def test_passwords_never_show_in_settings() -> None:
    settings = AsicSettings.model_validate({"credentials": {"antminer": {"password": "hunter2"}}})
    assert "hunter2" not in repr(settings) and "hunter2" not in str(settings.model_dump())
    login = settings.keyring().candidates("antminer", "")[0]
    assert "hunter2" not in repr(login)


def test_missing_password_is_no_login() -> None:
    assert AsicSettings().keyring().candidates("whatsminer", "") == ()
