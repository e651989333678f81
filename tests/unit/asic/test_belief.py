"""What of a reading is believed: absurd figures are unknown and counted, a stranger's reading is nobody's."""

from __future__ import annotations

from dataclasses import replace

import pytest

from agent.asic.belief import Expected, believe, same_model
from agent.asic.family import Reading
from gridpivot.vocabulary import DeviceState, Mode, Provenance, Reason

pytestmark = pytest.mark.unit
HONEST = Reading(
    power_w=3500.0,
    hashrate_hs=2e14,
    temp_c=70.0,
    state=DeviceState.HASHING,
    mode=Mode.NORMAL,
    provenance=Provenance.DEVICE,
    accepted_shares=100,
    uptime_s=3600.0,
    model="Antminer S21",
    mac="02:00:00:00:00:01",
)
OURS = Expected("02:00:00:00:00:01", "Antminer S21")


def test_an_honest_reading_is_passed_on_as_it_is() -> None:
    assert believe(HONEST, OURS) == (HONEST, ())


@pytest.mark.parametrize(
    ("field", "value", "word"),
    [
        ("power_w", 1e6, "power"),
        ("power_w", -5.0, "power"),
        ("hashrate_hs", 1e16, "hashrate"),
        ("hashrate_hs", -1.0, "hashrate"),
        ("temp_c", 900.0, "temperature"),
        ("temp_c", -273.0, "temperature"),
        ("uptime_s", -1.0, "uptime"),
        ("accepted_shares", -1, "shares"),
    ],
)
def test_an_absurd_figure_is_unknown_and_has_its_word(field: str, value: float, word: str) -> None:
    believed, doubts = believe(replace(HONEST, **{field: value}), OURS)
    assert doubts == (word,)
    assert getattr(believed, field) is None
    assert believed.reason is Reason.IMPLAUSIBLE


def test_watts_that_are_not_believed_lose_their_provenance_too() -> None:
    assert believe(replace(HONEST, power_w=1e6), OURS)[0].provenance is Provenance.UNKNOWN


def test_without_a_hashrate_to_believe_the_state_is_unknown_but_a_fault_stays_one() -> None:
    assert believe(replace(HONEST, hashrate_hs=1e17), OURS)[0].state is DeviceState.UNKNOWN
    faulty = replace(HONEST, hashrate_hs=1e17, state=DeviceState.FAULT)
    assert believe(faulty, OURS)[0].state is DeviceState.FAULT


@pytest.mark.parametrize(
    ("change", "word"), [({"mac": "02:00:00:00:00:99"}, "other_mac"), ({"model": "Antminer S19 Pro"}, "other_model")]
)
def test_of_a_stranger_nothing_is_believed_but_its_name(change: dict[str, str], word: str) -> None:
    believed, doubts = believe(replace(HONEST, **change), OURS)
    assert doubts == (word,)
    assert (believed.power_w, believed.hashrate_hs, believed.state) == (None, None, DeviceState.UNKNOWN)
    assert believed.reason is Reason.WRONG_DEVICE
    assert (believed.mac, believed.model) == (change.get("mac", HONEST.mac), change.get("model", HONEST.model))


@pytest.mark.parametrize(
    ("expected", "said", "same"),
    [
        ("Antminer S21", "Antminer S21", True),
        ("Whatsminer M50", "Whatsminer M50S+_VH30", True),
        ("Antminer S19 Pro", "S19Pro", True),
        ("Antminer S19", "Antminer S21", False),
        ("Whatsminer M30S++", "Whatsminer M50", False),
        ("Antminer S21", None, True),
        ("", "Antminer S21", True),
        ("my own class", "Antminer S21", True),
    ],
)
def test_models_are_compared_by_their_core(expected: str, said: str | None, same: bool) -> None:
    assert same_model(expected, said) is same


def test_a_mac_in_capitals_is_the_same_mac() -> None:
    assert believe(replace(HONEST, mac="02:00:00:00:00:0A"), Expected("02:00:00:00:00:0a"))[1] == ()
