"""`gridpivot-agent` as a technician meets it: through its entry point, in processes, on a machine without anything."""

import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

pytestmark = pytest.mark.system

COMMAND = [sys.executable, "-c", "from agent.cli import main; main()"]
BARE = {"GRIDPIVOT_AGENT__SITE": "falcon-1", "GRIDPIVOT_AGENT__HTTP__PORT": "0"}


def environment(extra: dict[str, str]) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("GRIDPIVOT_")}
    return kept | extra


def agent(*arguments: object, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [*COMMAND, *map(str, arguments)],
        env=environment(BARE if env is None else env),
        capture_output=True,
        text=True,
        timeout=50,
    )
    assert "Traceback" not in done.stderr
    return done


class Running:
    """An agent that is up: its log so far, and where its metrics are."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process, self.log = process, []
        assert process.stderr is not None
        for line in process.stderr:
            self.log.append(json.loads(line))
            if self.log[-1]["event"] == "agent up":
                return
        raise AssertionError(self.log)

    def metrics(self) -> dict:
        with urllib.request.urlopen(self.log[-1]["http"], timeout=10) as answer:
            return {f.name: f for f in text_string_to_metric_families(answer.read().decode())}

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        _, rest = self.process.communicate(timeout=20)
        self.log += [json.loads(line) for line in rest.splitlines()]
        return self.process.returncode


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Callable[..., Running]]:
    """Starts agents; none outlives its test."""
    started: list[subprocess.Popen[str]] = []

    def start(state_dir: Path = tmp_path / "state", *arguments: object, **env: str) -> Running:
        command = [*COMMAND, "run", "--state-dir", str(state_dir), *map(str, arguments)]
        process = subprocess.Popen(command, env=environment(BARE | env), stderr=subprocess.PIPE, text=True)
        started.append(process)
        return Running(process)

    yield start
    for process in started:
        process.kill()
        process.communicate()


def until_status(state_dir: Path) -> None:
    """The first status is written after the first tick."""
    ends_s = time.monotonic() + 20
    while not (state_dir / "status.json").exists():
        assert time.monotonic() < ends_s, "no status was left"
        time.sleep(0.02)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_bare_machine_comes_up_says_what_it_lacks_reports_its_host_and_ends_clean(run, number: signal.Signals) -> None:
    up = run()
    missing = " ".join(line["what"] for line in up.log if line["event"] == "not found")
    assert all(word in missing for word in ("GPU", "miners", "meter", "controller"))
    found = up.metrics()
    assert found["gridpivot_host_memory_total_bytes"].samples[0].value > 0
    assert "gridpivot_host_disk_total_bytes" in found
    assert "gridpivot_site_ceiling_watts" not in found  # no circuit in settings: no figure
    assert found["gridpivot_agent_info"].samples[0].labels["site"] == "falcon-1"
    assert up.stop(number) == 0
    assert up.log[-1]["event"] == "agent down"


def test_second_agent_on_a_state_directory_is_refused_in_one_line(run, tmp_path: Path) -> None:
    first = run()
    done = agent("run", "--no-wait", "--state-dir", tmp_path / "state")
    assert done.returncode == 4
    assert done.stderr.splitlines() == [
        f"error: {tmp_path / 'state'}: another agent (pid {first.process.pid}) is running here; stop it first"
    ]
    assert first.stop() == 0
    assert run().stop() == 0


def test_taken_port_is_one_line(run, tmp_path: Path) -> None:
    port = run().log[-1]["http"].rsplit(":", 1)[1].split("/")[0]
    env = BARE | {"GRIDPIVOT_AGENT__HTTP__PORT": port}
    done = agent("run", "--state-dir", tmp_path / "other", env=env)
    assert done.returncode == 1
    assert "change http.port" in done.stderr.splitlines()[-1]


def test_status_works_before_during_and_after(run, tmp_path: Path) -> None:
    where = ("--state-dir", tmp_path / "state", "--json")
    never = json.loads(agent("status", *where).stdout)
    assert (never["running"], never["observed_at"]) == (False, None)
    up = run()
    until_status(tmp_path / "state")
    during = json.loads(agent("status", *where).stdout)
    assert (during["running"], during["stage"], during["live_ceiling_w"]) == (True, "observe", None)
    assert up.stop() == 0
    after = json.loads(agent("status", *where).stdout)
    assert not after["running"]
    assert after["observed_at"] >= during["observed_at"]
    assert "observe" in agent("status", *where[:-1]).stdout


def test_status_left_half_written_is_no_status(tmp_path: Path) -> None:
    (tmp_path / "status.json").write_text('{"site": "fal')
    assert json.loads(agent("status", "--state-dir", tmp_path, "--json").stdout)["running"] is False


GOOD = "[circuit]\nceiling_mw = 20\n"
FAULTY = {
    "unknown key": ("[governor]\nstaeg = 'full'\n", (":3:", "staeg", "stage")),
    "negative ceiling": ("[circuit]\nceiling_mw = -3\n", (":3:", "ceiling_mw")),
    "acting without a ceiling": ("[governor]\nstage = 'full'\n", ("[circuit]",)),
    "not TOML": ("[governor\n", ("not valid TOML",)),
}


def test_good_settings_are_called_good(tmp_path: Path) -> None:
    config = tmp_path / "agent.toml"
    config.write_text('site = "falcon-1"\n' + GOOD)
    done = agent("check-config", "-c", config, "--state-dir", tmp_path / "state", env={})
    assert (done.returncode, done.stderr) == (0, "")
    assert "settings are good" in done.stdout
    assert json.loads(agent("check-config", "-c", config, "--json", env={}).stdout)["ok"]


@pytest.mark.parametrize("fault", FAULTY)
def test_faulty_settings_are_one_line_with_place_and_remedy(tmp_path: Path, fault: str) -> None:
    text, words = FAULTY[fault]
    config = tmp_path / "agent.toml"
    config.write_text('site = "falcon-1"\n' + text)
    for command in ("check-config", "run") if fault == "unknown key" else ("check-config",):
        done = agent(command, "-c", config, "--state-dir", tmp_path / "state", env={})
        assert done.returncode == 2
        (line,) = done.stderr.splitlines()
        assert line.startswith(f"error: {config}")
        assert all(word in line for word in words), line


def test_agent_without_a_name_says_how_to_give_one(tmp_path: Path) -> None:
    done = agent("run", "--state-dir", tmp_path, env={})
    if done.returncode == 2:
        assert "GRIDPIVOT_AGENT__SITE" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_state_directory_that_cannot_be_made_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    done = agent("run", "--state-dir", tmp_path / "file" / "state")
    assert (done.returncode, len(done.stderr.splitlines())) == (2, 1)
    assert "--state-dir" in done.stderr


def test_missing_identity_is_one_line_and_not_a_crash(tmp_path: Path) -> None:
    env = BARE | {"GRIDPIVOT_AGENT__UPLINK__ADDRESS": "127.0.0.1:1"}
    done = agent("run", "--state-dir", tmp_path, env=env)
    assert done.returncode == 2
    assert "enrol this site" in done.stderr.splitlines()[-1]


def test_recorded_reply_is_decoded(shared_data: Path) -> None:
    done = agent("decode", shared_data / "asic_replies" / "asic-rs" / "whatsminer" / "v1")
    found = json.loads(done.stdout)
    assert (found["family"], found["power_w"], found["state"]) == ("whatsminer", 3427.0, "hashing")


@pytest.mark.parametrize("reply", [b"", b'{"STATUS":', b"[]", b"\xff\xfe"])
def test_reply_that_nobody_understands_is_one_line(tmp_path: Path, reply: bytes) -> None:
    (tmp_path / "summary.json").write_bytes(reply)
    done = agent("decode", tmp_path / "summary.json")
    assert done.returncode in (0, 1)
    assert len(done.stderr.splitlines()) == (1 if done.returncode else 0)


def test_missing_reply_is_one_line(tmp_path: Path) -> None:
    for path in (tmp_path / "nothing.json", tmp_path):
        done = agent("decode", path)
        assert (done.returncode, len(done.stderr.splitlines())) == (1, 1)


def test_doctor_finds_a_bare_machine_healthy_and_names_what_is_missing(tmp_path: Path) -> None:
    done = agent("doctor", "--json", "--state-dir", tmp_path)
    found = json.loads(done.stdout)
    outcomes = {check["name"]: check["outcome"] for check in found["checks"]}
    assert (done.returncode, found["ok"]) == (0, True)
    assert (outcomes["state directory"], outcomes["meter"], outcomes["identity"]) == ("ok", "warning", "skipped")
    assert "[meter]" in agent("doctor", "--state-dir", tmp_path).stdout


def test_doctor_fails_with_a_remedy_when_nobody_answers_and_no_identity_is_there(tmp_path: Path) -> None:
    env = BARE | {"GRIDPIVOT_AGENT__UPLINK__ADDRESS": "127.0.0.1:1"}
    done = agent("doctor", "--json", "--state-dir", tmp_path, env=env)
    failed = {c["name"]: c["remedy"] for c in json.loads(done.stdout)["checks"] if c["outcome"] == "failed"}
    assert done.returncode == 1
    assert set(failed) == {"identity", "controller"}
    assert all(failed.values())
