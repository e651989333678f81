"""Every recorded reply of real firmware: read with the others of its device, or known to carry no figures, by name.

`deploy/firmware_doc.py` shows the same as a page; the replies are read in place and never copied here.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import orjson
import pytest

from gridpivot.errors import BadReply
from gridpivot.vocabulary import DeviceState

pytestmark = pytest.mark.unit
ROOT = Path(__file__).parents[2]
# What these files hold is no figure of a reading: answers to commands, per-chip tables, pages of the web interface.
NO_FIGURES = {
    "actions_locate", "asccount", "ascset_help", "ascset_softoff", "ascset_softon", "ascset_workmode", "check",
    "chip_clocks", "chip_hashrates", "chip_temps", "chip_voltages", "coin", "config", "devdetails", "devs", "fan", "find-miner",
    "frequency", "get_error_code_with_errors", "get_psu", "healthchipget_0", "healthchipget_1", "healthchipget_2",
    "ipreport", "led", "litestats", "manifest", "network", "pools", "presets", "reboot", "resume", "settings", "start", "stop",
    "unlock", "version", "voltage", "voltageget_0", "voltageget_1", "voltageget_2", "web_net_conf",
}  # fmt: skip


@pytest.fixture(scope="module")
def page() -> ModuleType:
    """The page's own module: what it shows is what is tested."""
    import importlib.util

    spec = importlib.util.spec_from_file_location("firmware_doc", ROOT / "deploy" / "firmware_doc.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["firmware_doc"] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def root(page: ModuleType) -> Path:
    found: Path | None = page.shared_replies()
    if found is None:
        told = "recorded miner replies are missing (set GRIDPIVOT_SHARED)"
        if os.environ.get("CI") == "true":
            pytest.fail(told)
        pytest.skip(told)
    return found


def test_every_recorded_file_is_read_or_known_to_hold_no_figures(page: ModuleType, root: Path) -> None:
    strangers = []
    for recording in page.recordings(root):
        try:
            unused = page.read(recording).unused
        except BadReply:
            unused = tuple(path.stem for path in recording.files)
        strangers += [f"{recording.name}: {stem}" for stem in unused if stem not in NO_FIGURES]
    # VNish is read through its web interface; what its cgminer port says is the same with less.
    strangers = [name for name in strangers if name != "proto-fleet/antminer-vnish/rpc: summary"]
    assert strangers == []


def test_every_recorded_device_gives_state_and_hashrate_and_most_give_power(page: ModuleType, root: Path) -> None:
    with_power = devices = 0
    for recording in page.recordings(root):
        if "(" in recording.name or (
            recording.name.startswith("proto-fleet") and not recording.name.endswith(("rpc", "web"))
        ):
            continue  # variants of single replies, and answers to commands
        reading = page.read(recording).reading
        assert reading.state is not DeviceState.UNKNOWN, recording.name
        assert reading.hashrate_hs is not None and 0 <= reading.hashrate_hs < 1e15, recording.name
        assert reading.temp_c is not None and 0 < reading.temp_c < 110, recording.name
        devices += 1
        with_power += reading.power_w is not None
    assert devices >= 13 and with_power == devices - 1  # the S19's stock firmware has no watts


def test_every_recording_is_listed_in_the_index_with_its_authenticity(page: ModuleType, root: Path) -> None:
    assert "unlisted" not in page.recorded_part(root)


def agent(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", "from agent.cli import main; main()", "decode", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=50, check=False)


def test_decode_takes_several_files_of_one_device_and_prints_one_reading(root: Path) -> None:
    place = root / "asic-rs" / "luxminer" / "v1"
    done = agent(*(str(place / f"{name}.json") for name in ("summary", "power", "config", "version")))
    assert done.returncode == 0, done.stderr
    reading = orjson.loads(done.stdout)
    assert (reading["family"], reading["power_w"], reading["mode"]) == ("luxos", 1051.0, "normal")


def test_decode_takes_a_directory_and_names_what_it_did_not_use(root: Path) -> None:
    done = agent(str(root / "asic-rs" / "braiins" / "v25_11"), "--family", "auto")
    assert done.returncode == 0, done.stderr
    reading = orjson.loads(done.stdout)
    assert reading["family"] == "braiins" and "actions_locate" in reading["unused"]


@pytest.mark.parametrize("content", [b"", b"<html>", b'{"hello":"miner"}', b"\x00\xff\xfe", b"[" * 5000])
def test_decode_of_what_is_no_reply_is_one_line_and_exit_code_1(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "reply.json"
    path.write_bytes(content)
    done = agent(str(path))
    assert done.returncode == 1
    assert len(done.stderr.strip().splitlines()) == 1 and "Traceback" not in done.stderr
    assert done.stdout == ""


def test_decode_of_a_file_that_is_not_there_says_so(tmp_path: Path) -> None:
    done = agent(str(tmp_path / "gone.json"))
    assert done.returncode == 1 and "gone.json" in done.stderr
