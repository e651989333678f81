"""A whole controller: it plans what it sees, signs, stores before it publishes, and comes back where it was."""

import asyncio
import datetime as dt
import io
from dataclasses import replace
from pathlib import Path

import grpc
import pytest
from cryptography.hazmat.primitives import serialization
from prometheus_client.parser import text_string_to_metric_families

from controller.cli import app
from controller.dispatch.inputs import Decision, FleetState
from controller.identity.caller import Caller
from controller.identity.files import make_identity
from controller.planner import PlanLoop
from controller.service import ControllerService, key_id
from controller.settings import ControllerSettings
from controller.store.ledger import unpack
from gridpivot import console, observability
from gridpivot.errors import GridpivotError, Infeasible, Refused, SettingsError
from gridpivot.plan import verify
from gridpivot.v1 import operator_pb2 as op
from gridpivot.v1 import operator_pb2_grpc
from gridpivot.v1 import telemetry_pb2 as pb
from gridpivot.vocabulary import Role, Rung

pytestmark = pytest.mark.unit
OPS = Caller("ops", Role.OPERATOR)


async def first_plan(service: ControllerService, site: str = "falcon-1"):
    async with asyncio.timeout(30):
        while (posted := service.operations.board.posted(site)) is None:
            await asyncio.sleep(0.01)
    return posted


async def get(port: int, path: str) -> tuple[int, str]:
    async with asyncio.timeout(10):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(f"GET {path} HTTP/1.0\r\n\r\n".encode())
        head, body = (await reader.read()).split(b"\r\n\r\n", 1)
        writer.close()
    return int(head.split()[1]), body.decode()


async def test_published_plan_is_signed_with_the_key_that_init_made(controller: ControllerService) -> None:
    posted = await first_plan(controller)
    path = controller.settings.state_dir / "planner.pub"
    public = serialization.load_pem_public_key(path.read_bytes())
    plan = verify(posted.signed, {key_id(public.public_bytes_raw()): public})
    assert plan.site == "falcon-1"
    assert plan.ceiling_w <= 4e5


async def test_published_plan_is_already_in_the_store_with_its_inputs(controller: ControllerService) -> None:
    posted = await first_plan(controller)
    stored = await controller.operations.ledger.last_plans()
    assert stored["falcon-1"] == posted.signed
    async with controller.operations.ledger._readers.connect() as connection:
        decision_id = (await connection.exec_driver_sql("SELECT decision_id FROM plans")).scalar_one()
    record = await controller.operations.ledger.decision(decision_id)
    assert unpack(record.inputs)["sites"][0]["metered_power_w"] == 345_000.0
    assert record.trigger == posted.plan.reason


async def test_new_plan_reaches_the_session_and_its_fate_is_kept(controller: ControllerService) -> None:
    await first_plan(controller)
    board = controller.operations.board
    plans = board.subscribe("falcon-1")
    await controller.operations.set_override("falcon-1", 1e5, None, "test", "", OPS)
    controller.loop.wake()
    async with asyncio.timeout(30):
        signed = await plans.get()
    assert signed == board.current("falcon-1")
    plan = board.posted("falcon-1").plan
    status = pb.PlanStatus(epoch=plan.epoch, version=plan.version, status="applied", metered_power_w=9e4)
    board.note_status("falcon-1", status, controller.clock.now())
    assert board.posted("falcon-1").state == "applied"
    async with asyncio.timeout(30):
        while not await controller.operations.ledger.statuses("falcon-1"):
            await asyncio.sleep(0.01)


async def test_older_plan_never_replaces_a_newer_one(controller: ControllerService) -> None:
    posted = await first_plan(controller)
    assert not controller.operations.board.publish(posted.signed, controller.clock.now())


async def test_restart_keeps_orders_and_plans_and_takes_a_higher_epoch(tmp_path: Path, controller) -> None:
    posted = await first_plan(controller)
    await controller.operations.set_override("falcon-1", 1e5, None, "held over", "", OPS)
    settings = controller.settings
    await controller.stop()
    again = ControllerService(settings)
    await again.start()
    try:
        held = again.operations.board.posted("falcon-1")
        assert held.plan.epoch == posted.plan.epoch
        assert again.operations.ceiling_w("falcon-1", again.clock.now()) == 1e5
        assert again.loop._epoch == posted.plan.epoch + 1
    finally:
        await again.stop()


async def test_defect_of_the_solver_is_counted_and_the_last_plan_goes_out_under_the_new_ceiling(
    controller: ControllerService, monkeypatch: pytest.MonkeyPatch
) -> None:
    posted = await first_plan(controller)

    def broken(_fleet: object) -> None:
        raise ZeroDivisionError

    loop: PlanLoop = controller.loop
    monkeypatch.setattr(loop._planner, "solve", broken)
    await controller.operations.set_override("falcon-1", 1e5, None, "x", "", OPS)
    loop.wake()
    async with asyncio.timeout(30):
        while loop.counts.failed == 0:
            await asyncio.sleep(0.01)
    async with asyncio.timeout(30):
        while controller.operations.board.posted("falcon-1").signed == posted.signed:
            await asyncio.sleep(0.01)
    plan = controller.operations.board.posted("falcon-1").plan
    assert plan.ceiling_w == 1e5
    assert plan.expected_power_w == pytest.approx(1e5)
    assert loop.last.decision.rung is Rung.CLIPPED_PLAN
    assert loop.last.decision.rung_reason == "the solver broke: ZeroDivisionError"


