"""The controller as a process: init, run, answer, stop on SIGTERM with exit code 0, start again."""

import json
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

pytestmark = pytest.mark.system

COMMAND = [sys.executable, "-c", "from controller.cli import main; main()"]
SETTINGS = """\
[listen]
host = "127.0.0.1"
session_port = 0
operator_port = 0
http_port = 0

[[sites]]
name = "falcon-1"
region = "ercot"
ceiling_mw = 20
"""


def test_controller_runs_answers_and_stops_cleanly_twice(tmp_path: Path) -> None:
    config = tmp_path / "controller.toml"
    config.write_text(SETTINGS)
    where = ["-c", str(config), "--state-dir", str(tmp_path / "state")]
    subprocess.run([*COMMAND, "init", *where], check=True, capture_output=True, timeout=50)
    epochs = []
    for _ in range(2):
        with subprocess.Popen([*COMMAND, "run", *where], stderr=subprocess.PIPE, text=True) as process:
            try:
                assert process.stderr is not None
                up = next(line for line in map(json.loads, process.stderr) if line["event"] == "controller up")
                epochs.append(up["epoch"])
                with urllib.request.urlopen(f"http://127.0.0.1:{up['http']}/readyz", timeout=10) as answer:
                    assert answer.read() == b"ready\n"
                process.send_signal(signal.SIGTERM)
                assert process.wait(timeout=30) == 0
            finally:
                process.kill()
    assert epochs == [1, 2]
