"""Whether an address can be reached at all: the first thing that a doctor wants to know of a link."""

from __future__ import annotations

import socket

from gridpivot.shapes import CheckFigures

CONNECT_DEADLINE_S = 3.0


def reach(name: str, address: str, port: int) -> CheckFigures:
    """Whether somebody takes a TCP connection there."""
    try:
        with socket.create_connection((address, port), timeout=CONNECT_DEADLINE_S):
            return CheckFigures(name=name, outcome="ok", detail=f"{address}:{port} answers")
    except OSError as error:
        return CheckFigures(
            name=name,
            outcome="failed",
            detail=f"{address}:{port}: {error}",
            remedy="check address, cable and firewall (outbound TCP)",
        )
