"""The inventory of a site's miners: a small TOML file for classes and feeders, a CSV beside it for the devices.

Eleven thousand `[[device]]` tables are no file a person can edit; a CSV opens in any spreadsheet. Both are checked
whole: a fault is a SettingsError of one line per fault with file, line, what, and what to do.

    devices = "miners.csv"
    feeders = ["A", "B"]
    [class.m50]
    family = "whatsminer"
    model = "Whatsminer M50"

    host,class,feeder,mac,api_port,http_port,maintenance
    10.0.0.11,m50,A,02:00:00:00:00:11,,,
"""

from __future__ import annotations

import csv
import re
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from pydantic import Field, ValidationError

from agent.asic.family import CAPABILITIES, Profiles
from agent.asic.transport import Endpoint
from agent.backends import SiteInventory
from gridpivot.curves import NAMEPLATE, AiPool, MinerClass, miner_class
from gridpivot.errors import SettingsError
from gridpivot.settings import Section, line_of
from gridpivot.vocabulary import Mode

FIELDS = ("host", "class", "feeder", "mac", "api_port", "http_port", "maintenance")
MAX_FAULTS = 20
_HOST = re.compile(r"^[A-Za-z0-9]([A-Za-z0-9.\-:]{0,252})$")
_MAC = re.compile(r"^[0-9A-Fa-f]{2}(:[0-9A-Fa-f]{2}){5}$")


class ClassEntry(Section):
    """One kind of machine: firmware family, model, and what differs from the tables."""

    family: str
    model: str
    hashrate_th_per_s: float | None = Field(default=None, gt=0, le=2000)
    power_w: float | None = Field(default=None, gt=0, le=20_000)
    shed_s: float | None = Field(default=None, gt=0, le=3600)
    wake_s: float | None = Field(default=None, gt=0, le=7200)
    normal_profile: str | None = None
    low_profile: str | None = None
    turbo_profile: str | None = None


class InventoryFile(Section):
    """The TOML file."""

    devices: Path
    feeders: tuple[str, ...] = ("main",)
    classes: Mapping[str, ClassEntry] = Field(alias="class", min_length=1)


@dataclass(frozen=True, slots=True)
class DeviceRow:
    """One line of the CSV."""

    endpoint: Endpoint
    class_name: str
    feeder: str
    mac: str = ""
    maintenance: bool = False


@dataclass(frozen=True, slots=True)
class AsicInventory:
    """A site's miners: the table's fixed order, where each listens, and which are locked for maintenance."""

    site: SiteInventory
    endpoints: tuple[Endpoint, ...]
    maintenance: npt.NDArray[np.bool_]
    profiles: tuple[Profiles, ...]  # by class


def load_inventory(path: Path, pools: Sequence[AiPool] = ()) -> AsicInventory:
    """Read and check an inventory; raises SettingsError."""
    header = _header(path)
    table = path.parent / header.devices
    rows, lines = _rows(table)
    return build_inventory(header, rows, pools, source=path, where=[f"{table}:{line}" for line in lines])


def build_inventory(
    header: InventoryFile,
    rows: Sequence[DeviceRow],
    pools: Sequence[AiPool] = (),
    *,
    source: Path | None = None,
    where: Sequence[str] = (),
) -> AsicInventory:
    """Check classes, feeders and duplicates and lay the rows out as columns; raises SettingsError."""
    classes = tuple(_miner_class(name, entry, source) for name, entry in header.classes.items())
    if len(classes) > 255 or len(header.feeders) > 65_535:
        raise SettingsError(f"{source}: at most 255 classes and 65,535 feeders fit the table; merge some")
    class_codes = {entry.name: code for code, entry in enumerate(classes)}
    feeder_codes = {name: code for code, name in enumerate(header.feeders)}
    faults: list[str] = []
    seen: dict[object, str] = {}
    for index, row in enumerate(rows):
        place = where[index] if index < len(where) else f"row {index + 1}"
        if row.class_name not in class_codes:
            faults.append(
                f"{place}: class {row.class_name!r} is not declared; add [class.{row.class_name}] or correct it"
            )
        if row.feeder not in feeder_codes:
            faults.append(f"{place}: feeder {row.feeder!r} is not in feeders; add it there or correct it")
        keys: list[object] = [(row.endpoint.host, row.endpoint.api_port)]
        if row.mac:
            keys.append(row.mac.lower())
        for key in keys:
            if key in seen:
                shown = f"{key[0]}:{key[1]}" if isinstance(key, tuple) else key
                faults.append(f"{place}: {shown} is already at {seen[key]}; remove one of them")
            else:
                seen[key] = place
        _stop_at(faults)
    if faults:
        raise SettingsError("\n".join(faults))
    site = SiteInventory(
        classes=classes,
        class_index=np.array([class_codes[row.class_name] for row in rows], dtype=np.uint8),
        feeders=header.feeders,
        feeder_index=np.array([feeder_codes[row.feeder] for row in rows], dtype=np.uint16),
        mac_addresses=b"".join(bytes.fromhex(row.mac.replace(":", "")) if row.mac else bytes(6) for row in rows),
        pools=tuple(pools),
    )
    return AsicInventory(
        site=site,
        endpoints=tuple(row.endpoint for row in rows),
        maintenance=np.array([row.maintenance for row in rows], dtype=np.bool_),
        profiles=tuple(Profiles(e.normal_profile, e.low_profile, e.turbo_profile) for e in header.classes.values()),
    )


