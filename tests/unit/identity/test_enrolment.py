"""Tokens, certificates, renewal, expiry, revocation: over real TLS, with a real controller."""

import asyncio
import datetime as dt

import grpc
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import NameOID

from agent.identity import asking, files
from agent.identity.upkeep import Upkeep
from controller.identity.caller import Caller
from gridpivot.errors import GridpivotError, Refused
from gridpivot.link import token as tokens
from gridpivot.link.certificates import issue_site, make_authority, make_request, new_key, uris_of
from gridpivot.link.codec import KIND_OF, encode_payload
from gridpivot.link.credentials import KeyPair
from gridpivot.v1 import operator_pb2 as op
from gridpivot.v1 import operator_pb2_grpc
from gridpivot.v1 import session_pb2 as wire
from gridpivot.v1 import telemetry_pb2 as pb
from gridpivot.vocabulary import Role
from tests.unit.identity.conftest import House, until

pytestmark = pytest.mark.unit
ADMIN = Caller("ann", Role.ADMIN, "test")


async def test_token_becomes_a_certificate_over_the_sites_own_key_and_opens_a_session(house: House) -> None:
    pair = await house.move_in()
    certificate = x509.load_pem_x509_certificate(pair.chain_pem)
    assert uris_of(certificate) == ["spiffe://test/site/falcon-1"]
    life = certificate.not_valid_after_utc - certificate.not_valid_before_utc
    assert dt.timedelta(days=30) <= life <= dt.timedelta(days=30, minutes=10)
    for name in ("tls/site.key", "tls/site.crt", "tls/ca.crt"):
        assert (house.site_dir / name).exists()
    assert (house.site_dir / "tls/site.key").stat().st_mode & 0o077 == 0
    assert len(list((house.site_dir / "planner").glob("*.pub"))) == 1
    uplink = house.uplink(pair)
    task = asyncio.create_task(uplink.run())
    await until(lambda: uplink.state.connected)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_token_is_good_once_and_says_from_where_it_was_used(house: House) -> None:
    text = await house.token()
    await house.enrol(text)
    with pytest.raises(Refused, match=r"used already, from ipv4:127\.0\.0\.1"):
        await house.enrol(text)


async def test_two_who_show_one_token_at_once_get_one_certificate(house: House) -> None:
    text = await house.token()
    done = await asyncio.gather(*(house.enrol(text) for _ in range(6)), return_exceptions=True)
    assert sum(not isinstance(d, BaseException) for d in done) == 1
    assert sum(isinstance(d, Refused) for d in done) == 5


async def test_expired_revoked_foreign_and_garbled_tokens_are_refused(house: House) -> None:
    text, row = await house.enrolment.create_token("falcon-1", 3600)
    await house.service.store.identities.revoke_token(row.token_id, 1)
    with pytest.raises(Refused, match="revoked"):
        await house.enrol(text)
    late = await house.token(valid_s=60)
    house.clock.shift_s = 61.0
    with pytest.raises(Refused, match="expired"):
        await house.enrol(late)
    house.clock.shift_s = 0.0
    forged = tokens.decode(await house.token())
    forged.secret = b"x" * 32
    with pytest.raises(Refused, match="not known"):
        await house.enrol(tokens.encode(forged))
    with pytest.raises(Refused, match="not in the settings"):
        await house.token("no-such-site")
    for broken in ("", "gpt1.", "gpt2.abc", "gpt1.!!!", text[: len(text) // 2]):
        with pytest.raises(Refused) as refusal:
            tokens.decode(broken)
        assert broken not in str(refusal.value) or not broken


async def test_token_for_another_site_cannot_name_this_one(house: House) -> None:
    changed = tokens.decode(await house.token("oryx-1"))
    changed.site = "falcon-1"
    identity = await house.enrol(tokens.encode(changed))
    certificate = x509.load_der_x509_certificate(identity.certificate_chain_der[0])
    assert uris_of(certificate) == ["spiffe://test/site/oryx-1"]  # the record counts, not the text


async def test_names_in_a_request_count_for_nothing_and_other_keys_are_refused(house: House) -> None:
    key = new_key()
    builder = x509.CertificateSigningRequestBuilder().subject_name(
        x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "oryx-1")])
    )
    foreign = x509.SubjectAlternativeName([x509.UniformResourceIdentifier("spiffe://test/site/oryx-1")])
    greedy = builder.add_extension(foreign, False).sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.DER)
    identity = await house.enrolment.enrol(await house.token(), greedy, "here")
    certificate = x509.load_der_x509_certificate(identity.certificate_chain_der[0])
    assert uris_of(certificate) == ["spiffe://test/site/falcon-1"]
    fat = builder.sign(rsa.generate_private_key(65537, 2048), hashes.SHA256()).public_bytes(serialization.Encoding.DER)
    for request in (fat, b"", b"\x30" * 400, b"x" * 100_000):
        text = await house.token()
        with pytest.raises(Refused, match="request is refused"):
            await house.enrolment.enrol(text, request, "here")
        await house.enrol(text)  # a refused request does not use the token up


