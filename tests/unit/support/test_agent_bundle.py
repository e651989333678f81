"""A bundle of an agent in whose every corner a secret was planted: none of them is in it."""

from __future__ import annotations

import gzip
import json
import stat
import tarfile
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from agent.cli import app
from gridpivot import console
from gridpivot.plan import sign
from gridpivot.v1 import plan_pb2

pytestmark = pytest.mark.unit

PLANTED = {
    "environment": "planted-in-the-environment",
    "config": "planted-in-settings",
    "password file": "planted-in-a-password-file",
    "credentials of the site": "planted-in-credentials-site",
    "credentials of a device": 'planted-in-"credentials"-device',
    "operator token": "Pl4ntedT0kenOf256BitsAsTheControllerMakesThem",
    "enrolment token": "gpt1.cGxhbnRlZA.planted",
    "bearer": "planted-bearer-token",
    "inventory": "planted-in-the-inventory",
    "url": "planted-in-a-url",
}


def private(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(0o600)
    return path


@pytest.fixture
def planted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, dict[str, str]]:
    """A site whose settings, files and environment hold secrets, and whose status, plan, locks and log repeat them."""
    key = Ed25519PrivateKey.generate()
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
    known = PLANTED | {"site key": pem.splitlines()[1]}
    state, programs = tmp_path / "state", tmp_path / "bin"
    private(state / "tls/site.key", pem)
    private(state / "operator.token", known["operator token"] + "\n")
    told = " and ".join(known.values())
    monkeypatch.setenv("GRIDPIVOT_AGENT__ASIC__CREDENTIALS__LUXOS__PASSWORD", known["environment"])
    private(tmp_path / "whatsminer.password", known["password file"] + "\n")
    device = json.dumps(known["credentials of a device"])
    private(
        tmp_path / "credentials.toml",
        f'[[site]]\nusername = "root"\npassword = "{known["credentials of the site"]}"\n'
        f'[[device."02:00:00:00:01:11"]]\nusername = "root"\npassword = {device}\n',
    )
    private(tmp_path / "miners.toml", f'devices = "miners.csv"\npassword = "{known["inventory"]}"\n')
    config = tmp_path / "agent.toml"
    config.write_text(
        f"""# Authorization: Bearer {known["bearer"]}; http://admin:{known["url"]}@10.0.0.1/
site = "falcon-1"
state_dir = "{state}"
[asic]
inventory = "{tmp_path / "miners.toml"}"
credentials_file = "{tmp_path / "credentials.toml"}"
[asic.credentials.whatsminer]
password_file = "{tmp_path / "whatsminer.password"}"
[asic.credentials.antminer]
password = "{known["config"]}"
[http]
port = 1
"""
    )
    repeated = {k: v for k, v in known.items() if k not in ("bearer", "url")}
    said = " and ".join(repeated.values()) + f" Bearer {known['bearer']} http://admin:{known['url']}@10.0.0.1/"
    (state / "status.json").write_text(json.dumps({"site": "falcon-1", "notes": [said], "token": told}))
    (state / "locks.json").write_text(json.dumps({"locks": [{"reason": said}]}))
    plan = plan_pb2.Plan(site="falcon-1", epoch=3, version=7, ceiling_w=2e7, reason=said)
    (state / "plan.pb").write_bytes(sign(plan, key, "k1").SerializeToString())
    programs.mkdir()
    log = programs / "journalctl"
    escaped = json.dumps({"event": "plan", "reason": said, "password": told})
    (tmp_path / "journal.txt").write_text(f"{escaped}\n{said}\n{pem}\nlast line\n")
    log.write_text(f"#!/bin/sh\ncat {tmp_path / 'journal.txt'}\n")
    log.chmod(0o755)
    monkeypatch.setenv("PATH", str(programs), prepend=":")
    return config, known


def unpacked(path: Path) -> dict[str, bytes]:
    with tarfile.open(path) as tar:
        found = {}
        for member in tar.getmembers():
            file = tar.extractfile(member)
            assert file is not None
            found[member.name.split("/", 1)[1]] = file.read()
        return found


def bundle(config: Path, output: Path, *more: str) -> int:
    words = ["support-bundle", "--config", str(config), "--output", str(output), *more]
    return console.exit_code(lambda: app(args=words))


def test_no_secret_of_this_machine_is_in_the_bundle(planted: tuple[Path, dict[str, str]], tmp_path: Path) -> None:
    config, known = planted
    output = tmp_path / "out.tar.gz"
    assert bundle(config, output) == 0
    parts = unpacked(output)
    whole = gzip.decompress(output.read_bytes())
    for place, secret in known.items():
        assert secret.encode() not in whole, place
        assert json.dumps(secret)[1:-1].encode() not in whole, place
        for name, content in parts.items():
            assert secret[:20].encode() not in content, (place, name)


def test_bundle_holds_what_a_helper_needs(planted: tuple[Path, dict[str, str]], tmp_path: Path) -> None:
    config, _ = planted
    output = tmp_path / "out.tar.gz"
    assert bundle(config, output) == 0
    assert stat.S_IMODE(output.stat().st_mode) == 0o600
    parts = unpacked(output)
    assert {"versions.json", "agent.toml", "settings.json", "doctor.json", "status.json", "locks.json", "plan.json",
            "environment.json", "state_dir.json", "gridpivot-agent.log", "left_out.json"} <= set(parts)  # fmt: skip
    assert json.loads(parts["settings.json"])["site"] == "falcon-1"
    assert json.loads(parts["plan.json"])["plan"]["ceiling_w"] == 2e7
    assert b"last line" in parts["gridpivot-agent.log"]
    assert "metrics.txt" in json.loads(parts["left_out.json"])  # nobody listens there
    assert not any("credentials.toml" in name or name.endswith((".key", ".token")) for name in parts)


def test_bundle_never_overwrites(planted: tuple[Path, dict[str, str]], tmp_path: Path) -> None:
    config, _ = planted
    output = private(tmp_path / "out.tar.gz", "mine")
    assert bundle(config, output) == 4
    assert output.read_text() == "mine"


def test_settings_that_cannot_be_read_still_make_a_bundle_without_secrets(
    planted: tuple[Path, dict[str, str]], tmp_path: Path
) -> None:
    config, known = planted
    config.write_text(config.read_text() + '\nbroken = [\n[asic.credentials.vnish]\npassword = """\nplanted-late\n')
    output = tmp_path / "out.tar.gz"
    assert bundle(config, output, "--state-dir", str(tmp_path / "state")) == 0
    parts = unpacked(output)
    for name, content in parts.items():
        for place in ("environment", "config", "operator token", "site key", "enrolment token", "bearer", "url"):
            assert known[place][:20].encode() not in content, (place, name)
        assert b"planted-late" not in content
    assert b"agent.toml" in parts["settings.txt"]
