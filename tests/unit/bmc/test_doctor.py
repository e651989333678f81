"""doctor about a BMC: each way in which it fails says what to do, in one line."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from agent.bmc.doctor import bmc_checks
from gridpivot.shapes import CheckFigures
from sim.redfish.bmc import CHASSIS
from tests.unit.bmc.conftest import Rack

pytestmark = pytest.mark.unit


async def check(rack: Rack, switches: bool = False, **changed: Any) -> CheckFigures:
    (found,) = await asyncio.to_thread(bmc_checks, [("gpu-001", rack.settings(**changed), switches)])
    return found


async def test_a_bmc_that_tells_power_is_shown_with_where_it_tells_it(rack: Rack) -> None:
    found = await check(rack, switches=True)
    assert (found.outcome, found.detail) == ("ok", f"2000 W, host on, chassis 1 by {CHASSIS}/EnvironmentMetrics")
    assert rack.bmc.sessions == {}, "doctor leaves no session behind"


@pytest.mark.parametrize(
    ("fault", "word", "remedy"),
    [
        ("password", "unauthorised", "password_file"),
        ("pin", "untrusted", "pin_sha256"),
        ("gone", "unreachable", "management network"),
        ("no power", "no_power", "chassis"),
        ("sessions", "busy", "basic"),
    ],
)
async def test_each_fault_has_its_word_and_its_remedy(rack: Rack, fault: str, word: str, remedy: str) -> None:
    changed: dict[str, Any] = {}
    if fault == "password":
        rack.password_file.write_text("volts\n")
    elif fault == "pin":
        changed["pin_sha256"] = "ab" * 32
    elif fault == "no power":
        rack.bmc.newer = False
    elif fault == "sessions":
        rack.bmc.most_sessions = 0
    else:
        changed["url"] = "https://127.0.0.1:1"
    found = await check(rack, **changed)
    assert found.outcome == "failed"
    assert found.detail.startswith(f"{word}: ") and remedy in (found.remedy or "")
    assert "watts" not in found.detail and "volts" not in found.detail, "no password is ever shown"


async def test_a_bmc_that_cannot_shut_down_gracefully_is_a_warning_where_that_is_wanted(rack: Rack) -> None:
    rack.bmc.reset_types = ("On", "ForceOff")
    assert (await check(rack)).outcome == "ok"
    found = await check(rack, switches=True)
    assert found.outcome == "warning"
    assert "shutdown_command" in (found.remedy or "")


async def test_many_bmcs_are_asked_beside_each_other_and_told_in_order(rack: Rack) -> None:
    gone = rack.settings(url="https://127.0.0.1:1")
    asked = [("a", rack.settings(auth="basic"), False), ("b", gone, False), ("c", rack.settings(auth="basic"), False)]
    found = await asyncio.to_thread(bmc_checks, asked)
    assert [(check.name, check.outcome) for check in found] == [
        ("BMC of a", "ok"), ("BMC of b", "failed"), ("BMC of c", "ok"),
    ]  # fmt: skip
