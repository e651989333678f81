"""The device table: one declaration per column, from which dtype, wire form and docs follow.

A table is one numpy array per column; row i is device i of the inventory. On the wire a column is little-endian
integers of `wire_dtype`; value = integer x `step`; the largest integer means "missing" where `missing` is true.
Missing is NaN in float columns. Adding a datum is one line here; numbers are never reused.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from gridpivot.errors import BadReport
from gridpivot.v1 import telemetry_pb2 as pb

AnyArray = npt.NDArray[Any]


@dataclass(frozen=True, slots=True)
class Column:
    """One datum per device: its number on the wire, its unit, its memory and wire types."""

    number: int
    name: str
    unit: str
    dtype: str
    wire_dtype: str
    step: float
    missing: bool
    doc: str

    @property
    def sentinel(self) -> int:
        """Wire integer that stands for a missing value."""
        return int(np.iinfo(np.dtype(self.wire_dtype)).max)


COLUMNS: tuple[Column, ...] = (
    Column(1, "power_w", "watts", "<f4", "<u2", 0.25, True, "Wall power as read; NaN when the device gives none."),
    Column(2, "hashrate_hs", "hashes per second", "<f4", "<u2", 1e11, True, "Instantaneous or 5 s hashrate."),
    Column(3, "temp_c", "degrees Celsius", "<f4", "<u2", 0.01, True, "Hottest chip or board."),
    Column(4, "state", "DeviceState code", "|u1", "|u1", 1, False, "What the device is doing."),
    Column(5, "mode", "Mode code", "|u1", "|u1", 1, False, "Mode read back from the device."),
    Column(6, "desired_mode", "Mode code", "|u1", "|u1", 1, False, "Mode the governor wants it in."),
    Column(7, "reason", "Reason code", "|u1", "|u1", 1, False, "Why it is as it is, or was left alone."),
    Column(8, "provenance", "Provenance code", "|u1", "|u1", 1, False, "Where power_w comes from."),
    Column(9, "age_s", "seconds", "<f4", "<u2", 0.1, True, "Since the last good reading; NaN before the first."),
    Column(
        10, "accepted_shares", "count", "<f8", "<u4", 1, True, "Accepted shares since the miner's software started."
    ),
    Column(11, "uptime_s", "seconds", "<f8", "<u4", 1, True, "Since the miner's software started."),
)
BY_NAME: Mapping[str, Column] = {column.name: column for column in COLUMNS}
BY_NUMBER: Mapping[int, Column] = {column.number: column for column in COLUMNS}


class DeviceTable:
    """One array per column, all of `device_count` rows. Fresh tables hold "missing" and code 0 (unknown)."""

    __slots__ = ("_arrays", "device_count")

    def __init__(self, device_count: int) -> None:
        self.device_count = device_count
        self._arrays: dict[str, AnyArray] = {
            c.name: np.full(device_count, np.nan if c.missing else 0, dtype=c.dtype) for c in COLUMNS
        }

    def __getitem__(self, name: str) -> AnyArray:
        return self._arrays[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._arrays)


def encode_column(column: Column, values: AnyArray) -> bytes:
    """Wire bytes of one column; out-of-range values are clamped, NaN becomes the sentinel."""
    if not column.missing and values.dtype == np.dtype(column.wire_dtype):
        return values.tobytes()
    highest = column.sentinel - (1 if column.missing else 0)
    scaled = values.astype(np.float64) / column.step
    np.rint(scaled, out=scaled)
    gone = np.isnan(scaled)
    np.clip(scaled, 0, highest, out=scaled)
    scaled[gone] = column.sentinel if column.missing else 0
    return scaled.astype(column.wire_dtype).tobytes()


def decode_column(column: Column, data: bytes, device_count: int) -> AnyArray:
    """Values of one wire column; raises BadReport when the length does not fit."""
    wire = np.dtype(column.wire_dtype)
    if len(data) != device_count * wire.itemsize:
        raise BadReport(
            f"column {column.name}: {len(data)} bytes for {device_count} devices, expected {device_count * wire.itemsize}"
        )
    raw = np.frombuffer(data, dtype=wire)
    if not column.missing:
        return raw if raw.dtype == np.dtype(column.dtype) else raw.astype(column.dtype)
    values = raw.astype(column.dtype)
    if column.step != 1:
        np.multiply(values, values.dtype.type(column.step), out=values)
    values[raw == column.sentinel] = np.nan
    return values


def encode_report(table: DeviceTable, inventory_hash: bytes, observed_at_unix_ms: int) -> pb.DeviceReport:
    """The whole table as a columnar report."""
    return pb.DeviceReport(
        inventory_hash=inventory_hash,
        device_count=table.device_count,
        observed_at_unix_ms=observed_at_unix_ms,
        columns=[pb.Column(number=c.number, values=encode_column(c, table[c.name])) for c in COLUMNS],
    )


def decode_report(report: pb.DeviceReport, device_count: int) -> dict[str, AnyArray]:
    """Columns of a report by name. Unknown column numbers are skipped (a newer agent); raises BadReport on the rest."""
    if report.device_count != device_count:
        raise BadReport(f"report has {report.device_count} rows, the inventory {device_count}")
    decoded: dict[str, AnyArray] = {}
    for wire in report.columns:
        column = BY_NUMBER.get(wire.number)
        if column is None:
            continue
        if column.name in decoded:
            raise BadReport(f"column {column.name} twice in one report")
        decoded[column.name] = decode_column(column, wire.values, device_count)
    return decoded
