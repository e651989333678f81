"""Those who connect and do not speak: silent by the thousand, a byte a second, in plaintext."""

from __future__ import annotations

import asyncio
import contextlib
import resource
import socket
import ssl
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

from sim.chaos.besieged import BACK_S, Siege, besieged
from sim.chaos.intruder import hello_of, session
from sim.chaos.outcome import Outcome
from sim.chaos.rig import Rig, Site, until

SPARE_DESCRIPTORS = 600  # for what this process and its agents need beside the silent ones
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
SETTINGS = bytes((0, 0, 0, 4, 0, 0, 0, 0, 0))
HEADERS = bytes((0, 0x0F, 0xFF, 1, 0, 0, 0, 0, 1))  # announces 4095 bytes of header block
UNFINISHED_MOST_S = 30.0  # a connection that never came through TLS and HTTP/2 is let go by then
SPOKEN_MOST_S = 90.0  # one that did, and has no call open
ADDRESSES = tuple(f"127.0.1.{n}" for n in range(1, 9))  # sources, since one has 28,000 ports only


def descriptors_free() -> int:
    """How many sockets this process may still open, its limit raised to the hard one."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard - len(list(Path("/proc/self/fd").iterdir())) - SPARE_DESCRIPTORS


async def _silent(ports: list[int], count: int) -> list[socket.socket]:
    """So many TCP connections, in turns to the ports; fewer where the system refuses more."""
    held: list[socket.socket] = []
    for number in range(count):
        probe = socket.socket()
        probe.setblocking(False)
        try:
            probe.bind((ADDRESSES[number % len(ADDRESSES)], 0))
            probe.connect(("127.0.0.1", ports[number % len(ports)]))
        except BlockingIOError:
            pass
        except OSError:
            probe.close()
            break
        held.append(probe)
        if number % 200 == 199:
            await asyncio.sleep(0)
    return held


def _alive(held: list[socket.socket]) -> int:
    """Connections that the controller has not closed."""
    alive = 0
    for probe in held:
        try:
            alive += probe.recv(65536) != b""
        except BlockingIOError:
            alive += 1
        except OSError:
            pass
    return alive


async def silent_connections(place: Path, short: bool) -> Outcome:
    """As many idle TCP connections as descriptors allow; who behaves stays, and a newcomer gets in within 20 s."""
    async with besieged(place) as siege:
        rig, (site,) = siege.rig, siege.rig.sites
        count = min(descriptors_free(), 4_000 if short else 50_000)
        held = await _silent([rig.session_port, rig.operator_port], count)
        highest_mb = rig.rss_mb()
        try:
            newcomer_s = await _newcomer(siege)
            highest_mb = max(highest_mb, rig.rss_mb())
            stayed = site.connected and site.agent.uplink is not None and site.agent.uplink.state.sessions_total == 1
            began_s = time.monotonic()
            await until(lambda: _alive(held) == 0, UNFINISHED_MOST_S, "the controller lets the silent ones go")
            gone_s = time.monotonic() - began_s
        finally:
            for probe in held:
                probe.close()
        notes = [] if stayed else ["the well-behaved site lost its session"]
        limit = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        saw = (
            f"{len(held)} silent connections (hard limit of descriptors {limit}); a newcomer in after {newcomer_s:.1f} s, "
            f"the silent ones let go {gone_s:.0f} s later; at most {highest_mb - siege.before_mb:.0f} MB meanwhile"
        )
        return await siege.outcome("silent_connections", saw, notes=notes)


async def _newcomer(siege: Siege) -> float:
    """The second site's own agent, for once behaving: from its first dial until it is welcome [s]."""
    newcomer = Site(siege.rig, siege.rig.specs[1])
    began_s = time.monotonic()
    try:
        await newcomer.start()
        await until(lambda: newcomer.connected, BACK_S, "a newcomer connected")
        return time.monotonic() - began_s
    finally:
        await newcomer.stop()


def _context(rig: Rig, site: str | None) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=str(rig.place / "ca.crt"))
    context.set_alpn_protocols(["h2"])
    if site is not None:
        place = rig.place / "sites" / site
        context.load_cert_chain(str(place / "site.crt"), str(place / "site.key"))
    return context


