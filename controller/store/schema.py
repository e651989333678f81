"""The tables of the store. Times are milliseconds since the Unix epoch (UTC); payloads are protobuf or zstd bytes.

What is queried stands in columns of its own; everything else stays in the payload, so that a new field in the
contract needs no migration. `migrations/` builds these tables; a test holds the two together.
"""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Column,
    Float,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
)

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
    }
)

lane_cursors = Table(
    "lane_cursors",
    metadata,
    Column("site", String(128), primary_key=True),
    Column("boot_id", LargeBinary(64), primary_key=True),
    Column("lane", Integer, primary_key=True),
    Column("through_seq", BigInteger, nullable=False),
    Column("also_seqs", Text, nullable=False),  # JSON list, ascending
    Column("updated_at_unix_ms", BigInteger, nullable=False),
)


def _lane_record(name: str, at: str, *columns: Column[object]) -> Table:
    """A table of what sites sent: (site, boot_id, lane, seq) makes a repeated delivery the same row."""
    return Table(
        name,
        metadata,
        Column("site", String(128), primary_key=True),
        Column("boot_id", LargeBinary(64), primary_key=True),
        Column("lane", Integer, primary_key=True),
        Column("seq", BigInteger, primary_key=True),
        Column(at, BigInteger, nullable=False),
        *columns,
        Column("payload", LargeBinary, nullable=False),
        Index(None, "site", at),
        Index(None, at),
    )


site_events = _lane_record("site_events", "occurred_at_unix_ms", Column("kind", String(64), nullable=False))
rollups = _lane_record(
    "rollups",
    "observed_at_unix_ms",
    Column("metered_power_w", Float),  # null = meter not trusted
    Column("plan_epoch", BigInteger, nullable=False),
    Column("plan_version", BigInteger, nullable=False),
)

inventories = Table(
    "inventories",
    metadata,
    Column("site", String(128), primary_key=True),
    Column("inventory_hash", LargeBinary(64), nullable=False),
    Column("taken_at_unix_ms", BigInteger, nullable=False),
    Column("payload", LargeBinary, nullable=False),
)

decisions = Table(
    "decisions",
    metadata,
    Column("decision_id", String(64), primary_key=True),
    Column("decided_at_unix_ms", BigInteger, nullable=False, index=True),
    Column("trigger", Text, nullable=False),
    Column("objective_usd", Float),
    Column("inputs", LargeBinary, nullable=False),  # zstd of JSON: replays the decision
    Column("outcome", LargeBinary, nullable=False),  # zstd of JSON
    Column("start", LargeBinary),  # zstd of JSON: what the solver started from; null = nothing was solved
    Column("rung", String(32)),  # null = before rungs were recorded
)

billing_peaks = Table(
    "billing_peaks",
    metadata,
    Column("site", String(128), primary_key=True),
    Column("period_start_unix_ms", BigInteger, primary_key=True),
    Column("peak_w", Float, nullable=False),  # highest demand of the period so far
    Column("updated_at_unix_ms", BigInteger, nullable=False),
)

settlements = Table(
    "settlements",
    metadata,
    Column("day_start_unix_ms", BigInteger, primary_key=True),
    Column("site", String(128), primary_key=True),
    Column("policy", String(32), primary_key=True),
    Column("margin_usd", Float, nullable=False),
    Column("payload", Text, nullable=False),  # JSON of settlement.account.Account
)

plans = Table(
    "plans",
    metadata,
    Column("site", String(128), primary_key=True),
    Column("epoch", BigInteger, primary_key=True),
    Column("version", BigInteger, primary_key=True),
    Column("issued_at_unix_ms", BigInteger, nullable=False, index=True),
    Column("reason", Text, nullable=False),
    Column("decision_id", String(64), nullable=False),
    Column("plan", LargeBinary, nullable=False),  # the exact bytes that were signed
    Column("signature", LargeBinary, nullable=False),
    Column("key_id", String(128), nullable=False),
)

