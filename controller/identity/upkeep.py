"""The controller's own certificate, renewed and picked up while it runs; and what its sites' certificates are made of."""

from __future__ import annotations

import asyncio
import datetime as dt
from collections.abc import Callable

from controller.identity.enrolment import Terms
from controller.identity.files import fleet_name, renew_server, server_hosts
from controller.planner import Signer
from controller.settings import ControllerSettings
from gridpivot.clock import Clock
from gridpivot.link.certificates import Authority
from gridpivot.link.credentials import KeyPair, read_public, read_secret
from gridpivot.observability import get_logger

LOOK_S = 30.0
log = get_logger(__name__)


class OwnCertificate:
    """Key and certificate of both ports. What `watcher` gives is asked at every handshake, in grpc's own threads."""

    def __init__(self, settings: ControllerSettings, authority: Authority | None, clock: Clock) -> None:
        self._settings, self._authority, self._clock = settings, authority, clock
        self.pair = self._read()

    def _read(self) -> KeyPair:
        tls, path = self._settings.tls, self._settings.path
        return KeyPair(read_secret(path(tls.key)), read_public(path(tls.certificate)))

    def watcher(self) -> Callable[[], KeyPair | None]:
        """For one port: a newer pair than the one that the port uses, or None."""
        used = self.pair

        def fresh() -> KeyPair | None:
            nonlocal used
            if self.pair is used:
                return None
            used = self.pair
            return used

        return fresh

    async def run(self) -> None:
        """Renew it when two thirds of its life are over, and take over what somebody else has put there."""
        while True:
            try:
                await asyncio.to_thread(self._look)
            except Exception as error:  # the pair in use goes on; the next look may be luckier
                log.warning("the server certificate could not be looked after", why=str(error))
            await asyncio.sleep(LOOK_S)

    def _look(self) -> None:
        now = dt.datetime.fromtimestamp(self._clock.now().unix_s, dt.UTC)
        if self._authority is not None and renew_server(self._settings, self._authority, now):
            log.info("server certificate renewed")
        there = self._read()
        if there != self.pair:
            self.pair = there


def enrolment_terms(settings: ControllerSettings, signer: Signer) -> Terms:
    """What is put into tokens and certificates."""
    hosts = server_hosts(settings)
    host = settings.listen.advertise or (hosts[0] if hosts else "localhost")
    return Terms(
        fleet_name(settings),
        settings.tls.site_days,
        {signer.key_id: signer.key.public_key().public_bytes_raw()},
        f"{host}:{settings.listen.session_port}",
        f"{host}:{settings.listen.operator_port}",
    )
