"""Every JSON document keeps its shape: names, order and types are held by golden files.

To change one on purpose, run with GRIDPIVOT_WRITE_GOLDEN=1 and read the difference.
"""

import json
import os
from datetime import UTC, datetime
from pathlib import Path

import pytest

from gridpivot import shapes
from gridpivot.shapes import Document
from gridpivot.shapes_backtest import AccountFigures, BacktestShape

pytestmark = pytest.mark.unit

GOLDEN = Path(__file__).parent / "golden"
NOON = datetime(2024, 8, 20, 12, 0, tzinfo=UTC)
SITE = {"site": "falcon-1", "region": "ercot", "link": "connected", "metered_power_w": 21_500_000.0}
CLASS = {
    "name": "s19-luxos",
    "state_counts": {"hashing": 10},
    "mode_counts": {"normal": 10},
    "power_w": 32_500.0,
    "hashrate_hs": 9.5e14,
    "available": 10,
    "silent": 0,
}
POOL = {"name": "train", "power_w": None, "limit_w": 9000.0, "demand_w": 8000.0, "gpus_present": 8}
FLEET = {
    "sites": 1,
    "sites_connected": 1,
    "devices_reporting": 10,
    "power_w": 2.15e7,
    "mining_power_w": 2e7,
    "ai_power_w": 1e6,
    "overhead_power_w": 5e5,
    "hashrate_hs": 9.5e14,
    "margin_usd_per_h": 120.5,
    "hashprice_usd_per_ph_day": 44.0,
    "last_dispatch_at": NOON,
    "last_dispatch_reason": "interval",
    "reports_received": 12,
}
ACCOUNT = dict.fromkeys(AccountFigures.model_fields, 1.5)
EXAMPLES: dict[str, Document] = {
    "sites": shapes.SitesShape(fleet=FLEET, sites=[SITE]),
    "site": shapes.SiteShape(**SITE, classes=[CLASS], pools=[POOL]),
    "plan": shapes.PlanShape(
        site="falcon-1",
        epoch=3,
        version=7,
        issued_at=NOON,
        events=[{"event_id": "e1", "ceiling_w": 1e7, "starts_at": NOON, "ends_at": None, "reason": "ercot call"}],
    ),
    "explain": shapes.ExplainShape(
        site="falcon-1",
        decided_at=NOON,
        trigger="interval",
        binding=[{"name": "site ceiling", "limit": 2.2e7, "shadow_price_usd_per_mwh": 41.0}],
        merit=[],
        sentences=["The site ceiling binds."],
    ),
    "override": shapes.OverrideShape(site="falcon-1", released=False, ceiling_w=1e7, audit_id="a1"),
    "event": shapes.EventShape(event_id="e1", sites=["falcon-1"], audit_id="a2"),
    "check_config": shapes.CheckConfigShape(path="controller.toml", ok=False, problems=["x:1: unknown key"]),
    "agent_status": shapes.AgentStatusShape(
        site="falcon-1",
        agent_version="0.1.0",
        running=False,
        spool=[{"lane": "events", "records": 1, "bytes": 80, "oldest_age_s": 2.5}],
    ),
    "decode": shapes.DecodeShape(family="luxos", outcome="ok", power_w=float("nan")),
    "discover": shapes.DiscoveryShape(
        addresses=254,
        added=1,
        moved=0,
        swapped=0,
        left_out=0,
        devices=[
            {
                "host": "10.0.0.7",
                "family": "luxos",
                "model": "Antminer S21",
                "firmware": None,
                "mac_address": "02:00:00:00:00:07",
                "serial": None,
                "power_w": 3500.0,
                "hashrate_hs": 2e14,
            }
        ],
    ),
    "locks": shapes.LocksShape(
        site="falcon-1",
        locks=[
            {
                "target": "rack:R07",
                "kind": "rack",
                "mac_address": None,
                "by": "ana",
                "reason": "fans",
                "set_at": NOON,
                "device_count": 24,
            }
        ],
    ),
    "backtest": BacktestShape(
        fleet="fleet.toml",
        begins_at=NOON,
        ends_at=NOON,
        interval_s=900.0,
        intervals=96,
        prices=["rt.csv"],
        day_ahead=[],
        hashprice="50 USD/PH/day",
        calls=1,
        notes=[],
        policies=[
            {"policy": "lp", "regret_ratio": None, "wall_s": 0.5, "sites": [{"site": "falcon-1", **ACCOUNT}], **ACCOUNT}
        ],
    ),
    "doctor": shapes.DoctorShape(ok=True, checks=[{"name": "clock", "outcome": "ok", "detail": "synchronised"}]),
}


@pytest.mark.parametrize("name", sorted(EXAMPLES))
def test_document_matches_its_golden_file(name: str) -> None:
    text = EXAMPLES[name].model_dump_json(indent=2) + "\n"
    path = GOLDEN / f"{name}.json"
    if os.environ.get("GRIDPIVOT_WRITE_GOLDEN"):
        path.write_text(text)
    assert text == path.read_text()


@pytest.mark.parametrize("name", sorted(EXAMPLES))
def test_schema_version_comes_first(name: str) -> None:
    assert next(iter(json.loads(EXAMPLES[name].model_dump_json()))) == "schema_version"


def test_unknown_is_null_and_never_a_bare_nan() -> None:
    assert json.loads(EXAMPLES["decode"].model_dump_json())["power_w"] is None


def test_every_document_has_an_example() -> None:
    assert {type(example) for example in EXAMPLES.values()} == set(Document.__subclasses__())


def test_times_are_rfc_3339_in_utc() -> None:
    assert json.loads(EXAMPLES["plan"].model_dump_json())["issued_at"] == "2024-08-20T12:00:00Z"


def test_never_is_none() -> None:
    assert shapes.utc(0) is None
    assert shapes.utc(None) is None