async def test_whoever_answers_with_another_ca_is_not_believed(house: House) -> None:
    token = tokens.decode(await house.token())
    stranger = make_authority("test", dt.datetime.now(dt.UTC)).certificate.public_bytes(serialization.Encoding.DER)
    with pytest.raises(Refused, match="not the controller of the token"):
        await asking.enrol(house.addresses.operator, stranger, tokens.encode(token), new_key(), "falcon-1")
    await house.enrol(tokens.encode(token))  # it was never shown to anybody


async def test_renewal_goes_over_to_a_second_channel_and_no_record_is_lost_or_doubled(house: House) -> None:
    pair = await house.move_in()
    uplink = house.uplink(pair)
    task = asyncio.create_task(uplink.run())
    await until(lambda: uplink.state.connected)
    sent = 0

    def say() -> None:
        nonlocal sent
        event = pb.SiteEvent(occurred_at_unix_ms=1, kind="meter_fault", message=str(sent))
        uplink.send(wire.LANE_EVENTS, KIND_OF[type(event)], encode_payload(event))
        sent += 1

    for _ in range(3):
        key = new_key()
        identity = await asking.renew(house.addresses.session, house.ca_pem, pair, key, "falcon-1")
        pair = KeyPair(_pem(key), asking.chain_pem(identity))
        rotations = uplink.state.rotations_total
        uplink.rotate(house.target(pair))
        while uplink.state.rotations_total == rotations or uplink.state.sessions_total <= rotations + 1:
            say()
            await asyncio.sleep(0.01)
    await until(lambda: uplink.waiting() == 0)
    store = house.service.store
    assert [e.message for e in await store.lanes.events("falcon-1", 10_000)] == [str(n) for n in range(sent)]
    assert store.lanes.records_lost == 0
    assert house.links == [(True, "")]  # one link, from beginning to end
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_renewal_that_cannot_connect_leaves_the_session_as_it_is(house: House) -> None:
    pair = await house.move_in()
    uplink = house.uplink(pair)
    task = asyncio.create_task(uplink.run())
    await until(lambda: uplink.state.connected)
    stranger = make_authority("test", dt.datetime.now(dt.UTC))
    bad = issue_site(stranger, "test", "falcon-1", dt.datetime.now(dt.UTC))
    uplink.rotate(house.target(bad))
    await asyncio.wait((uplink._rotating,))
    assert (uplink.state.connected, uplink.state.rotations_total, uplink.state.sessions_total) == (True, 0, 1)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_revocation_closes_the_live_stream_within_five_seconds_and_keeps_it_closed(house: House) -> None:
    pair = await house.move_in()
    uplink = house.uplink(pair)
    task = asyncio.create_task(uplink.run())
    await until(lambda: uplink.state.connected)
    began = asyncio.get_running_loop().time()
    # As `gridpivot-controller` does it from another process: straight into the store, nobody is told.
    await house.service.store.identities.revoke("site", "falcon-1", house.clock.now().unix_ms)
    await until(lambda: not uplink.state.connected)
    assert asyncio.get_running_loop().time() - began < 5.0
    await until(lambda: "revoked" in uplink.state.last_error)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    with pytest.raises(Refused, match="revoked"):
        await asking.renew(house.addresses.session, house.ca_pem, pair, new_key(), "falcon-1")
    again = house.uplink(await house.move_in(), directory="again")  # a new token lets the site in again
    task = asyncio.create_task(again.run())
    await until(lambda: again.state.connected)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_certificate_that_ends_while_the_stream_lives_ends_the_stream(house: House) -> None:
    uplink = house.uplink(await house.move_in())
    task = asyncio.create_task(uplink.run())
    await until(lambda: uplink.state.connected)
    house.clock.shift_s = 31 * 86_400.0
    await until(lambda: "expired" in uplink.state.last_error)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_expired_site_comes_back_by_an_approval_and_not_before(house: House) -> None:
    ca = house.service.enrolment._authority
    old = issue_site(ca, "test", "falcon-1", dt.datetime.now(dt.UTC) - dt.timedelta(days=40), days=30)
    files.write_trust(house.site_dir, ca.certificate.public_bytes(serialization.Encoding.DER), {})
    files.write_pair(house.site_dir, old.key_pem, old.chain_pem, "1")
    said, rotated = [], []
    upkeep = Upkeep(
        "falcon-1",
        house.site_dir,
        house.addresses,
        (house.site_dir / "tls/ca.crt", house.site_dir / "tls/site.crt", house.site_dir / "tls/site.key"),
        house.clock,
        lambda: rotated.append(1),
        lambda kind, text: said.append((kind.value, text)),
    )
    for _ in range(3):
        await upkeep._look()
    assert upkeep.state.waiting is not None and not rotated
    assert [kind for kind, _ in said] == ["certificate_expired"]
    assert "gridpivot identity approve falcon-1" in said[0][1]
    identities = house.service.identity_decisions
    (asked,) = (await identities.listed()).recoveries
    assert (asked.site, asked.fingerprint) == ("falcon-1", upkeep.state.waiting)
    wrong = op.DecideRecoveryRequest(site="falcon-1", fingerprint="0" * 16, approve=True, reason="x")
    with pytest.raises(Refused):
        await identities.decide("falcon-1", wrong, ADMIN)
    right = op.DecideRecoveryRequest(
        site="falcon-1", fingerprint=asked.fingerprint[:16], approve=True, reason="called them"
    )
    await identities.decide("falcon-1", right, ADMIN)
    await upkeep._look()
    assert rotated and upkeep.state.waiting is None
    pair = KeyPair((house.site_dir / "tls/site.key").read_bytes(), (house.site_dir / "tls/site.crt").read_bytes())
    assert pair.key_pem != old.key_pem
    uplink = house.uplink(pair)
    task = asyncio.create_task(uplink.run())
    await until(lambda: uplink.state.connected)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    trail = await house.service.store.ledger.audit_trail()
    assert [(e.actor, e.role, e.action, e.reason) for e in trail] == [("ann", "admin", "recovery", "called them")]