async def test_failed_dispatch_is_tried_again_after_the_hold_off(
    controller: ControllerService, monkeypatch: pytest.MonkeyPatch
) -> None:
    await first_plan(controller)
    loop: PlanLoop = controller.loop
    monkeypatch.setattr(loop, "_thresholds", replace(loop._thresholds, hold_off_s=0.05))
    solve, failures = loop._planner.solve, iter([Infeasible("once"), Infeasible("twice")])

    def sometimes(fleet: FleetState) -> Decision:
        if (error := next(failures, None)) is not None:
            raise error
        return solve(fleet)

    monkeypatch.setattr(loop._planner, "solve", sometimes)
    await controller.operations.set_override("falcon-1", 1e5, None, "x", "", OPS)
    async with asyncio.timeout(30):
        while loop.last.decision.rung is not Rung.PLAN or loop.counts.infeasible < 2:
            await asyncio.sleep(0.01)
    assert controller.operations.board.posted("falcon-1").plan.ceiling_w == 1e5


async def test_metrics_parse_and_name_only_what_is_known(controller: ControllerService) -> None:
    await first_plan(controller)
    status, text = await get(controller.ports.http, "/metrics")
    assert status == 200
    samples = {
        (s.name, tuple(sorted(s.labels.items()))): s.value
        for family in text_string_to_metric_families(text)
        for s in family.samples
    }
    site = ("site", "falcon-1")
    assert samples["gridpivot_site_power_watts", (("load", "mining"), site)] == 325_000.0
    assert samples["gridpivot_site_devices", (("class", "s19-luxos"), site, ("state", "hashing"))] == 100
    assert samples["gridpivot_site_link_state", (("site", "oryx-1"), ("state", "never_seen"))] == 1
    assert samples["gridpivot_devices_reporting", ()] == 100
    assert samples["gridpivot_reports_lost_total", ()] == 0
    assert not any(
        name == "gridpivot_site_metered_power_watts" and ("site", "oryx-1") in labels for name, labels in samples
    )
    labels = {name for _, pairs in samples for name, _ in pairs}
    assert not labels & {"ip", "mac", "serial", "device", "instance"}


async def test_health_and_readiness_answer(controller: ControllerService) -> None:
    assert await get(controller.ports.http, "/healthz") == (200, "ok\n")
    assert await get(controller.ports.http, "/readyz") == (200, "ready\n")


async def test_call_without_a_token_learns_nothing(controller: ControllerService) -> None:
    ca = (controller.settings.state_dir / "tls/ca.crt").read_bytes()
    address = f"127.0.0.1:{controller.ports.operator}"
    async with grpc.aio.secure_channel(address, grpc.ssl_channel_credentials(ca)) as channel:
        stub = operator_pb2_grpc.OperatorServiceStub(channel)
        for metadata in ((), (("authorization", "Bearer "),), (("authorization", "Bearer wrong"),)):
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await stub.ListSites(op.ListSitesRequest(), timeout=10, metadata=metadata)
            assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED


async def test_taken_port_is_one_sentence_and_leaves_nothing_running(controller: ControllerService) -> None:
    taken = controller.settings.model_copy(
        update={"listen": controller.settings.listen.model_copy(update={"http_port": controller.ports.http})}
    )
    with pytest.raises(GridpivotError, match=r"change listen\.http_port"):
        await ControllerService(taken).start()


def test_init_writes_secrets_for_the_owner_alone_and_overwrites_nothing(tmp_path: Path) -> None:
    settings = ControllerSettings(state_dir=tmp_path / "state")
    made = make_identity(settings, "test", ["localhost"], dt.datetime.now(dt.UTC))
    assert {path.stat().st_mode & 0o777 for path in made.secret} == {0o600}
    before = {path: path.read_bytes() for path in (*made.public, *made.secret)}
    with pytest.raises(Refused, match="not overwritten"):
        make_identity(settings, "test", ["localhost"], dt.datetime.now(dt.UTC))
    assert before == {path: path.read_bytes() for path in before}


async def test_secret_that_others_may_read_stops_the_start(tmp_path: Path) -> None:
    settings = ControllerSettings(state_dir=tmp_path / "state")
    make_identity(settings, "test", ["localhost"], dt.datetime.now(dt.UTC))
    settings.path(settings.tls.operator_token_file).chmod(0o640)
    with pytest.raises(SettingsError, match="chmod 600"):
        await ControllerService(settings).start()


async def test_token_never_appears_in_the_log(tmp_path: Path) -> None:
    out = io.StringIO()
    observability.configure("json", "debug", stream=out)
    settings = ControllerSettings.model_validate(
        {"state_dir": tmp_path, "listen": {"host": "127.0.0.1", "session_port": 0, "operator_port": 0, "http_port": 0}}
    )
    make_identity(settings, "test", ["localhost"], dt.datetime.now(dt.UTC))
    service = ControllerService(settings)
    await service.start()
    await service.stop()
    observability.configure("json", stream=io.StringIO())
    assert "controller up" in out.getvalue()
    assert settings.path(settings.tls.operator_token_file).read_text().strip() not in out.getvalue()


def test_check_config_lists_every_problem_and_ends_with_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "c.toml"
    path.write_text('[[sites]]\nname = "a"\nregion = "r"\nceiling_mw = -1\n[listen]\nsesion_port = 1\n')
    assert console.exit_code(lambda: app(args=["check-config", "-c", str(path)])) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 2
    assert any(":4: sites.0.ceiling_mw" in line for line in lines)
    assert any(":6: unknown key" in line and "session_port" in line for line in lines)


def test_run_without_sites_says_what_to_add(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "c.toml"
    path.write_text("")
    assert console.exit_code(lambda: app(args=["run", "-c", str(path), "--state-dir", str(tmp_path)])) == 2
    assert "[[sites]]" in capsys.readouterr().err
