"""Keeps the site's certificate alive: renewed from half its life, asked back for after its end.

What is decided is pure (`renew_at`, `Standing`); `Upkeep.run` does it, and hands every new pair to the uplink, which
opens a second channel, resumes there and closes the first.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import structlog
from cryptography import x509

from agent.identity import asking, files
from gridpivot.clock import Clock
from gridpivot.errors import GridpivotError, Refused
from gridpivot.link.certificates import key_pem, load_key, load_pem, make_request, new_key
from gridpivot.link.credentials import KeyPair
from gridpivot.v1 import enrolment_pb2 as pb
from gridpivot.vocabulary import EventKind

LOOK_S = 30.0
RETRY_S = 300.0
PENDING_RENEWAL, PENDING_RECOVERY = "renewal", "recovery"
log = structlog.get_logger("agent.identity")

Say = Callable[[EventKind, str], None]


@dataclass(slots=True)
class CertificateState:
    """For status, metrics and doctor. `waiting` is the fingerprint that an operator has to approve."""

    not_after_unix_s: float | None = None
    renewals_total: int = 0
    waiting: str | None = None
    trouble: str = ""


def renew_at(certificate: x509.Certificate, share: float) -> float:
    """When to renew [Unix s]: `share` in [0, 1) spreads sites over the time from half to seven tenths of its life."""
    begin, end = certificate.not_valid_before_utc.timestamp(), certificate.not_valid_after_utc.timestamp()
    return begin + (0.5 + 0.2 * share) * (end - begin)


class Upkeep:
    """One site's certificate."""

    def __init__(
        self,
        site: str,
        state_dir: Path,
        addresses: files.Addresses,
        paths: tuple[Path, Path, Path],
        clock: Clock,
        rotate: Callable[[], None],
        say: Say,
        way_back: str = "",
    ) -> None:
        """`paths` are CA, certificate and key as settings name them; `rotate` takes them over into the uplink.

        `way_back`: what a person does after the certificate's end, where nobody can be asked to approve a return.
        """
        self._way_back = way_back
        self._site, self._state_dir, self._addresses, self._clock = site, state_dir, addresses, clock
        self._ca, self._certificate, self._key = paths
        self._rotate, self._say = rotate, say
        self._share = random.random()  # noqa: S311 - jitter, not a secret
        self._said_expired = False
        self.state = CertificateState()

    async def run(self) -> None:
        """Look, renew, ask back; for ever. Whatever fails is said and tried again."""
        while True:
            pause_s = LOOK_S
            try:
                pause_s = await self._look()
                self.state.trouble = ""
            except (GridpivotError, OSError, ValueError) as error:
                if str(error) != self.state.trouble:
                    log.warning("certificate not renewed", site=self._site, why=str(error))
                self.state.trouble = str(error)
                pause_s = RETRY_S if isinstance(error, Refused) else LOOK_S
            await asyncio.sleep(pause_s)

    async def _look(self) -> float:
        """One look; returns the pause before the next [s]."""
        own = await asyncio.to_thread(self._read)
        certificate, now_s = load_pem(own.chain_pem), self._clock.now().unix_s
        self.state.not_after_unix_s = certificate.not_valid_after_utc.timestamp()
        if now_s >= self.state.not_after_unix_s:
            return await self._recover(certificate, own)
        self._said_expired, self.state.waiting = False, None
        if now_s >= renew_at(certificate, self._share):
            key = load_key(await self._pending(PENDING_RENEWAL))
            ca_pem = await asyncio.to_thread(self._ca.read_bytes)
            identity = await asking.renew(self._addresses.session, ca_pem, own, key, self._site)
            await self._take(identity, key_pem(key), PENDING_RENEWAL)
            self.state.renewals_total += 1
            self._say(EventKind.CERTIFICATE_RENEWED, f"certificate renewed, good until {_until(identity)}")
        return LOOK_S

    async def _recover(self, expired: x509.Certificate, own: KeyPair) -> float:
        """Ask to come back with the old key and a new one; an operator decides."""
        if self._way_back:
            raise Refused(f"the certificate has run out; {self._way_back}")
        key = load_key(await self._pending(PENDING_RECOVERY))
        ca_pem = await asyncio.to_thread(self._ca.read_bytes)
        csr_der = await asyncio.to_thread(self._pending_request, key_pem(key))
        self.state.waiting = asking.fingerprint_of(csr_der)
        if not self._said_expired:
            self._said_expired = True
            told = (
                f"the certificate has run out; an admin has to run: gridpivot identity approve {self._site} "
                f"--fingerprint {self.state.waiting[:16]} --reason ..."
            )
            self._say(EventKind.CERTIFICATE_EXPIRED, told)
            log.warning("certificate expired", site=self._site, fingerprint=self.state.waiting, what=told)
        answer = await asking.recover(self._addresses.operator, ca_pem, expired, load_key(own.key_pem), csr_der)
        if answer.state == "refused":
            files.drop_pending_key(self._state_dir, PENDING_RECOVERY)
            self._request_path().unlink(missing_ok=True)
            raise Refused("an operator refused this site's return; a new request goes out with a new fingerprint")
        if answer.state != "approved":
            return min(max(5.0, answer.retry_after_ms / 1000.0), RETRY_S)
        await self._take(answer.identity, key_pem(key), PENDING_RECOVERY)
        self._request_path().unlink(missing_ok=True)
        self.state.waiting = None
        self._say(
            EventKind.CERTIFICATE_RENEWED, f"an operator let this site come back, until {_until(answer.identity)}"
        )
        return LOOK_S

    def _request_path(self) -> Path:
        return self._state_dir / "tls" / "recovery.csr"

    def _pending_request(self, pem: bytes) -> bytes:
        """The same request in every repetition: ECDSA signs differently each time, and the fingerprint must not move."""
        path = self._request_path()
        if path.exists():
            return path.read_bytes()
        csr_der = make_request(load_key(pem), self._site)
        path.write_bytes(csr_der)
        return csr_der

    async def _pending(self, name: str) -> bytes:
        return await asyncio.to_thread(files.keep_pending_key, self._state_dir, name, key_pem(new_key()))

    async def _take(self, identity: pb.EnrolResponse, pem: bytes, pending: str) -> None:
        chain = asking.chain_pem(identity)
        await asyncio.to_thread(files.write_trust, self._state_dir, identity.ca_der, identity.planner_keys)
        stamp = f"{round(self._clock.now().unix_s * 1000):014d}"
        await asyncio.to_thread(files.write_pair, self._state_dir, pem, chain, stamp)
        await asyncio.to_thread(files.drop_pending_key, self._state_dir, pending)
        self.state.not_after_unix_s = load_pem(chain).not_valid_after_utc.timestamp()
        self._rotate()

    def _read(self) -> KeyPair:
        return KeyPair(self._key.read_bytes(), self._certificate.read_bytes())


def _until(identity: pb.EnrolResponse) -> str:
    return f"{dt.datetime.fromtimestamp(identity.not_after_unix_ms / 1000, dt.UTC):%Y-%m-%d %H:%MZ}"
