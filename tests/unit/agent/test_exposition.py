"""Per-device series as text that Prometheus reads: names kept, unknown left out, in chunks."""

import numpy as np
import pytest
from prometheus_client.parser import text_string_to_metric_families

from agent.backends import SiteInventory
from agent.exposition import CHUNK, SERIES, DeviceSeries
from gridpivot.columns import DeviceTable
from gridpivot.curves import miner_class

pytestmark = pytest.mark.unit


def inventory(count: int, macs: bytes = b"", name: str = "s21", feeder: str = "feeder-1") -> SiteInventory:
    kind = miner_class(name, "luxos", "Antminer S21", shed_s=5, wake_s=60)
    index = np.zeros(count, np.uint8)
    return SiteInventory((kind,), index, (feeder,), index.astype(np.uint16), macs, ())


def families(series: DeviceSeries, table: DeviceTable) -> dict:
    text = b"".join(series.render(table)).decode()
    return {family.name: family for family in text_string_to_metric_families(text)}


def test_text_parses_and_says_each_device_once_per_series() -> None:
    table = DeviceTable(2)
    table["power_w"][:] = (3250.0, 0.0)
    table["temp_c"][:] = 61.5
    found = families(DeviceSeries(inventory(2, macs=bytes(range(12)))), table)
    power = found["gridpivot_device_power_watts"]
    assert {s.labels["device"]: s.value for s in power.samples} == {
        "00:01:02:03:04:05": 3250.0,
        "06:07:08:09:0a:0b": 0.0,
    }
    assert power.samples[0].labels == {"device": "00:01:02:03:04:05", "class": "s21", "feeder": "feeder-1"}
    assert power.type == "gauge"


def test_unknown_is_left_out_and_never_zero() -> None:
    table = DeviceTable(3)
    table["power_w"][:] = (np.nan, 100.0, np.nan)
    table["hashrate_hs"][:] = np.nan
    found = families(DeviceSeries(inventory(3)), table)
    assert [s.labels["device"] for s in found["gridpivot_device_power_watts"].samples] == ["1"]
    assert found["gridpivot_device_hashrate_hashes_per_second"].samples == []


def test_names_with_quotes_backslashes_and_line_ends_stay_what_they_are() -> None:
    name, feeder = 'rack "A"\\7', "line\nbreak"
    table = DeviceTable(1)
    table["power_w"][:] = 1.0
    found = families(DeviceSeries(inventory(1, name=name, feeder=feeder)), table)
    labels = found["gridpivot_device_power_watts"].samples[0].labels
    assert (labels["class"], labels["feeder"]) == (name, feeder)


def test_devices_without_an_address_are_not_one_series() -> None:
    table = DeviceTable(3)
    table["power_w"][:] = 1.0
    found = families(DeviceSeries(inventory(3, macs=bytes(18))), table)
    assert len({s.labels["device"] for s in found["gridpivot_device_power_watts"].samples}) == 3


def test_large_site_comes_in_chunks_that_give_others_their_turn() -> None:
    count = 11_250
    table = DeviceTable(count)
    for column, _, _ in SERIES:
        table[column][:] = 1
    chunks = list(DeviceSeries(inventory(count)).render(table))
    assert len(chunks) == len(SERIES) * (1 + -(-count // CHUNK))
    assert max(chunk.count(b"\n") for chunk in chunks) <= CHUNK
    assert sum(chunk.count(b"gridpivot_device_power_watts{") for chunk in chunks) == count
