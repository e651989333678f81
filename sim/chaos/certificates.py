"""Certificates that must not open anything, and the word that each refusal leaves behind; a token used twice."""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import json
import socket
import ssl
import time
import urllib.request
from collections.abc import Awaitable, Callable
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import serialization

from agent.identity.asking import enrol
from gridpivot.errors import Refused
from gridpivot.link import token as tokens
from gridpivot.link.certificates import (
    Authority,
    certify_site,
    issue_operator,
    issue_site,
    load_authority,
    make_authority,
    new_key,
)
from gridpivot.link.certificates import key_pem as pem_of
from gridpivot.link.credentials import KeyPair
from gridpivot.v1 import operator_pb2 as op
from sim import staging
from sim.chaos.besieged import Siege, besieged
from sim.chaos.intruder import hello_of, session
from sim.chaos.outcome import Outcome
from sim.chaos.rig import until

REVOCATION_BAR_S = 5.0
WEAK = (
    "AES128-SHA",
    "AES128-GCM-SHA256",
    "ECDHE-ECDSA-AES128-SHA",
    "ECDHE-ECDSA-AES128-SHA256",
    "ECDHE-RSA-AES128-SHA",
)
STRONG = ("ECDHE-ECDSA-AES128-GCM-SHA256", "ECDHE-ECDSA-AES256-GCM-SHA384", "ECDHE-ECDSA-CHACHA20-POLY1305")
TLS_WORDS = (
    "UNAVAILABLE"  # a handshake that fails is no session: gRPC's word at the far side, nothing at the controller
)


def _authority(siege: Siege) -> Authority:
    tls = siege.rig.place / "controller" / "tls"
    return load_authority((tls / "ca.key").read_bytes(), (tls / "ca.crt").read_bytes())


def refusals(siege: Siege) -> dict[str, float]:
    """gridpivot_sessions_refused_by_total and gridpivot_enrolment_calls_total, by their labels."""
    with urllib.request.urlopen(f"http://127.0.0.1:{siege.rig.http_port}/metrics", timeout=10) as answer:
        lines = answer.read().decode().splitlines()
    names = (
        "gridpivot_sessions_refused_by_total{",
        "gridpivot_enrolment_calls_total{",
        "gridpivot_sessions_ended_by_total{",
    )
    return {line.rpartition(" ")[0]: float(line.rpartition(" ")[2]) for line in lines if line.startswith(names)}


def logged(siege: Siege, event: str, **fields: str) -> int:
    """How often the controller logged this."""
    assert siege.rig.controller is not None
    found = 0
    for raw in siege.rig.controller.log.read_text(encoding="utf-8", errors="replace").splitlines():
        with contextlib.suppress(json.JSONDecodeError):
            line = json.loads(raw)
            found += line.get("event") == event and all(line.get(name) == value for name, value in fields.items())
    return found


async def _answer(siege: Siege, pair: KeyPair | None, site: str) -> str:
    """How the controller answers a hello: welcome, its goaway, or gRPC's word for a handshake that failed."""
    async with session(siege.rig.session_port, siege.rig.ca_pem, pair, hello_of(site)) as stream:
        return "welcome" if stream.welcomed else stream.goaway or stream.broken.partition(":")[0] or "closed"


async def bad_certificates(place: Path, short: bool) -> Outcome:
    """Expired, self-signed, of another CA, for another name, of an operator, none: each refused with its word."""
    async with besieged(place) as siege:
        victim, now = siege.victim, dt.datetime.now(dt.UTC)
        ours, theirs = _authority(siege), make_authority(staging.FLEET, now, days=2)
        key, past = new_key(), now - dt.timedelta(days=3)
        expired = certify_site(ours, staging.FLEET, victim, key.public_key(), past, days=1)
        alone = make_authority(staging.FLEET, now, days=2)
        itself = certify_site(Authority(key, alone.certificate), staging.FLEET, victim, key.public_key(), now, 1)
        cases: list[tuple[str, KeyPair | None, str, str]] = [
            ("expired", KeyPair(pem_of(key), _pem(expired)), victim, TLS_WORDS),
            ("self-signed", KeyPair(pem_of(key), _pem(itself)), victim, TLS_WORDS),
            ("another CA, same names", issue_site(theirs, staging.FLEET, victim, now), victim, TLS_WORDS),
            ("no certificate", None, victim, TLS_WORDS),
            ("another site's", siege.rig.pair("site-0"), victim, "wrong_site"),
            ("of an operator", issue_operator(ours, staging.FLEET, victim, now), victim, "wrong_site"),
            ("of a stranger", issue_site(ours, staging.FLEET, "nowhere", now), "nowhere", "not_enrolled"),
        ]
        notes, words = [], []
        before = await asyncio.to_thread(refusals, siege)
        for name, pair, site, expected in cases * (1 if short else 10):
            word = await _answer(siege, pair, site)
            if f"{name}: {word}" not in words:
                words.append(f"{name}: {word}")
            if word != expected:
                notes.append(f"{name}: {word}, expected {expected}")
        if await _answer(siege, siege.rig.pair(victim), victim) != "welcome":
            notes.append("the right certificate is refused too")
        after = await asyncio.to_thread(refusals, siege)
        told = {label: after[label] - before.get(label, 0.0) for label in after}
        label = 'gridpivot_sessions_refused_by_total{{code="{}"}}'
        notes += [
            f"{code}: not in gridpivot_sessions_refused_by_total, or not in the log"
            for code in {expected for *_, expected in cases} - {TLS_WORDS}
            if not told.get(label.format(code)) or not logged(siege, "session refused", code=code)
        ]
        saw = "; ".join([*words, *(f"{label} +{count:.0f}" for label, count in told.items() if count)])
        return await siege.outcome("bad_certificates", saw, notes=notes)


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


