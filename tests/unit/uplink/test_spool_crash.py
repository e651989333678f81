"""Power cuts: images of the spool's files taken while it writes, and a write-ahead log cut after its last synced frame."""

import os
import random
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from agent.uplink.spool import Spool
from gridpivot.v1.session_pb2 import LANE_EVENTS, LANE_SITE
from tests.unit.uplink.test_spool_process import WRITER, held

pytestmark = pytest.mark.system


def payload(seq: int) -> bytes:
    return b"%d" % (1000 * seq)


def image(path: Path, place: Path) -> Path:
    """Copy database and log as they lie there; the shared-memory index is not on the disk of a machine that lost power."""
    place.mkdir()
    for name in (path.name, path.name + "-wal"):
        if (path.parent / name).exists():
            shutil.copy(path.parent / name, place / name)
    return place / path.name


def complete(path: Path, announced: set[tuple[int, int]]) -> None:
    """Everything announced is there with its content, in an unbroken row; the spool opens it and goes on."""
    kept = held(path)
    assert announced <= kept.keys()
    assert all(content == payload(seq) for (_, seq), content in kept.items())
    for lane in (LANE_EVENTS, LANE_SITE):
        seqs = sorted(seq for its_lane, seq in kept if its_lane == lane)
        assert seqs == list(range(1, len(seqs) + 1))
    spool = Spool(path, lambda records: None, lambda lane, seqs: None)
    try:
        assert spool.opened.set_aside is None and spool.opened.refused is None
        assert {(r.lane, r.seq) for r in spool.opened.pending} == kept.keys()
    finally:
        spool.close()


def test_images_taken_while_it_writes_hold_everything_announced_before(tmp_path: Path) -> None:
    path, announced = tmp_path / "live" / "spool.sqlite", set()
    with subprocess.Popen([sys.executable, "-c", WRITER, str(path)], stdout=subprocess.PIPE, text=True) as process:
        try:
            process.stdout.readline()
            for number in range(5):
                for _ in range(150):
                    announced.add(tuple(map(int, process.stdout.readline().split())))
                os.kill(process.pid, signal.SIGSTOP)
                place = image(path, tmp_path / f"image-{number}")
                os.kill(process.pid, signal.SIGCONT)
                complete(place, set(announced))
        finally:
            os.kill(process.pid, signal.SIGKILL)
            process.stdout.read()


@pytest.mark.parametrize("seed", range(12))
def test_log_cut_anywhere_after_its_last_synced_frame_loses_nothing_announced(
    open_spool, tmp_path: Path, seed: int
) -> None:
    watched, chance = open_spool(), random.Random(seed)
    path = tmp_path / "agent" / "spool.sqlite"
    wal = path.with_name(path.name + "-wal")
    for seq in range(1, chance.randint(5, 60)):
        for lane in (LANE_EVENTS, LANE_SITE):
            watched.spool.append(lane, 1, payload(seq), 7)
        if chance.random() < 0.3:
            watched.until_durable(2 * seq)
    watched.until_durable(2 * seq)
    announced = {(record.lane, record.seq) for record in watched.durable}
    synced = wal.stat().st_size
    for more in range(seq + 1, seq + 40):  # written or not, synced or not: nobody was told
        for lane in (LANE_EVENTS, LANE_SITE):
            watched.spool.append(lane, 1, payload(more), 7)
    watched.until_durable(2 * (seq + 39))
    place = image(path, tmp_path / "image")
    cut = chance.randint(synced, wal.stat().st_size)
    with place.with_name(place.name + "-wal").open("r+b") as log:
        log.truncate(cut)
        if chance.random() < 0.5 and cut > synced:  # torn: the last sector holds something else
            log.seek(max(synced, cut - 512))
            log.write(chance.randbytes(min(512, cut - synced)))
    complete(place, announced)
