"""Recorded replies of the three families decode to the figures that stand in the files.

Whatsminer v1 (btminer 20210322), LuxOS and the stock Antminer are real recordings; Whatsminer v2 is mostly hand-made
(its INDEX says so) and is trusted for the names of its keys only.
"""

from __future__ import annotations

from collections.abc import Callable

import orjson
import pytest

from agent.asic.decode import decode, normalised
from gridpivot.errors import BadReply
from gridpivot.vocabulary import DeviceState, Mode, Provenance

pytestmark = pytest.mark.unit
Recorded = Callable[[str], bytes]


def folder(recorded: Recorded, path: str, *names: str) -> dict[str, bytes]:
    return {name: recorded(f"asic-rs/{path}/{name}.json") for name in names}


def test_real_whatsminer_reads_watts_terahash_and_state(recorded: Recorded) -> None:
    decoded = decode(folder(recorded, "whatsminer/v1", "summary", "status"))
    reading = decoded.reading
    assert decoded.family == "whatsminer"
    assert reading.power_w == 3427.0  # Power_RT, not the slower Power of 3417
    assert reading.hashrate_hs == pytest.approx(70668114.52e6)  # MHS 5s
    assert reading.temp_c == 92.5
    assert (reading.accepted_shares, reading.uptime_s) == (2338, 10154.0)
    assert (reading.state, reading.mode) == (DeviceState.HASHING, Mode.NORMAL)
    assert reading.provenance is Provenance.DEVICE
    assert (reading.firmware, reading.mac) == ("20210322.22.REL", "C4:08:28:00:A4:19")


def test_hand_made_whatsminer_v2_keys_are_understood(recorded: Recorded) -> None:
    reading = decode(folder(recorded, "whatsminer/v2", "summary", "status")).reading
    assert reading.power_w == 3200.0
    assert reading.hashrate_hs == pytest.approx(124.5e12)
    assert reading.state is DeviceState.HASHING


def test_real_luxos_reads_estimated_watts_as_modelled(recorded: Recorded) -> None:
    decoded = decode(folder(recorded, "luxminer/v1", "summary", "power", "temps", "config", "version"))
    reading = decoded.reading
    assert decoded.family == "luxos"
    assert reading.power_w == 1051.0
    assert reading.provenance is Provenance.MODELLED  # the recording says "PSU": false
    assert reading.hashrate_hs == pytest.approx(59756.06e9)
    assert reading.temp_c == 47.0
    assert (reading.accepted_shares, reading.uptime_s) == (1483, 3453.0)
    assert (reading.state, reading.mode) == (DeviceState.HASHING, Mode.NORMAL)
    assert (reading.model, reading.firmware) == ("Antminer S19k Pro", "2025.4.8.220305-57b389c7")


def test_real_stock_antminer_has_no_watts_and_says_so(recorded: Recorded) -> None:
    decoded = decode(folder(recorded, "antminer/v2020", "summary", "stats", "version"))
    reading = decoded.reading
    assert decoded.family == "antminer"
    assert reading.power_w is None
    assert reading.provenance is Provenance.UNKNOWN
    assert reading.hashrate_hs == pytest.approx(110566.89e9)
    assert reading.temp_c == 78.0
    assert (reading.accepted_shares, reading.uptime_s) == (4057, 50474.0)
    assert reading.state is DeviceState.HASHING
    assert reading.mode is Mode.UNKNOWN  # the mode is not on this port
    assert reading.model == "Antminer S19 Pro"


def test_single_reply_file_decodes_without_being_told_the_family(recorded: Recorded) -> None:
    assert decode(recorded("asic-rs/antminer/v2020/stats.json")).reading.temp_c == 78.0
    assert decode(recorded("asic-rs/whatsminer/v1/summary.json")).family == "whatsminer"
    assert decode(recorded("asic-rs/luxminer/v1/summary.json")).family == "luxos"


def test_a_real_reply_with_its_commas_lost_still_decodes(recorded: Recorded) -> None:
    stats = orjson.dumps(orjson.loads(recorded("asic-rs/antminer/v2020/stats.json"))).replace(b"},{", b"}{")
    decoded = decode(stats)
    assert decoded.reading.hashrate_hs == pytest.approx(110566.89e9)
    assert decoded.repairs == ("missing_comma",)


def test_normalised_form_is_json_with_units_and_null_for_unknown(recorded: Recorded) -> None:
    shown = normalised(decode(recorded("asic-rs/antminer/v2020/summary.json")))
    assert orjson.loads(orjson.dumps(shown)) == shown
    assert next(iter(shown)) == "schema_version"
    assert shown["power_w"] is None and shown["state"] == "hashing"


def test_reply_of_no_known_family_is_refused_with_what_to_do() -> None:
    with pytest.raises(BadReply, match="--family"):
        decode(b'{"hello":"miner"}')
    with pytest.raises(BadReply, match="known: luxos, "):
        decode(b'{"SUMMARY":[{}]}', "toaster")
