"""Every JSON document keeps its shape: names, order and types are held by golden files.

To change one on purpose, run with GRIDPIVOT_WRITE_GOLDEN=1 and read the difference.
"""

import json
import os
from datetime import UTC, datetime
from pathlib import Path

import pytest

from gridpivot import dispatch_shapes, shapes
from gridpivot import shapes_identity as identity
from gridpivot.shapes import Document
from gridpivot.shapes_ai import AiPoolFigures, CurvePointFigures, LeverFigures, SiteAiShape, WorkFigures
from gridpivot.shapes_backtest import AccountFigures, BacktestShape
from gridpivot.shapes_local import LocalOrdersShape
from gridpivot.shapes_nodes import NodesShape, NodeTokenShape
from gridpivot.shapes_site import CommissionShape, EnergyFigures, SiteShape

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
ENERGY = {"ledger": "0f" * 16} | dict.fromkeys(list(EnergyFigures.model_fields)[1:], 7_200_000)
ACCOUNT = dict.fromkeys(AccountFigures.model_fields, 1.5)
EXAMPLES: dict[str, Document] = {
    "local_orders": LocalOrdersShape(
        site="falcon-1",
        orders=[
            {"order_id": "local-1", "kind": "shed", "ceiling_w": 5e6, "by": "ann", "reason": "hot", "set_at": NOON}
        ],
        events=[{"event_id": "e1", "ceiling_w": 1e7}],
    ),
    "agent_token": identity.AgentTokenShape(token="gpt1.AAAA", token_id="a1", site="falcon-1", expires_at=NOON),
    "agent_tokens": identity.AgentTokensShape(
        tokens=[{"token_id": "a1", "site": "falcon-1", "state": "unused", "created_at": NOON, "expires_at": NOON}]
    ),
    "operators": identity.OperatorsShape(
        operators=[{"name": "ann", "role": "viewer", "by": "token", "created_at": NOON, "revoked": False}]
    ),
    "identities": identity.IdentitiesShape(
        sites=[{"site": "falcon-1", "serial": "1f", "issued_at": NOON, "not_after": NOON, "state": "valid"}],
        recoveries=[{"site": "oryx-1", "fingerprint": "ab" * 32, "asked_at": NOON, "origin": "ipv4:127.0.0.1:5"}],
    ),
    "decided": identity.DecidedShape(site="falcon-1", state="approved", audit_id="audit-1"),
    "audit": identity.AuditShape(
        lines=[{"audit_id": "audit-1", "at": NOON, "actor": "ann", "action": "event", "reason": "call", "request": {}}]
    ),
    "events": identity.EventsShape(
        events=[
            {
                "event_id": "event-1",
                "kind": "event",
                "sites": ["falcon-1"],
                "state": "active",
                "starts_at": NOON,
                "ceiling_w": 2e5,
                "reason": "call",
            }
        ]
    ),
    "released": identity.ReleasedShape(event_id="event-1", sites=["falcon-1"], audit_id="audit-1"),
    "sites": shapes.SitesShape(fleet=FLEET, sites=[SITE]),
    "site_ai": SiteAiShape(
        site="ercot-01",
        report_age_s=1.5,
        ai_power_w=2.4e6,
        pools=[
            AiPoolFigures(
                name="training",
                power_w=9e5,
                limit_w=1.1e6,
                gpus_present=1024,
                admitting=False,
                promised_w=2e5,
                delivered_w=1.9e5,
                promised_total_w=2e5,
                delivered_total_w=1.9e5,
                levers=[
                    LeverFigures(
                        order_id="ai-1-1",
                        lever="requeue",
                        state="short",
                        outcome="done",
                        promised_w=2e5,
                        delivered_w=1.9e5,
                        short_w=1e4,
                        promised_s=40.0,
                        work_lost_gpu_h=3.5,
                        subjects=4,
                        detail="job7: still running",
                    )
                ],
                work=[WorkFigures(priority="standard", running_gpu_h=800.0, pending_gpu_h=4e3)],
                curve=[CurvePointFigures(power_w=6e5, throughput_ratio=0.73, throughput_sd=0.08)],
            )
        ],
    ),
    "site": SiteShape(**SITE, classes=[CLASS], pools=[POOL], energy=ENERGY),
    "commission": CommissionShape(
        running=False,
        feeder=None,
        phase=None,
        feeders_left=0,
        stage="shed_only",
        stage_reason="the step test earned shed_only only",
        results=[
            {
                "feeder": "A",
                "verdict": "passed",
                "meaning": "the meter fell as it should",
                "machines": 40,
                "feeder_w": 4.2e6,
                "expected_w": 126e3,
                "fell_w": 121e3,
                "fell_after_s": 4.0,
                "rose_w": None,
                "rose_after_s": None,
                "woke": False,
                "left_asleep": 0,
            }
        ],
    ),
    "plan": shapes.PlanShape(
        site="falcon-1",
        epoch=3,
        version=7,
        issued_at=NOON,
        pools=[
            {"name": "train", "max_w": 9e5, "expected_w": 8e5, "fallback_w": 6e5, "value_usd_per_mwh": 2_000.0}
            | {"admits": False, "nodes": [{"name": "gpu-001", "fallback_w": 6e3}]}
        ],
        events=[{"event_id": "e1", "ceiling_w": 1e7, "starts_at": NOON, "ends_at": None, "reason": "ercot call"}],
    ),
    "explain": shapes.ExplainShape(
        site="falcon-1",
        decided_at=NOON,
        trigger="interval",
        binding=[{"name": "site ceiling", "limit": 2.2e7, "shadow_price_usd_per_mwh": 41.0}],
        merit=[],
        sentences=["The site ceiling binds."],
        rung="plan",
        worth={
            "interconnect_usd_per_mw": 310.5,
            "feeder_usd_per_mw": {"north": 12.0},
            "promised_gpu_usd": {"inference": 0.4},
            "sold_usd_per_mw": {"ecrs": 3.0},
            "notice_usd": {"e1": 25.0},
        },
        outlook=[
            {
                "starts_at": NOON,
                "width_s": 300.0,
                "price_usd_per_mwh": 31.5,
                "ceiling_w": 2.2e7,
                "import_w": 2.2e7,
                "mining_w": 2e7,
                "ai_w": 1e6,
                "shadow": [{"name": "site ceiling", "kind": "ceiling", "usd_per_mwh": 41.0}],
            }
        ],
        queues=[
            {"pool": "train", "running_gpu_h": 800.0, "pending_gpu_h": 4e3, "deferrable_gpu_h": 3e3, "admitting": True}
        ],
    ),
    "override": shapes.OverrideShape(site="falcon-1", released=False, ceiling_w=1e7, audit_id="a1"),
    "event": shapes.EventShape(event_id="e1", sites=["falcon-1"], audit_id="a2"),
    "preview": dispatch_shapes.PreviewShape(
        cost_usd=840.0,
        notice_usd=25.0,
        horizon_s=172_800.0,
        solve_s=0.3,
        sites=[
            {
                "site": "falcon-1",
                "ceiling_w": 1e7,
                "import_before_w": 2.2e7,
                "import_after_w": 1e7,
                "mining_before_w": 2e7,
                "mining_after_w": 8.4e6,
                "ai_before_w": 1e6,
                "ai_after_w": 1e6,
                "over_w": 0.0,
                "classes": [
                    {"name": "s19-luxos"}
                    | {
                        f"{mode}_machines_{when}": 10.0
                        for when in ("before", "after")
                        for mode in ("sleep", "low", "normal", "turbo")
                    }
                ],
                "pools": [{"name": "train", "priority": "standard", "before_w": 8000.0, "after_w": 8000.0}],
            }
        ],
        left_out=["oryx-1: has not reported yet"],
    ),
    "decisions": dispatch_shapes.DecisionsShape(
        decisions=[
            {
                "decision_id": "decision-1",
                "decided_at": NOON,
                "trigger": "interval",
                "rung": "merit_order",
                "objective_usd": None,
                "plans": 1,
            }
        ]
    ),
    "replay": dispatch_shapes.ReplayShape(
        decision_id="decision-1",
        decided_at=NOON,
        same=False,
        differences=["falcon-1: classes differ"],
        sites=1,
        plans=1,
        solver="HiGHS 1.12.0",
        solve_s=0.1,
    ),
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
    "node_token": NodeTokenShape(token="gpt1.AAAA", token_id="a1", site="falcon-1", node="gpu-1", expires_at=NOON),
    "nodes": NodesShape(
        site="falcon-1",
        nodes=[
            {"node": "gpu-1", "pool": "train", "state": "valid", "certificate_ends_at": NOON, "link": "connected"}
            | {
                "gpus": 8,
                "power_w": 4100.0,
                "limit_w": 5600.0,
                "wall_w": 7300.0,
                "order": "checking",
                "order_ends_at": NOON,
                "fallback_w": 2400.0,
            },
            {"node": "gpu-2", "pool": "train", "state": "invited"},
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