async def test_return_without_the_old_key_is_refused(house: House) -> None:
    ca = house.service.enrolment._authority
    old = issue_site(ca, "test", "falcon-1", dt.datetime.now(dt.UTC) - dt.timedelta(days=40), days=30)
    expired = x509.load_pem_x509_certificate(old.chain_pem)
    thief = new_key()
    with pytest.raises(Refused, match="not signed"):
        await asking.recover(house.addresses.operator, house.ca_pem, expired, thief, make_request(thief, "falcon-1"))
    stranger = make_authority("test", dt.datetime.now(dt.UTC))
    foreign = issue_site(stranger, "test", "falcon-1", dt.datetime.now(dt.UTC))
    key = serialization.load_pem_private_key(foreign.key_pem, None)
    with pytest.raises(Refused, match="not from this controller"):
        await asking.recover(
            house.addresses.operator,
            house.ca_pem,
            x509.load_pem_x509_certificate(foreign.chain_pem),
            key,
            make_request(key, "falcon-1"),
        )
    assert not (await house.service.identity_decisions.listed()).recoveries


async def test_who_is_refused_again_and_again_has_to_wait(house: House) -> None:
    outcomes = []
    for _ in range(14):
        with pytest.raises(GridpivotError) as error:
            forged = tokens.decode(await house.token())
            forged.secret = b"y" * 32
            await house.enrol(tokens.encode(forged))
        outcomes.append("wait" in str(error.value))
    assert outcomes[0] is False and outcomes[-1] is True


async def test_a_sites_certificate_opens_no_operator_call_and_none_at_all_opens_nothing(house: House) -> None:
    pair = await house.move_in()
    async with house.operator(pair=pair) as channel:
        stub = operator_pb2_grpc.OperatorServiceStub(channel)
        with pytest.raises(grpc.aio.AioRpcError) as error:
            await stub.ListSites(op.ListSitesRequest(), timeout=10)
    assert error.value.code() is grpc.StatusCode.UNAUTHENTICATED
    async with house.operator() as channel:
        stub = operator_pb2_grpc.OperatorServiceStub(channel)
        for metadata in ((), (("authorization", "Bearer "),), (("authorization", "Bearer " + "x" * 43),)):
            with pytest.raises(grpc.aio.AioRpcError) as error:
                await stub.ListSites(op.ListSitesRequest(), timeout=10, metadata=metadata)
            assert error.value.code() is grpc.StatusCode.UNAUTHENTICATED


async def test_no_secret_reaches_the_log(house: House) -> None:
    text = await house.token()
    key = new_key()
    await house.enrol(text, key)
    with pytest.raises(Refused):
        await house.enrol(text, key)
    logged = house.log.getvalue()
    secret = tokens.decode(text).secret
    assert "site enrolled" in logged
    for hidden in (text, text[20:60], secret.hex(), _pem(key).decode().splitlines()[1]):
        assert hidden not in logged


def _pem(key) -> bytes:
    from gridpivot.link.certificates import key_pem

    return key_pem(key)
