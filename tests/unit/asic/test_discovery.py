"""Ranges, looking at simulated miners on loopback addresses of their own, and the inventory that comes of it."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from agent.asic.catalog import Catalogue, catalogue
from agent.asic.family import Login
from agent.asic.inventory import build_inventory
from agent.asic.inventory_file import DeviceRow, InventoryFile
from agent.asic.patrol import LockKeeper, Patrol
from agent.asic.poller import AsicPoller
from agent.asic.probing import Finding, Probing, search
from agent.asic.ranges import addresses, parse_ranges
from agent.asic.settings import AsicSettings
from agent.asic.transport import Endpoint
from gridpivot.clock import SystemClock
from gridpivot.errors import SettingsError
from gridpivot.vocabulary import EventKind, Reason
from sim.miners.fault import WireFault
from sim.miners.fleet import WireMiners
from sim.miners.wire import WireMiner

pytestmark = pytest.mark.unit
Until = Callable[..., Awaitable[None]]
QUICK = Probing(deadline_s=1.0, knock_s=0.5, concurrency=64)


async def looked(*ranges: str, probing: Probing = QUICK) -> list[Finding]:
    return await search(addresses(parse_ranges(ranges)), probing, lambda _: None)


@pytest.mark.parametrize(
    ("texts", "count", "first", "last"),
    [
        (["127.20.0.0/16"], 65_534, "127.20.0.1", "127.20.255.254"),
        (["10.0.0.0/31"], 2, "10.0.0.0", "10.0.0.1"),
        (["10.0.0.7"], 1, "10.0.0.7", "10.0.0.7"),
        (["10.0.0.250-10.0.1.5"], 12, "10.0.0.250", "10.0.1.5"),
        (["10.0.0.10-19", "10.0.0.15-25", "10.0.0.26"], 17, "10.0.0.10", "10.0.0.26"),
    ],
)
def test_ranges_hold_each_address_once(texts: list[str], count: int, first: str, last: str) -> None:
    ranges = parse_ranges(texts)
    hosts = list(addresses(ranges))
    assert (sum(map(len, ranges)), len(set(hosts)), hosts[0], hosts[-1]) == (count, count, first, last)


@pytest.mark.parametrize("text", ["", "10.0.0", "10.0.0.0/33", "10.0.0.9-10.0.0.1", "::1", "miner", "10.0.0.1-300"])
def test_what_is_no_range_is_one_line_with_a_remedy(text: str) -> None:
    with pytest.raises(SettingsError) as caught:
        parse_ranges([text])
    assert len(str(caught.value).splitlines()) == 1 and ";" in str(caught.value)


def port_is_free(host: str, port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
    return True


@asynccontextmanager
async def standing(count: int, net: str) -> AsyncIterator[list[WireMiner]]:
    """Miners on the firmwares' own ports, one loopback address each: net.1, net.2, ..."""
    miners = WireMiners(count).miners
    try:
        for number, miner in enumerate(miners, start=1):
            assert port_is_free(f"{net}.{number}", 4028)
            await miner.start(f"{net}.{number}", 4028, 80)
        yield miners
    finally:
        for miner in miners:
            await miner.stop()


async def test_a_look_tells_families_models_and_macs_and_lists_what_is_no_miner() -> None:
    async with standing(5, "127.20.1") as miners:
        printer = await asyncio.start_server(lambda _, writer: writer.close(), "127.20.1.9", 80)
        done: list[Finding | None] = []
        found = await search(addresses(parse_ranges(["127.20.1.0/28"])), QUICK, done.append)
        printer.close()
        assert len(done) == 14 and [entry for entry in done if entry is None] == [None] * 8
        by_host = {entry.host: entry for entry in found}
        assert list(by_host) == [f"127.20.1.{number}" for number in (1, 2, 3, 4, 5, 9)]
        for miner in miners:
            entry = by_host[miner.host]
            assert (entry.family, entry.model) == (miner.family, miner.kind.model)
            assert entry.firmware and entry.hashrate_hs
            assert entry.mac in (None, miner.mac.lower())
            assert entry.mac or miner.family == "antminer"  # asks for a password before it tells
        assert by_host["127.20.1.9"].family is None and "80" in by_host["127.20.1.9"].note


async def test_a_look_sends_no_password_unless_it_was_given_one() -> None:
    async with standing(5, "127.20.2") as miners:
        stock = next(miner for miner in miners if miner.family == "antminer")
        (shy,) = await looked(stock.host)
        assert Reason.NO_CREDENTIALS in shy.note and shy.mac is None
        (open_,) = await looked(stock.host, probing=Probing(1.0, 0.5, 4, logins={"antminer": Login("root", "root")}))
        assert open_.note == ""


