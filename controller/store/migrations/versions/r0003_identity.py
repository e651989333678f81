"""Who may speak: tokens, certificates, recoveries, operators; where an audited call came from; energy ledgers of sites."""

import sqlalchemy as sa
from alembic import op
from alembic.util import CommandError

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add them; audit records from before have no role and no origin."""
    op.add_column("audit", sa.Column("role", sa.String(16), nullable=False, server_default=""))
    op.add_column("audit", sa.Column("origin", sa.String(128), nullable=False, server_default=""))
    op.create_table(
        "agent_tokens",
        sa.Column("token_id", sa.String(32), primary_key=True),
        sa.Column("site", sa.String(128), nullable=False),
        sa.Column("secret_sha256", sa.LargeBinary(32), nullable=False),
        sa.Column("created_at_unix_ms", sa.BigInteger, nullable=False),
        sa.Column("expires_at_unix_ms", sa.BigInteger, nullable=False),
        sa.Column("used_at_unix_ms", sa.BigInteger),
        sa.Column("used_from", sa.String(128)),
        sa.Column("revoked_at_unix_ms", sa.BigInteger),
    )
    op.create_index("ix_agent_tokens_site", "agent_tokens", ["site"])
    op.create_table(
        "certificates",
        sa.Column("serial", sa.String(64), primary_key=True),
        sa.Column("kind", sa.String(16), nullable=False),
        sa.Column("name", sa.String(128), nullable=False),
        sa.Column("issued_at_unix_ms", sa.BigInteger, nullable=False),
        sa.Column("not_after_unix_ms", sa.BigInteger, nullable=False),
        sa.Column("revoked_at_unix_ms", sa.BigInteger),
        sa.Column("certificate_der", sa.LargeBinary, nullable=False),
    )
    op.create_index("ix_certificates_name", "certificates", ["name"])
    op.create_table(
        "recoveries",
        sa.Column("site", sa.String(128), primary_key=True),
        sa.Column("fingerprint", sa.String(64), primary_key=True),
        sa.Column("csr_der", sa.LargeBinary, nullable=False),
        sa.Column("asked_at_unix_ms", sa.BigInteger, nullable=False),
        sa.Column("origin", sa.String(128), nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("decided_at_unix_ms", sa.BigInteger),
    )
    op.create_table(
        "operators",
        sa.Column("name", sa.String(128), primary_key=True),
        sa.Column("role", sa.String(16), nullable=False),
        sa.Column("token_sha256", sa.LargeBinary(32)),
        sa.Column("created_at_unix_ms", sa.BigInteger, nullable=False),
        sa.Column("revoked_at_unix_ms", sa.BigInteger),
    )
    op.create_table(
        "site_energy",
        sa.Column("site", sa.String(128), primary_key=True),
        sa.Column("ledger_id", sa.LargeBinary(16), primary_key=True),
        sa.Column("first_at_unix_ms", sa.BigInteger, nullable=False),
        sa.Column("last_at_unix_ms", sa.BigInteger, nullable=False),
        sa.Column("import_j", sa.BigInteger, nullable=False),
        sa.Column("mining_j", sa.BigInteger, nullable=False),
        sa.Column("ai_j", sa.BigInteger, nullable=False),
        sa.Column("overhead_j", sa.BigInteger, nullable=False),
        sa.Column("unattributed_j", sa.BigInteger, nullable=False),
        sa.Column("unmetered_j", sa.BigInteger, nullable=False),
        sa.Column("counter_changes", sa.BigInteger, nullable=False),
    )


def downgrade() -> None:
    """There is no way back past a revision: restore a backup."""
    raise CommandError("the store cannot go back; restore a backup taken before the upgrade")
