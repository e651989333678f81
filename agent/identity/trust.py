"""Whom an agent dials, and whose plans it believes: addresses, certificates and planner keys out of settings and enrolment."""

from __future__ import annotations

from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from agent.identity.files import Addresses, read_addresses
from agent.settings import AgentSettings
from agent.uplink.session import UplinkTarget
from gridpivot.errors import SettingsError
from gridpivot.link.credentials import KeyPair, client_credentials, read_public, read_secret


def load_planner_keys(directory: Path) -> dict[str, Ed25519PublicKey]:
    """Planner keys by id from <key_id>.pub files; an empty directory means that no plan is ever believed."""
    keys: dict[str, Ed25519PublicKey] = {}
    for path in sorted(directory.glob("*.pub")):
        try:
            key = load_pem_public_key(path.read_bytes())
        except (OSError, ValueError) as error:
            raise SettingsError(f"{path}: not a public key: {error}; enrol this site again") from error
        if not isinstance(key, Ed25519PublicKey):
            raise SettingsError(f"{path}: not an Ed25519 key; enrol this site again")
        keys[path.stem] = key
    return keys


def uplink_target(settings: AgentSettings) -> UplinkTarget | None:
    """Where to dial, with this site's certificate; None when the site works alone."""
    uplink, addresses = settings.uplink, addresses_of(settings)
    if addresses is None:
        return None
    own = KeyPair(read_secret(settings.path(uplink.key)), read_public(settings.path(uplink.certificate)))
    credentials = client_credentials(read_public(settings.path(uplink.ca)), own)
    return UplinkTarget(addresses.session, credentials, settings.site)


def addresses_of(settings: AgentSettings) -> Addresses | None:
    """Where the controller is: settings first, then what enrolment wrote down; None = this site works alone."""
    uplink, enrolled = settings.uplink, read_addresses(settings.state_dir)
    session = uplink.address or (enrolled.session if enrolled is not None else None)
    if session is None:
        return None
    operator = uplink.operator_address or (enrolled.operator if enrolled is not None else None)
    return Addresses(session, operator or f"{session.rpartition(':')[0]}:7444")
