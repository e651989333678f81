"""A disk that fills up, and kill -9: the spool in a process of its own."""

import json
import os
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.system

WRITER = """
import sys, time
from pathlib import Path
from agent.uplink.spool import Spool

told = 0

def durable(records):
    global told
    told += len(records)
    for record in records:
        sys.stdout.write(f"{record.lane} {record.seq}\\n")
    sys.stdout.flush()

spool = Spool(Path(sys.argv[1]), durable, lambda lane, seqs: None)
sys.stdout.write(spool.opened.boot_id.hex() + "\\n")
given = 0
while True:
    while given - told > 200:  # a writer that never waits would only measure memory
        time.sleep(0.001)
    given += 2
    for lane in (1, 2):
        seq = spool.append(lane, lane, b"%d" % (1000 * (spool.last_seq[lane] + 1)), 7)
"""

FULL = """
import json, resource, sys, threading, time
from pathlib import Path
from agent.uplink.spool import Spool
from gridpivot.link.lanes import Pending

announced, done = [], threading.Event()
spool = Spool(Path(sys.argv[1]), lambda records: announced.extend(r.seq for r in records), lambda lane, seqs: None)

def until(condition):
    ends = time.monotonic() + 20
    while not condition() and time.monotonic() < ends:
        time.sleep(0.01)
    return condition()

spool.append(1, 1, b"before", 0)
found = {"before": until(lambda: announced == [1])}
hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
resource.setrlimit(resource.RLIMIT_FSIZE, (Path(sys.argv[1] + "-wal").stat().st_size + 10, hard))
for _ in range(50):
    spool.append(1, 1, b"full" * 2000, 0)
found["said"] = until(lambda: spool.degraded is not None) and spool.degraded
found["announced_while_full"] = len(announced)
found["in_memory"] = spool.fetch(Pending(1, 51, 0)).result(10) is not None
resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
found["recovered"] = until(lambda: announced == list(range(1, 52)))
found["degraded_after"] = spool.degraded
spool.close()
print(json.dumps(found))
"""


def held(path: Path) -> dict[tuple[int, int], bytes]:
    database = sqlite3.connect(path)
    try:
        return {
            (lane, seq): payload for lane, seq, payload in database.execute("SELECT lane, seq, payload FROM record")
        }
    finally:
        database.close()


def test_kill_loses_no_record_that_was_announced_durable(tmp_path: Path) -> None:
    path, boots, announced = tmp_path / "spool.sqlite", set(), set()
    for _ in range(2):
        with subprocess.Popen([sys.executable, "-c", WRITER, str(path)], stdout=subprocess.PIPE, text=True) as process:
            try:
                boots.add(process.stdout.readline().strip())
                for _ in range(400):
                    announced.add(tuple(map(int, process.stdout.readline().split())))
            finally:
                os.kill(process.pid, signal.SIGKILL)
            announced |= {tuple(map(int, line.split())) for line in process.stdout if line.count(" ") and "\n" in line}
    kept = held(path)
    assert len(boots) == 1
    assert announced <= kept.keys()
    assert all(payload == b"%d" % (1000 * seq) for (_, seq), payload in kept.items())
    for lane in (1, 2):
        seqs = sorted(seq for its_lane, seq in kept if its_lane == lane)
        assert seqs == list(range(1, len(seqs) + 1))


def test_full_disk_is_said_keeps_records_in_memory_and_recovers(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", FULL, str(tmp_path / "spool.sqlite")], capture_output=True, text=True, timeout=50
    )
    assert done.stderr == ""
    found = json.loads(done.stdout)
    assert found["before"]
    assert "spool.sqlite" in found["said"]
    assert found["announced_while_full"] == 1
    assert found["in_memory"]
    assert found["recovered"]
    assert found["degraded_after"] is None
