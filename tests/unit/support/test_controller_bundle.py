"""A bundle of a controller as `init` leaves it: no key, no token, no password of a feed."""

from __future__ import annotations

import asyncio
import gzip
import json
import tarfile
from pathlib import Path

import pytest

from controller.cli import app
from controller.store.store import Store
from gridpivot import console
from gridpivot.clock import SystemClock

pytestmark = pytest.mark.unit


async def opened(state: Path) -> None:
    store = await Store.open(state / "controller.db", SystemClock())
    await store.close()


def run(*words: str | Path) -> int:
    return console.exit_code(lambda: app(args=list(map(str, words))))


def test_no_secret_of_the_controller_is_in_its_bundle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    state, config, output = tmp_path / "state", tmp_path / "controller.toml", tmp_path / "out.tar.gz"
    config.write_text(
        f'state_dir = "{state}"\n[listen]\nhttp_port = 1\n'
        '[[sites]]\nname = "falcon-1"\nregion = "ercot"\nceiling_mw = 20\n'
    )
    assert run("init", "--config", config, "--host", "localhost") == 0
    monkeypatch.setenv("GRIDPIVOT_TOKEN", "planted-in-the-environment")
    token = (state / "operator.token").read_text().strip()
    keys = [line for p in state.rglob("*.key") for line in p.read_text().splitlines() if "-----" not in line]
    assert len(keys) >= 3
    config.write_text(config.read_text() + f"# was {token}, and {keys[0]}\n# planted-in-the-environment\n")
    assert run("support-bundle", "--config", config, "-o", output) == 0
    whole = gzip.decompress(output.read_bytes())
    for secret in (token, *keys, "planted-in-the-environment"):
        assert secret.encode() not in whole
    with tarfile.open(output) as tar:
        assert "out/store.json" not in tar.getnames()  # it never ran
        names = {Path(name).name for name in tar.getnames()}
        settings = tar.extractfile("out/settings.json")
        assert settings is not None and json.load(settings)["sites"][0]["name"] == "falcon-1"
    asyncio.run(opened(state))
    again = tmp_path / "again.tar.gz"
    assert run("support-bundle", "--config", config, "-o", again) == 0
    with tarfile.open(again) as tar:
        store = tar.extractfile("again/store.json")
        assert store is not None and json.load(store)["rows"]["site_energy"] == 0
    assert {"versions.json", "controller.toml", "settings.json", "left_out.json"} <= names
