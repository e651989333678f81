"""The controller put together: store, fleet, markets, planner, both gRPC ports, HTTP. Nothing else knows the whole."""

from __future__ import annotations

import asyncio
import signal
from contextlib import AsyncExitStack
from dataclasses import dataclass
from http import HTTPStatus

import grpc
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from controller.api.identities import IdentityDecisions
from controller.api.servicer import OperatorServicer
from controller.board import PlanBoard
from controller.dispatch.solve import Planner
from controller.exporter import FleetCollector, LinkFigures, metrics_route, registry
from controller.fleet.state import SiteTerms
from controller.fleet.tables import Fleet
from controller.identity.enrolment import Enrolment
from controller.identity.files import load_ca
from controller.identity.gate import Gate, open_gate
from controller.identity.metrics import IdentityCollector
from controller.identity.upkeep import OwnCertificate, enrolment_terms
from controller.link.enrolment import EnrolmentServicer
from controller.link.servicer import SessionServicer
from controller.link.session import LinkTiming
from controller.markets.book import MarketBook
from controller.markets.polling import MarketPoller
from controller.memory import SiteMemory
from controller.operations import Operations
from controller.planner import PlanLoop, Signer
from controller.settings import ControllerSettings
from controller.settling import Settling
from controller.store.store import Store
from gridpivot.clock import Clock, SystemClock
from gridpivot.errors import GridpivotError, SettingsError
from gridpivot.httpd import TEXT, HttpServer, Reply, Route, answer
from gridpivot.limits import give_back_memory, raise_file_limit
from gridpivot.link.credentials import (
    SERVER_OPTIONS,
    dynamic_operator_credentials,
    dynamic_session_credentials,
    read_public,
    read_secret,
)
from gridpivot.observability import get_logger
from gridpivot.plan import key_id
from gridpivot.v1 import enrolment_pb2_grpc, operator_pb2_grpc, session_pb2_grpc

GIVE_BACK_EVERY_S = 10.0
MOST_FILES = 1_000_000
PURGE_EVERY_S = 3_600.0
PRICES_EVERY_S = 2.0  # how soon a changed price file is noticed
GRACE_S = 2.0
SOLVER_GRACE_S = 2.0  # the solver stops itself at its deadline; after this it is left behind
log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Ports:
    """Where it listens once it runs."""

    session: int
    operator: int
    http: int


def read_signer(settings: ControllerSettings) -> Signer:
    """The planner's key from its file; raises SettingsError."""
    path = settings.path(settings.tls.planner_key)
    try:
        key = serialization.load_pem_private_key(read_secret(path), password=None)
    except ValueError as error:
        raise SettingsError(
            f"{path}: not a PEM private key; run gridpivot-controller init elsewhere and copy"
        ) from error
    if not isinstance(key, Ed25519PrivateKey):
        raise SettingsError(f"{path}: not an Ed25519 key; plans are signed with Ed25519 only")
    return Signer(key, key_id(key.public_key().public_bytes_raw()))


