"""What a BMC tells, over real sockets: the newer and the older resource, bad input of every kind, sessions, trust, resets."""

from __future__ import annotations

import pytest

from agent.bmc.outcomes import BmcOutcome, BmcTrouble
from agent.bmc.reader import BmcReader, BmcSample, pause_after_s
from agent.bmc.settings import BmcSettings
from gridpivot.clock import SystemClock
from sim.redfish.bmc import CHASSIS, SYSTEM, environment, power
from tests.unit.bmc.conftest import Rack
from tests.unit.node.site_of_nodes import HandClock

pytestmark = pytest.mark.unit


async def read(settings: BmcSettings) -> BmcSample:
    reader = BmcReader("gpu-001", settings, SystemClock())
    try:
        return await reader.read()
    finally:
        await reader.close()


async def trouble(settings: BmcSettings) -> BmcTrouble:
    with pytest.raises(BmcTrouble) as caught:
        await read(settings)
    return caught.value


@pytest.mark.parametrize(("newer", "older"), [(True, False), (False, True), (True, True)])
async def test_power_is_read_from_the_newer_and_from_the_older_resource(rack: Rack, newer: bool, older: bool) -> None:
    rack.bmc.newer, rack.bmc.older = newer, older
    sample = await read(rack.settings())
    assert (sample.power_w, sample.on) == (2000.0, True)
    rack.host.on = False
    sample = await read(rack.settings())
    assert (sample.power_w, sample.on) == (60.0, False)


async def test_a_newer_resource_without_a_figure_falls_back_to_the_older(rack: Rack) -> None:
    rack.bmc.older = True
    rack.bmc.changes[f"{CHASSIS}/EnvironmentMetrics"] = {"PowerWatts": {"Reading": None}}
    assert (await read(rack.settings())).power_w == 2000.0


async def test_a_link_that_leads_nowhere_falls_back_to_the_older(rack: Rack) -> None:
    rack.bmc.older = True
    rack.bmc.changes[f"{CHASSIS}/EnvironmentMetrics"] = 404
    assert (await read(rack.settings())).power_w == 2000.0


async def test_parts_beside_the_whole_are_not_added_to_it(rack: Rack) -> None:
    rack.bmc.newer, rack.bmc.older = False, True
    rack.bmc.changes[f"{CHASSIS}/Power"] = power(2000.0, 400.0, 90.0, None)
    assert (await read(rack.settings())).power_w == 2000.0


@pytest.mark.parametrize(
    "figure", ["2000", True, None, [], {"W": 2000}, -5.0, 0.0, 2e6], ids=["text", "bool", "null", "list", "object", "negative", "zero", "absurd"]
)  # fmt: skip
async def test_what_is_no_power_of_a_running_host_is_refused(rack: Rack, figure: object) -> None:
    rack.bmc.changes[f"{CHASSIS}/EnvironmentMetrics"] = {"PowerWatts": {"Reading": figure}}
    assert (await trouble(rack.settings())).outcome in (BmcOutcome.NO_POWER, BmcOutcome.IMPLAUSIBLE)


async def test_a_host_that_is_off_may_draw_nothing(rack: Rack) -> None:
    rack.host.on, rack.host.standby_w = False, 0.0
    assert await read(rack.settings()) is not None


async def test_a_power_state_on_its_way_is_unknown(rack: Rack) -> None:
    rack.bmc.changes[SYSTEM] = {"PowerState": "PoweringOff"}
    assert (await read(rack.settings())).on is None


async def test_a_chassis_inside_another_is_not_counted_beside_it(rack: Rack) -> None:
    board = "/redfish/v1/Chassis/HGX_Chassis_0"
    rack.bmc.more[board] = {
        "Id": "HGX_Chassis_0",
        "Links": {"ContainedBy": {"@odata.id": f"{CHASSIS}/"}},
        "EnvironmentMetrics": {"@odata.id": f"{board}/EnvironmentMetrics"},
    }
    rack.bmc.more[f"{board}/EnvironmentMetrics"] = environment(1500.0)
    both = [{"@odata.id": CHASSIS}, {"@odata.id": board}]
    rack.bmc.changes[SYSTEM] = {"Links": {"Chassis": both}}
    rack.bmc.changes["/redfish/v1/Chassis"] = {"Members": both}
    assert (await read(rack.settings())).power_w == 2000.0
    assert (await read(rack.settings(chassis="HGX_Chassis_0"))).power_w == 1500.0


