"""A stand-in BMC behind real TLS, with a certificate of its own, as BMCs leave the factory."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import trustme

from agent.bmc.settings import BmcSettings
from agent.bmc.trust import fingerprint
from sim.redfish.bmc import SimBmc, SimHost
from sim.tls_port import TlsPort


@dataclass
class Rack:
    """One BMC, where it listens, and how to reach it."""

    bmc: SimBmc
    host: SimHost
    port: TlsPort
    ca_file: Path
    password_file: Path
    pin: str

    def settings(self, **changed: Any) -> BmcSettings:
        given: dict[str, Any] = {
            "url": f"https://127.0.0.1:{self.port.port}",
            "username": "meter",
            "password_file": self.password_file,
            "pin_sha256": self.pin,
        }
        return BmcSettings(**{**given, **changed})


@pytest.fixture
async def rack(tmp_path: Path) -> AsyncIterator[Rack]:
    ca = trustme.CA()
    certificate = ca.issue_cert("127.0.0.1")
    ca.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    password_file = tmp_path / "password"
    password_file.write_text("watts\n")
    password_file.chmod(0o600)
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    certificate.configure_cert(tls)
    host = SimHost()
    bmc = SimBmc(host)
    port = TlsPort(bmc)
    await port.open(tls)
    pem = certificate.cert_chain_pems[0].bytes().decode()
    pin = fingerprint(ssl.PEM_cert_to_DER_cert(pem))
    yield Rack(bmc, host, port, tmp_path / "ca.pem", password_file, pin)
    await port.close()
