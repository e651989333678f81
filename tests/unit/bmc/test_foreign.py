"""DMTF's own Python client reads and switches the stand-in: it is Redfish and no idea of ours about Redfish."""

from __future__ import annotations

import asyncio
import warnings

import pytest

from sim.redfish.bmc import CHASSIS, SYSTEM
from tests.unit.bmc.conftest import Rack

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import redfish

pytestmark = pytest.mark.unit


def _walk(url: str, ca_file: str, auth: str) -> tuple[float, str, int]:
    client = redfish.redfish_client(base_url=url, username="meter", password="watts", cafile=ca_file)
    client.login(auth=auth)
    system = client.get(client.get(client.root.Systems["@odata.id"]).dict["Members"][0]["@odata.id"]).dict
    chassis = client.get(system["Links"]["Chassis"][0]["@odata.id"]).dict
    metrics = client.get(chassis["EnvironmentMetrics"]["@odata.id"]).dict
    target = system["Actions"]["#ComputerSystem.Reset"]["target"]
    status = client.post(target, body={"ResetType": "GracefulShutdown"}).status
    client.logout()
    return metrics["PowerWatts"]["Reading"], chassis["@odata.id"], status


@pytest.mark.parametrize("auth", ["session", "basic"])
async def test_a_foreign_client_reads_power_and_shuts_down(rack: Rack, auth: str) -> None:
    url = rack.settings().url
    watts, chassis, status = await asyncio.to_thread(_walk, url, str(rack.ca_file), auth)
    assert (watts, chassis, status) == (2000.0, CHASSIS, 204)
    assert rack.host.resets == ["GracefulShutdown"]
    assert not rack.host.on
    assert rack.bmc.sessions == {}


async def test_a_foreign_client_with_a_wrong_password_is_sent_away(rack: Rack) -> None:
    def wrong() -> None:
        client = redfish.redfish_client(
            base_url=rack.settings().url, username="meter", password="volts", cafile=str(rack.ca_file)
        )
        client.login(auth="session")

    with pytest.raises(redfish.rest.v1.InvalidCredentialsError):
        await asyncio.to_thread(wrong)
    assert f"GET {SYSTEM}" not in rack.bmc.asked
