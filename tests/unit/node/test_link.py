"""The site agent's ports for nodes over real TLS: who gets in, who does not, and who has to go."""

import asyncio
import contextlib
import datetime as dt
import math
import os
import socket
from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import pytest
from cryptography.hazmat.primitives.serialization import Encoding

from agent.gpu.reading import GpuReading
from agent.identity import asking
from agent.node.report import boards, report
from agent.nodes.assembly import NodesSide, open_nodes
from agent.nodes.authority import open_authority, place_of, server_pair
from agent.nodes.enrolment import make_token
from agent.nodes.registry import Registry
from agent.settings import AgentSettings
from gridpivot.clock import SystemClock
from gridpivot.errors import GridpivotError, Refused
from gridpivot.link import token as tokens
from gridpivot.link.certificates import (
    certify_node,
    issue_site,
    key_pem,
    load_pem,
    make_authority,
    new_key,
    serial_of,
    uris_of,
)
from gridpivot.link.credentials import KeyPair, client_credentials
from gridpivot.v1 import node_pb2 as pb
from gridpivot.v1 import node_pb2_grpc

pytestmark = pytest.mark.unit

GPUS = [GpuReading(f"GPU-{n}", "H100", power_w=500.0, limit_requested_w=700.0, limit_enforced_w=700.0,
                   limit_min_w=200.0, limit_max_w=700.0, limit_default_w=700.0) for n in range(2)]  # fmt: skip


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Site:
    """A site agent's side of its nodes, served on loopback."""

    def __init__(self, directory: Path) -> None:
        self.ports = free_port(), free_port()
        self.settings = AgentSettings.model_validate(
            {
                "site": "falcon-1",
                "state_dir": directory,
                "gpu": {"pools": [{"name": "train", "nodes": ["gpu-1", "gpu-2"], "gpus_per_node": 2}]},
                "nodes": {
                    "listen": f"127.0.0.1:{self.ports[0]}",
                    "enrol_listen": f"127.0.0.1:{self.ports[1]}",
                    "host": "localhost",
                    "beat_s": 0.2,
                },
            }
        )
        self.place = place_of(self.settings)
        self.authority = open_authority(self.place, dt.datetime.now(dt.UTC))
        self.registry = Registry(self.place.directory)
        self.side: NodesSide = open_nodes(self.settings, SystemClock())
        self.address, self.enrol_address = (f"localhost:{port}" for port in self.ports)

    def token(self, node: str, valid_s: float = 3600.0) -> str:
        now_ms = SystemClock().now().unix_ms
        return make_token(self.registry, self.place, self.authority, node, valid_s, self.ports, now_ms)[0]

    async def enrol(self, node: str, text: str = "") -> KeyPair:
        key, token = new_key(), text or self.token(node)
        ca_der = self.authority.certificate.public_bytes(Encoding.DER)
        identity = await asking.enrol(self.enrol_address, ca_der, token, key, node)
        return KeyPair(key_pem(key), asking.chain_pem(identity))

    def forge(self, site: str, node: str, days: float = 1.0) -> KeyPair:
        """A certificate from the right CA that is on no record."""
        key = new_key()
        now = dt.datetime.now(dt.UTC)
        made = certify_node(self.authority, "gridpivot", site, node, key.public_key(), now, days)
        return KeyPair(key_pem(key), made.public_bytes(Encoding.PEM))

    @contextlib.asynccontextmanager
    async def session(self, own: KeyPair) -> AsyncIterator["Session"]:
        credentials = client_credentials(self.authority.certificate_pem, own)
        async with grpc.aio.secure_channel(self.address, credentials) as channel:
            stream = node_pb2_grpc.NodeServiceStub(channel).Session()
            try:
                yield Session(stream)
            finally:
                stream.cancel()


class Session:
    def __init__(self, stream: grpc.aio.StreamStreamCall) -> None:
        self.stream = stream

    async def say(self, **kind: object) -> None:
        await self.stream.write(pb.NodeServiceSessionRequest(**kind))

    async def hear(self) -> pb.NodeServiceSessionResponse:
        async with asyncio.timeout(10):
            heard = await self.stream.read()
        assert isinstance(heard, pb.NodeServiceSessionResponse), heard
        return heard

    async def hello(self, node: str = "gpu-1", site: str = "falcon-1", gpus: list[pb.NodeGpu] | None = None,
                    instance: bytes = b"i" * 16) -> pb.NodeServiceSessionResponse:  # fmt: skip
        found = boards(GPUS) if gpus is None else gpus
        await self.say(hello=pb.NodeHello(site=site, node=node, instance_id=instance, agent_version="t", gpus=found))
        return await self.hear()


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    made = Site(tmp_path)
    serving = asyncio.create_task(made.side.run())
    for port in made.ports:
        while not serving.done():
            with contextlib.suppress(OSError):
                _, writer = await asyncio.open_connection("127.0.0.1", port)
                writer.close()
                break
            await asyncio.sleep(0)
    assert not serving.done(), serving.result()
    yield made
    serving.cancel()
    await asyncio.gather(serving, return_exceptions=True)