def write_devices(path: Path, rows: Iterable[DeviceRow]) -> None:
    """Write the CSV; default ports stay empty."""
    with path.open("w", encoding="utf-8", newline="") as file:
        out = csv.writer(file)
        out.writerow(FIELDS)
        for row in rows:
            end = row.endpoint
            ports = ("" if end.api_port == 4028 else end.api_port, "" if end.http_port == 80 else end.http_port)
            out.writerow((end.host, row.class_name, row.feeder, row.mac, *ports, "yes" if row.maintenance else ""))


def _header(path: Path) -> InventoryFile:
    try:
        text = path.read_text(encoding="utf-8")
        tree = tomllib.loads(text)
    except FileNotFoundError:
        raise SettingsError(f"{path}: no such file; correct asic.inventory, or create it") from None
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"{path}: cannot be read: {error}") from error
    except tomllib.TOMLDecodeError as error:
        raise SettingsError(f"{path}: not valid TOML: {error}") from error
    try:
        return InventoryFile.model_validate(tree)
    except ValidationError as error:
        faults = [
            f"{path}:{line_of(text, fault['loc'])}: {'.'.join(map(str, fault['loc']))}: {fault['msg']}; correct it"
            for fault in error.errors()
        ]
        raise SettingsError("\n".join(faults)) from None


def _miner_class(name: str, entry: ClassEntry, source: Path | None) -> MinerClass:
    capabilities = CAPABILITIES.get(entry.family)
    if capabilities is None:
        raise SettingsError(
            f"{source}: class {name}: unknown family {entry.family!r}; known: {', '.join(CAPABILITIES)}"
        )
    modes = list(capabilities.modes())
    if entry.family == "luxos":
        offered = {Mode.LOW: entry.low_profile, Mode.TURBO: entry.turbo_profile}
        modes = [mode for mode in modes if offered.get(mode, "always") is not None]
    nameplate = None
    if entry.hashrate_th_per_s is not None and entry.power_w is not None:
        nameplate = (entry.hashrate_th_per_s, entry.power_w)
    elif entry.model not in NAMEPLATE:
        raise SettingsError(
            f"{source}: class {name}: no nameplate for model {entry.model!r}; give hashrate_th_per_s and power_w"
        )
    return miner_class(
        name,
        entry.family,
        entry.model,
        shed_s=entry.shed_s or capabilities.shed_s,
        wake_s=entry.wake_s or capabilities.wake_s,
        modes=modes,
        nameplate=nameplate,
    )


def _rows(path: Path) -> tuple[list[DeviceRow], list[int]]:
    rows: list[DeviceRow] = []
    lines: list[int] = []
    faults: list[str] = []
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:  # spreadsheets like to write a byte order mark
            reader = csv.DictReader(file, restkey="surplus", strict=True)
            unknown = [name for name in reader.fieldnames or () if name not in FIELDS]
            if unknown or not {"host", "class"} <= set(reader.fieldnames or ()):
                raise SettingsError(
                    f"{path}:1: header must be {','.join(FIELDS)}; found {','.join(reader.fieldnames or ())}"
                )
            for record in reader:
                try:
                    rows.append(_row(record))
                    lines.append(reader.line_num)
                except ValueError as error:
                    faults.append(f"{path}:{reader.line_num}: {error}")
                    _stop_at(faults)
    except FileNotFoundError:
        raise SettingsError(f"{path}: no such file; correct `devices` in the inventory") from None
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise SettingsError(f"{path}: cannot be read: {error}; save it as UTF-8 CSV") from error
    if faults:
        raise SettingsError("\n".join(faults))
    return rows, lines


def _stop_at(faults: list[str]) -> None:
    if len(faults) >= MAX_FAULTS:
        raise SettingsError("\n".join([*faults, f"stopped after {MAX_FAULTS} faults"]))


def _row(record: Mapping[str, Any]) -> DeviceRow:
    """One CSV record; raises ValueError with what and what to do."""
    if record.get("surplus"):
        raise ValueError("too many fields; remove what stands behind maintenance")
    text = {name: (record.get(name) or "").strip() for name in FIELDS}
    if not _HOST.match(text["host"]):
        raise ValueError(f"host {text['host']!r} is neither an address nor a name; correct it")
    if text["mac"] and not _MAC.match(text["mac"]):
        raise ValueError(f"mac {text['mac']!r} is not aa:bb:cc:dd:ee:ff; correct it or leave it empty")
    lock = text["maintenance"].lower()
    if lock not in ("", "no", "yes"):
        raise ValueError(f"maintenance {text['maintenance']!r} must be yes, no or empty")
    endpoint = Endpoint(text["host"], _port(text["api_port"], 4028), _port(text["http_port"], 80))
    return DeviceRow(endpoint, text["class"], text["feeder"] or "main", text["mac"], lock == "yes")


def _port(text: str, default: int) -> int:
    if not text:
        return default
    if not text.isdecimal() or not 1 <= int(text) <= 65_535:
        raise ValueError(f"port {text!r} must be 1 to 65535; correct it or leave it empty")
    return int(text)
