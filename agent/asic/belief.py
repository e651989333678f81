"""Which of a reading's figures are believed. Pure: the reading and what is known of its device in, words out.

A parser passes on what firmware says; here absurd figures become unknown, and each doubt has a word that is counted. A
device that answers with another MAC or another model is not the device of the inventory: nothing of it is believed.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from agent.asic.family import Reading
from gridpivot.vocabulary import DeviceState, Provenance, Reason

MAX_POWER_W = 20_000.0  # no single machine behind one control board draws more
MAX_HASHRATE_HS = 5e15  # several times the largest machine sold
TEMP_C = (-40.0, 150.0)  # silicon is dead above; sensors that are missing read far below
MAX_UPTIME_S = 1e10
MAX_COUNT = 2**53
_CORE = re.compile(r"\b([A-Z]{1,2}\d{2,4})", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Expected:
    """What the inventory says of a device; empty = it does not say. `mac` in lower case."""

    mac: str = ""
    model: str = ""


def believe(reading: Reading, expected: Expected) -> tuple[Reading, tuple[str, ...]]:
    """The reading with what is not believed taken out, and a word per doubt (empty for an honest device)."""
    if expected.mac and reading.mac is not None and reading.mac.lower() != expected.mac:
        return _stranger(reading), ("other_mac",)
    if not same_model(expected.model, reading.model):
        return _stranger(reading), ("other_model",)
    doubts: list[str] = []
    power_w = _inside(reading.power_w, 0.0, MAX_POWER_W, "power", doubts)
    hashrate_hs = _inside(reading.hashrate_hs, 0.0, MAX_HASHRATE_HS, "hashrate", doubts)
    temp_c = _inside(reading.temp_c, *TEMP_C, "temperature", doubts)
    uptime_s = _inside(reading.uptime_s, 0.0, MAX_UPTIME_S, "uptime", doubts)
    shares = _inside(reading.accepted_shares, 0, MAX_COUNT, "shares", doubts)
    if not doubts:
        return reading, ()
    state = reading.state
    if hashrate_hs is None and reading.hashrate_hs is not None and state is not DeviceState.FAULT:
        state = DeviceState.UNKNOWN  # every state rests on the hashrate
    return replace(
        reading,
        power_w=power_w,
        hashrate_hs=hashrate_hs,
        temp_c=temp_c,
        uptime_s=uptime_s,
        accepted_shares=None if shares is None else int(shares),
        state=state,
        reason=Reason.IMPLAUSIBLE if reading.reason is Reason.NONE else reading.reason,
        provenance=Provenance.UNKNOWN if power_w is None else reading.provenance,
    ), tuple(doubts)


def same_model(expected: str, said: str | None) -> bool:
    """Whether two model names can be one machine: their cores (S19, M50, A1246) agree, or one has none."""
    wanted, found = _CORE.search(expected), _CORE.search(said or "")
    return wanted is None or found is None or wanted.group(1).upper() == found.group(1).upper()


def _stranger(reading: Reading) -> Reading:
    """What is left of a reading that is somebody else's: who it says it is."""
    return Reading(reason=Reason.WRONG_DEVICE, model=reading.model, firmware=reading.firmware, mac=reading.mac)


def _inside(value: float | None, low: float, high: float, word: str, doubts: list[str]) -> float | None:
    if value is None or low <= value <= high:
        return value
    doubts.append(word)
    return None