def word(response: pb.NodeServiceSessionResponse) -> str:
    return response.goaway.code or response.WhichOneof("kind")


async def test_node_that_enrolled_is_welcomed_and_its_report_is_answered_with_its_limits(site: Site) -> None:
    async with site.session(await site.enrol("gpu-1")) as session:
        welcome = (await session.hello()).welcome
        assert (welcome.beat_ms, welcome.lease_ms) == (200, 15_000)
        now = SystemClock().now()
        site.side.pools.set_limit(0, 4 * 400.0 + 2 * 700.0 + 2 * 300.0, now)
        first = (await session.hear()).limits
        assert [(gpu.row, gpu.limit_w) for gpu in first.gpus] == [(0, 300.0), (1, 300.0)]
        held = [*map(_limited, GPUS)]
        await session.say(report=report(held, 1, 0, 0, 77, None))
        again = (await session.hear()).limits
        assert (again.sequence, again.echo_monotonic_ms) == (first.sequence, 77), "not read back: sent again"
        await session.say(report=report(held, 2, first.sequence, 0, 88, None))
        assert (await session.hear()).heartbeat.echo_monotonic_ms == 88
        (reading,) = site.side.pools.read(SystemClock().now())
        assert reading.limit_w == pytest.approx(4 * 400.0 + 2 * 700.0 + 2 * 300.0)


def _limited(reading: GpuReading) -> GpuReading:
    return GpuReading(reading.uuid, reading.name, 290.0, limit_requested_w=300.0, limit_enforced_w=300.0)


async def test_certificate_that_speaks_for_another_node_or_site_is_refused(site: Site) -> None:
    own = await site.enrol("gpu-1")
    for node, named in (("gpu-2", "falcon-1"), ("gpu-1", "falcon-2")):
        async with site.session(own) as session:
            assert word(await session.hello(node, named)) == "wrong_node"
    other = site.forge("falcon-2", "gpu-1")
    for named in ("falcon-1", "falcon-2"):
        async with site.session(other) as session:
            assert word(await session.hello("gpu-1", named)) == "wrong_node"


async def test_certificate_of_a_site_or_of_another_ca_is_refused(site: Site) -> None:
    now = dt.datetime.now(dt.UTC)
    async with site.session(issue_site(site.authority, "gridpivot", "falcon-1", now)) as session:
        assert word(await session.hello()) == "wrong_node"
    stranger = make_authority("gridpivot", now)
    key = new_key()
    made = certify_node(stranger, "gridpivot", "falcon-1", "gpu-1", key.public_key(), now, 1.0)
    async with site.session(KeyPair(key_pem(key), made.public_bytes(Encoding.PEM))) as session:
        with pytest.raises((grpc.aio.AioRpcError, asyncio.InvalidStateError)):
            await session.hello()


async def test_certificate_that_is_on_no_record_is_refused(site: Site) -> None:
    async with site.session(site.forge("falcon-1", "gpu-1")) as session:
        assert word(await session.hello()) == "revoked"


async def test_revoked_node_is_thrown_out_and_not_let_in_again(site: Site) -> None:
    own = await site.enrol("gpu-1")
    async with site.session(own) as session:
        await session.hello()
        site.registry.revoke("gpu-1", SystemClock().now().unix_ms)
        assert word(await session.hear()) == "revoked"
    async with site.session(own) as session:
        assert word(await session.hello()) == "revoked"
    fresh = await site.enrol("gpu-1")
    async with site.session(fresh) as session:
        assert word(await session.hello()) == "welcome"


async def test_second_process_of_a_node_is_refused_and_a_new_session_of_the_same_takes_over(site: Site) -> None:
    own = await site.enrol("gpu-1")
    async with site.session(own) as first, site.session(own) as second, site.session(own) as third:
        assert word(await first.hello()) == "welcome"
        assert word(await second.hello(instance=b"j" * 16)) == "duplicate_node"
        assert word(await third.hello()) == "welcome"
        assert await first.stream.read() is grpc.aio.EOF


