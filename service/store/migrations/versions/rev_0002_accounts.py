"""The tables of tenants, API keys, monthly quotas and usage."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create them; custom skeletons stay as they are."""
    name = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")
    moment = sa.DateTime(timezone=True)
    op.create_table(
        "tenants",
        sa.Column("name", name, primary_key=True),
        sa.Column("plan", sa.Text, nullable=False),
        sa.Column("create_time", moment, nullable=False),
        sa.Column("revision", sa.BigInteger, nullable=False),
    )
    op.create_table(
        "api_keys",
        sa.Column("key_id", name, primary_key=True),
        sa.Column("tenant", name, sa.ForeignKey("tenants.name", ondelete="CASCADE"), nullable=False),
        sa.Column("digest", sa.LargeBinary, nullable=False),
        sa.Column("label", sa.Text, nullable=False),
        sa.Column("create_time", moment, nullable=False),
        sa.Column("expire_time", moment),
        sa.Column("revoke_time", moment),
        sa.Column("last_use_time", moment),
        sa.Column("revision", sa.BigInteger, nullable=False),
    )
    op.create_index("api_keys_tenant", "api_keys", ["tenant"])
    op.create_index("api_keys_revision", "api_keys", ["revision"])
    op.create_index("tenants_revision", "tenants", ["revision"])
    revisions = op.create_table(
        "account_revision",
        sa.Column("only", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("latest", sa.BigInteger, nullable=False),
        sa.Column("latest_removal", sa.BigInteger, nullable=False),
    )
    op.bulk_insert(revisions, [{"only": 1, "latest": 0, "latest_removal": 0}])
    op.create_table(
        "quota_months",
        sa.Column("tenant", name, primary_key=True),
        sa.Column("month", sa.Text, primary_key=True),
        sa.Column("taken", sa.BigInteger, nullable=False),
        sa.Column("epoch", sa.Text, nullable=False),
    )
    op.create_table(
        "usage",
        sa.Column("tenant", name, primary_key=True),
        sa.Column("day", sa.Date, primary_key=True),
        sa.Column("rpc", sa.Text, primary_key=True),
        sa.Column("calls", sa.BigInteger, nullable=False),
        sa.Column("pictures", sa.BigInteger, nullable=False),
        sa.Column("video_ms", sa.BigInteger, nullable=False),
        sa.Column("failures", sa.BigInteger, nullable=False),
    )
    op.create_table(
        "usage_batches",
        sa.Column("gateway", sa.Text, primary_key=True),
        sa.Column("number", sa.BigInteger, nullable=False),
        sa.Column("write_time", moment, nullable=False),
    )


def downgrade() -> None:
    """Drop them, and every tenant, key and count with them."""
    for table in ("usage_batches", "usage", "quota_months", "account_revision", "api_keys", "tenants"):
        op.drop_table(table)
