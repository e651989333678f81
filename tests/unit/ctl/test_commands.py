"""The operator's command against a running controller: real TLS, real gRPC."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from controller.service import ControllerService
from ctl.words import moment_unix_ms
from gridpivot.durations import seconds
from gridpivot.errors import SettingsError

if TYPE_CHECKING:
    from tests.unit.ctl.conftest import Operator

pytestmark = pytest.mark.unit


async def test_sites_shows_what_is_known_and_null_for_what_is_not(operator: Operator) -> None:
    shape = await operator.document("sites")
    falcon, oryx = shape["sites"]
    assert falcon["metered_power_w"] == 345_000.0
    assert falcon["plan_status"] == "sent"
    assert (oryx["link"], oryx["metered_power_w"], oryx["notes"]) == ("never_seen", None, ["never connected"])
    assert shape["fleet"]["devices_reporting"] == 100
    code, out, _ = await operator("sites")
    assert code == 0
    assert "0.34 MW" in out or "0.35 MW" in out


async def test_site_plan_and_explain_agree_on_the_site(operator: Operator) -> None:
    site = await operator.document("site", "falcon-1")
    assert site["classes"][0]["state_counts"]["hashing"] == 100
    plan = await operator.document("plan", "falcon-1")
    assert (plan["epoch"], plan["version"]) == (1, 1)
    assert sum(plan["classes"][0][f"{m}_machines"] for m in ("sleep", "low", "normal", "turbo")) == pytest.approx(100)
    explained = await operator.document("explain", "falcon-1")
    assert {m["name"] for m in explained["merit"]} == {"s19-luxos", "train"}
    for command in ("site", "plan", "explain"):
        code, out, err = await operator(command, "falcon-1")
        assert (code, err) == (0, ""), command
        assert "falcon-1" in out


async def test_site_without_a_plan_says_so(operator: Operator) -> None:
    assert (await operator.document("plan", "oryx-1"))["epoch"] is None
    code, _, err = await operator("explain", "oryx-1")
    assert code == 4
    assert "no decision on oryx-1 yet" in err


async def test_override_lowers_the_plan_and_release_lets_go(operator: Operator, controller: ControllerService) -> None:
    done = await operator.document("override", "falcon-1", "--ceiling-mw=0.2", "--for=30m", "--reason=transformer")
    assert done["ceiling_w"] == 200_000.0
    async with asyncio.timeout(30):
        while controller.operations.board.posted("falcon-1").plan.ceiling_w > 200_000.0:
            await asyncio.sleep(0.01)
    plan = controller.operations.board.posted("falcon-1").plan
    assert plan.expected_power_w <= 200_001.0
    released = await operator.document("override", "falcon-1", "--release", "--reason=repaired")
    assert released["ceiling_w"] == 400_000.0
    trail = await controller.operations.ledger.audit_trail()
    assert [(e.action, e.reason) for e in trail] == [("override", "transformer"), ("override-release", "repaired")]


async def test_override_above_the_sites_own_ceiling_is_refused(operator: Operator) -> None:
    code, _, err = await operator("override", "falcon-1", "--ceiling-mw=5", "--reason=x")
    assert code == 4
    assert "may only lower" in err
    assert len(err.splitlines()) == 1


async def test_event_over_all_sites_stands_in_the_next_plan(operator: Operator, controller: ControllerService) -> None:
    words = ("event", "create", "--sites=*", "--ceiling-pct=50", "--start=+1h", "--end=+2h", "--reason=ercot call")
    done = await operator.document(*words, "--idempotency-key=k1")
    again = await operator.document(*words, "--idempotency-key=k1")
    assert done["sites"] == ["falcon-1", "oryx-1"]
    assert again["event_id"] == done["event_id"]
    async with asyncio.timeout(30):
        while not controller.operations.board.posted("falcon-1").plan.events:
            await asyncio.sleep(0.01)
    (event,) = controller.operations.board.posted("falcon-1").plan.events
    assert (event.event_id, event.ceiling_w, event.reason) == (done["event_id"], 200_000.0, "ercot call")


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (("site", "falcon-9"), 4, "no site 'falcon-9'; known: falcon-1, oryx-1"),
        (("override", "falcon-1", "--reason=x"), 2, "--ceiling-mw"),
        (("override", "falcon-1", "--reason=x", "--ceiling-mw=0.1", "--for=soon"), 2, "30m"),
        (("override", "falcon-1", "--reason= ", "--ceiling-mw=0.1"), 4, "a reason is needed"),
        (("event", "create", "--sites=nowhere", "--ceiling-mw=1", "--reason=x"), 4, "no site 'nowhere'"),
        (("event", "create", "--sites=*", "--reason=x"), 2, "exactly one of"),
        (("event", "create", "--sites=*", "--ceiling-pct=500", "--reason=x"), 4, "expected 0 to 1"),
    ],
)
async def test_senseless_request_is_one_line_and_its_exit_code(
    operator: Operator, words: tuple[str, ...], code: int, says: str
) -> None:
    given, _, err = await operator(*words)
    assert given == code
    assert says in err
    assert len(err.splitlines()) == 1


async def test_wrong_token_is_refused_and_readable_token_file_too(operator: Operator, tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("x" * 40)
    token.chmod(0o600)
    access = [*operator.access[:2], f"--token-file={token}"]
    code, _, err = await operator("sites", access=access)
    assert (code, "missing, wrong or revoked" in err) == (4, True)
    token.chmod(0o644)
    code, _, err = await operator("sites", access=access)
    assert (code, "chmod 600" in err) == (2, True)


async def test_controller_that_is_not_there_is_unreachable(operator: Operator) -> None:
    code, _, err = await operator("sites", access=["--controller=127.0.0.1:1", *operator.access[1:]])
    assert code == 3
    assert "is it running" in err


async def test_certificate_of_a_stranger_is_not_trusted(operator: Operator, tmp_path: Path) -> None:
    import trustme

    trustme.CA().cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    access = [operator.access[0], f"--ca={tmp_path / 'ca.pem'}", operator.access[2]]
    code, _, _ = await operator("sites", access=access)
    assert code == 3


@pytest.mark.parametrize(
    ("text", "value"), [("90s", 90), ("30m", 1800), ("1h30m", 5400), ("1.5h", 5400), ("2d", 172800)]
)
def test_duration_is_read(text: str, value: float) -> None:
    assert seconds(text) == value


@pytest.mark.parametrize("text", ["", "30", "m", "30 m", "-5m", "1h 30m x"])
def test_duration_without_sense_is_refused(text: str) -> None:
    with pytest.raises(SettingsError):
        seconds(text)


def test_moment_without_an_offset_is_utc() -> None:
    noon = datetime(2024, 8, 20, 12, tzinfo=UTC)
    assert moment_unix_ms("2024-08-20T12:00", noon) == moment_unix_ms("now", noon)
    assert moment_unix_ms("2024-08-20T07:00-05:00", noon) == moment_unix_ms("now", noon)
    assert moment_unix_ms("+15m", noon) - moment_unix_ms("now", noon) == 900_000
    with pytest.raises(SettingsError):
        moment_unix_ms("tomorrow", noon)
