"""What a decision started from, the billing peaks that demand charges stand on, and each day's settlement."""

import sqlalchemy as sa
from alembic import op
from alembic.util import CommandError

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add them; decisions taken before cannot be replayed, and say so by a null."""
    op.add_column("decisions", sa.Column("start", sa.LargeBinary))
    op.add_column("decisions", sa.Column("rung", sa.String(32)))
    op.create_table(
        "billing_peaks",
        sa.Column("site", sa.String(128), primary_key=True),
        sa.Column("period_start_unix_ms", sa.BigInteger, primary_key=True),
        sa.Column("peak_w", sa.Float, nullable=False),
        sa.Column("updated_at_unix_ms", sa.BigInteger, nullable=False),
    )
    op.create_table(
        "settlements",
        sa.Column("day_start_unix_ms", sa.BigInteger, primary_key=True),
        sa.Column("site", sa.String(128), primary_key=True),
        sa.Column("policy", sa.String(32), primary_key=True),
        sa.Column("margin_usd", sa.Float, nullable=False),
        sa.Column("payload", sa.Text, nullable=False),
    )


def downgrade() -> None:
    """There is no way back past a revision: restore a backup."""
    raise CommandError("the store cannot go back; restore a backup taken before the upgrade")