async def _drip(port: int, tls: ssl.SSLContext | None, first: bytes, slow: bytes, most_s: float) -> float:
    """Send `first` at once and `slow` a byte a second; how long the controller bore it [s], `most_s` when it did not end."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=tls)
    began_s = time.monotonic()

    async def hear() -> None:
        while await reader.read(65536):
            pass

    hearing = asyncio.create_task(hear())
    try:
        writer.write(first)
        for byte in slow:
            writer.write(bytes((byte,)))
            done, _ = await asyncio.wait({hearing}, timeout=1.0)
            if done or time.monotonic() - began_s > most_s:
                break
        if not hearing.done():
            await asyncio.wait({hearing}, timeout=max(0.0, most_s - (time.monotonic() - began_s)))
        return time.monotonic() - began_s
    finally:
        hearing.cancel()
        await asyncio.gather(hearing, return_exceptions=True)
        writer.close()
        with contextlib.suppress(OSError, ssl.SSLError, TimeoutError):
            async with asyncio.timeout(2.0):
                await writer.wait_closed()


async def slow_loris(place: Path, short: bool) -> Outcome:
    """A byte a second: as TLS, as HTTP/2 inside TLS, and as a header block that never ends."""
    async with besieged(place) as siege:
        rig, each = siege.rig, 20 if short else 150
        site_tls, bare_tls = _context(rig, siege.victim), _context(rig, None)
        client_hello = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(600)
        kinds = [
            ("bare", rig.session_port, None, b"", client_hello, UNFINISHED_MOST_S),
            ("bare", rig.operator_port, None, b"", client_hello, UNFINISHED_MOST_S),
            ("preface in TLS", rig.session_port, site_tls, b"", (PREFACE + SETTINGS) * 20, UNFINISHED_MOST_S),
            ("preface in TLS", rig.operator_port, bare_tls, b"", (PREFACE + SETTINGS) * 20, UNFINISHED_MOST_S),
        ]
        if not short:
            spoken = PREFACE + SETTINGS
            kinds += [
                ("headers", rig.session_port, site_tls, spoken + HEADERS, bytes(4095), SPOKEN_MOST_S),
                ("headers", rig.operator_port, bare_tls, spoken + HEADERS, bytes(4095), SPOKEN_MOST_S),
                ("silence after settings", rig.operator_port, bare_tls, spoken, b"", SPOKEN_MOST_S),
            ]
        drips = [
            (name, _drip(port, tls, first, slow, most_s), most_s)
            for name, port, tls, first, slow, most_s in kinds
            for _ in range(each)
        ]
        gathered = asyncio.gather(*(drip for _, drip, _ in drips), return_exceptions=True)
        newcomer_s = await _newcomer(siege)
        borne: dict[str, float] = {}
        notes: set[str] = set()
        for (name, _, most_s), took in zip(drips, await gathered, strict=True):
            if isinstance(took, float):
                borne[name] = max(took, borne.get(name, 0.0))
                if took >= most_s:
                    notes.add(f"{name}: still open after {most_s:.0f} s")
        words = ", ".join(f"{name} {took:.0f} s" for name, took in borne.items())
        saw = f"{len(drips)} slow connections, ended after at most: {words}; a newcomer in after {newcomer_s:.1f} s"
        return await siege.outcome("slow_loris", saw, notes=sorted(notes))


async def _said_plainly(port: int, words: bytes) -> bytes:
    """What a port answers to plaintext before it closes; raises TimeoutError when it does not close."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(words)
        async with asyncio.timeout(UNFINISHED_MOST_S):
            return await reader.read(65536)
    except ConnectionError:
        return b""
    finally:
        writer.close()


async def plaintext(place: Path, short: bool) -> Outcome:
    """HTTP/1 and HTTP/2 without TLS to both ports: no word of HTTP comes back."""
    async with besieged(place) as siege:
        rig, notes = siege.rig, []
        tries = 0
        for _ in range(5 if short else 50):
            for port in (rig.session_port, rig.operator_port):
                for words in (b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n", PREFACE + SETTINGS + HEADERS, b"\n"):
                    tries += 1
                    answer = await _said_plainly(port, words if words != b"\n" else b"\n" * 64)
                    # A TLS alert (type 21) is the only word that may come back.
                    if answer and answer[0] != 21:
                        notes.append(f"port {port} answered {answer[:40]!r} to {words[:12]!r}")
        async with session(rig.session_port, rig.ca_pem, None, hello_of(siege.victim)) as stream:
            if stream.welcomed:
                notes.append("a session without a certificate was welcomed")
        return await siege.outcome("plaintext", f"{tries} plaintext connections closed without an answer", notes=notes)


SCENARIOS: dict[str, Callable[[Path, bool], Awaitable[Outcome]]] = {
    "silent_connections": silent_connections,
    "slow_loris": slow_loris,
    "plaintext": plaintext,
}