@pytest.mark.parametrize("fault", [WireFault.SILENT, WireFault.GARBAGE, WireFault.TRUNCATED])
async def test_a_miner_that_misbehaves_is_listed_and_costs_nobody_else(fault: WireFault) -> None:
    async with standing(3, "127.20.3") as miners:
        miners[0].fault = fault
        found = await looked("127.20.3.0/29", probing=Probing(0.3, 0.3, 16))
        assert [entry.host for entry in found] == [miner.host for miner in miners]
        assert [entry.family for entry in found[1:]] == [miner.family for miner in miners[1:]]


# -- the inventory -------------------------------------------------------------------------------------------------


def finding(number: int, host: int, family: str = "luxos", model: str = "Antminer S21") -> Finding:
    return Finding(
        f"10.0.0.{host}",
        family,
        model,
        "1",
        f"02:00:00:00:00:{number:02x}",
        None,
        True,
        power_w=3400.0,
        hashrate_hs=2e14,
    )


HEADER = InventoryFile.model_validate(
    {"devices": "m.csv", "feeders": ["A", "B", "main"], "class": {"best": {"family": "luxos", "model": "Antminer S21"}}}
)
ROWS = (
    DeviceRow(Endpoint("10.0.0.1"), "best", "B", "02:00:00:00:00:01", True, "C1", "P1", "R1"),
    DeviceRow(Endpoint("10.0.0.2", 4029), "best", "A", "02:00:00:00:00:02", False, "C1", "P1", "R2"),
    DeviceRow(Endpoint("10.0.0.3"), "best", "A", "", False, "C1", "P2", "R3"),
)


def merged(*findings: Finding) -> Catalogue:
    found = catalogue(findings, HEADER.classes, ROWS, Endpoint(""))
    # What is written must load again, whatever was found.
    build_inventory(HEADER.model_copy(update={"classes": found.classes}), found.rows)
    return found


def test_what_a_hand_wrote_stays_when_devices_exchange_addresses_and_new_ones_come() -> None:
    found = merged(finding(1, 2), finding(2, 1), finding(3, 3), finding(4, 4, "whatsminer", "Whatsminer M60"))
    one, two, three, four = found.rows
    assert one == replace(ROWS[0], endpoint=Endpoint("10.0.0.2"))
    assert two == replace(ROWS[1], endpoint=Endpoint("10.0.0.1", 4029))
    assert three == replace(ROWS[2], mac="02:00:00:00:00:03")
    assert (four.class_name, four.feeder, four.mac) == ("m60-whatsminer", "main", "02:00:00:00:00:04")
    assert (found.added, found.moved, found.swapped) == (1, 2, 0)


def test_a_second_look_changes_nothing() -> None:
    assert merged(finding(1, 1), finding(2, 2)).rows == ROWS


def test_a_machine_in_the_place_of_a_missing_one_takes_its_feeder_rack_and_lock() -> None:
    first = merged(finding(9, 1, "whatsminer", "Whatsminer M60")).rows[0]
    assert (first.mac, first.class_name, first.feeder, first.rack, first.maintenance) == (
        "02:00:00:00:00:09",
        "m60-whatsminer",
        "B",
        "R1",
        True,
    )


def test_a_device_that_moved_to_the_address_of_a_missing_one_leaves_an_inventory_that_loads() -> None:
    found = merged(finding(1, 2))
    assert [row.mac for row in found.rows] == ["02:00:00:00:00:01", ""]
    assert [row.mac for row in found.displaced] == ["02:00:00:00:00:02"]


def test_devices_that_did_not_answer_stay() -> None:
    assert merged().rows == ROWS


# -- in the running agent ------------------------------------------------------------------------------------------


