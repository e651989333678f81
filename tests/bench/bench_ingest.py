"""How fast device reports become live state: columns as built, beside rows as they might have been.

Forty sites of 11,250 devices in turn, so that tables do not stay in the caches; one core. Each turn starts at the zstd frame that arrived and ends in the site's table.
A sample is one column of one device. Last line: one JSON object.
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
import time
from collections.abc import Callable

import numpy as np
import zstandard
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

from controller.fleet.tables import SiteLive, Took
from gridpivot.clock import Instant
from gridpivot.columns import COLUMNS, DeviceTable, encode_report
from gridpivot.curves import miner_class
from gridpivot.v1 import telemetry_pb2 as pb

HASH = bytes(range(32))


def busy_site(device_count: int) -> DeviceTable:
    """A table as a working site fills it: noise in every reading, a few devices silent."""
    chance = np.random.default_rng(7)
    table = DeviceTable(device_count)
    table["power_w"][:] = chance.normal(3250, 60, device_count)
    table["hashrate_hs"][:] = chance.normal(95e12, 3e12, device_count)
    table["temp_c"][:] = chance.normal(68, 4, device_count)
    table["state"][:] = 1
    table["mode"][:] = 3
    table["desired_mode"][:] = 3
    table["age_s"][:] = chance.uniform(0, 10, device_count)
    table["accepted_shares"][:] = chance.integers(1, 100_000, device_count)
    table["uptime_s"][:] = chance.integers(1, 1_000_000, device_count)
    table["power_w"][chance.random(device_count) < 0.01] = np.nan
    return table


def row_class() -> type:
    """A message type with one field per column, repeated: what a first design would have sent."""
    file = descriptor_pb2.FileDescriptorProto(name="rows.proto", package="bench", syntax="proto3")
    row = file.message_type.add(name="Row")
    for column in COLUMNS:
        kind = "TYPE_FLOAT" if column.missing else "TYPE_UINT32"
        row.field.add(name=column.name, number=column.number, type=kind, label="LABEL_OPTIONAL")
    file.message_type.add(name="Rows").field.add(
        name="rows", number=1, type="TYPE_MESSAGE", type_name=".bench.Row", label="LABEL_REPEATED"
    )
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("bench.Rows"))


def timed(turn: Callable[[], None], repeats: int, turns: int) -> tuple[float, float]:
    """Median wall and CPU seconds of one turn, after a warm-up."""
    for _ in range(max(3, turns // 10)):
        turn()
    walls, cpus = [], []
    for _ in range(repeats):
        wall, cpu = time.perf_counter(), time.process_time()
        for _ in range(turns):
            turn()
        walls.append((time.perf_counter() - wall) / turns)
        cpus.append((time.process_time() - cpu) / turns)
    return statistics.median(walls), statistics.median(cpus)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--devices", type=int, default=11_250)
    parser.add_argument("--repeats", type=int, default=7)
    options = parser.parse_args()
    count = options.devices
    source = busy_site(count)
    inventory = pb.Inventory(
        inventory_hash=HASH,
        device_count=count,
        classes=[miner_class("s19", "luxos", "Antminer S19", shed_s=5, wake_s=10).to_proto()],
        class_indexes=bytes(count),
    )
    sites = [SiteLive(f"site-{i}", "here") for i in range(40)]
    for site in sites:
        site.take_inventory(inventory)
    turns = itertools.cycle(sites)
    frame = zstandard.compress(encode_report(source, HASH, 1_000).SerializeToString(), 1)
    unpack = zstandard.ZstdDecompressor()
    clock = [0.0]

    def columns() -> None:
        clock[0] += 10.0
        report = pb.DeviceReport.FromString(unpack.decompress(frame))
        assert next(turns).take_report(report, Instant(clock[0], 1.0)) is Took.TAKEN

    rows_type = row_class()
    rows = rows_type()
    for i in range(count):
        rows.rows.add(**{c.name: (float if c.missing else int)(source[c.name][i]) for c in COLUMNS})
    rows_frame = zstandard.compress(rows.SerializeToString(), 1)
    table = DeviceTable(count)

    def by_row() -> None:
        message = rows_type.FromString(unpack.decompress(rows_frame))
        for column in COLUMNS:
            name = column.name
            table[name][:] = np.fromiter((getattr(row, name) for row in message.rows), column.dtype, count)

    samples = count * len(COLUMNS)
    column_wall, column_cpu = timed(columns, options.repeats, 100)
    row_wall, row_cpu = timed(by_row, options.repeats, 2)
    assert np.allclose(sites[0].table["power_w"], table["power_w"], atol=0.13, equal_nan=True)
    print(f"columns: {column_wall * 1e3:8.3f} ms a report of {count} devices, {len(frame) / 1024:.0f} KiB")
    print(f"rows:    {row_wall * 1e3:8.3f} ms a report of {count} devices, {len(rows_frame) / 1024:.0f} KiB")
    result = {
        "columns_samples_per_s": round(samples / column_wall),
        "columns_samples_per_cpu_s": round(samples / column_cpu),
        "rows_samples_per_s": round(samples / row_wall),
        "rows_samples_per_cpu_s": round(samples / row_cpu),
        "columns_devices_per_s": round(count / column_wall),
        "rows_devices_per_s": round(count / row_wall),
        "columns_report_bytes": len(frame),
        "rows_report_bytes": len(rows_frame),
        "devices": count,
        "columns": len(COLUMNS),
        "repeats": options.repeats,
        "ok": samples / column_wall >= 3e6,
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
