"""Wire-level miners of every firmware family in one event loop, and the inventory that finds them."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from agent.asic.family import Login
from agent.asic.inventory import AsicInventory, build_inventory
from agent.asic.inventory_file import ClassEntry, DeviceRow, InventoryFile, write_devices, write_header
from agent.asic.registry import FAMILIES
from agent.asic.transport import Endpoint
from gridpivot.curves import AiPool, MinerClass
from gridpivot.vocabulary import Mode
from sim.miners.antminer import SimAntminer
from sim.miners.auradine import SimAuradine
from sim.miners.avalon import SimAvalon
from sim.miners.braiins import SimBraiins2511
from sim.miners.epic import SimEpic
from sim.miners.luxos import PROFILES, SimLuxOs
from sim.miners.machine import Machine
from sim.miners.swarm import Swarm
from sim.miners.vnish import SimVNish
from sim.miners.whatsminer import SimWhatsminer
from sim.miners.whatsminer_v3 import SimWhatsminerV3
from sim.miners.wire import WireMiner

# Class name -> entry; the families' own times apply.
CLASSES: Mapping[str, ClassEntry] = {
    "m60-whatsminer": ClassEntry(family="whatsminer", model="Whatsminer M60"),
    "s21-luxos": ClassEntry(
        family="luxos",
        model="Antminer S21",
        normal_profile=PROFILES[Mode.NORMAL],
        low_profile=PROFILES[Mode.LOW],
        turbo_profile=PROFILES[Mode.TURBO],
    ),
    "s19pro-stock": ClassEntry(family="antminer", model="Antminer S19 Pro"),
    "m50-whatsminer-v3": ClassEntry(family="whatsminer_v3", model="Whatsminer M50"),
    "s19jpro-braiins": ClassEntry(family="braiins", model="Antminer S19j Pro"),
    "s19xp-vnish": ClassEntry(family="vnish", model="Antminer S19 XP"),
    "s21pro-epic": ClassEntry(family="epic", model="Antminer S21 Pro"),
    "a1366-avalon": ClassEntry(family="avalon", model="Avalon A1366", hashrate_th_per_s=130.0, power_w=3250.0),
    "at2880-auradine": ClassEntry(family="auradine", model="Auradine AT2880", hashrate_th_per_s=200.0, power_w=3400.0),
}
DEFAULT_MIX: Mapping[str, float] = {"m60-whatsminer": 0.4, "s21-luxos": 0.4, "s19pro-stock": 0.2}
EVERY_FAMILY: Mapping[str, float] = {name: 0.3 if name in ("m60-whatsminer", "s21-luxos") else 0.05 for name in CLASSES}
_MAKERS: Mapping[str, type[WireMiner]] = {
    "whatsminer": SimWhatsminer,
    "luxos": SimLuxOs,
    "antminer": SimAntminer,
    "whatsminer_v3": SimWhatsminerV3,
    "braiins": SimBraiins2511,
    "vnish": SimVNish,
    "epic": SimEpic,
    "avalon": SimAvalon,
    "auradine": SimAuradine,
}


class WireMiners:
    """`count` miners, `mix` of classes by share, deterministic from `seed`; `async with` starts and stops them."""

    def __init__(
        self,
        count: int,
        mix: Mapping[str, float] = DEFAULT_MIX,
        seed: int = 1,
        *,
        speed: float = 1.0,
        feeders: Sequence[str] = ("A", "B"),
        clock: Callable[[], float] = time.monotonic,
        shared_ports: bool = False,
    ) -> None:
        self.feeders = tuple(feeders)
        self.clock = clock
        self.header = InventoryFile.model_validate(
            {"devices": "miners.csv", "feeders": self.feeders, "class": {name: CLASSES[name] for name in mix}}
        )
        self.classes: tuple[MinerClass, ...] = build_inventory(self.header, ()).site.classes
        kinds = {kind.name: kind for kind in self.classes}
        names = _spread(count, mix)
        self.miners: list[WireMiner] = [
            _MAKERS[kinds[name].family](
                Machine(kinds[name], seed * 100_003 + number, now_s=clock(), speed=speed),
                _mac(seed, number),
                clock=clock,
            )
            for number, name in enumerate(names)
        ]
        self._swarm = Swarm(self.miners) if shared_ports else None

    async def __aenter__(self) -> WireMiners:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def start(self) -> None:
        """Every miner on free ports of 127.0.0.1, or on an address of its own behind two shared ports."""
        if self._swarm is not None:
            await self._swarm.start()
            return
        for miner in self.miners:
            await miner.start()

    async def stop(self) -> None:
        """Close every port."""
        if self._swarm is not None:
            await self._swarm.stop()
        for miner in self.miners:
            await miner.stop()

    def rows(self) -> list[DeviceRow]:
        """The inventory's device rows; only after start(), since ports are taken there."""
        return [
            DeviceRow(
                Endpoint(miner.host, miner.api_port, miner.http_port, miner.aux_port),
                miner.kind.name,
                self.feeders[number % len(self.feeders)],
                miner.mac,
            )
            for number, miner in enumerate(self.miners)
        ]

    def inventory(self, pools: Sequence[AiPool] = ()) -> AsicInventory:
        """The inventory in memory."""
        return build_inventory(self.header, self.rows(), pools)

    def write_inventory(self, directory: Path) -> Path:
        """Write `inventory.toml` and `miners.csv`; returns the path of the first."""
        path = directory / "inventory.toml"
        write_header(path, "miners.csv", self.feeders, self.header.classes, {})
        write_devices(directory / "miners.csv", self.rows())
        return path

    def logins(self) -> Mapping[str, Login]:
        """Credentials that the simulated machines accept."""
        families = {miner.family: miner for miner in self.miners}
        known = {name: FAMILIES[name].factory_login for name in families}
        return {
            name: Login(login.username, families[name].password) for name, login in known.items() if login is not None
        }

    def true_power_w(self, now_s: float | None = None) -> float:
        """What all miners together really draw [W] at a moment of `clock`."""
        at_s = self.clock() if now_s is None else now_s
        return sum(miner.machine.true_power_w(at_s) for miner in self.miners)

    def true_hashrate_hs(self, now_s: float | None = None) -> float:
        """What all miners together really hash [H/s]."""
        at_s = self.clock() if now_s is None else now_s
        return sum(miner.machine.hashrate_hs(at_s) for miner in self.miners)


def _spread(count: int, mix: Mapping[str, float]) -> list[str]:
    """Class names in an even mixture, shares met to within one machine."""
    total = sum(mix.values())
    owed = dict.fromkeys(mix, 0.0)
    names: list[str] = []
    for _ in range(count):
        for name, share in mix.items():
            owed[name] += share / total
        chosen = max(owed, key=lambda name: owed[name])
        owed[chosen] -= 1
        names.append(chosen)
    return names


def _mac(seed: int, number: int) -> str:
    """A locally administered address."""
    raw = bytes((0x02, seed & 0xFF)) + number.to_bytes(4, "big")
    return ":".join(f"{byte:02X}" for byte in raw)
