"""TLS for both ends of the link, and what grpcio needs to be told.

The session port demands a client certificate whose SAN says `spiffe://<fleet>/site/<name>`; a site's certificate
speaks for that site alone. TLS 1.3 suites are not configurable in grpcio; 1.2 is cut to ECDHE with AEAD by
GRPC_SSL_CIPHER_SUITES, set here before the first handshake.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import grpc

from gridpivot.errors import SettingsError

os.environ.setdefault(
    "GRPC_SSL_CIPHER_SUITES",
    "ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-ECDSA-AES256-GCM-SHA384:ECDHE-ECDSA-CHACHA20-POLY1305",
)

MAX_MESSAGE_BYTES = 8 * 1024 * 1024

# A black-holed link: keepalive alone needs 60 s, with ping_timeout 15 s (grpcio 1.85).
CLIENT_OPTIONS: Sequence[tuple[str, int]] = (
    ("grpc.keepalive_time_ms", 10_000),
    ("grpc.keepalive_timeout_ms", 5_000),
    ("grpc.http2.ping_timeout_ms", 5_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
)
# Without these a server answers eager clients with GOAWAY too_many_pings.
SERVER_OPTIONS: Sequence[tuple[str, int]] = (
    ("grpc.http2.min_recv_ping_interval_without_data_ms", 5_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.keepalive_time_ms", 10_000),
    ("grpc.keepalive_timeout_ms", 5_000),
    ("grpc.http2.ping_timeout_ms", 5_000),
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
    ("grpc.so_reuseport", 0),
    # Who does not finish a handshake, or says nothing after it, does not keep a descriptor.
    ("grpc.server_handshake_timeout_ms", 10_000),
    ("grpc.max_connection_idle_ms", 60_000),
    ("grpc.max_concurrent_streams", 32),
    # A connection costs 20 kB while it says nothing and 46 kB while it is thrown out: by the ten thousand that is the
    # process's memory. Who comes beyond this is closed at once and tries again; sessions that stand are not touched.
    ("grpc.max_allowed_incoming_connections", 2_048),
)


@dataclass(frozen=True, slots=True)
class KeyPair:
    """A private key and its certificate chain, PEM."""

    key_pem: bytes
    chain_pem: bytes


def read_secret(path: Path) -> bytes:
    """Bytes of a secret file; refused unless nobody but its owner may read it."""
    try:
        mode = path.stat().st_mode
        if mode & 0o077:
            raise SettingsError(f"{path}: mode {mode & 0o777:04o} lets others read a secret; run: chmod 600 {path}")
        return path.read_bytes()
    except FileNotFoundError as error:
        raise SettingsError(f"{path}: no such file; enrol this site, or run gridpivot-controller init") from error
    except OSError as error:
        raise SettingsError(f"{path}: cannot be read: {error}") from error


def read_public(path: Path) -> bytes:
    """Bytes of a certificate file."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise SettingsError(f"{path}: cannot be read: {error}; enrol this site, or correct the path") from error


def client_credentials(ca_pem: bytes, own: KeyPair | None) -> grpc.ChannelCredentials:
    """Channel credentials: trusts `ca_pem`, presents `own` where given."""
    if own is None:
        return grpc.ssl_channel_credentials(root_certificates=ca_pem)
    return grpc.ssl_channel_credentials(
        root_certificates=ca_pem, private_key=own.key_pem, certificate_chain=own.chain_pem
    )


def session_server_credentials(ca_pem: bytes, own: KeyPair) -> grpc.ServerCredentials:
    """Server credentials of the session port: a client certificate from our CA is required."""
    return grpc.ssl_server_credentials(
        [(own.key_pem, own.chain_pem)], root_certificates=ca_pem, require_client_auth=True
    )


def operator_server_credentials(own: KeyPair) -> grpc.ServerCredentials:
    """Server credentials of the operator port: server-only TLS; callers bring a token."""
    return grpc.ssl_server_credentials([(own.key_pem, own.chain_pem)])


def dynamic_session_credentials(
    ca_pem: bytes, own: KeyPair, fresh: Callable[[], KeyPair | None]
) -> grpc.ServerCredentials:
    """As `session_server_credentials`, asking `fresh` at every handshake for a newer pair (None = none)."""

    def configuration() -> grpc.ServerCertificateConfiguration:
        pair = fresh()
        # None keeps the pair in use; the type stubs do not know that.
        return None if pair is None else _configuration(pair, ca_pem)  # type: ignore[return-value]

    return grpc.dynamic_ssl_server_credentials(
        _configuration(own, ca_pem), configuration, require_client_authentication=True
    )


def dynamic_operator_credentials(own: KeyPair, fresh: Callable[[], KeyPair | None]) -> grpc.ServerCredentials:
    """As `operator_server_credentials`, asking `fresh` at every handshake for a newer pair."""

    def configuration() -> grpc.ServerCertificateConfiguration:
        pair = fresh()
        return None if pair is None else _configuration(pair, None)  # type: ignore[return-value]

    return grpc.dynamic_ssl_server_credentials(_configuration(own, None), configuration)


def _configuration(own: KeyPair, ca_pem: bytes | None) -> grpc.ServerCertificateConfiguration:
    return grpc.ssl_server_certificate_configuration([(own.key_pem, own.chain_pem)], root_certificates=ca_pem)


def identity_of(auth_context: Mapping[str, Iterable[bytes]]) -> tuple[str, str] | None:
    """(kind, name) in the peer's SAN URI, as `identity_in` has it; None when there is none, or several."""
    # Not x509_subject_alternative_name: that one mixes DNS names and e-mail addresses with URIs.
    identities = {bytes(raw) for entry in ("peer_spiffe_id", "x509_uri") for raw in auth_context.get(entry, ())}
    if len(identities) != 1:
        return None  # none, or several: nobody knows for whom it speaks
    return identity_in(identities.pop().decode("utf-8", "replace"))


def identity_in(uri: str) -> tuple[str, str] | None:
    """(kind, name) of one SAN URI: `spiffe://<fleet>/site/<name>`, `.../operator/<name>`, or a site's node.

    A node, `spiffe://<fleet>/site/<site>/node/<name>`, is ("node", "<site>/<name>").
    """
    parts = uri.removeprefix("spiffe://").split("/")
    if not uri.startswith("spiffe://") or not all(parts):
        return None
    match parts:
        case [_, "site" | "operator" as kind, name]:
            return kind, name
        case [_, "site", site, "node", name]:
            return "node", f"{site}/{name}"
        case _:
            return None


def site_of(auth_context: Mapping[str, Iterable[bytes]]) -> str | None:
    """Site name in the peer's certificate; None when it speaks for no site."""
    found = identity_of(auth_context)
    return found[1] if found is not None and found[0] == "site" else None
