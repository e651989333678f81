"""The controller's end of bench_link in a process of its own: two listeners over one store, one fleet, one board.

One listener is the session port as the controller has it (mutual TLS), the other speaks plain TCP, which exists nowhere
but here: what the two cost is the price of TLS. Told by JSON lines on its standard input; see `main`.
"""

from __future__ import annotations

import asyncio
import io
import json
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import grpc
from cryptography import x509

from controller.board import PlanBoard
from controller.fleet.tables import Fleet
from controller.identity.gate import open_gate
from controller.link.servicer import Context, LinkTiming, SessionServicer
from controller.store.store import Store
from gridpivot import observability
from gridpivot.clock import SystemClock
from gridpivot.link.credentials import SERVER_OPTIONS, KeyPair, session_server_credentials
from gridpivot.plan import sign
from gridpivot.v1 import plan_pb2, session_pb2_grpc
from gridpivot.v1 import session_pb2 as wire
from sim.lines import hear, say

CLOCK = SystemClock()
TIMING = LinkTiming(heartbeat_ms=2_000, dead_after_ms=10_000, window_bytes=4 * 2**20)
LEASE_MS = 600_000


class Named:
    """A stream without TLS that says for whom it speaks as TLS would: by the certificate of the site in its hello."""

    def __init__(self, context: Context, certificates: Mapping[str, bytes]) -> None:
        self._context, self._certificates = context, certificates
        self._site = ""

    async def read(self) -> Any:
        """The next message."""
        request = await self._context.read()
        if not self._site and isinstance(request, wire.SessionRequest):
            self._site = request.hello.site
        return request

    async def write(self, response: wire.SessionResponse) -> None:
        """Send."""
        await self._context.write(response)

    def auth_context(self) -> Mapping[str, list[bytes]]:
        """What a handshake would have brought."""
        pem = self._certificates[self._site]
        names = x509.load_pem_x509_certificate(pem).extensions.get_extension_for_class(x509.SubjectAlternativeName)
        uri = names.value.get_values_for_type(x509.UniformResourceIdentifier)[0]
        return {"x509_uri": [uri.encode()], "x509_pem_cert": [pem]}

    def peer(self) -> str:
        """Whence."""
        return self._context.peer()


class PlainServicer(session_pb2_grpc.SessionServiceServicer):
    """The same servicer behind a listener without TLS."""

    def __init__(self, servicer: SessionServicer, certificates: Mapping[str, bytes]) -> None:
        self._servicer, self._certificates = servicer, certificates

    async def Session(self, request_iterator: Any, context: Any) -> None:  # type: ignore[override]
        """One session."""
        await self._servicer.Session(request_iterator, Named(context, self._certificates))  # type: ignore[arg-type]


class Plans:
    """A plan now and then for each site in turn, signed or not."""

    def __init__(self, board: PlanBoard, sites: list[str], every_s: float, keys: Any) -> None:
        self._board, self._sites, self._every_s, self._key = board, sites, every_s, keys
        self._version = 0
        self.signed = True

    async def run(self) -> None:
        """For ever: each site once in `every_s`."""
        while True:
            site = self._sites[self._version % len(self._sites)]
            self._version += 1
            plan = example_plan(site, self._version)
            if self.signed:
                out = sign(plan, self._key, "bench")
            else:
                out = plan_pb2.SignedPlan(plan=plan.SerializeToString(deterministic=True))
            self._board.publish(out, CLOCK.now())
            await asyncio.sleep(self._every_s / len(self._sites))


def example_plan(site: str, version: int) -> plan_pb2.Plan:
    """As large as a site of five classes, two pools and two events has it."""
    return plan_pb2.Plan(
        site=site,
        epoch=1,
        version=version,
        issued_at_unix_ms=CLOCK.now().unix_ms,
        valid_for_ms=LEASE_MS,
        ceiling_w=45e6,
        expected_power_w=43.1e6,
        reason="300 s have passed since the last planning.",
        classes=[plan_pb2.ClassTarget(name=f"class-{n}", normal_machines=2250, value_usd_per_mwh=70) for n in range(5)],
        pools=[plan_pb2.PoolTarget(name=n, max_w=4e6, expected_w=3e6, fallback_w=1e6) for n in ("inference", "train")],
        fallback=plan_pb2.Fallback(posture="hold", ceiling_w=45e6),
        events=[plan_pb2.EventWindow(event_id=f"e{n}", ceiling_w=20e6, starts_at_unix_ms=2**42) for n in range(2)],
    )


async def serve(place: Path, sites: list[str], idle: list[str], plan_every_s: float) -> None:
    """Both listeners until standard input closes."""
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    observability.configure("json", level="error", stream=io.StringIO())
    state = place / "controller"
    ca_pem = (place / "ca.crt").read_bytes()
    own = KeyPair((state / "tls/server.key").read_bytes(), (state / "tls/server.crt").read_bytes())
    certificates = {name: (place / "sites" / name / "site.crt").read_bytes() for name in sites}
    key = load_pem_private_key((state / "planner.key").read_bytes(), password=None)
    store = await Store.open(state / "controller.db", CLOCK)
    gate = await open_gate(store.identities, CLOCK, (state / "operator.token").read_text(encoding="ascii").strip())
    board = PlanBoard(store.ledger.record_status)
    servicer = SessionServicer(Fleet((n, "here") for n in [*sites, *idle]), store, board, TIMING, CLOCK, gate)
    secure, plain = (grpc.aio.server(options=list(SERVER_OPTIONS)) for _ in range(2))
    session_pb2_grpc.add_SessionServiceServicer_to_server(servicer, secure)
    session_pb2_grpc.add_SessionServiceServicer_to_server(PlainServicer(servicer, certificates), plain)
    tls_port = secure.add_secure_port("127.0.0.1:0", session_server_credentials(ca_pem, own))
    plain_port = plain.add_insecure_port("127.0.0.1:0")
    await secure.start()
    await plain.start()
    plans = Plans(board, sites, plan_every_s, key)
    tasks = [asyncio.create_task(gate.run()), asyncio.create_task(plans.run())]

    def on_line(line: dict[str, Any]) -> None:
        if "signed" in line:
            plans.signed = line["signed"]
        counters = servicer.counters
        say(
            "figures",
            live=len(servicer._live),
            records=sum(counters.records_total.values()),
            tables=counters.records_total[wire.LANE_DEVICES],
            payload_bytes=counters.bytes_total,
            bad=counters.bad_records_total,
            commits=store.writer.commits,
        )

    say("up", tls=tls_port, plain=plain_port)
    try:
        await hear(on_line)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await servicer.shut_down()
        await asyncio.gather(secure.stop(1.0), plain.stop(1.0))
        await store.close()


def main() -> None:
    """`link_centre.py JSON`; each line of input is answered by `figures`, `{"signed": ...}` also sets how plans go."""
    asked = json.loads(sys.argv[1])
    with suppress(KeyboardInterrupt):
        asyncio.run(serve(Path(asked["place"]), asked["sites"], asked["idle"], asked["plan_every_s"]))


if __name__ == "__main__":
    main()
