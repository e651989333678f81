"""The first tables.

Written out and not derived from schema.py: a revision must build the same tables for ever.
"""

import sqlalchemy as sa
from alembic import op
from alembic.util import CommandError

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def _lane_record(name: str, at: str, *columns: sa.Column[object]) -> None:
    op.create_table(
        name,
        sa.Column("site", sa.String(128), primary_key=True),
        sa.Column("boot_id", sa.LargeBinary(64), primary_key=True),
        sa.Column("lane", sa.Integer, primary_key=True),
        sa.Column("seq", sa.BigInteger, primary_key=True),
        sa.Column(at, sa.BigInteger, nullable=False),
        *columns,
        sa.Column("payload", sa.LargeBinary, nullable=False),
    )
    op.create_index(f"ix_{name}_site_{at}", name, ["site", at])
    op.create_index(f"ix_{name}_{at}", name, [at])


def upgrade() -> None:
    """Build everything."""
    op.create_table(
        "lane_cursors",
        sa.Column("site", sa.String(128), primary_key=True),
        sa.Column("boot_id", sa.LargeBinary(64), primary_key=True),
        sa.Column("lane", sa.Integer, primary_key=True),
        sa.Column("through_seq", sa.BigInteger, nullable=False),
        sa.Column("also_seqs", sa.Text, nullable=False),
        sa.Column("updated_at_unix_ms", sa.BigInteger, nullable=False),
    )
    _lane_record("site_events", "occurred_at_unix_ms", sa.Column("kind", sa.String(64), nullable=False))
    _lane_record(
        "rollups",
        "observed_at_unix_ms",
        sa.Column("metered_power_w", sa.Float),
        sa.Column("plan_epoch", sa.BigInteger, nullable=False),
        sa.Column("plan_version", sa.BigInteger, nullable=False),
    )
    op.create_table(
        "inventories",
        sa.Column("site", sa.String(128), primary_key=True),
        sa.Column("inventory_hash", sa.LargeBinary(64), nullable=False),
        sa.Column("taken_at_unix_ms", sa.BigInteger, nullable=False),
        sa.Column("payload", sa.LargeBinary, nullable=False),
    )
    op.create_table(
        "decisions",
        sa.Column("decision_id", sa.String(64), primary_key=True),
        sa.Column("decided_at_unix_ms", sa.BigInteger, nullable=False),
        sa.Column("trigger", sa.Text, nullable=False),
        sa.Column("objective_usd", sa.Float),
        sa.Column("inputs", sa.LargeBinary, nullable=False),
        sa.Column("outcome", sa.LargeBinary, nullable=False),
    )
    op.create_index("ix_decisions_decided_at_unix_ms", "decisions", ["decided_at_unix_ms"])
    op.create_table(
        "plans",
        sa.Column("site", sa.String(128), primary_key=True),
        sa.Column("epoch", sa.BigInteger, primary_key=True),
        sa.Column("version", sa.BigInteger, primary_key=True),
        sa.Column("issued_at_unix_ms", sa.BigInteger, nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("decision_id", sa.String(64), nullable=False),
        sa.Column("plan", sa.LargeBinary, nullable=False),
        sa.Column("signature", sa.LargeBinary, nullable=False),
        sa.Column("key_id", sa.String(128), nullable=False),
    )
    op.create_index("ix_plans_issued_at_unix_ms", "plans", ["issued_at_unix_ms"])
    op.create_table(
        "plan_statuses",
        sa.Column("status_id", sa.Integer, primary_key=True, autoincrement=True),
        sa.Column("site", sa.String(128), nullable=False),
        sa.Column("epoch", sa.BigInteger, nullable=False),
        sa.Column("version", sa.BigInteger, nullable=False),
        sa.Column("heard_at_unix_ms", sa.BigInteger, nullable=False),
        sa.Column("status", sa.String(32), nullable=False),
        sa.Column("payload", sa.LargeBinary, nullable=False),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_plan_statuses_heard_at_unix_ms", "plan_statuses", ["heard_at_unix_ms"])
    op.create_index("ix_plan_statuses_site_epoch_version", "plan_statuses", ["site", "epoch", "version"])
    op.create_table(
        "audit",
        sa.Column("audit_id", sa.String(64), primary_key=True),
        sa.Column("at_unix_ms", sa.BigInteger, nullable=False),
        sa.Column("actor", sa.String(128), nullable=False),
        sa.Column("action", sa.String(64), nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("idempotency_key", sa.String(128)),
        sa.Column("request", sa.Text, nullable=False),
        sa.Column("response", sa.Text, nullable=False),
        sa.UniqueConstraint("idempotency_key", name="uq_audit_idempotency_key"),
    )
    op.create_index("ix_audit_at_unix_ms", "audit", ["at_unix_ms"])
    op.create_table(
        "orders",
        sa.Column("order_id", sa.String(64), primary_key=True),
        sa.Column("kind", sa.String(16), nullable=False),
        sa.Column("created_at_unix_ms", sa.BigInteger, nullable=False),
        sa.Column("released_at_unix_ms", sa.BigInteger),
        sa.Column("payload", sa.Text, nullable=False),
    )
    op.create_table(
        "planner",
        sa.Column("planner_id", sa.Integer, primary_key=True),
        sa.Column("epoch", sa.BigInteger, nullable=False),
    )


def downgrade() -> None:
    """Refuse: going back would drop what sites were told is kept."""
    raise CommandError("this store does not go back a revision; restore a backup instead")
