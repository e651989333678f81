"""Ranges, looking at simulated miners on loopback addresses of their own, and the inventory that comes of it."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from agent.asic.discovered import Inventory, merge, open_inventory, save
from agent.asic.discovery import Finding, parse_neighbours, parse_ranges
from agent.asic.family import Login
from agent.asic.inventory import load_inventory
from agent.asic.keyring import Keyring, Logins
from agent.asic.patrol import LockKeeper, Patrol
from agent.asic.poller import AsicPoller
from agent.asic.probing import Pace, look
from agent.asic.settings import AsicSettings
from gridpivot.clock import SystemClock
from gridpivot.errors import SettingsError
from gridpivot.vocabulary import EventKind, Reason
from sim.miners.fault import WireFault
from sim.miners.fleet import WireMiners
from sim.miners.wire import WireMiner

pytestmark = pytest.mark.unit
Until = Callable[..., Awaitable[None]]
QUICK = Pace(concurrency=64, knock_s=0.5, ask_s=1.0, rate_per_s=0)


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
    hosts = list(ranges)
    assert (ranges.count, len(set(hosts)), hosts[0], hosts[-1]) == (count, count, first, last)
    assert first in ranges and last in ranges and "9.9.9.9" not in ranges and "miner.site" not in ranges


@pytest.mark.parametrize("text", ["", "10.0.0", "10.0.0.0/33", "10.0.0.9-10.0.0.1", "::1", "miner", "10.0.0.1-300"])
def test_what_is_no_range_is_one_line_with_a_remedy(text: str) -> None:
    with pytest.raises(SettingsError) as caught:
        parse_ranges([text])
    assert len(str(caught.value).splitlines()) == 1 and ";" in str(caught.value)


def test_neighbours_are_read_as_linux_writes_them() -> None:
    text = (
        "IP address       HW type     Flags       HW address            Mask     Device\n"
        "10.0.0.7         0x1         0x2         AA:bb:cc:00:00:01     *        eth0\n"
        "10.0.0.8         0x1         0x0         00:00:00:00:00:00     *        eth0\n"
    )
    assert parse_neighbours(text) == {"10.0.0.7": "aa:bb:cc:00:00:01"}


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
        ticks: list[int] = []
        found = await look(parse_ranges(["127.20.1.0/28"]), QUICK, seen=lambda result: ticks.append(result.looked_at))
        printer.close()
        assert (found.addresses, found.looked_at, found.complete, ticks[-1]) == (14, 14, True, 14)
        by_host = {entry.host: entry for entry in found.findings}
        assert list(by_host) == [f"127.20.1.{number}" for number in (1, 2, 3, 4, 5, 9)]
        for miner in miners:
            entry = by_host[miner.host]
            assert (entry.family, entry.model) == (miner.family, miner.kind.model)
            assert entry.firmware and entry.hashrate_hs
            assert entry.mac == (None if miner.family == "antminer" else miner.mac.lower())
        assert (by_host["127.20.1.9"].family, by_host["127.20.1.9"].open_ports) == ("", (80,))


async def test_a_look_sends_no_password_without_a_keyring_and_the_right_one_with_it() -> None:
    async with standing(5, "127.20.2") as miners:
        stock = next(miner for miner in miners if miner.family == "antminer")
        alone = parse_ranges([stock.host])
        assert (await look(alone, QUICK)).findings[0].reason is Reason.NO_CREDENTIALS
        keyring = Keyring(Logins(family={"antminer": (Login("root", "root"),)}))
        assert (await look(alone, QUICK, keyring)).findings[0].reason is Reason.NONE


@pytest.mark.parametrize("fault", [WireFault.SILENT, WireFault.GARBAGE, WireFault.TRUNCATED])
async def test_a_miner_that_misbehaves_is_listed_and_costs_nobody_else(fault: WireFault) -> None:
    async with standing(3, "127.20.3") as miners:
        miners[0].fault = fault
        found = await look(parse_ranges(["127.20.3.0/29"]), QUICK)
        assert [entry.host for entry in found.findings] == [miner.host for miner in miners]
        assert [entry.family for entry in found.findings[1:]] == [miner.family for miner in miners[1:]]


async def test_a_look_ends_at_its_deadline_with_what_it_has() -> None:
    found = await look(parse_ranges(["127.20.4.0/24"]), Pace(4, 0.5, 1.0, rate_per_s=50, deadline_s=0.3))
    assert not found.complete and 0 < found.looked_at < 254


# -- the inventory -------------------------------------------------------------------------------------------------


def finding(number: int, host: int, family: str = "luxos", model: str | None = "Antminer S21") -> Finding:
    mac = f"02:00:00:00:00:{number:02x}"
    return Finding(f"10.0.0.{host}", family, model, "1", mac, 3400.0, 2e14, open_ports=(4028,))


def test_first_look_writes_an_inventory_that_loads(tmp_path: Path) -> None:
    path = tmp_path / "site" / "inventory.toml"
    odd = finding(3, 3, "whatsminer", 'Whatsminer "M99"\n[class.evil]')
    found = [finding(1, 1), finding(2, 2), odd, Finding("10.0.0.9", open_ports=(80,))]
    merged = merge(Inventory(), found)
    assert {written.name for written in save(path, Inventory(), merged)} == {"inventory.toml", "miners.csv"}
    loaded = load_inventory(path)
    assert [kind.name for kind in loaded.site.classes] == ["antminer-s21-luxos", "whatsminer-m99-class-evil"]
    assert loaded.site.device_count == 3
    assert "CHECK" in path.read_text() and "hashrate_th_per_s = 200" in path.read_text()
    assert merged.what["10.0.0.1"] is EventKind.DEVICE_FOUND and "10.0.0.9" not in merged.what


def test_class_without_measured_watts_is_told_and_not_invented(tmp_path: Path) -> None:
    found = Finding("10.0.0.1", "antminer", "Antminer Z9", hashrate_hs=1e14)
    merged = merge(Inventory(), [found])
    assert merged.unfinished == ("antminer-z9",)
    save(tmp_path / "inventory.toml", Inventory(), merged)
    with pytest.raises(SettingsError, match="power_w"):
        load_inventory(tmp_path / "inventory.toml")


HAND = """# written with care
devices = "miners.csv"
feeders = ["A", "B"]  # from the panel

