"""A site enrolled as the README says: controller, token, one command at the site, and the agent is in."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

pytestmark = pytest.mark.system

BIN = Path(sys.executable).parent
ENV = {name: value for name, value in os.environ.items() if not name.startswith("GRIDPIVOT_")}


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def run(*words: object, text: str | None = None) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(list(map(str, words)), env=ENV, input=text, capture_output=True, text=True, timeout=50)
    assert "Traceback" not in done.stderr
    return done


class Site:
    """Places and processes of one test; everything started is ended by its pid."""

    def __init__(self, place: Path) -> None:
        self.place, self.started = place, []
        self.ports = [free_port() for _ in range(2)]
        self.config = place / "controller.toml"
        self.config.write_text(
            f'state_dir = "{place / "state"}"\n'
            f'[listen]\nhost = "127.0.0.1"\nsession_port = {self.ports[0]}\noperator_port = {self.ports[1]}\nhttp_port = 0\n'
            '[[sites]]\nname = "falcon-1"\nregion = "ercot"\nceiling_mw = 1\n'
        )
        self.agent_dir = place / "agent"
        (place / "agent.toml").write_text(f'site = "falcon-1"\nstate_dir = "{self.agent_dir}"\n[http]\nport = 0\n')

    def start(self, *words: object, until: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(list(map(str, words)), env=ENV, stderr=subprocess.PIPE, text=True)
        self.started.append(process)
        assert process.stderr is not None
        seen = []
        for line in process.stderr:
            seen.append(line)
            if until in line:
                return process
        raise AssertionError(seen)

    def controller(self, *words: object) -> subprocess.CompletedProcess[str]:
        return run(BIN / "gridpivot-controller", *words, "--config", self.config)

    def agent(self, *words: object, text: str | None = None) -> subprocess.CompletedProcess[str]:
        return run(BIN / "gridpivot-agent", *words, "--config", self.place / "agent.toml", text=text)

    def ctl(self, *words: object) -> subprocess.CompletedProcess[str]:
        state = self.place / "state"
        access = ("--controller", f"localhost:{self.ports[1]}", "--ca", state / "tls/ca.crt")
        return run(BIN / "gridpivot", *words, *access, "--token-file", state / "operator.token")


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    made = Site(tmp_path)
    yield made
    for process in made.started:
        process.kill()
        process.communicate()


def test_site_is_enrolled_runs_is_seen_and_is_thrown_out(site: Site) -> None:
    assert site.controller("init", "--host", "localhost", "--host", "127.0.0.1").returncode == 0
    site.start(BIN / "gridpivot-controller", "run", "--config", site.config, until="controller up")
    made = site.controller("agent-token", "create", "falcon-1", "--valid", "48h")
    assert made.returncode == 0, made.stderr
    (token,) = made.stdout.splitlines()
    done = site.agent("enroll", "--token-file", "-", text=token[:70] + "\n" + token[70:] + "\n")
    assert done.returncode == 0, done.stderr
    assert "enrolled" in done.stdout and token not in done.stdout
    assert (site.agent_dir / "tls/site.key").stat().st_mode & 0o077 == 0
    again = site.agent("enroll", "--token-file", "-", text=token)
    assert (again.returncode, "--force" in again.stderr) == (4, True)
    forced = site.agent("enroll", "--force", "--token-file", "-", text=token)
    assert (forced.returncode, "used already" in forced.stderr) == (4, True)
    listed = json.loads(site.controller("agent-token", "list", "--json").stdout)["tokens"]
    assert [t["state"] for t in listed] == ["used"]
    agent = site.start(BIN / "gridpivot-agent", "run", "--config", site.place / "agent.toml", until="agent up")
    deadline = time.monotonic() + 30
    while json.loads(site.ctl("site", "falcon-1", "--json").stdout)["link"] != "connected":
        assert time.monotonic() < deadline, "the agent never came"
        time.sleep(0.2)
    (identity,) = json.loads(site.ctl("identity", "list", "--json").stdout)["sites"]
    assert (identity["site"], identity["state"]) == ("falcon-1", "valid")
    thrown = site.ctl("identity", "revoke", "falcon-1", "--reason", "test")
    assert thrown.returncode == 0, thrown.stderr
    deadline = time.monotonic() + 8
    while json.loads(site.ctl("site", "falcon-1", "--json").stdout)["link"] == "connected":
        assert time.monotonic() < deadline, "the stream was not closed"
        time.sleep(0.2)
    assert "revocation" in site.ctl("audit").stdout
    agent.send_signal(signal.SIGTERM)
    assert agent.wait(timeout=20) == 0


def test_token_commands_refuse_in_one_line(site: Site) -> None:
    assert site.controller("init", "--host", "localhost").returncode == 0
    for words, code in (
        (("agent-token", "create", "no-such"), 4),
        (("agent-token", "create", "falcon-1", "--valid", "soon"), 2),
        (("agent-token", "create", "falcon-1", "--valid", "99d"), 2),
        (("agent-token", "revoke", "nothing"), 4),
        (("operator", "add", "Ann!", "--role", "viewer"), 2),
        (("operator", "revoke", "ann"), 4),
    ):
        done = site.controller(*words)
        assert (done.returncode, len(done.stderr.splitlines())) == (code, 1), (words, done.stderr)
    for text in ("", "gpt1.x", "hello"):
        done = site.agent("enroll", "--token-file", "-", text=text)
        assert (done.returncode, len(done.stderr.splitlines())) == (4, 1), done.stderr
    made = site.controller("operator", "add", "ann", "--role", "viewer")
    assert made.returncode == 0 and len(made.stdout.strip()) >= 40
    assert site.controller("operator", "add", "ann", "--role", "admin").returncode == 4
    shown = json.loads(site.controller("operator", "list", "--json").stdout)["operators"]
    assert [(o["name"], o["role"], o["by"]) for o in shown] == [("ann", "viewer", "token")]


def test_enrolment_without_a_controller_changes_nothing_and_says_where_it_failed(site: Site) -> None:
    assert site.controller("init", "--host", "localhost").returncode == 0
    token = site.controller("agent-token", "create", "falcon-1").stdout
    done = site.agent("enroll", "--token-file", "-", text=token)
    assert done.returncode == 3
    assert f"localhost:{site.ports[1]}" in done.stderr
    assert not (site.agent_dir / "tls/site.crt").exists()


def test_ca_from_outside_is_taken_and_one_that_is_none_is_refused(site: Site, tmp_path: Path) -> None:
    import datetime as dt

    from gridpivot.link.certificates import issue_site, make_authority

    authority = make_authority("outside", dt.datetime.now(dt.UTC))
    leaf = issue_site(authority, "outside", "falcon-1", dt.datetime.now(dt.UTC))
    (tmp_path / "ca.crt").write_bytes(authority.certificate_pem)
    (tmp_path / "ca.key").write_bytes(authority.key_pem)
    (tmp_path / "leaf.crt").write_bytes(leaf.chain_pem)
    (tmp_path / "leaf.key").write_bytes(leaf.key_pem)
    for name in ("ca.key", "leaf.key"):
        (tmp_path / name).chmod(0o600)
    for cert, key in (("leaf.crt", "leaf.key"), ("ca.crt", "leaf.key")):
        done = site.controller("init", "--ca-cert", tmp_path / cert, "--ca-key", tmp_path / key)
        assert (done.returncode, len(done.stderr.splitlines())) == (2, 1), done.stderr
    done = site.controller("init", "--ca-cert", tmp_path / "ca.crt", "--ca-key", tmp_path / "ca.key")
    assert done.returncode == 0, done.stderr
    assert (site.place / "state/tls/ca.crt").read_bytes() == authority.certificate_pem
