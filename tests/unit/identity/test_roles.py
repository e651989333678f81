"""Who may do what: roles by token and by certificate, audited with name, role and origin."""

import datetime as dt
from pathlib import Path

import grpc
import pytest

from controller.store.identities import CertificateRow, OperatorRow
from gridpivot.link.certificates import issue_operator, load_pem, serial_of
from gridpivot.link.credentials import KeyPair
from gridpivot.link.token import secret_sha256
from gridpivot.v1 import operator_pb2 as op
from gridpivot.v1 import operator_pb2_grpc
from gridpivot.vocabulary import Role
from tests.unit.identity.conftest import House

pytestmark = pytest.mark.unit
TOKENS = {role: f"{role.value}-token-0123456789" for role in Role}
EVENT = op.CreateEventRequest(sites=["*"], ceiling_ratio=0.5, reason="grid call")


@pytest.fixture
async def people(house: House) -> House:
    """One operator of each role, by token."""
    for role, token in TOKENS.items():
        row = OperatorRow(role.value + "-1", role.value, secret_sha256(token.encode()), 1)
        await house.service.store.identities.add_operator(row)
    await house.service.gate.look()
    return house


async def call(house: House, method: str, request, token: str = "", pair: KeyPair | None = None):
    async with house.operator(pair=pair) as channel:
        stub = operator_pb2_grpc.OperatorServiceStub(channel)
        metadata = (("authorization", f"Bearer {token}"),) if token else ()
        return await getattr(stub, method)(request, timeout=10, metadata=metadata)


async def denied(house: House, method: str, request, token: str) -> grpc.StatusCode:
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await call(house, method, request, token)
    return error.value.code()


async def test_viewer_looks_operator_orders_admin_decides(people: House) -> None:
    looking = op.ListSitesRequest()
    for token in TOKENS.values():
        assert len((await call(people, "ListSites", looking, token)).sites) == 2
    denial = grpc.StatusCode.PERMISSION_DENIED
    override = op.SetOverrideRequest(site="falcon-1", ceiling_w=1e5, reason="x")
    release = op.ReleaseEventRequest(event_id="e", reason="x")
    for method, request in (("CreateEvent", EVENT), ("SetOverride", override), ("ReleaseEvent", release)):
        assert await denied(people, method, request, TOKENS[Role.VIEWER]) is denial
    revoke = op.RevokeSiteRequest(site="falcon-1", reason="stolen")
    decide = op.DecideRecoveryRequest(site="falcon-1", fingerprint="0" * 16, approve=True, reason="x")
    for token in (TOKENS[Role.VIEWER], TOKENS[Role.OPERATOR]):
        assert await denied(people, "RevokeSite", revoke, token) is denial
        assert await denied(people, "DecideRecovery", decide, token) is denial
    event = await call(people, "CreateEvent", EVENT, TOKENS[Role.OPERATOR])
    await call(people, "RevokeSite", revoke, TOKENS[Role.ADMIN])
    assert not await people.service.store.identities.recoveries()
    lines = (await call(people, "ListAudit", op.ListAuditRequest(), TOKENS[Role.VIEWER])).lines
    told = [(line.actor, line.role, line.action, line.reason) for line in lines]
    assert told == [("operator-1", "operator", "event", "grid call"), ("admin-1", "admin", "revocation", "stolen")]
    assert all(line.origin.startswith("ipv4:127.0.0.1:") for line in lines)
    assert event.event_id in [
        e.event_id for e in (await call(people, "ListEvents", op.ListEventsRequest(), TOKENS[Role.VIEWER])).events
    ]


async def test_event_without_an_end_stands_until_somebody_releases_it(people: House) -> None:
    made = await call(people, "CreateEvent", EVENT, TOKENS[Role.OPERATOR])
    (line,) = (await call(people, "ListEvents", op.ListEventsRequest(), TOKENS[Role.VIEWER])).events
    assert (line.state, line.HasField("ends_at_unix_ms"), line.ceiling_w) == ("active", False, 2e5)
    people.clock.shift_s = 20 * 365 * 86_400.0
    assert people.service.operations.ceiling_w("falcon-1", people.clock.now()) == 2e5
    people.clock.shift_s = 0.0
    release = op.ReleaseEventRequest(event_id=made.event_id, reason="over", idempotency_key="k")
    first = await call(people, "ReleaseEvent", release, TOKENS[Role.OPERATOR])
    again = await call(people, "ReleaseEvent", release, TOKENS[Role.OPERATOR])
    assert first.audit_id == again.audit_id
    assert people.service.operations.ceiling_w("falcon-1", people.clock.now()) == 4e5
    assert await denied(
        people, "ReleaseEvent", op.ReleaseEventRequest(event_id="none", reason="x"), TOKENS[Role.OPERATOR]
    ) in (
        grpc.StatusCode.FAILED_PRECONDITION,
        grpc.StatusCode.NOT_FOUND,
    )


async def test_certificate_of_an_operator_works_on_the_mutual_port_until_it_is_revoked(
    house: House, tmp_path: Path
) -> None:
    identities, now = house.service.store.identities, dt.datetime.now(dt.UTC)
    pair = issue_operator(house.enrolment._authority, "test", "ann", now)
    issued = load_pem(pair.chain_pem)
    ends = round(issued.not_valid_after_utc.timestamp() * 1000)
    await identities.add_operator(OperatorRow("ann", "operator", None, 1))
    await identities.add_certificate(CertificateRow(serial_of(issued), "operator", "ann", 1, ends, pair.chain_pem))
    await house.service.gate.look()
    assert (await call(house, "CreateEvent", EVENT, pair=pair)).event_id
    (line,) = (await call(house, "ListAudit", op.ListAuditRequest(), pair=pair)).lines
    assert (line.actor, line.role) == ("ann", "operator")
    assert await identities.revoke("operator", "ann", house.clock.now().unix_ms) == 2
    await house.service.gate.look()
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await call(house, "ListSites", op.ListSitesRequest(), pair=pair)
    assert error.value.code() is grpc.StatusCode.UNAUTHENTICATED


async def test_certificate_of_somebody_who_is_not_on_record_opens_nothing(house: House) -> None:
    pair = issue_operator(house.enrolment._authority, "test", "mallory", dt.datetime.now(dt.UTC))
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await call(house, "ListSites", op.ListSitesRequest(), pair=pair)
    assert error.value.code() is grpc.StatusCode.UNAUTHENTICATED


async def test_revoked_token_and_wrong_scheme_open_nothing(people: House) -> None:
    await people.service.store.identities.revoke("operator", "admin-1", 5)
    await people.service.gate.look()
    assert (
        await denied(people, "ListSites", op.ListSitesRequest(), TOKENS[Role.ADMIN]) is grpc.StatusCode.UNAUTHENTICATED
    )
    async with people.operator() as channel:
        stub = operator_pb2_grpc.OperatorServiceStub(channel)
        with pytest.raises(grpc.aio.AioRpcError):
            await stub.ListSites(op.ListSitesRequest(), timeout=10, metadata=(("authorization", TOKENS[Role.VIEWER]),))
