"""What a site has to say stays on disk until the controller has it. Real SQLite in a real directory."""

import sqlite3
import time
from concurrent.futures import Future
from pathlib import Path

import pytest

from agent.uplink import spool as spool_module
from agent.uplink.spool import Spool
from agent.uplink.thinning import Bound
from gridpivot.errors import SpoolError
from gridpivot.link.lanes import Pending
from gridpivot.v1.session_pb2 import LANE_DEVICES, LANE_EVENTS, LANE_SITE

pytestmark = pytest.mark.unit


def on_disk(path: Path) -> list[tuple[int, int, bytes]]:
    database = sqlite3.connect(f"file:{path}?mode=ro", uri=True)
    try:
        return database.execute("SELECT lane, seq, payload FROM record ORDER BY lane, seq").fetchall()
    finally:
        database.close()


def few(records: int) -> Bound:
    return Bound(records, 2**20, 1e9)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "agent" / "spool.sqlite"


def test_record_is_announced_only_after_it_is_on_disk(open_spool, path: Path) -> None:
    watched, seen = open_spool(), []
    watched.at_announcement = lambda: seen.append(on_disk(path))
    assert watched.spool.append(LANE_EVENTS, 1, b"first", 5) == 1
    watched.until_durable(1)
    assert seen == [[(LANE_EVENTS, 1, b"first")]]
    assert watched.durable[0].seq == 1


def test_steady_stream_is_committed_while_it_goes_on(open_spool) -> None:
    watched = open_spool()
    ends_s = time.monotonic() + 15.0
    appended = 0
    while not watched.durable and time.monotonic() < ends_s:
        watched.spool.append(LANE_SITE, 2, b"roll-up", 0)
        appended += 1
        time.sleep(0.005)
    assert watched.durable, f"{appended} records and not one commit"


def test_sequence_numbers_go_on_after_reopening(open_spool) -> None:
    first = open_spool()
    assert [first.spool.append(LANE_SITE, 2, b"x", 0) for _ in range(3)] == [1, 2, 3]
    second = open_spool()
    assert second.spool.opened.boot_id == first.spool.opened.boot_id
    assert [(r.lane, r.seq) for r in second.spool.opened.pending] == [(LANE_SITE, n) for n in (1, 2, 3)]
    assert second.spool.append(LANE_SITE, 2, b"x", 0) == 4
    assert second.spool.append(LANE_EVENTS, 1, b"x", 0) == 1


def test_sequence_numbers_go_on_after_everything_was_acknowledged(open_spool) -> None:
    first = open_spool()
    first.spool.append(LANE_EVENTS, 1, b"a", 0)
    first.spool.append(LANE_EVENTS, 1, b"b", 0)
    first.until_durable(2)
    first.spool.delete(LANE_EVENTS, [1, 2])
    second = open_spool()
    assert second.spool.opened.pending == ()
    assert second.spool.append(LANE_EVENTS, 1, b"c", 0) == 3


def test_acknowledged_records_are_gone_and_the_others_stay(open_spool, path: Path) -> None:
    watched = open_spool()
    for _ in range(4):
        watched.spool.append(LANE_DEVICES, 3, b"table", 0)
    watched.until_durable(4)
    watched.spool.delete(LANE_DEVICES, [4, 2])
    watched.settle()
    assert [(lane, seq) for lane, seq, _ in on_disk(path) if lane == LANE_DEVICES] == [(3, 1), (3, 3)]
    assert watched.spool.fetch(Pending(LANE_DEVICES, 2, 0)).result(10) is None


def test_record_is_fetched_from_disk_when_memory_has_let_it_go(open_spool, monkeypatch) -> None:
    monkeypatch.setattr(spool_module, "CACHE_BYTES", 100)
    watched = open_spool()
    for number in range(5):
        watched.spool.append(LANE_EVENTS, 1, bytes([number]) * 90, 1000 + number)
    watched.until_durable(5)
    record = watched.spool.fetch(Pending(LANE_EVENTS, 1, 0)).result(10)
    assert (record.seq, record.spooled_at_unix_ms, record.kind, record.payload) == (1, 1000, 1, bytes(90))


def test_reader_that_gave_up_does_not_stop_the_spool(open_spool, monkeypatch) -> None:
    monkeypatch.setattr(spool_module, "CACHE_BYTES", 0)
    watched = open_spool()
    for number in range(3):
        watched.spool.append(LANE_EVENTS, 1, b"x", number)
    watched.until_durable(3)
    answers: list[Future] = [watched.spool.fetch(Pending(LANE_EVENTS, 1, 0)) for _ in range(50)]
    cancelled = [answer.cancel() for answer in answers]
    assert any(cancelled)
    watched.settle()


def test_unreadable_disk_is_an_error_and_not_a_missing_record(open_spool, monkeypatch) -> None:
    monkeypatch.setattr(spool_module, "CACHE_BYTES", 0)
    watched = open_spool()
    for _ in range(2):
        watched.spool.append(LANE_EVENTS, 1, b"x", 0)
    watched.until_durable(2)
    watched.spool._database.execute("ALTER TABLE record RENAME TO elsewhere")
    with pytest.raises(SpoolError, match="check the disk"):
        watched.spool.fetch(Pending(LANE_EVENTS, 1, 0)).result(10)