@pytest.mark.parametrize("watts", [math.nan, math.inf, -5.0, 1e9])
async def test_report_with_absurd_figures_is_counted_and_changes_nothing(site: Site, watts: float) -> None:
    async with site.session(await site.enrol("gpu-1")) as session:
        await session.hello()
        await session.say(report=report(GPUS, 1, 0, 0, 1, None))
        await session.hear()
        (before,) = site.side.pools.read(SystemClock().now())
        bad = report(GPUS, 2, 0, 0, 2, None)
        bad.power_w.values[1] = watts
        await session.say(report=bad)
        await session.say(report=report(GPUS, 3, 0, 0, 3, None))
        assert (await session.hear()).heartbeat.echo_monotonic_ms == 3, "nonsense renews nothing"
        (after,) = site.side.pools.read(SystemClock().now())
        assert (after.power_w, after.limit_w) == (before.power_w, before.limit_w)
        assert site.side.pools.node_counters["reports"] == {"taken": 2, "refused": 1}


async def test_hello_that_makes_no_sense_is_refused(site: Site) -> None:
    own = await site.enrol("gpu-1")
    for gpus, instance in (
        ([], b"i" * 16),
        ([pb.NodeGpu(uuid="a", limit_max_w=math.nan)], b"i" * 16),
        ([pb.NodeGpu(uuid="a"), pb.NodeGpu(uuid="a")], b"i" * 16),
        (boards(GPUS), b"short"),
    ):
        async with site.session(own) as session:
            assert word(await session.hello(gpus=gpus, instance=instance)) == "protocol_error"
    async with site.session(own) as session:
        await session.say(report=report(GPUS, 1, 0, 0, 1, None))
        assert word(await session.hear()) == "protocol_error"


async def test_certificate_names_the_node_and_is_renewed_by_itself(site: Site) -> None:
    own = await site.enrol("gpu-1")
    first = load_pem(own.chain_pem)
    assert uris_of(first) == ["spiffe://gridpivot/site/falcon-1/node/gpu-1"]
    key = new_key()
    answer = await asking.renew(site.address, site.authority.certificate_pem, own, key, "falcon-1")
    second = KeyPair(key_pem(key), asking.chain_pem(answer))
    assert serial_of(load_pem(second.chain_pem)) != serial_of(first)
    async with site.session(second) as session:
        assert word(await session.hello()) == "welcome"
    site.registry.revoke("gpu-1", SystemClock().now().unix_ms)
    with pytest.raises(Refused, match="revoked"):
        await asking.renew(site.address, site.authority.certificate_pem, second, new_key(), "falcon-1")


async def test_token_is_good_once_and_for_a_node_of_the_settings(site: Site) -> None:
    text = site.token("gpu-1")
    assert (tokens.decode(text).node, tokens.decode(text).session_address) == ("gpu-1", site.address)
    await site.enrol("gpu-1", text)
    with pytest.raises(Refused, match="used already"):
        await site.enrol("gpu-1", text)
    with pytest.raises(Refused, match="no pool of this site's settings names node"):
        await site.enrol("gpu-9")
    with pytest.raises(Refused, match="expired"):
        await site.enrol("gpu-2", site.token("gpu-2", -1.0))
    foreign = tokens.decode(site.token("gpu-2"))
    foreign.secret = os.urandom(32)
    with pytest.raises(Refused, match="does not know"):
        await site.enrol("gpu-2", tokens.encode(foreign))


async def test_while_the_books_cannot_be_read_nobody_new_comes_and_who_is_in_stays(site: Site) -> None:
    own = await site.enrol("gpu-1")
    async with site.session(own) as inside:
        await inside.hello()
        good = site.registry.path.read_bytes()
        site.registry.path.write_text("{")
        with pytest.raises(GridpivotError, match="damaged"):
            site.registry.read()
        other = site.forge("falcon-1", "gpu-2")
        code = ""
        async with asyncio.timeout(10):
            while code != "overloaded":
                async with site.session(other) as session:
                    code = word(await session.hello("gpu-2"))
        await inside.say(report=report(GPUS, 1, 0, 0, 1, None))
        assert word(await inside.hear()) == "heartbeat"
        site.registry.path.write_bytes(good)


def test_ca_and_server_certificate_are_made_once_and_kept_secret(tmp_path: Path) -> None:
    settings = AgentSettings(site="falcon-1", state_dir=tmp_path)
    place, now = place_of(settings), dt.datetime.now(dt.UTC)
    authority, pair = open_authority(place, now), None
    pair = server_pair(place, authority, now)
    assert open_authority(place, now).certificate_pem == authority.certificate_pem
    assert server_pair(place, authority, now) == pair
    for name in ("ca.key", "server.key"):
        assert (place.directory / name).stat().st_mode & 0o077 == 0
    later = now + dt.timedelta(days=300)
    assert server_pair(place, authority, later) != pair, "two thirds of its life are over"
    assert server_pair(place, make_authority("x", now), now) != pair, "another CA"
