"""The site's identity on disk, replaced whole or not at all.

tls/gen-<time>/site.key, site.crt    one pair; never changed once it is complete
tls/current -> gen-<time>            replaced by a rename, so that key and certificate always belong together
tls/site.key, tls/site.crt           links into tls/current, where settings look
tls/ca.crt, planner/<key_id>.pub     whom to trust
uplink.json                          the controller's addresses, as the token named them
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from gridpivot.errors import GridpivotError, Refused, SettingsError
from gridpivot.link.certificates import load_key
from gridpivot.plan import key_id

KEPT_GENERATIONS = 2


@dataclass(frozen=True, slots=True)
class Addresses:
    """Where the controller is, HOST:PORT each."""

    session: str
    operator: str


def read_addresses(state_dir: Path) -> Addresses | None:
    """What enrolment wrote down; None before it."""
    try:
        found = json.loads((state_dir / "uplink.json").read_text(encoding="utf-8"))
        return Addresses(str(found["session_address"]), str(found["operator_address"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None


def write_addresses(state_dir: Path, addresses: Addresses) -> None:
    """Keep them."""
    content = {"session_address": addresses.session, "operator_address": addresses.operator}
    _replace(state_dir / "uplink.json", json.dumps(content, indent=1).encode(), 0o644)


def is_enrolled(state_dir: Path) -> bool:
    """Whether there is a certificate."""
    return (state_dir / "tls/site.crt").exists()


def write_pair(state_dir: Path, key_pem: bytes, chain_pem: bytes, stamp: str) -> None:
    """Make this key and certificate the site's; raises GridpivotError. `stamp` names the generation, ascending."""
    certificate = x509.load_pem_x509_certificate(chain_pem)
    spki = serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    if certificate.public_key().public_bytes(*spki) != load_key(key_pem).public_key().public_bytes(*spki):
        raise GridpivotError("the controller's certificate is not over this site's key; nothing was changed")
    tls = state_dir / "tls"
    place = tls / f"gen-{stamp}"
    try:
        place.mkdir(mode=0o700, parents=True, exist_ok=True)
        _replace(place / "site.key", key_pem, 0o600)
        _replace(place / "site.crt", chain_pem, 0o644)
        link = tls / "current.new"
        link.unlink(missing_ok=True)
        link.symlink_to(place.name)
        link.replace(tls / "current")
        for name in ("site.key", "site.crt"):
            _link(tls / name, Path("current") / name)
        _sync(tls)
    except OSError as error:
        raise GridpivotError(
            f"{tls}: the identity cannot be written: {error.strerror}; free space, correct the owner"
        ) from error
    for old in sorted(tls.glob("gen-*"))[:-KEPT_GENERATIONS]:
        shutil.rmtree(old, ignore_errors=True)


def _link(path: Path, target: Path) -> None:
    """A link where a file of before may stand; that one is kept beside, since it may be somebody's only key."""
    if path.is_symlink() and path.readlink() == target:
        return
    if path.exists() and not path.is_symlink():
        path.rename(path.with_name(path.name + ".before"))
    path.unlink(missing_ok=True)
    path.symlink_to(target)


def write_trust(state_dir: Path, ca_der: bytes, planner_keys: Mapping[str, bytes]) -> None:
    """The CA, and the planner's keys beside those already trusted; raises Refused for keys that are none."""
    ca_pem = x509.load_der_x509_certificate(ca_der).public_bytes(serialization.Encoding.PEM)
    keys = {}
    for name, raw in planner_keys.items():
        if len(raw) != 32 or key_id(raw) != name:
            raise Refused(f"the controller names a planner key {name[:64]!r} that is none; nothing was changed")
        keys[name] = Ed25519PublicKey.from_public_bytes(raw).public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )
    for place in ("tls", "planner"):
        (state_dir / place).mkdir(mode=0o700, parents=True, exist_ok=True)
    _replace(state_dir / "tls/ca.crt", ca_pem, 0o644)
    for name, pem in keys.items():
        path = state_dir / "planner" / f"{name}.pub"
        if not path.exists() or path.read_bytes() != pem:
            _replace(path, pem, 0o644)


def keep_pending_key(state_dir: Path, name: str, key_pem: bytes) -> bytes:
    """A fresh key on disk before anything is asked with it; the one of an earlier try is used again."""
    path = state_dir / "tls" / f"{name}.key"
    with contextlib.suppress(OSError, ValueError):
        if not path.stat().st_mode & 0o077:
            there = path.read_bytes()
            load_key(there)
            return there
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        _replace(path, key_pem, 0o600)
    except OSError as error:
        raise SettingsError(
            f"{path}: cannot be written: {error.strerror}; correct the owner, or give --state-dir"
        ) from error
    return key_pem


def drop_pending_key(state_dir: Path, name: str) -> None:
    """It has become the site's, or is of no use any more."""
    (state_dir / "tls" / f"{name}.key").unlink(missing_ok=True)


def _replace(path: Path, content: bytes, mode: int) -> None:
    """Whole or not at all, on disk before it counts; the mode is given at creation."""
    beside = path.with_name(path.name + ".new")
    beside.unlink(missing_ok=True)
    descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    beside.replace(path)
    _sync(path.parent)


def _sync(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
