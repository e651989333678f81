"""A whole controller on loopback: real TLS, real gRPC, real SQLite; its sites are fed by hand."""

import datetime as dt
import io
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from controller.identity.files import make_identity
from controller.service import ControllerService
from controller.settings import ControllerSettings
from gridpivot import observability
from gridpivot.columns import DeviceTable, encode_report
from gridpivot.curves import gpu_pool, miner_class
from gridpivot.v1 import telemetry_pb2 as pb
from gridpivot.vocabulary import AiPriority, DeviceState

DEVICES = 100
HASH = b"h" * 32


def controller_settings(state_dir: Path) -> ControllerSettings:
    """Two sites, ports chosen by the system."""
    return ControllerSettings.model_validate(
        {
            "state_dir": state_dir,
            "listen": {"host": "127.0.0.1", "session_port": 0, "operator_port": 0, "http_port": 0},
            "dispatch": {"look_s": 0.05},
            "sites": [
                {"name": "falcon-1", "region": "ercot", "ceiling_mw": 0.4},
                {"name": "oryx-1", "region": "uae", "ceiling_mw": 0.4},
            ],
        }
    )


def feed(service: ControllerService, site: str) -> None:
    """What an agent would have sent: an inventory, a roll-up, a device report."""
    assert service.operations is not None
    live, now = service.operations.fleet[site], service.clock.now()
    live.take_inventory(
        pb.Inventory(
            inventory_hash=HASH,
            device_count=DEVICES,
            classes=[miner_class("s19-luxos", "luxos", "Antminer S19", shed_s=5, wake_s=10).to_proto()],
            class_indexes=bytes(DEVICES),
            pools=[gpu_pool("train", AiPriority.STANDARD, 8).to_proto()],
        )
    )
    counts = [0] * len(DeviceState)
    counts[DeviceState.HASHING.code] = DEVICES
    live.take_rollup(
        pb.SiteRollup(
            observed_at_unix_ms=now.unix_ms,
            metered_power_w=345_000.0,
            assumed_power_w=345_000.0,
            mining_power_w=325_000.0,
            ai_power_w=4_000.0,
            overhead_power_w=16_000.0,
            hashrate_hs=9.5e15,
            live_ceiling_w=4e5,
            site_ceiling_w=4e5,
            meter_trust="trusted",
            rung="plan",
            stage="full",
            classes=[
                pb.ClassRollup(
                    name="s19-luxos",
                    state_counts=counts,
                    mode_counts=[0, 0, DEVICES, 0],
                    power_w=325_000.0,
                    hashrate_hs=9.5e15,
                    available=DEVICES,
                )
            ],
            pools=[pb.PoolRollup(name="train", power_w=4_000.0, limit_w=8_800.0, demand_w=8_800.0, gpus_present=8)],
        ),
        now,
    )
    table = DeviceTable(DEVICES)
    table["power_w"][:] = 3250.0
    table["state"][:] = DeviceState.HASHING.code
    live.take_report(encode_report(table, HASH, now.unix_ms), now)


@pytest.fixture
async def controller(tmp_path: Path) -> AsyncIterator[ControllerService]:
    """A running controller; falcon-1 has reported, oryx-1 never did."""
    observability.configure("json", stream=io.StringIO())
    settings = controller_settings(tmp_path / "state")
    make_identity(settings, "test", ["localhost", "127.0.0.1"], dt.datetime.now(dt.UTC))
    service = ControllerService(settings)
    await service.start()
    feed(service, "falcon-1")
    yield service
    await service.stop()
