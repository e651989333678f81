"""The site's own CA for its nodes, and the server certificate that they see. Made on first need, key 0600.

In `state_dir/nodes`. Blocks on the disk. It is another CA than the controller's: a node's certificate opens nothing but
this site's agent, and no site's opens it.
"""

from __future__ import annotations

import datetime as dt
import fcntl
import json
import socket
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509

from agent.durable import replace_file
from agent.nodes.registry import load_json
from agent.nodes.reports import Board
from agent.settings import AgentSettings
from gridpivot.errors import GridpivotError, SettingsError
from gridpivot.link.certificates import (
    Authority,
    issue_server,
    load_authority,
    load_pem,
    make_authority,
    signed_by,
    uris_of,
)
from gridpivot.link.credentials import KeyPair, read_public, read_secret
from gridpivot.ownership import give_to_owner

DEFAULT_FLEET = "gridpivot"
SERVER_DAYS = 365


@dataclass(frozen=True, slots=True)
class Place:
    """Where things lie, and what names stand in certificates."""

    directory: Path
    site: str
    fleet: str
    host: str  # what nodes dial


def place_of(settings: AgentSettings) -> Place:
    """From settings; the fleet is the one of the site's own certificate, where it has one."""
    fleet = DEFAULT_FLEET
    try:
        uris = uris_of(load_pem(settings.path(settings.uplink.certificate).read_bytes()))
        fleet = uris[0].removeprefix("spiffe://").split("/")[0]
    except (OSError, ValueError, IndexError):
        pass  # a site that works alone
    return Place(settings.state_dir / "nodes", settings.site, fleet, settings.nodes.host or socket.gethostname())


def open_authority(place: Place, now: dt.datetime) -> Authority:
    """The CA, made when there is none; raises SettingsError for one that cannot be used."""
    certificate, key = place.directory / "ca.crt", place.directory / "ca.key"
    try:
        place.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        # The agent and a command may both be first.
        with (place.directory / "lock").open("a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not certificate.exists() and not key.exists():
                fresh = make_authority(f"{place.fleet} {place.site} nodes", now)
                replace_file(key, fresh.key_pem, 0o600)
                replace_file(certificate, fresh.certificate_pem, 0o644)
                give_to_owner(place.directory.parent, [place.directory])
        return load_authority(read_secret(key), read_public(certificate))
    except ValueError as error:
        raise SettingsError(
            f"{certificate}: {error}; put it back from a backup, or move it away and enrol nodes anew"
        ) from error
    except OSError as error:
        raise SettingsError(f"{place.directory}: {error.strerror}; correct its owner, or give --state-dir") from error


def server_pair(place: Place, authority: Authority, now: dt.datetime) -> KeyPair:
    """The server's key and certificate; new for another host name, and after two thirds of its life."""
    hosts = list(dict.fromkeys([place.host, socket.gethostname(), "localhost", "127.0.0.1"]))
    crt, key = place.directory / "server.crt", place.directory / "server.key"
    try:
        pair = KeyPair(read_secret(key), crt.read_bytes())
        certificate = load_pem(pair.chain_pem)
        begin, end = certificate.not_valid_before_utc, certificate.not_valid_after_utc
        young = begin <= now < begin + (end - begin) * 2 / 3
        if young and _hosts(certificate) == set(hosts) and signed_by(certificate, authority.certificate):
            return pair
    except (OSError, ValueError, GridpivotError):
        pass  # none, or none that can be used
    pair = issue_server(authority, hosts, now, SERVER_DAYS)
    replace_file(key, pair.key_pem, 0o600)
    replace_file(crt, pair.chain_pem, 0o644)
    return pair


def _hosts(certificate: x509.Certificate) -> set[str]:
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    return {
        *names.get_values_for_type(x509.DNSName),
        *(str(address) for address in names.get_values_for_type(x509.IPAddress)),
    }


# ---- boards as last seen: what a silent node is charged after a restart of this agent --------------------------------


def load_boards(directory: Path) -> dict[str, tuple[Board, ...]]:
    """Boards by node; a damaged file knows none, and then what settings declare is charged."""
    found = load_json(directory / "inventory.json")
    try:
        assert isinstance(found, dict)
        return {
            str(node): tuple(
                Board(str(b["uuid"]), str(b["name"]), b["limit_min_w"], b["limit_max_w"], b["limit_default_w"])
                for b in boards
            )
            for node, boards in found["nodes"].items()
        }
    except (AssertionError, KeyError, TypeError, AttributeError):
        return {}


def keep_boards(directory: Path, boards: dict[str, tuple[Board, ...]]) -> None:
    """Replace the file; raises OSError."""
    rows = {
        node: [{name: getattr(board, name) for name in Board.__dataclass_fields__} for board in mine]
        for node, mine in sorted(boards.items())
    }
    replace_file(directory / "inventory.json", json.dumps({"format": 1, "nodes": rows}).encode())
