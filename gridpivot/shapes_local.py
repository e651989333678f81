"""JSON of what a technician is shown at the site. A room of its own beside `shapes`."""

from __future__ import annotations

from datetime import datetime

from gridpivot.shapes import Document, Figures


class LocalOrderFigures(Figures):
    """An order given by hand. `kind`: shed or hold; null end = until released."""

    order_id: str
    kind: str
    ceiling_w: float
    by: str
    reason: str
    set_at: datetime
    ends_at: datetime | None = None


class LocalEventFigures(Figures):
    """A grid event in force here."""

    event_id: str
    ceiling_w: float


class LocalOrdersShape(Document):
    """`gridpivot-agent orders`."""

    site: str
    power_w: float | None = None
    orders: list[LocalOrderFigures]
    events: list[LocalEventFigures]
