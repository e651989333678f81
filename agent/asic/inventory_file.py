"""The inventory's files: a small TOML file for classes and feeders, a CSV beside it for the devices.

Eleven thousand `[[device]]` tables are no file a person can edit; a CSV opens in any spreadsheet. Faults are collected
and leave as one SettingsError, a line each, with file, line, what, and what to do.

    devices = "miners.csv"
    feeders = ["A", "B"]
    [class.m50]
    family = "whatsminer"
    model = "Whatsminer M50"

    host,class,feeder,container,pdu,rack,mac,api_port,http_port,aux_port,maintenance
    10.0.0.11,m50,A,C1,C1-P3,R07,02:00:00:00:00:11,,,,
"""

from __future__ import annotations

import csv
import json
import re
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import Field, ValidationError

from agent.asic.transport import Endpoint
from gridpivot.errors import SettingsError
from gridpivot.settings import Section, line_of

FIELDS = (
    "host",
    "class",
    "feeder",
    "container",
    "pdu",
    "rack",
    "mac",
    "api_port",
    "http_port",
    "aux_port",
    "maintenance",
)
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
    """One line of the CSV. Port 0 is the family's own."""

    endpoint: Endpoint
    class_name: str
    feeder: str = "main"
    mac: str = ""
    maintenance: bool = False
    container: str = ""
    pdu: str = ""
    rack: str = ""


def write_header(
    path: Path, devices: str, feeders: Sequence[str], classes: Mapping[str, ClassEntry], notes: Mapping[str, str]
) -> None:
    """Write the TOML file; `notes` puts a comment above a class."""
    lines = [f"devices = {json.dumps(devices)}", f"feeders = {json.dumps(list(feeders))}"]
    for name, entry in classes.items():
        lines += ["", *([f"# {notes[name]}"] if name in notes else []), f"[class.{json.dumps(name)}]"]
        lines += [f"{key} = {json.dumps(value)}" for key, value in entry.model_dump(exclude_none=True).items()]
    path.write_text("\n".join([*lines, ""]), encoding="utf-8")


def write_devices(path: Path, rows: Iterable[DeviceRow]) -> None:
    """Write the CSV; ports of 0 stay empty."""
    with path.open("w", encoding="utf-8", newline="") as file:
        out = csv.writer(file)
        out.writerow(FIELDS)
        for row in rows:
            end = row.endpoint
            place = (row.feeder, row.container, row.pdu, row.rack)
            ports = (port or "" for port in (end.api_port, end.http_port, end.aux_port))
            out.writerow((end.host, row.class_name, *place, row.mac, *ports, "yes" if row.maintenance else ""))


def read_header(path: Path) -> InventoryFile:
    """The TOML file, checked; raises SettingsError."""
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


def read_rows(path: Path) -> tuple[list[DeviceRow], list[int]]:
    """Devices and the line each stands on; raises SettingsError."""
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
                    stop_at(faults)
    except FileNotFoundError:
        raise SettingsError(f"{path}: no such file; correct `devices` in the inventory") from None
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise SettingsError(f"{path}: cannot be read: {error}; save it as UTF-8 CSV") from error
    if faults:
        raise SettingsError("\n".join(faults))
    return rows, lines


def stop_at(faults: list[str]) -> None:
    """Raise SettingsError once there are too many faults for a person to read."""
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
    endpoint = Endpoint(text["host"], *(_port(text[name]) for name in ("api_port", "http_port", "aux_port")))
    return DeviceRow(
        endpoint=endpoint,
        class_name=text["class"],
        feeder=text["feeder"] or "main",
        mac=text["mac"],
        maintenance=lock == "yes",
        container=text["container"],
        pdu=text["pdu"],
        rack=text["rack"],
    )


def _port(text: str) -> int:
    if not text:
        return 0
    if not text.isdecimal() or not 1 <= int(text) <= 65_535:
        raise ValueError(f"port {text!r} must be 1 to 65535; correct it or leave it empty")
    return int(text)
