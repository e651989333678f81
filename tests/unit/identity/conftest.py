"""A running controller and a site's state directory; the token goes from one to the other as a person would carry it."""

import asyncio
import datetime as dt
import io
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import grpc
import pytest

from agent.identity import asking, files
from agent.uplink.session import Uplink, UplinkTarget
from controller.identity.files import make_identity
from controller.service import ControllerService
from controller.settings import ControllerSettings
from gridpivot import observability
from gridpivot.clock import Instant, SystemClock
from gridpivot.link import token as tokens
from gridpivot.link.certificates import key_pem, new_key
from gridpivot.link.credentials import KeyPair, client_credentials
from gridpivot.v1 import enrolment_pb2 as pb
from gridpivot.v1 import session_pb2 as wire

DEADLINE_S = 20.0


class ShiftedClock(SystemClock):
    """The wall clock, moved by `shift_s`; the monotonic one as it is."""

    shift_s = 0.0

    def now(self) -> Instant:
        now = super().now()
        return Instant(now.monotonic_s, now.unix_s + self.shift_s)


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(DEADLINE_S):
        while not condition():
            await asyncio.sleep(0.02)


class House:
    """Controller and one site's directory."""

    def __init__(self, place: Path, clock: ShiftedClock) -> None:
        self.place, self.clock = place, clock
        self.site_dir = place / "site"
        self.log = io.StringIO()
        self.settings = ControllerSettings.model_validate(
            {
                "state_dir": place / "state",
                "listen": {"host": "127.0.0.1", "session_port": 0, "operator_port": 0, "http_port": 0},
                "link": {"heartbeat_ms": 200, "dead_after_ms": 2_000},
                "sites": [
                    {"name": "falcon-1", "region": "ercot", "ceiling_mw": 0.4},
                    {"name": "oryx-1", "region": "uae", "ceiling_mw": 0.4},
                ],
            }
        )

    async def start(self) -> None:
        observability.configure("json", stream=self.log)
        make_identity(self.settings, "test", ["localhost", "127.0.0.1"], dt.datetime.now(dt.UTC))
        self.service = ControllerService(self.settings, self.clock)
        self.ports = await self.service.start()
        assert self.service.enrolment is not None
        self.enrolment = self.service.enrolment
        self.ca_pem = (self.settings.state_dir / "tls/ca.crt").read_bytes()

    @property
    def addresses(self) -> files.Addresses:
        return files.Addresses(f"localhost:{self.ports.session}", f"localhost:{self.ports.operator}")

    async def token(self, site: str = "falcon-1", valid_s: float = 3600.0) -> str:
        return (await self.enrolment.create_token(site, valid_s))[0]

    async def enrol(self, text: str, key=None) -> pb.EnrolResponse:
        token = tokens.decode(text)
        return await asking.enrol(self.addresses.operator, token.ca_der, text, key or new_key(), token.site)

    async def move_in(self, site: str = "falcon-1") -> KeyPair:
        """Enrol and write the identity down."""
        key = new_key()
        identity = await self.enrol(await self.token(site), key)
        files.write_trust(self.site_dir, identity.ca_der, identity.planner_keys)
        files.write_pair(self.site_dir, key_pem(key), asking.chain_pem(identity), "1")
        return KeyPair(key_pem(key), asking.chain_pem(identity))

    def target(self, pair: KeyPair, site: str = "falcon-1") -> UplinkTarget:
        return UplinkTarget(self.addresses.session, client_credentials(self.ca_pem, pair), site)

    def uplink(self, pair: KeyPair, site: str = "falcon-1", directory: str = "uplink") -> Uplink:
        self.links: list[tuple[bool, str]] = []
        return Uplink(
            self.target(pair, site),
            self.place / directory / "spool.sqlite",
            SystemClock(),
            on_plan=lambda plan: None,
            on_heartbeat=lambda beat: None,
            hello=lambda: wire.Hello(site=site, inventory_hash=b"h" * 32),
            on_link=lambda up, why: self.links.append((up, why)),
            inventory_wanted=lambda: None,
        )

    def operator(self, token: str | None = None, pair: KeyPair | None = None) -> grpc.aio.Channel:
        address = self.addresses.session if pair is not None else self.addresses.operator
        return grpc.aio.secure_channel(address, client_credentials(self.ca_pem, pair))


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    """Up and running."""
    made = House(tmp_path, ShiftedClock())
    await made.start()
    yield made
    await made.service.stop()
