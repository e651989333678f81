"""JSON of what a technician is shown of a site's nodes. A room of its own beside `shapes`."""

from __future__ import annotations

from datetime import datetime

from gridpivot.shapes import Document, Figures


class NodeTokenShape(Document):
    """`gridpivot-agent node-token create`. `token` is a secret."""

    token: str
    token_id: str
    site: str
    node: str
    expires_at: datetime


class NodeFigures(Figures):
    """A node by its identity. `state`: valid, expired, revoked, invited (a token waits), none; null end = no certificate.

    `link` is known while the site's agent runs: connected, down, off (its BMC says so, and its wall power).
    """

    node: str
    pool: str | None = None
    state: str
    certificate_ends_at: datetime | None = None
    link: str | None = None
    gpus: int | None = None
    power_w: float | None = None
    limit_w: float | None = None
    wall_w: float | None = None  # by its BMC or outlet; null = nothing measures it now
    order: str | None = None  # how far an order to be off is: checking, stopping, off, wants_room, waking, starting
    order_ends_at: datetime | None = None  # null with an order = until node on
    fallback_w: float | None = None  # what its GPUs come down to when the link is gone; null = it has not told them all


class NodesShape(Document):
    """`gridpivot-agent node list`."""

    site: str
    nodes: list[NodeFigures]
