"""Maintenance locks: what they mean, that they last, that a file in trouble frees nobody, that nothing is sent."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable
from pathlib import Path

import numpy as np
import pytest

from agent.asic.inventory_file import DeviceRow
from agent.asic.locks import (
    FILE,
    LockKind,
    LockWatch,
    Target,
    clear_locks,
    covers,
    locked_rows,
    parse_target,
    read_locks,
    set_locks,
)
from agent.asic.poller import AsicPoller
from agent.asic.settings import AsicSettings
from agent.asic.transport import Endpoint
from gridpivot.clock import SystemClock
from gridpivot.columns import DeviceTable
from gridpivot.errors import GridpivotError, SettingsError
from gridpivot.vocabulary import Mode, Reason
from sim.miners.fault import WireFault
from sim.miners.fleet import WireMiners

pytestmark = pytest.mark.unit
Until = Callable[..., Awaitable[None]]

ROWS = (
    DeviceRow(Endpoint("10.0.0.1"), "m50", "A", "02:00:00:00:00:01", container="C1", pdu="P1", rack="R1"),
    DeviceRow(Endpoint("10.0.0.2"), "m50", "A", "02:00:00:00:00:AA", container="C1", pdu="P2", rack="R1"),
    DeviceRow(Endpoint("10.0.0.3"), "m50", "B", "", container="C2", pdu="P3", rack="R2"),
)


@pytest.mark.parametrize(
    ("text", "rows"),
    [
        ("10.0.0.1", [True, False, False]),
        ("02:00:00:00:00:aa", [False, True, False]),
        ("02-00-00-00-00-AA", [False, True, False]),
        ("10.0.0.3", [False, False, True]),
        ("rack:R1", [True, True, False]),
        ("pdu:P2", [False, True, False]),
        ("container:C2", [False, False, True]),
        ("feeder:A", [True, True, False]),
        ("rack:nowhere", [False, False, False]),
    ],
)
def test_target_means_these_rows(text: str, rows: list[bool]) -> None:
    assert covers(parse_target(text, ROWS), ROWS).tolist() == rows


@pytest.mark.parametrize("text", ["", "rack:", "a b", "../x", "rack:" + "x" * 300])
def test_target_that_means_nothing_is_refused(text: str) -> None:
    with pytest.raises(SettingsError):
        parse_target(text, ROWS)


def test_a_device_locked_by_address_stays_locked_under_its_next_lease() -> None:
    target = parse_target("10.0.0.1", ROWS)
    assert target.mac == "02:00:00:00:00:01"
    moved = (DeviceRow(Endpoint("10.0.0.9"), "m50", "A", "02:00:00:00:00:01"), ROWS[1])
    assert covers(target, moved).tolist() == [True, False]


def test_a_device_whose_mac_left_the_inventory_is_held_by_its_address() -> None:
    """A control board is exchanged while somebody works on the machine: it must not become free by that."""
    target = parse_target("10.0.0.1", ROWS)
    exchanged = (DeviceRow(Endpoint("10.0.0.1"), "m50", "A", "02:00:00:00:00:77"), ROWS[1])
    assert covers(target, exchanged).tolist() == [True, False]


def test_locks_last_name_their_owner_and_the_first_one_counts(tmp_path: Path) -> None:
    rack = parse_target("rack:R1")
    assert len(set_locks(tmp_path, [rack, rack], "ana", 100.0, "fan change")) == 1
    assert set_locks(tmp_path, [rack], "bob", 200.0) == []
    (held,) = read_locks(tmp_path)
    assert (held.target, held.by, held.set_at_s, held.reason) == (rack, "ana", 100.0, "fan change")
    assert clear_locks(tmp_path, [parse_target("rack:R2")]) == []
    assert clear_locks(tmp_path, [rack]) == [held]
    assert read_locks(tmp_path) == ()
    assert (tmp_path / FILE).exists()  # an empty list, so that a missing file is never our own doing


def test_device_lock_is_cleared_by_host_or_mac(tmp_path: Path) -> None:
    set_locks(tmp_path, [parse_target("10.0.0.1", ROWS)], "ana", 1.0)
    assert len(clear_locks(tmp_path, [parse_target("02:00:00:00:00:01")])) == 1


def test_lock_is_synced_to_disk_before_it_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[Path] = []
    real = os.fsync
    monkeypatch.setattr(
        os, "fsync", lambda number: (synced.append(Path(f"/proc/self/fd/{number}").readlink()), real(number))
    )
    set_locks(tmp_path, [parse_target("rack:R1")], "ana", 1.0)
    assert [path.name for path in synced] == [f"{FILE}.new", tmp_path.name]


def test_a_directory_that_cannot_be_written_is_an_error_with_a_remedy(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(GridpivotError, match="unchanged"):
        set_locks(tmp_path / "file", [parse_target("rack:R1")], "ana", 1.0)


def test_watch_sees_each_change_once(tmp_path: Path) -> None:
    watch = LockWatch(tmp_path)
    assert not watch.look() and not watch.mask(ROWS).any()
    set_locks(tmp_path, [parse_target("rack:R1")], "ana", 1.0)
    change = watch.look()
    assert [str(lock.target) for lock in change.set] == ["rack:R1"]
    assert not watch.look()
    assert watch.mask(ROWS).tolist() == [True, True, False]
    clear_locks(tmp_path, [parse_target("rack:R1")])
    assert [str(lock.target) for lock in watch.look().cleared] == ["rack:R1"]
    assert not watch.mask(ROWS).any()


@pytest.mark.parametrize("garbage", [b"", b"{", b"[]", b'{"locks":[{"kind":"shelf"}]}', b"\xff", b'{"locks":3}'])
def test_unreadable_file_keeps_the_last_known_locks_and_is_said_once(tmp_path: Path, garbage: bytes) -> None:
    set_locks(tmp_path, [parse_target("rack:R1")], "ana", 1.0)
    watch = LockWatch(tmp_path)
    watch.look()
    (tmp_path / FILE).write_bytes(garbage)
    assert FILE in watch.look().trouble
    assert not watch.look()
    assert watch.mask(ROWS).tolist() == [True, True, False]
    (tmp_path / FILE).write_text('{"locks": []}')
    change = watch.look()
    assert change.mended and len(change.cleared) == 1 and not watch.mask(ROWS).any()


def test_a_file_that_vanished_frees_nobody(tmp_path: Path) -> None:
    set_locks(tmp_path, [parse_target("rack:R1")], "ana", 1.0)
    watch = LockWatch(tmp_path)
    watch.look()
    (tmp_path / FILE).unlink()
    assert "is gone" in watch.look().trouble
    assert watch.mask(ROWS).tolist() == [True, True, False]


def test_before_any_file_could_be_read_everything_is_locked(tmp_path: Path) -> None:
    (tmp_path / FILE).write_text("not json")
    watch = LockWatch(tmp_path)
    assert watch.look().trouble
    assert not watch.look()
    assert watch.everything and watch.mask(ROWS).all()
    (tmp_path / FILE).write_text('{"locks": []}')
    assert watch.look().mended and not watch.mask(ROWS).any()


def test_no_lock_locks_nothing() -> None:
    assert not locked_rows((), ROWS).any()
    assert Target(LockKind.RACK, "R1").mac == ""


async def test_locked_device_is_sent_no_command_not_even_a_waiting_retry(until: Until) -> None:
    import asyncio

    settings = AsicSettings(beat_s=0.2, deadline_s=0.3, command_backoff_s=0.3, command_attempts=10)
    async with WireMiners(2, {"s21-luxos": 1}) as fleet:
        poller = AsicPoller(fleet.inventory(), settings, fleet.logins())
        task = asyncio.create_task(poller.run())
        table, polled_at_s = DeviceTable(2), np.full(2, np.nan)

        def reasons() -> list[Reason]:
            poller.refresh(table, polled_at_s, SystemClock().now())
            return [Reason.of(code) for code in table["reason"].tolist()]

        def last(row: int) -> Reason:
            held = poller.last_command(row)
            return Reason.NONE if held is None or held.ended_s is None else held.reason

        try:
            fleet.miners[0].fault = WireFault.SILENT
            poller.command(np.array([0]), Mode.SLEEP, SystemClock().now())
            await until(lambda: poller.last_command(0).attempts >= 1)  # type: ignore[union-attr]
            poller.set_locked(np.array([True, False]))
            fleet.miners[0].fault = WireFault.NONE
            await until(lambda: last(0) is Reason.LOCKED)
            await until(lambda: reasons()[0] is Reason.LOCKED)
            poller.command(np.array([0, 1]), Mode.SLEEP, SystemClock().now())
            await until(lambda: fleet.miners[1].machine.mode is Mode.SLEEP)
            assert last(0) is Reason.LOCKED and fleet.miners[0].machine.mode is Mode.NORMAL
            assert reasons()[1] is Reason.NONE or reasons()[1] is Reason.WAKING
            poller.set_locked(np.zeros(2, dtype=np.bool_))
            poller.command(np.array([0]), Mode.SLEEP, SystemClock().now())
            await until(lambda: fleet.miners[0].machine.mode is Mode.SLEEP)
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