class ControllerService:
    """One controller. `start`, then `wait` or whatever else; then `stop`."""

    def __init__(self, settings: ControllerSettings, clock: Clock | None = None) -> None:
        self.settings = settings
        self.clock = clock if clock is not None else SystemClock()
        self.ports: Ports | None = None
        self.operations: Operations | None = None  # for whoever runs a controller inside his own process
        self.loop: PlanLoop | None = None
        self.enrolment: Enrolment | None = None
        self.store: Store | None = None
        self.gate: Gate | None = None
        self.identity_decisions: IdentityDecisions | None = None
        self._stack = AsyncExitStack()
        self._loop_task: asyncio.Task[None] | None = None

    async def start(self) -> Ports:
        """Everything up, or nothing: raises SettingsError or GridpivotError with what was started taken down again."""
        async with AsyncExitStack() as stack:
            self.ports = await self._start(stack)
            self._stack = stack.pop_all()
        return self.ports

    async def stop(self) -> None:
        """Down in the order opposite to `start`; what was acknowledged is durable."""
        await self._stack.aclose()

    async def wait(self) -> None:
        """Until the planning loop ends, which it does only by a defect."""
        assert self._loop_task is not None
        await self._loop_task

    async def _start(self, stack: AsyncExitStack) -> Ports:
        settings, clock = self.settings, self.clock
        tls = settings.tls
        authority = load_ca(settings)
        own = OwnCertificate(settings, authority, clock)
        ca_pem = read_public(settings.path(tls.ca))
        token = read_secret(settings.path(tls.operator_token_file)).decode().strip()
        signer = read_signer(settings)
        terms = {
            s.name: SiteTerms(
                s.name,
                s.own_ceiling_w,
                s.drop_ramp_w_per_min,
                s.pick_up_ramp_w_per_min,
                s.overhead_ratio,
                s.pools,
                s.connection,
                s.tariff,
            )
            for s in settings.sites
        }
        dispatch = settings.dispatch
        book = await asyncio.to_thread(
            MarketBook,
            settings.markets,
            {s.region for s in settings.sites},
            clock.now(),
            start_unix_s=dispatch.start_unix_s,
            speed=dispatch.speed,
        )
        self.store = store = await Store.open(settings.state_dir / "controller.db", clock)
        stack.push_async_callback(store.close)
        self.gate = gate = await open_gate(store.identities, clock, token)
        fleet = Fleet((s.name, s.region) for s in settings.sites)
        board = PlanBoard(store.ledger.record_status)
        memory = SiteMemory(fleet, book, store.peaks, clock, {s.name: s.tariff for s in settings.sites}, dispatch.speed)
        await memory.restore()
        operations = Operations(
            terms,
            fleet,
            book,
            board,
            store.ledger,
            clock,
            settings.link.fresh_s,
            dispatch.fleet_floor_eh_s * 1e18,
            dispatch.speed,
            dispatch.backlogs,
            memory,
            records_committed=lambda: store.lanes.records_committed,
        )
        await operations.restore()
        epoch = await store.ledger.next_epoch()
        postures = {s.name: s.posture for s in settings.sites}
        loop = PlanLoop(
            Planner(dispatch.parameters, time_limit_s=dispatch.deadline_s),
            board,
            store.ledger,
            signer,
            clock,
            operations.see,
            epoch=epoch,
            lease_s=settings.link.lease_s,
            thresholds=dispatch.thresholds(),
            look_s=dispatch.look_s,
            deadline_s=dispatch.deadline_s + SOLVER_GRACE_S,
            postures=postures.__getitem__,
            reasons=lambda: operations.orders.reasons(),
            pending=operations.pending,
        )
        settling = Settling(store, clock, dispatch.parameters)
        await settling.restore()
        self.operations, self.loop = operations, loop
        timing = LinkTiming(settings.link.heartbeat_ms, settings.link.dead_after_ms, settings.link.window_bytes)
        sessions = SessionServicer(fleet, store, board, timing, clock, gate)
        gate.on_change = sessions.look_again
        sessions.on_plan_seen = loop.outgrow
        self.enrolment = enrolment = Enrolment(
            authority, enrolment_terms(settings, signer), store.identities, gate, clock, terms.__contains__
        )
        enrolments: dict[str, int] = {}
        self.identity_decisions = decisions = IdentityDecisions(store.identities, store.ledger, gate, clock)
        answering = OperatorServicer(operations, loop, gate, decisions)

        def link_figures() -> LinkFigures:
            counters = sessions.counters
            refused = sum(counters.refused_total.values())
            return LinkFigures(counters.sessions_total, refused, counters.bad_records_total, counters.bytes_total)

        http = await self._http(
            stack,
            metrics_route(
                registry(
                    FleetCollector(operations, loop, store, link_figures),
                    settling,
                    IdentityCollector(gate, enrolments, sessions.counters.refused_total, sessions.counters.ended_total),
                )
            ),
        )
        operator = await self._grpc(
            stack,
            settings.listen.operator_port,
            dynamic_operator_credentials(own.pair, own.watcher()),
            answering,
            EnrolmentServicer(enrolment, clock, enrolments),
        )
        session = await self._grpc(
            stack,
            settings.listen.session_port,
            dynamic_session_credentials(ca_pem, own.pair, own.watcher()),
            answering,
            EnrolmentServicer(enrolment, clock, enrolments),
            sessions,
        )
        stack.push_async_callback(_cancel, asyncio.create_task(gate.run(), name="gate"))
        stack.push_async_callback(_cancel, asyncio.create_task(operations.pending.run(), name="pending"))
        stack.push_async_callback(_cancel, asyncio.create_task(own.run(), name="certificate"))
        self._loop_task = asyncio.create_task(loop.run(), name="planner")
        stack.push_async_callback(_cancel, self._loop_task)
        stack.push_async_callback(_cancel, asyncio.create_task(self._purge(store), name="purge"))
        stack.push_async_callback(_cancel, asyncio.create_task(_follow_prices(book, loop), name="prices"))
        stack.push_async_callback(_cancel, asyncio.create_task(MarketPoller(book, clock).run(), name="feeds"))
        stack.push_async_callback(_cancel, asyncio.create_task(memory.run(), name="memory"))
        stack.push_async_callback(_cancel, asyncio.create_task(_give_back(), name="give back"))
        if dispatch.speed == 1.0:  # a compressed day is not one that anybody can settle
            stack.push_async_callback(_cancel, asyncio.create_task(settling.run(), name="settling"))
        log.info("controller up", epoch=epoch, sites=len(fleet), session=session, operator=operator, http=http)
        return Ports(session, operator, http)

    async def _grpc(
        self,
        stack: AsyncExitStack,
        port: int,
        credentials: grpc.ServerCredentials,
        answering: OperatorServicer,
        enrolment: EnrolmentServicer,
        sessions: SessionServicer | None = None,
    ) -> int:
        """One port; operators and enrolment are on both, each with its own way to recognise a caller."""
        server = grpc.aio.server(options=list(SERVER_OPTIONS))
        operator_pb2_grpc.add_OperatorServiceServicer_to_server(answering, server)
        enrolment_pb2_grpc.add_EnrolmentServiceServicer_to_server(enrolment, server)
        if sessions is not None:
            session_pb2_grpc.add_SessionServiceServicer_to_server(sessions, server)
        address = f"{self.settings.listen.host}:{port}"
        try:
            bound = server.add_secure_port(address, credentials)
        except RuntimeError as error:
            raise GridpivotError(f"{address}: cannot listen; is another controller running? ({error})") from error
        await server.start()

        async def stop() -> None:
            if sessions is not None:
                await sessions.shut_down()
            await server.stop(GRACE_S)

        stack.push_async_callback(stop)
        return int(bound)

    async def _http(self, stack: AsyncExitStack, metrics: Route) -> int:
        async def ready() -> Reply:
            up = self._loop_task is not None and not self._loop_task.done()
            if up:
                return HTTPStatus.OK, TEXT, b"ready\n"
            return HTTPStatus.SERVICE_UNAVAILABLE, TEXT, b"planning loop is not running\n"

        routes = {"/metrics": metrics, "/healthz": answer("ok"), "/readyz": ready}
        server = HttpServer(routes, self.settings.listen.http_host, self.settings.listen.http_port)
        try:
            port = await server.start()
        except OSError as error:
            raise GridpivotError(
                f"HTTP port {self.settings.listen.http_port}: {error.strerror}; change listen.http_port"
            ) from error
        stack.push_async_callback(server.stop)
        return port

    async def _purge(self, store: Store) -> None:
        while True:
            try:
                await store.purge(self.settings.retention.retention(), self.clock.now())
            except GridpivotError as error:
                log.warning("purge failed", why=str(error))
            await asyncio.sleep(PURGE_EVERY_S)


async def _follow_prices(book: MarketBook, loop: PlanLoop) -> None:
    """Take over price files that somebody replaces; a bad one is said once and changes nothing."""
    while True:
        await asyncio.sleep(PRICES_EVERY_S)
        changed = await asyncio.to_thread(book.reload)
        if book.reload_error is not None:
            log.warning("price file refused", why=book.reload_error)
        elif changed:
            loop.wake()
            log.info("prices read again", regions=list(changed))


async def _give_back() -> None:
    """Return freed memory to the system now and then: a crowd of connections leaves hundreds of megabytes in C arenas."""
    while True:
        await asyncio.sleep(GIVE_BACK_EVERY_S)
        await asyncio.to_thread(give_back_memory)


async def _cancel(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def run(settings: ControllerSettings) -> None:
    """Run until SIGTERM or SIGINT, then stop cleanly."""
    log.info("descriptors", limit=raise_file_limit(MOST_FILES))
    service = ControllerService(settings)
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    await service.start()
    waits = [asyncio.create_task(stopping.wait()), asyncio.create_task(service.wait())]
    try:
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for wait in waits:
            wait.cancel()
        await asyncio.gather(*waits, return_exceptions=True)
        await service.stop()
        log.info("controller down")