async def revoked_certificate(place: Path, short: bool) -> Outcome:
    """A live stream ends within 5 s of its revocation, and the certificate opens no other."""
    async with besieged(place) as siege:
        victim, pair = siege.victim, siege.rig.pair(siege.victim)
        async with session(siege.rig.session_port, siege.rig.ca_pem, pair, hello_of(victim)) as stream:
            if not stream.welcomed:
                raise RuntimeError(f"not welcomed before the revocation: {stream.goaway or stream.broken}")
            began_s = time.monotonic()
            await siege.rig.call("RevokeSite", op.RevokeSiteRequest(site=victim, reason="chaos"))
            closed_s = await until(lambda: stream.ended, 15.0, "the live stream of a revoked certificate ends")
            closed_s = max(closed_s, time.monotonic() - began_s)
            word = stream.goaway
        again = await _answer(siege, pair, victim)
        notes = [] if closed_s <= REVOCATION_BAR_S else [f"closed after {closed_s:.1f} s, at most {REVOCATION_BAR_S:g}"]
        notes += [f"the word was {said!r}, not revoked" for said in (word, again) if said != "revoked"]
        told = await asyncio.to_thread(refusals, siege)
        saw = f"live stream ended after {closed_s:.2f} s with {word}, the next with {again}; " + ", ".join(
            f"{label} {count:.0f}" for label, count in told.items() if "revoked" in label
        )
        return await siege.outcome("revoked_certificate", saw, notes=notes)


def _shake(siege: Siege, port: int, suite: str, version: ssl.TLSVersion) -> str:
    """The suite that was agreed on, or "" when the handshake was refused. The suite is offered alone."""
    context = ssl.create_default_context(cafile=str(siege.rig.place / "ca.crt"))
    context.minimum_version = context.maximum_version = version
    if suite:
        context.set_ciphers(f"{suite}:@SECLEVEL=0")
    context.set_alpn_protocols(["h2"])
    place = siege.rig.place / "sites" / siege.victim
    context.load_cert_chain(str(place / "site.crt"), str(place / "site.key"))
    with socket.create_connection(("127.0.0.1", port), timeout=10.0) as plain:
        try:
            with context.wrap_socket(plain, server_hostname="localhost") as tls:
                found = tls.cipher()
                return found[0] if found else ""
        except (ssl.SSLError, ConnectionError, TimeoutError):
            return ""


async def weak_suites(place: Path, short: bool) -> Outcome:
    """TLS 1.2 with CBC or RSA key exchange, and older versions, are refused; ECDHE with AEAD and TLS 1.3 are taken."""
    async with besieged(place) as siege:
        notes, taken = [], []
        for port in (siege.rig.session_port, siege.rig.operator_port):
            weak = {s: await asyncio.to_thread(_shake, siege, port, s, ssl.TLSVersion.TLSv1_2) for s in WEAK}
            notes += [f"port {port} took {suite}" for suite, agreed in weak.items() if agreed]
            strong = {s: await asyncio.to_thread(_shake, siege, port, s, ssl.TLSVersion.TLSv1_2) for s in STRONG}
            notes += [f"port {port} refused {suite}" for suite, agreed in strong.items() if agreed != suite]
            taken += list(strong.values())
            taken.append(await asyncio.to_thread(_shake, siege, port, "", ssl.TLSVersion.TLSv1_3))
            if not taken[-1].startswith("TLS_"):
                notes.append(f"port {port} refused TLS 1.3")
        saw = f"{len(WEAK)} weak suites refused on each port; taken: {', '.join(sorted(set(taken)))}"
        return await siege.outcome("weak_suites", saw, notes=notes)


async def _token(siege: Siege) -> str:
    """What `gridpivot-controller agent-token create` prints."""
    arguments = ("agent-token", "create", siege.victim, "--config", str(siege.rig.config))
    command = staging.entry("controller.cli", *arguments)
    process = await asyncio.create_subprocess_exec(
        *command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    async with asyncio.timeout(30.0):
        out, err = await process.communicate()
    if process.returncode:
        raise RuntimeError(f"agent-token create: {err.decode()[-300:]}")
    return out.decode().strip()


async def stolen_token(place: Path, short: bool) -> Outcome:
    """A token is copied on its way: whoever comes second is refused, and so is everybody who tries it again."""
    async with besieged(place) as siege:
        text = await _token(siege)
        token, port = tokens.decode(text), siege.rig.operator_port
        identity = await enrol(f"127.0.0.1:{port}", token.ca_der, text, new_key(), siege.victim)
        notes = [] if identity.certificate_chain_der else ["the first use brought no certificate"]
        said = set()
        for _ in range(3):
            try:
                await enrol(f"127.0.0.1:{port}", token.ca_der, text, new_key(), siege.victim)
                notes.append("a used token was taken again")
            except Refused as error:
                said.add(str(error))
        told = await asyncio.to_thread(refusals, siege)
        label = 'gridpivot_enrolment_calls_total{call="enrol",outcome="refused"}'
        if told.get(label) != 3.0 or logged(siege, "enrolment refused", call="enrol") != 3:
            notes.append(f"{label} {told.get(label)}, not 3, or not in the log")
        if any(token.secret.hex() in word or text in word for word in said):
            notes.append("the refusal repeats the secret")
        saw = f"{'; '.join(said)}; {label} {told.get(label, 0.0):.0f}; log: enrolment refused"
        return await siege.outcome("stolen_token", saw, notes=notes)


SCENARIOS: dict[str, Callable[[Path, bool], Awaitable[Outcome]]] = {
    "bad_certificates": bad_certificates,
    "revoked_certificate": revoked_certificate,
    "weak_suites": weak_suites,
    "stolen_token": stolen_token,
}