async def test_two_chassis_that_tell_power_have_to_be_named(rack: Rack) -> None:
    other = "/redfish/v1/Chassis/2"
    rack.bmc.more[other] = {"Id": "2", "EnvironmentMetrics": {"@odata.id": f"{other}/EnvironmentMetrics"}}
    rack.bmc.more[f"{other}/EnvironmentMetrics"] = environment(700.0)
    both = [{"@odata.id": CHASSIS}, {"@odata.id": other}]
    rack.bmc.changes[SYSTEM] = {"Links": {"Chassis": both}}
    rack.bmc.changes["/redfish/v1/Chassis"] = {"Members": both}
    said = await trouble(rack.settings())
    assert said.outcome is BmcOutcome.SEVERAL
    assert "1, 2" in str(said)
    assert (await read(rack.settings(chassis="2"))).power_w == 700.0
    assert (await trouble(rack.settings(chassis="3"))).outcome is BmcOutcome.NO_POWER


async def test_of_two_systems_the_physical_one_is_the_host(rack: Rack) -> None:
    board = "/redfish/v1/Systems/HGX_Baseboard_0"
    rack.bmc.more[board] = {"Id": "HGX_Baseboard_0", "SystemType": "Physical"}
    rack.bmc.changes["/redfish/v1/Systems"] = {"Members": [{"@odata.id": SYSTEM}, {"@odata.id": board}]}
    said = await trouble(rack.settings())
    assert said.outcome is BmcOutcome.SEVERAL
    assert "HGX_Baseboard_0" in str(said)
    assert (await read(rack.settings(system="1"))).power_w == 2000.0
    rack.bmc.more[board]["SystemType"] = "Virtual"
    assert (await read(rack.settings())).power_w == 2000.0


async def test_a_link_out_of_the_bmc_is_not_followed(rack: Rack) -> None:
    rack.bmc.changes[CHASSIS] = {"EnvironmentMetrics": {"@odata.id": "https://elsewhere.example/redfish/v1"}}
    assert (await trouble(rack.settings())).outcome is BmcOutcome.NO_POWER


@pytest.mark.parametrize("body", [b"<html>", b"[]", b'{"Systems": NaN}', b" " * (2**20 + 9)])
async def test_a_body_that_is_no_object_or_too_large_is_refused(rack: Rack, body: bytes) -> None:
    rack.bmc.changes["/redfish/v1"] = body
    assert (await trouble(rack.settings())).outcome is BmcOutcome.GARBLED


async def test_silence_ends_at_the_deadline(rack: Rack) -> None:
    rack.bmc.silent = True
    assert (await trouble(rack.settings(deadline_s=0.3))).outcome is BmcOutcome.SLOW


async def test_nobody_there_is_unreachable(rack: Rack) -> None:
    settings = rack.settings()
    await rack.port.close()
    assert (await trouble(settings)).outcome is BmcOutcome.UNREACHABLE


async def test_another_certificate_than_the_pinned_one_never_sees_a_request(rack: Rack) -> None:
    said = await trouble(rack.settings(pin_sha256="0" * 64))
    assert said.outcome is BmcOutcome.UNTRUSTED
    assert rack.pin in str(said)
    assert rack.bmc.asked == []


async def test_a_certificate_of_the_given_ca_is_trusted_and_any_other_is_not(rack: Rack) -> None:
    assert (await read(rack.settings(pin_sha256=None, ca_file=rack.ca_file))).power_w == 2000.0
    rack.bmc.asked.clear()
    assert (await trouble(rack.settings(pin_sha256=None))).outcome is BmcOutcome.UNTRUSTED
    assert rack.bmc.asked == []


async def test_a_wrong_password_is_told_apart(rack: Rack) -> None:
    rack.password_file.write_text("volts\n")
    assert (await trouble(rack.settings())).outcome is BmcOutcome.UNAUTHORISED
    assert (await trouble(rack.settings(auth="basic"))).outcome is BmcOutcome.UNAUTHORISED


async def test_a_password_that_others_can_read_is_not_used(rack: Rack) -> None:
    rack.password_file.chmod(0o644)
    said = await trouble(rack.settings())
    assert said.outcome is BmcOutcome.UNAUTHORISED
    assert "chmod 600" in str(said)


async def test_one_session_serves_every_reading_and_is_given_back(rack: Rack) -> None:
    reader = BmcReader("gpu-001", rack.settings(), SystemClock())
    for _ in range(3):
        assert await reader.look()
    assert len(rack.bmc.sessions) == 1
    await reader.close()
    assert rack.bmc.sessions == {}