plan_statuses = Table(
    "plan_statuses",
    metadata,
    Column("status_id", Integer, primary_key=True, autoincrement=True),
    Column("site", String(128), nullable=False),
    Column("epoch", BigInteger, nullable=False),
    Column("version", BigInteger, nullable=False),
    Column("heard_at_unix_ms", BigInteger, nullable=False, index=True),
    Column("status", String(32), nullable=False),
    Column("payload", LargeBinary, nullable=False),
    Index(None, "site", "epoch", "version"),
    sqlite_autoincrement=True,
)

audit = Table(
    "audit",
    metadata,
    Column("audit_id", String(64), primary_key=True),
    Column("at_unix_ms", BigInteger, nullable=False, index=True),
    Column("actor", String(128), nullable=False),
    Column("role", String(16), nullable=False, server_default=""),  # empty = before roles
    Column("origin", String(128), nullable=False, server_default=""),  # address of the caller
    Column("action", String(64), nullable=False),
    Column("reason", Text, nullable=False),
    Column("idempotency_key", String(128)),  # null = none given
    Column("request", Text, nullable=False),  # JSON
    Column("response", Text, nullable=False),  # JSON; what a retry with the same key is answered
    UniqueConstraint("idempotency_key"),
)

orders = Table(
    "orders",
    metadata,
    Column("order_id", String(64), primary_key=True),
    Column("kind", String(16), nullable=False),  # event or override
    Column("created_at_unix_ms", BigInteger, nullable=False),
    Column("released_at_unix_ms", BigInteger),
    Column("payload", Text, nullable=False),  # JSON of events.windows.Order
)

planner = Table(
    "planner",
    metadata,
    Column("planner_id", Integer, primary_key=True),  # one row: 1
    Column("epoch", BigInteger, nullable=False),
)

agent_tokens = Table(
    "agent_tokens",
    metadata,
    Column("token_id", String(32), primary_key=True),
    Column("site", String(128), nullable=False, index=True),
    Column("secret_sha256", LargeBinary(32), nullable=False),  # the secret itself is 256 random bits and kept nowhere
    Column("created_at_unix_ms", BigInteger, nullable=False),
    Column("expires_at_unix_ms", BigInteger, nullable=False),
    Column("used_at_unix_ms", BigInteger),  # null = not used
    Column("used_from", String(128)),
    Column("revoked_at_unix_ms", BigInteger),
)

certificates = Table(
    "certificates",
    metadata,
    Column("serial", String(64), primary_key=True),  # hex
    Column("kind", String(16), nullable=False),  # site or operator
    Column("name", String(128), nullable=False, index=True),
    Column("issued_at_unix_ms", BigInteger, nullable=False),
    Column("not_after_unix_ms", BigInteger, nullable=False),
    Column("revoked_at_unix_ms", BigInteger),
    Column("certificate_der", LargeBinary, nullable=False),
)

recoveries = Table(
    "recoveries",
    metadata,
    Column("site", String(128), primary_key=True),
    Column("fingerprint", String(64), primary_key=True),  # SHA-256 of the request, hex
    Column("csr_der", LargeBinary, nullable=False),
    Column("asked_at_unix_ms", BigInteger, nullable=False),
    Column("origin", String(128), nullable=False),
    Column("state", String(16), nullable=False),  # pending, approved, refused
    Column("decided_at_unix_ms", BigInteger),
)

operators = Table(
    "operators",
    metadata,
    Column("name", String(128), primary_key=True),
    Column("role", String(16), nullable=False),
    Column("token_sha256", LargeBinary(32)),  # null = certificate only
    Column("created_at_unix_ms", BigInteger, nullable=False),
    Column("revoked_at_unix_ms", BigInteger),
)

site_energy = Table(
    "site_energy",
    metadata,
    Column("site", String(128), primary_key=True),
    Column("ledger_id", LargeBinary(16), primary_key=True),
    Column("first_at_unix_ms", BigInteger, nullable=False),
    Column("last_at_unix_ms", BigInteger, nullable=False),
    Column("import_j", BigInteger, nullable=False),
    Column("mining_j", BigInteger, nullable=False),
    Column("ai_j", BigInteger, nullable=False),
    Column("overhead_j", BigInteger, nullable=False),
    Column("unattributed_j", BigInteger, nullable=False),
    Column("unmetered_j", BigInteger, nullable=False),
    Column("counter_changes", BigInteger, nullable=False),
)
