"""What a controller is: CA, server certificate, planner key, operator token. Made once, kept 0600, never overwritten."""

from __future__ import annotations

import datetime as dt
import os
import re
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from controller.settings import ControllerSettings
from gridpivot.errors import Refused, SettingsError
from gridpivot.link.certificates import Authority, issue_server, load_authority, make_authority
from gridpivot.link.credentials import read_public, read_secret
from gridpivot.ownership import give_to_owner

FLEET_FILE = "fleet"
DEFAULT_FLEET = "gridpivot"
FLEET = re.compile(r"^[a-z0-9][a-z0-9.-]{0,62}$")


@dataclass(frozen=True, slots=True)
class Made:
    """Files that `make_identity` wrote."""

    public: tuple[Path, ...]
    secret: tuple[Path, ...]


def make_identity(
    settings: ControllerSettings,
    fleet: str,
    hosts: Sequence[str],
    now: dt.datetime,
    authority: Authority | None = None,
) -> Made:
    """Write the state directory's identity; raises Refused, and writes nothing, if any of it is already there.

    `authority` is a CA from outside; None makes one here.
    """
    if not FLEET.match(fleet):
        raise Refused(f"fleet {fleet!r}: use small letters, digits, dots and hyphens; it stands in every certificate")
    tls = settings.tls
    ca_key = settings.path(tls.ca).with_suffix(".key")
    authority = authority if authority is not None else make_authority(fleet, now)
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
        settings.state_dir / FLEET_FILE: fleet.encode() + b"\n",
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
        write_new(path, content, 0o644)
    for path, content in secret.items():
        write_new(path, content, 0o600)
    give_to_owner(
        settings.state_dir, {*(path.parent for path in (*public, *secret)), *public, *secret} - {settings.state_dir}
    )
    return Made(tuple(public), tuple(secret))


def outside_authority(certificate: Path, key: Path) -> Authority:
    """A CA that somebody else made, from its files; raises SettingsError."""
    try:
        return load_authority(read_secret(key), read_public(certificate))
    except ValueError as error:
        raise SettingsError(f"{certificate}, {key}: {error}; give a CA's certificate and its own key (PEM)") from error


def load_ca(settings: ControllerSettings) -> Authority | None:
    """The CA, if its key is kept here; raises SettingsError for one that cannot be used."""
    ca = settings.path(settings.tls.ca)
    if not ca.with_suffix(".key").exists():
        return None
    return outside_authority(ca, ca.with_suffix(".key"))


def fleet_name(settings: ControllerSettings) -> str:
    """The fleet's name, as `init` wrote it down."""
    try:
        return (settings.state_dir / FLEET_FILE).read_text(encoding="utf-8").strip() or DEFAULT_FLEET
    except OSError:
        return DEFAULT_FLEET


def server_hosts(settings: ControllerSettings) -> list[str]:
    """Names and addresses that the server's certificate is good for."""
    certificate = x509.load_pem_x509_certificate(read_public(settings.path(settings.tls.certificate)))
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return []
    addresses = [str(address) for address in names.get_values_for_type(x509.IPAddress)]
    return [*names.get_values_for_type(x509.DNSName), *addresses]


def renew_server(settings: ControllerSettings, authority: Authority, now: dt.datetime) -> bool:
    """A new server certificate for the same names once two thirds of the old one's life are over; whether it was made."""
    path = settings.path(settings.tls.certificate)
    old = x509.load_pem_x509_certificate(read_public(path))
    begin, end = old.not_valid_before_utc, old.not_valid_after_utc
    if now < begin + (end - begin) * 2 / 3:
        return False
    fresh = issue_server(authority, server_hosts(settings), now)
    for target, content, mode in (
        (settings.path(settings.tls.key), fresh.key_pem, 0o600),
        (path, fresh.chain_pem, 0o644),
    ):
        beside = target.with_suffix(".new")
        beside.unlink(missing_ok=True)
        write_new(beside, content, mode)
        beside.replace(target)
    return True


def write_new(path: Path, content: bytes, mode: int) -> None:
    """Write a file that is not there yet, synced to disk; raises FileExistsError."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    # The mode is given at creation: a secret must not be readable even for a moment.
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
