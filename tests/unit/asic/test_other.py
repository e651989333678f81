"""Family other: what pyasic-rs says, believed with care. Mappings here are shaped like its own, written by hand."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

import pytest

from agent.asic.conversation import Line
from agent.asic.decode import recognise
from agent.asic.families.other import DATA, Other
from agent.asic.family import LibraryRequest, Memory
from agent.asic.registry import FAMILIES
from agent.asic.transport import Endpoint
from gridpivot.errors import BadReply, DeviceUnreachable
from gridpivot.vocabulary import DeviceState, Mode, Provenance, Reason

pytestmark = pytest.mark.unit
OTHER = FAMILIES["other"]


def said(**changes: Any) -> dict[str, Mapping[str, Any]]:
    whole = {
        "hashrate": {"algo": "SHA256", "unit": "TH/s", "value": 1.2},
        "wattage": 17.5,
        "is_mining": True,
        "uptime": timedelta(seconds=90),
        "mac": "02:00:00:00:00:01",
        "device_info": {"make": "Bitaxe", "model": "Supra", "firmware": "AxeOS"},
        "firmware_version": "2.9.0",
        "average_temperature": 50.0,
        "hashboards": [{"board_temperature": 55.0, "outlet_chip_temperature": 61.0, "serial_number": "SN1"}],
        "fans": [{"position": 0, "rpm": 4100.0}],
        "pools": [{"pools": [{"url": "stratum+tcp://pool.example:3333", "active": True, "accepted_shares": 7}]}],
        "messages": [],
        "tuning_target": {"type": "power", "value": 20.0},
    }
    return {DATA.name: {**whole, **changes}}


def test_library_data_becomes_a_reading_in_base_units() -> None:
    reading = OTHER.parse(said(), Memory())
    assert (reading.hashrate_hs, reading.power_w, reading.temp_c) == (1.2e12, 17.5, 61.0)
    assert (reading.state, reading.mode, reading.provenance) == (DeviceState.HASHING, Mode.NORMAL, Provenance.DEVICE)
    assert (reading.uptime_s, reading.fan_rpm, reading.power_limit_w) == (90.0, 4100.0, 20.0)
    assert (reading.model, reading.firmware, reading.mac) == ("Bitaxe Supra", "2.9.0", "02:00:00:00:00:01")
    assert (reading.pool_url, reading.accepted_shares) == ("stratum+tcp://pool.example:3333", 7)


@pytest.mark.parametrize(
    ("mining", "terahash", "state"),
    [
        (True, None, DeviceState.UNKNOWN),  # the library's word alone makes nothing hash
        (True, 0.0, DeviceState.IDLE),
        (False, 0.0, DeviceState.SLEEPING),
        (False, 1.0, DeviceState.STOPPING),
        (None, 1.0, DeviceState.HASHING),
    ],
)
def test_a_state_rests_on_the_hashrate(mining: bool | None, terahash: float | None, state: DeviceState) -> None:
    rate = None if terahash is None else {"algo": "SHA256", "unit": "TH/s", "value": terahash}
    assert OTHER.parse(said(is_mining=mining, hashrate=rate), Memory()).state is state


def test_a_rate_in_an_unknown_unit_or_of_another_algorithm_stays_unknown() -> None:
    for rate in ({"algo": "Scrypt", "unit": "GH/s", "value": 9.0}, {"algo": "SHA256", "unit": "Sol/s", "value": 9.0}):
        assert OTHER.parse(said(hashrate=rate), Memory()).hashrate_hs is None


def test_errors_of_the_library_are_faults_and_other_messages_are_not() -> None:
    messages = [
        {"severity": "Error", "code": 7, "message": "no chips"},
        {"severity": "Info", "code": 1, "message": "x"},
    ]
    idle = {"algo": "SHA256", "unit": "TH/s", "value": 0.0}
    reading = OTHER.parse(said(messages=messages, hashrate=idle), Memory())
    assert (reading.state, reading.fault_codes) == (DeviceState.FAULT, ("7 no chips",))


def test_nothing_and_nonsense_are_bad_replies_and_no_exceptions_of_another_kind() -> None:
    for replies in ({}, {DATA.name: None}, {DATA.name: []}):
        with pytest.raises(BadReply):
            OTHER.parse(replies, Memory())
    odd = dict.fromkeys(said()[DATA.name], object())
    assert OTHER.parse({DATA.name: odd}, Memory()).state is DeviceState.UNKNOWN


def test_it_is_last_in_line_and_recognises_nothing() -> None:
    assert list(FAMILIES)[-1] == "other"
    with pytest.raises(BadReply, match="--family"):
        recognise({"other": said()})


@pytest.mark.parametrize(
    ("mode", "reply", "reason", "retry"),
    [
        (Mode.SLEEP, {"supported": True, "said": True}, Reason.NONE, False),
        (Mode.NORMAL, {"supported": True, "said": False}, Reason.FAILED, True),
        (Mode.SLEEP, {"supported": False}, Reason.UNSUPPORTED, False),
    ],
)
def test_commands_say_what_the_library_said(mode: Mode, reply: dict[str, bool], reason: Reason, retry: bool) -> None:
    dialogue = OTHER.command(mode, Memory(), None, 0.0)
    asked = next(dialogue)
    assert isinstance(asked, LibraryRequest) and asked.action == ("pause" if mode is Mode.SLEEP else "resume")
    with pytest.raises(StopIteration) as stop:
        dialogue.send(reply)
    assert (stop.value.value.reason, stop.value.value.retry) == (reason, retry)


def test_modes_that_are_not_common_are_unsupported() -> None:
    for mode in (Mode.LOW, Mode.TURBO, Mode.UNKNOWN):
        with pytest.raises(StopIteration) as stop:
            next(OTHER.command(mode, Memory(), None, 0.0))
        assert stop.value.value.reason is Reason.UNSUPPORTED


async def test_a_host_with_no_open_port_is_unreachable_and_not_mining() -> None:
    line = Line(Other(), Endpoint("127.21.9.200"), None, Memory(), 2.0, Counter())
    with pytest.raises(DeviceUnreachable) as caught:
        await line.read(slow=False)
    assert caught.value.reason == Reason.UNREACHABLE
    outcome = await line.carry_out(Mode.SLEEP, 0.0)
    assert (outcome.reason, outcome.retry) == (Reason.UNREACHABLE, True)