def test_refused_commit_is_said_keeps_records_and_deletions_and_is_made_good(open_spool, path: Path) -> None:
    watched = open_spool()
    watched.spool.append(LANE_EVENTS, 1, b"one", 0)
    watched.until_durable(1)
    watched.spool._database.execute("ALTER TABLE record RENAME TO elsewhere")
    watched.spool.append(LANE_EVENTS, 1, b"two", 0)
    watched.spool.delete(LANE_EVENTS, [1])
    ends_s = time.monotonic() + 15.0
    while watched.spool.degraded is None and time.monotonic() < ends_s:
        time.sleep(0.01)
    assert str(path) in watched.spool.degraded
    assert len(watched.durable) == 1
    repair = sqlite3.connect(path, timeout=10)
    repair.execute("ALTER TABLE elsewhere RENAME TO record")
    repair.close()
    watched.until_durable(2)  # nothing new was handed in: the spool tries again by itself
    assert [(seq, payload) for _, seq, payload in on_disk(path)] == [(2, b"two")]
    assert watched.spool.degraded is None


@pytest.mark.parametrize("damage", [b"this is not a database at all" * 50, None])
def test_damaged_file_is_set_aside_with_its_bytes_and_a_new_identity_begins(open_spool, path: Path, damage) -> None:
    first = open_spool()
    for number in range(200):
        first.spool.append(LANE_EVENTS, 1, bytes([number]) * 400, 0)
    first.spool.close()
    whole = path.read_bytes()
    bad = damage if damage is not None else whole[:4096] + b"\x99" * (len(whole) - 4096)
    path.write_bytes(bad)
    second = open_spool()
    assert second.spool.opened.set_aside.read_bytes() == bad
    assert second.spool.opened.boot_id != first.spool.opened.boot_id
    assert second.spool.opened.pending == ()
    assert second.spool.append(LANE_EVENTS, 1, b"x", 0) == 1
    second.until_durable(1)


def test_directory_that_cannot_be_made_means_a_spool_in_memory_that_says_so(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    announced: list[Pending] = []
    spool = Spool(tmp_path / "file" / "spool.sqlite", announced.extend, lambda lane, seqs: None)
    assert "in memory only" in spool.degraded
    spool.append(LANE_EVENTS, 1, b"x", 0)
    spool.close()
    assert [r.seq for r in announced] == [1]
    assert "in memory only" in spool.degraded


def test_read_only_file_is_not_called_damaged(open_spool, path: Path, tmp_path: Path) -> None:
    first = open_spool()
    first.spool.append(LANE_EVENTS, 1, b"precious", 0)
    first.spool.close()
    path.rename(tmp_path / "real.sqlite")
    path.mkdir()  # opening now fails as it does on a disk that refuses; even for root
    second = open_spool()
    assert second.spool.opened.set_aside is None
    assert second.spool.degraded is not None
    assert second.spool.opened.boot_id != first.spool.opened.boot_id
    assert [payload for *_, payload in on_disk(tmp_path / "real.sqlite")] == [b"precious"]


def test_devices_lose_the_oldest_site_is_thinned_events_stay_and_all_is_counted(open_spool, monkeypatch) -> None:
    monkeypatch.setattr(spool_module, "ON_DISK", {LANE_SITE: few(8), LANE_DEVICES: few(3)})
    watched = open_spool()
    for lane, kind in ((LANE_EVENTS, 1), (LANE_SITE, 2), (LANE_DEVICES, 3)):
        for _ in range(10):
            watched.spool.append(lane, kind, b"x", 0)
    watched.settle()
    watched.until(lambda: len(watched.dropped) >= 10)
    again = open_spool().spool
    held = {lane: [r.seq for r in again.opened.pending if r.lane == lane] for lane in (1, 2, 3)}
    assert len(held[LANE_EVENTS]) == 11
    assert held[LANE_DEVICES] == [8, 9, 10]
    assert len(held[LANE_SITE]) <= 8
    assert held[LANE_SITE][-4:] == [7, 8, 9, 10]
    total = watched.spool.dropped_total
    assert total == {LANE_EVENTS: 0, LANE_SITE: 10 - len(held[LANE_SITE]), LANE_DEVICES: 7}
    assert sorted(watched.dropped) == sorted(set(watched.dropped))


def test_memory_is_bounded_while_the_disk_refuses_but_events_stay(open_spool, monkeypatch) -> None:
    monkeypatch.setattr(spool_module, "IN_MEMORY", {LANE_SITE: few(8), LANE_DEVICES: few(3)})
    watched = open_spool()
    watched.spool._database.execute("ALTER TABLE record RENAME TO elsewhere")
    for lane, kind in ((LANE_EVENTS, 1), (LANE_SITE, 2), (LANE_DEVICES, 3)):
        for _ in range(10):
            watched.spool.append(lane, kind, b"x", 0)
    watched.until(lambda: len(watched.dropped) >= 7 + 2)
    watched.spool._database.execute("ALTER TABLE elsewhere RENAME TO record")
    watched.until(lambda: sum(r.lane == LANE_EVENTS for r in watched.durable) == 10)
    assert [r.seq for r in watched.durable if r.lane == LANE_DEVICES] == [8, 9, 10]
    assert watched.spool.dropped_total[LANE_EVENTS] == 0
    assert len(watched.dropped) == sum(watched.spool.dropped_total.values())