[class.best]
family = "luxos"
model = "Antminer S21"
"""
ROWS = """host,class,feeder,container,pdu,rack,mac,api_port,http_port,aux_port,maintenance
10.0.0.1,best,B,C1,P1,R1,02:00:00:00:00:01,,,,yes
10.0.0.2,best,A,C1,P1,R2,02:00:00:00:00:02,4029,,,
10.0.0.3,best,A,C1,P2,R3,,,,,
"""


def by_hand(tmp_path: Path) -> tuple[Path, Inventory]:
    (tmp_path / "inventory.toml").write_text(HAND)
    (tmp_path / "miners.csv").write_text(ROWS)
    return tmp_path / "inventory.toml", open_inventory(tmp_path / "inventory.toml")


def test_what_a_hand_wrote_stays_when_devices_move_and_new_ones_come(tmp_path: Path) -> None:
    path, before = by_hand(tmp_path)
    found = [finding(1, 2), finding(2, 1), finding(3, 3), finding(4, 4, "whatsminer", "Whatsminer M60")]
    merged = merge(before, found)
    written = save(path, before, merged)
    assert path.read_text().startswith(HAND) and path in written
    assert (tmp_path / "miners.csv.bak").read_text() == ROWS
    one, two, three, four = load_inventory(path).rows
    assert (one.endpoint.host, one.class_name, one.feeder, one.rack, one.maintenance) == (
        "10.0.0.2",
        "best",
        "B",
        "R1",
        True,
    )
    assert (two.endpoint.host, two.endpoint.api_port, two.rack) == ("10.0.0.1", 4029, "R2")
    assert (three.mac, three.rack, three.class_name) == ("02:00:00:00:00:03", "R3", "best")
    assert (four.class_name, four.feeder) == ("whatsminer-m60", "A")
    assert [merged.what[f"10.0.0.{n}"] for n in (1, 2, 3, 4)] == [
        EventKind.DEVICE_MOVED,
        EventKind.DEVICE_MOVED,
        None,
        EventKind.DEVICE_FOUND,
    ]


def test_a_second_look_at_the_same_site_writes_nothing(tmp_path: Path) -> None:
    path, before = by_hand(tmp_path)
    save(path, before, merge(before, [finding(1, 1), finding(2, 2), finding(3, 3)]))
    again = open_inventory(path)
    assert save(path, again, merge(again, [finding(1, 1), finding(2, 2), finding(3, 3)])) == []


def test_a_machine_put_into_the_place_of_another_takes_its_feeder_and_rack(tmp_path: Path) -> None:
    path, before = by_hand(tmp_path)
    merged = merge(before, [finding(9, 1, "whatsminer", "Whatsminer M60")])
    save(path, before, merged)
    first = load_inventory(path).rows[0]
    assert (first.mac, first.rack, first.class_name, first.maintenance) == (
        "02:00:00:00:00:09",
        "R1",
        "whatsminer-m60",
        True,
    )
    assert merged.what["10.0.0.1"] is EventKind.DEVICE_SWAPPED


def test_a_row_whose_address_another_known_device_took_is_set_aside_not_lost(tmp_path: Path) -> None:
    path, before = by_hand(tmp_path)
    merged = merge(before, [finding(1, 2)])  # device 1 answers where device 2 stood; device 2 nowhere
    save(path, before, merged)
    assert [row.mac for row in merged.displaced] == ["02:00:00:00:00:02"]
    assert load_inventory(path).site.device_count == 2
    assert "02:00:00:00:00:02" in (tmp_path / "miners.displaced.csv").read_text()


def test_devices_that_did_not_answer_stay(tmp_path: Path) -> None:
    _, before = by_hand(tmp_path)
    assert merge(before, []).inventory.rows == before.rows


# -- in the running agent ------------------------------------------------------------------------------------------


async def test_a_running_poller_follows_its_devices_to_new_leases_and_says_what_is_new(
    tmp_path: Path, until: Until
) -> None:
    async with standing(5, "127.20.5") as miners:
        found = await look(parse_ranges(["127.20.5.0/28"]), QUICK)
        merged = merge(Inventory(), found.findings)
        path = tmp_path / "inventory.toml"
        save(path, Inventory(), merged)
        settings = AsicSettings.model_validate(
            {"beat_s": 0.2, "deadline_s": 0.5, "discovery": {"ranges": ["127.20.5.0/27"], "rate_per_s": 5000}}
        )
        poller = AsicPoller(load_inventory(path), settings, {})
        patrol = Patrol(settings, poller, SystemClock())
        said: list[tuple[EventKind, str]] = []
        task = asyncio.create_task(poller.run())
        try:
            await until(lambda: all(poller.facts(row)[0] for row in range(5)))
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
