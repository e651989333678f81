"""What a controller is: CA, server certificate, planner key, operator token. Made once, kept 0600, never overwritten."""

from __future__ import annotations

import datetime as dt
import os
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from controller.settings import ControllerSettings
from gridpivot.errors import Refused
from gridpivot.link.certificates import issue_server, make_authority


@dataclass(frozen=True, slots=True)
class Made:
    """Files that `make_identity` wrote."""

    public: tuple[Path, ...]
    secret: tuple[Path, ...]


def make_identity(settings: ControllerSettings, fleet: str, hosts: Sequence[str], now: dt.datetime) -> Made:
    """Write the state directory's identity; raises Refused, and writes nothing, if any of it is already there."""
    tls = settings.tls
    ca_key = settings.path(tls.ca).with_suffix(".key")
    authority = make_authority(fleet, now)
    server = issue_server(authority, hosts, now)
    planner = Ed25519PrivateKey.generate()
    planner_pem = planner.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    planner_public = planner.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    planner_path = settings.path(tls.planner_key)
    public = {
        settings.path(tls.ca): authority.certificate_pem,
        settings.path(tls.certificate): server.chain_pem,
        planner_path.with_suffix(".pub"): planner_public,
    }
    secret = {
        ca_key: authority.key_pem,
        settings.path(tls.key): server.key_pem,
        planner_path: planner_pem,
        settings.path(tls.operator_token_file): secrets.token_urlsafe(32).encode() + b"\n",
    }
    present = [str(path) for path in (*public, *secret) if path.exists()]
    if present:
        raise Refused(
            f"already there, and not overwritten: {', '.join(present)}; choose another --state-dir or move them"
        )
    settings.state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    for path, content in public.items():
        _write(path, content, 0o644)
    for path, content in secret.items():
        _write(path, content, 0o600)
    return Made(tuple(public), tuple(secret))


def _write(path: Path, content: bytes, mode: int) -> None:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    # The mode is given at creation: a secret must not be readable even for a moment.
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