async def test_a_session_that_has_ended_is_opened_again_once(rack: Rack) -> None:
    reader = BmcReader("gpu-001", rack.settings(), SystemClock())
    assert await reader.look()
    rack.bmc.sessions.clear()
    assert await reader.look()
    assert len(rack.bmc.sessions) == 1
    await reader.close()


async def test_a_bmc_without_a_session_left_is_busy_and_basic_auth_needs_none(rack: Rack) -> None:
    rack.bmc.most_sessions = 0
    assert (await trouble(rack.settings())).outcome is BmcOutcome.BUSY
    assert (await read(rack.settings(auth="basic"))).power_w == 2000.0


async def test_after_the_first_look_a_reading_costs_two_requests(rack: Rack) -> None:
    reader = BmcReader("gpu-001", rack.settings(), SystemClock())
    await reader.look()
    rack.bmc.asked.clear()
    await reader.look()
    assert rack.bmc.asked == [f"GET {SYSTEM}", f"GET {CHASSIS}/EnvironmentMetrics"]
    await reader.close()


async def test_a_failed_look_keeps_the_last_reading_which_ages(rack: Rack) -> None:
    reader = BmcReader("gpu-001", rack.settings(), SystemClock())
    assert await reader.look()
    sample = reader.newest()
    assert sample is not None
    rack.bmc.changes[f"{CHASSIS}/EnvironmentMetrics"] = 503
    assert not await reader.look()
    assert reader.outcome is BmcOutcome.BUSY
    assert reader.newest() is sample
    assert reader.fresh(sample.read_at_s + 39.9) is sample
    assert reader.fresh(sample.read_at_s + 40.1) is None
    await reader.close()


async def test_shutting_down_is_graceful_or_not_at_all(rack: Rack) -> None:
    reader = BmcReader("gpu-001", rack.settings(), SystemClock())
    await reader.shut_down()
    assert rack.host.resets == ["GracefulShutdown"]
    rack.bmc.reset_types = ("On", "ForceOff")
    other = BmcReader("gpu-001", rack.settings(), SystemClock())
    with pytest.raises(BmcTrouble) as caught:
        await other.shut_down()
    assert caught.value.outcome is BmcOutcome.UNSUPPORTED
    assert rack.host.resets == ["GracefulShutdown"]
    for one in (reader, other):
        await one.close()


async def test_a_host_that_is_on_is_not_switched_on_again(rack: Rack) -> None:
    reader = BmcReader("gpu-001", rack.settings(), SystemClock())
    await reader.switch_on()
    assert rack.host.resets == []
    rack.host.on = False
    await reader.switch_on()
    assert rack.host.resets == ["On"]
    await reader.close()


async def test_reset_types_may_stand_in_a_resource_of_their_own(rack: Rack) -> None:
    info = f"{SYSTEM}/ResetActionInfo"
    target = f"{SYSTEM}/Actions/ComputerSystem.Reset"
    action = {"target": target, "@Redfish.ActionInfo": info}
    rack.bmc.changes[SYSTEM] = {"Actions": {"#ComputerSystem.Reset": action}}
    values = {"Name": "ResetType", "AllowableValues": ["On", "GracefulShutdown"]}
    rack.bmc.more[info] = {"Id": "ResetActionInfo", "Parameters": [values]}
    reader = BmcReader("gpu-001", rack.settings(), SystemClock())
    assert await reader.offers("GracefulShutdown")
    assert not await reader.offers("ForceOff")
    await reader.close()


@pytest.mark.parametrize(
    ("outcome", "failures", "pause_s"),
    [("ok", 0, 10.0), ("slow", 1, 20.0), ("slow", 3, 80.0), ("slow", 9, 300.0), ("unauthorised", 1, 300.0)],
)
def test_a_bmc_that_fails_is_asked_less_often_and_a_wrong_password_hardly_ever(
    outcome: str, failures: int, pause_s: float
) -> None:
    assert pause_after_s(BmcOutcome(outcome), failures, 10.0) == pause_s


async def test_who_is_in_a_hurry_still_leaves_a_bmc_five_seconds_and_a_failing_one_its_pause(rack: Rack) -> None:
    clock = HandClock()
    reader = BmcReader("gpu-001", rack.settings(), clock)
    await reader.look()
    reader.hurry()
    assert not reader._hurry.is_set()
    clock.s += 5.0
    reader.hurry()
    assert reader._hurry.is_set()
    reader._hurry.clear()
    rack.bmc.changes[SYSTEM] = 401
    await reader.look()
    clock.s += 60.0
    reader.hurry()
    assert reader.outcome is BmcOutcome.UNAUTHORISED and not reader._hurry.is_set()
    await reader.close()