async def test_a_running_poller_follows_its_devices_to_new_leases_and_says_what_is_new(
    until: Until,
) -> None:
    async with standing(5, "127.20.5") as miners:
        found = catalogue(await looked("127.20.5.0/28"), {}, (), Endpoint(""))
        header = InventoryFile.model_validate({"devices": "m.csv", "class": dict(found.classes)})
        settings = AsicSettings.model_validate(
            {"beat_s": 0.2, "deadline_s": 0.5, "discovery": {"ranges": ["127.20.5.0/27"], "rate_per_s": 5000}}
        )
        poller = AsicPoller(build_inventory(header, found.rows), settings, {})
        patrol = Patrol(settings, poller, SystemClock())
        said: list[tuple[EventKind, str]] = []
        task = asyncio.create_task(poller.run())
        try:
            await until(lambda: all(poller.facts(row) for row in range(5)))
            await patrol.look(lambda kind, message: said.append((kind, message)))
            assert said == []
            mover = next(miner for miner in miners if miner.family == "luxos")
            row = next(n for n, held in enumerate(poller.inventory.rows) if held.mac == mover.mac.lower())
            await mover.stop()
            await mover.start("127.20.5.20", 4028, 80)
            extra = WireMiners(1, {"m60-whatsminer": 1}, seed=9).miners[0]
            await extra.start("127.20.5.21", 4028, 80)
            await until(lambda: not patrol_sees(patrol, row))
            await patrol.look(lambda kind, message: said.append((kind, message)))
            assert sorted(kind for kind, _ in said) == [EventKind.DEVICE_FOUND, EventKind.DEVICE_MOVED]
            assert poller.endpoint(row).host == "127.20.5.20"
            await until(lambda: patrol_sees(patrol, row))
            await extra.stop()
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


def patrol_sees(patrol: Patrol, row: int) -> bool:
    patrol._glance()
    return bool(patrol._answering()[row])


async def test_locks_are_in_force_before_the_first_command_and_followed_within_two_seconds(
    tmp_path: Path, until: Until
) -> None:
    from agent.asic.locks import clear_locks, parse_target, set_locks

    async with WireMiners(2, {"s21-luxos": 1}) as fleet:
        poller = AsicPoller(fleet.inventory(), AsicSettings(), {})
        feeder = parse_target("feeder:A")
        set_locks(tmp_path, [feeder], "ana", 1.0)
        keeper = LockKeeper(tmp_path, poller)
        assert poller._locked.tolist() == [True, False]
        said: list[EventKind] = []
        task = asyncio.create_task(keeper.run(lambda kind, _: said.append(kind)))
        try:
            clear_locks(tmp_path, [feeder])
            await until(lambda: not poller._locked.any(), deadline_s=2.0)
            set_locks(tmp_path, [feeder], "ana", 2.0)
            await until(lambda: bool(poller._locked.any()), deadline_s=2.0)
            assert said == [EventKind.LOCK_CLEARED, EventKind.LOCK_SET]
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


async def test_a_silent_device_brings_the_next_look_forward_once(until: Until) -> None:
    async with WireMiners(2, {"s21-luxos": 1}) as fleet:
        settings = AsicSettings.model_validate(
            {"beat_s": 0.2, "deadline_s": 0.3, "discovery": {"ranges": ["127.20.6.0/30"]}}
        )
        poller = AsicPoller(fleet.inventory(), settings, {})
        patrol = Patrol(settings, poller, SystemClock())
        task = asyncio.create_task(poller.run())
        try:
            await until(lambda: patrol_sees(patrol, 0) and patrol_sees(patrol, 1))
            assert [patrol._wants_look() for _ in range(4)] == [False] * 4
            fleet.miners[0].fault = WireFault.SILENT
            await until(lambda: not patrol_sees(patrol, 0))
            assert [patrol._wants_look() for _ in range(3)] == [False, False, True]
            patrol._looked_for |= patrol._glances >= 3
            assert not patrol._wants_look()
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


async def test_a_changed_credentials_file_is_taken_and_a_bad_one_left_aside(
    tmp_path: Path, until: Until, monkeypatch: pytest.MonkeyPatch
) -> None:
    from agent.asic import patrol

    monkeypatch.setattr(patrol, "CREDENTIALS_LOOK_S", 0.02)
    path = tmp_path / "credentials.toml"

    def write(text: str) -> None:
        path.write_text(text)
        path.chmod(0o600)

    write('[[site]]\nusername = "root"\npassword = "one"\n')
    settings = AsicSettings.model_validate({"credentials_file": path})
    async with WireMiners(1) as fleet:
        poller = AsicPoller(fleet.inventory(), settings, settings.keyring())

        def passwords() -> list[str]:
            return [login.password for login in poller.keyring.candidates("antminer", "")]

        task = asyncio.create_task(patrol.follow_credentials(settings, poller))
        try:
            await asyncio.sleep(0)
            write('[[site]]\nusername = "root"\npassword = "twotwo"\n')
            await until(lambda: passwords() == ["twotwo"])
            generation = poller.keyring.generation
            with capture_logs() as said:
                write("[[site]\n")
                await until(lambda: any(entry["log_level"] == "error" for entry in said))
            assert passwords() == ["twotwo"] and poller.keyring.generation == generation
            write('[[site]]\nusername = "root"\npassword = "three3"\n')
            await until(lambda: passwords() == ["three3"])
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
