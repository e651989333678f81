"""`python -m sim.redfish PLACE`: a stand-in BMC until it is interrupted, and the settings with which a node reads it.

For trying doctor and metrics without a machine (docs/redfish.md). Its certificate is made anew at each start, signed by
nobody, as BMCs leave the factory. What it draws swings a little.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import math
import os
import ssl
import sys
import time
from collections.abc import Callable
from pathlib import Path

from cryptography.hazmat.primitives.serialization import Encoding

from agent.bmc.trust import fingerprint
from gridpivot.link.certificates import issue_server, load_pem, make_authority
from sim.redfish.bmc import SimBmc, SimHost
from sim.tls_port import TlsPort


def draw_w() -> float:
    """About two kilowatts."""
    return round(2000.0 + 150.0 * math.sin(time.monotonic() / 7.0), 1)


def prepare(place: Path) -> tuple[ssl.SSLContext, str]:
    """Key, certificate and password in a directory; the server's TLS and the certificate's fingerprint."""
    place.mkdir(parents=True, exist_ok=True)
    now = dt.datetime.now(dt.UTC)
    pair = issue_server(make_authority("stand-in", now), ["127.0.0.1"], now)
    for name, content in (("bmc.key", pair.key_pem), ("bmc.crt", pair.chain_pem), ("bmc.password", b"watts\n")):
        (place / name).unlink(missing_ok=True)
        with os.fdopen(os.open(place / name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(content)
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(place / "bmc.crt", place / "bmc.key")
    return tls, fingerprint(load_pem(pair.chain_pem).public_bytes(Encoding.DER))


async def serve(tls: ssl.SSLContext, settings: Callable[[int], str]) -> None:
    """Listen on a free port of loopback, print the settings, and stay."""
    port = TlsPort(SimBmc(SimHost(draw_w)))
    await port.open(tls)
    sys.stdout.write(settings(port.port))
    sys.stdout.flush()
    try:
        await asyncio.Event().wait()
    finally:
        await port.close()


def main() -> None:
    """One argument: a directory for key, certificate and password."""
    if len(sys.argv) != 2:
        sys.stderr.write("give a directory for key, certificate and password: python -m sim.redfish /tmp/bmc\n")
        raise SystemExit(2)
    place = Path(sys.argv[1]).resolve()
    tls, pin = prepare(place)

    def settings(port: int) -> str:
        login = f'username = "meter"\npassword_file = "{place / "bmc.password"}"\npin_sha256 = "{pin}"\n'
        return f'[bmc]\nurl = "https://127.0.0.1:{port}"\n{login}'

    try:
        asyncio.run(serve(tls, settings))
    except KeyboardInterrupt:
        raise SystemExit(0) from None


if __name__ == "__main__":
    main()
